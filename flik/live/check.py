"""Whether a Redis or Valkey can carry the live part, asked once before the start."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis

from flik.errors import StartupRefused

OLDEST_VERSION = 7
CONNECT_WITHIN_S = 5.0


def check_redis(url: str) -> list[str]:
    """Ask the server at `url` (5 s at most) whether Flik can use it.

    Returns:
        Warnings, one sentence each; Flik can start with them.

    Raises:
        StartupRefused: not a URL, unreachable (names the place, never the password), older than
            7 (Valkey counts from its first version), or a read-only replica.
    """
    place = describe(url)
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=CONNECT_WITHIN_S, socket_timeout=CONNECT_WITHIN_S, decode_responses=True
        ) as client:
            facts: dict[str, Any] = client.info()
    except (redis.RedisError, OSError) as error:
        raise StartupRefused(f"Redis at {place} cannot be used: {_reason(error, url)}") from None
    fault = _fault(facts)
    if fault:
        raise StartupRefused(f"Redis at {place} cannot be used: {fault}")
    return _warnings(facts, place)


def describe(url: str) -> str:
    """`host:port/db` or the socket's path, for messages; never the password.

    Raises:
        StartupRefused: it is not a URL that redis-py understands.
    """
    try:
        settings = redis.ConnectionPool.from_url(url).connection_kwargs
    except ValueError:
        raise StartupRefused("REDIS_URL is not a Redis URL: write redis://:password@host:6379/0") from None
    where = settings.get("path") or f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"
    return f"{where}/{settings.get('db', 0)}"


def _fault(facts: dict[str, Any]) -> str | None:
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "0")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_VERSION:
        return f"it is version {version}, Flik needs Redis 7 or Valkey"
    if facts.get("role") == "slave":
        return "it is a read-only replica: give the URL of the primary"
    return None


def _warnings(facts: dict[str, Any], place: str) -> list[str]:
    if facts.get("maxmemory", 0) and facts.get("maxmemory_policy") == "noeviction":
        return [f"Redis at {place} refuses writes when its memory is full: set maxmemory-policy to volatile-lru"]
    return []


def _reason(error: Exception, url: str) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    password = urlsplit(url).password
    return reason.replace(password, "***") if password else reason
