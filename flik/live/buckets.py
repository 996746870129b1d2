"""The tenants' buckets in Redis: one script, one connection, one call in flight.

The script is in `buckets.lua`, with the layout of its keys. It is told which server it speaks to: one that
was restarted from an old snapshot, or a replica that took over, knows less than was lent, and must start
anew. So nothing here connects again by itself: after any failure the next call begins with that question.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from flik.domain.rate import (
    CALL_S,
    GRACE_S,
    LEASE_S,
    MARGIN_S,
    QUIET_S,
    SILENT_S,
    Block,
    Contact,
    Standing,
)
from flik.errors import Unavailable
from flik.live import keys

SCRIPT = Path(__file__).with_name("buckets.lua").read_text(encoding="utf-8")


class LiveBuckets:
    """The buckets at `url`. Not for two calls at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis: Redis | None = None
        self._run = ""
        self._sha = ""

    async def contact(self, contact: Contact) -> Standing:
        """Say what is held, and get what is lacking.

        Raises:
            Unavailable: no answer within `CALL_S`; whether the call took effect is unknown.
        """
        try:
            if self._redis is None:
                await self._meet()
            names = key_names(contact)
            raw = await self._open.evalsha(self._sha, len(names), *names, *arguments(contact, self._run, None))
            return standing_of(raw)
        except BaseException as error:
            await self.close()
            if isinstance(error, RedisError | OSError | TimeoutError):
                raise Unavailable("redis") from error
            raise

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        left, self._redis = self._redis, None
        if left is not None:
            with suppress(RedisError, OSError):
                await left.aclose()

    async def _meet(self) -> None:
        self._redis = Redis.from_url(
            self._url, socket_timeout=CALL_S, socket_connect_timeout=CALL_S, single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        facts: dict[str, Any] = await self._redis.info("server")
        self._run = str(facts["run_id"])
        self._sha = await self._redis.script_load(SCRIPT)

    @property
    def _open(self) -> Redis:
        assert self._redis is not None, "_meet() comes first"  # noqa: S101
        return self._redis


def key_names(contact: Contact) -> list[str]:
    """Return the script's KEYS."""
    tenants = (keys.rate_bucket(line.tenant_id) for line in contact.lines)
    return [keys.RATE_EPOCH, keys.rate_holder(contact.holder), *tenants]


def arguments(contact: Contact, run: str, now: float | None) -> list[str | int | float]:
    """Return the script's ARGV; `now` None: the server's clock."""
    told: list[str | int | float] = [
        "" if now is None else repr(now), run, contact.region, contact.holder, contact.number, contact.heard,
        contact.epoch, int(contact.local), LEASE_S + MARGIN_S, SILENT_S, QUIET_S, GRACE_S,
    ]  # fmt: skip
    for line in contact.lines:
        told += line[1:]
    return told


def standing_of(raw: Sequence[bytes | str]) -> Standing:
    """Return what the script answered.

    Raises:
        Unavailable: the call came after a later one, and changed nothing.
    """
    if not raw:
        raise Unavailable("redis")
    epoch, settles_in_s, *rest = (float(value) for value in raw)
    blocks = [Block(*rest[at : at + 3]) for at in range(0, len(rest), 3)]
    return Standing(int(epoch), settles_in_s, blocks)
