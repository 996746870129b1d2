"""The region's rate limiter as a Ray actor; `flik/actors/remote.py` has the handle through which it is asked.

The actor is named, detached, asks for no CPU, and is restarted for ever. Nothing of it has to outlive it:
a new one has nothing until Redis lends it some (`flik/domain/stock.py`). When its loop fails, the process
ends, because a limiter that no longer speaks to Redis is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from flik.actors import LIMITER, detached
from flik.domain.rate import Ask, Loan
from flik.live.buckets import LiveBuckets
from flik.pipeline.limit import RegionLimiter
from flik.telemetry import log_as_json


@dataclass(frozen=True, slots=True)
class LimiterConfig:
    """What the actor needs. `share` is this region's part of every limit while Redis is away."""

    region: str
    redis_url: str
    share: float
    log_level: str = "INFO"


class LimiterShell:
    """Opens the limiter on the first call and passes every call on to it."""

    def __init__(self, config: LimiterConfig) -> None:
        log_as_json(config.log_level)
        self._config = config
        self._limiter: RegionLimiter | None = None
        self._running: asyncio.Task[None] | None = None

    async def made_of(self) -> detached.Made:
        """See `detached.start`."""
        return detached.made(self._config)

    def _open(self) -> RegionLimiter:
        if self._limiter is None:
            config = self._config
            self._limiter = RegionLimiter(LiveBuckets(config.redis_url), config.region, config.share)
            self._running = asyncio.create_task(self._limiter.run())
            detached.end_process_with(self._running)
        return self._limiter

    async def open(self) -> int:
        """Begin to call Redis; return the id of the process."""
        self._open()
        return os.getpid()

    async def lend(self, ask: Ask) -> Loan:
        """See `RegionLimiter.lend`."""
        return await self._open().lend(ask)


def start_limiter(config: LimiterConfig) -> None:
    """Start the region's limiter, or find it running; it begins to call Redis at once."""
    detached.start(LimiterShell, LIMITER, config).open.remote()
