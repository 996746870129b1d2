"""Tickets: what browsers open a stream or a WebSocket with, which cannot send a header with a key.

A ticket stands for a caller that had a key, works once, and for 30 s. It may stand in a URL: when that is
logged somewhere, it opens nothing any more. Redis keeps its SHA-256 with what it stands for; who takes it
deletes it, in one command, so of two who show it one gets in. Whether the key behind it still works is not
known here: who redeems it looks (`flik/gateway/following.py`).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flik.domain.identity import Caller, Scope
from flik.errors import Unavailable
from flik.live import keys
from flik.live.connect import connect

TTL_S = 30
_STARTS_WITH = "flik_ticket_"
_TICKET = re.compile(rf"{_STARTS_WITH}[A-Za-z0-9_-]{{43}}", re.ASCII)


class Tickets:
    """The tickets of all gateways."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None

    def open(self) -> Self:
        """Prepare to connect; the first command does."""
        self._redis = connect(self._url)
        return self

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def issue(self, caller: Caller) -> str:
        """Return a new ticket that stands for `caller`.

        Raises:
            Unavailable: Redis is away.
        """
        ticket = _STARTS_WITH + secrets.token_urlsafe(32)
        meant = [caller.tenant_id, sorted(caller.scopes), caller.key_id, caller.expires_at]
        try:
            await self._open.set(keys.ticket(_digest(ticket)), orjson.dumps(meant), ex=TTL_S)
        except (RedisError, OSError):
            raise Unavailable("redis") from None
        return ticket

    async def redeem(self, ticket: str) -> Caller | None:
        """Return whom a ticket stands for, and let it stand for nobody from now on; None when it already does.

        Raises:
            Unavailable: Redis is away; the ticket may be gone.
        """
        if not _TICKET.fullmatch(ticket):
            return None
        try:
            raw = await self._open.getdel(keys.ticket(_digest(ticket)))
        except (RedisError, OSError):
            raise Unavailable("redis") from None
        if raw is None:
            return None
        tenant_id, scopes, key_id, expires_at = orjson.loads(raw)
        return Caller(tenant_id, frozenset(map(Scope, scopes)), key_id, expires_at)

    @property
    def _open(self) -> Redis:
        assert self._redis is not None, "open() comes first"  # noqa: S101
        return self._redis


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
