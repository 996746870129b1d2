"""How Flik's processes connect to Redis: the first command does, and neither it nor any later one waits for long."""

from __future__ import annotations

from redis.asyncio import Redis

PATIENCE_S = 1.0


def connect(url: str) -> Redis:
    """Return a client that gives up connecting, and each command, after `PATIENCE_S`."""
    return Redis.from_url(url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
