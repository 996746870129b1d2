"""The region's rate limiter as a Ray actor, and the handle through which gateways ask it for tokens.

The actor is named, detached, asks for no CPU, and is restarted for ever. Nothing of it has to outlive it:
a new one has nothing until Redis lends it some (`flik/domain/stock.py`). When its loop fails, the process
ends, because a limiter that no longer speaks to Redis is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from flik.actors import NAMESPACE
from flik.domain.rate import Ask, Loan
from flik.errors import Unavailable
from flik.live.buckets import LiveBuckets
from flik.pipeline.limit import RegionLimiter
from flik.telemetry import log_as_json

NAME = "limiter"
_log = logging.getLogger("flik.limiter")


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

    def _open(self) -> RegionLimiter:
        if self._limiter is None:
            config = self._config
            self._limiter = RegionLimiter(LiveBuckets(config.redis_url), config.region, config.share)
            self._running = asyncio.create_task(self._limiter.run())
            self._running.add_done_callback(_end_process)
        return self._limiter

    async def open(self) -> int:
        """Begin to call Redis; return the id of the process."""
        self._open()
        return os.getpid()

    async def lend(self, ask: Ask) -> Loan:
        """See `RegionLimiter.lend`."""
        return await self._open().lend(ask)


def _end_process(running: asyncio.Task[None]) -> None:
    if not running.cancelled():
        _log.critical("the limiter's loop ended; restarting", exc_info=running.exception())
        os._exit(1)


def start_limiter(config: LimiterConfig) -> None:
    """Start the region's limiter, or find it running; it begins to call Redis at once."""
    handle = (
        ray.remote(LimiterShell)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=10_000,
        )
        .remote(config)
    )
    handle.open.remote()


class RemoteLimiter:
    """The limiter of this region, from any process of its Ray cluster. `Allowances` ends calls that take too long."""

    def __init__(self) -> None:
        self._handle: Any = None

    async def lend(self, ask: Ask) -> Loan:
        """Return what the limiter lends.

        Raises:
            Unavailable: it is away; whether the call took effect is unknown.
        """
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(ray.get_actor, NAME, NAMESPACE)
            loan: Loan = await self._handle.lend.remote(ask)
            return loan
        except RayActorError as error:
            self._handle = None
            raise Unavailable("limiter") from error
        except (RayError, ValueError) as error:
            raise Unavailable("limiter") from error
