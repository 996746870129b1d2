"""The metrics of a region's gateway replicas, so that whichever of them is scraped shows those of all.

Each replica keeps its own in a hash in Redis, every few seconds and whenever it is scraped; shown is
what is kept there, of the replica that answers too. So a counter never goes back, whoever answers
the next scrape. What was not renewed for `KEPT_S` is of a replica that is gone, and is taken out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flik.errors import Unavailable
from flik.live import keys
from flik.live.connect import connect

EVERY_S = 5.0
KEPT_S = 3 * EVERY_S


class Snapshots:
    """What one replica keeps and sees. `read` returns its metrics as texts; `run` must run while it is used."""

    def __init__(
        self,
        url: str,
        region: str,
        replica: str,
        read: Callable[[], Sequence[str]],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.replica = replica
        self.read = read
        self._url = url
        self._key = keys.metrics(region)
        self._now = now
        self._redis: Redis | None = None
        self._one_at_a_time = asyncio.Lock()  # or an older snapshot might replace a newer one

    def open(self) -> Self:
        """Prepare to connect; the first command does."""
        self._redis = connect(self._url)
        return self

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def run(self) -> None:
        """Keep this replica's metrics until cancelled."""
        while True:
            with suppress(Unavailable):
                await self.exchange()
            await asyncio.sleep(EVERY_S)

    async def exchange(self) -> dict[str, Sequence[str]]:
        """Keep this replica's metrics, and return those of all replicas, by replica.

        Raises:
            Unavailable: Redis is away.
        """
        assert self._redis is not None, "open() comes first"  # noqa: S101
        async with self._one_at_a_time:
            now = self._now()
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(self._key, self.replica, orjson.dumps([now, list(self.read())]))
            pipeline.expire(self._key, round(4 * KEPT_S))
            pipeline.hgetall(self._key)
            try:
                *_, kept = await pipeline.execute()
                fresh, gone = _sorted_out(kept, now)
                if gone:
                    await self._redis.hdel(self._key, *gone)
            except (RedisError, OSError) as error:
                raise Unavailable("redis") from error
        return fresh


def _sorted_out(kept: Mapping[bytes, bytes], now: float) -> tuple[dict[str, Sequence[str]], list[bytes]]:
    """Return the texts of the replicas that live, by replica, and the names of the others."""
    fresh: dict[str, Sequence[str]] = {}
    gone: list[bytes] = []
    for replica, raw in kept.items():
        at, texts = orjson.loads(raw)
        if at > now - KEPT_S:
            fresh[replica.decode()] = texts
        else:
            gone.append(replica)
    return fresh, gone
