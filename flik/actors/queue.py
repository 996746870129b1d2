"""The queue as a Ray actor; `flik/actors/remote.py` has the handle through which it is called.

The actor is named, detached, asks for no CPU, and is restarted for ever. It holds nothing
that PostgreSQL does not: killed at any moment, it rebuilds itself. When one of its loops
fails, the process ends, because a queue that half works is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flik.actors import QUEUE, detached, packing
from flik.domain.pressure import Load
from flik.domain.task import Worker
from flik.live.feed import FeedWriter
from flik.live.news import NewsReader, NewsWriter
from flik.live.results import LiveResults
from flik.pipeline.collector import collect_seldom
from flik.pipeline.housekeeping import Housekeeping
from flik.pipeline.ports import Beat, BeatReply, Moved
from flik.pipeline.queue.measures import Measures
from flik.pipeline.schedule import QueuePolicy, TaskQueue
from flik.storage.database import Database
from flik.storage.idempotency import forget_expired
from flik.storage.queue import QueueStore
from flik.storage.streams import forget_streams
from flik.storage.tenants import TenantStore
from flik.telemetry import log_as_json

CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """What the actor needs to open its stores."""

    region: str
    database_url: str
    redis_url: str
    hot_ttl_s: int
    policy: QueuePolicy
    log_level: str = "INFO"


def steady_clock() -> float:
    """Return the time in seconds since the epoch; never jumps, whatever is done to the wall clock."""
    return _STARTED_AT + time.monotonic()


_STARTED_AT = time.time() - time.monotonic()


class QueueShell:
    """Opens the queue on the first call and passes every call on to it."""

    def __init__(self, config: QueueConfig) -> None:
        log_as_json(config.log_level)
        self._config = config
        self._opening: asyncio.Task[TaskQueue] | None = None
        self._running: asyncio.Task[None] | None = None

    async def made_of(self) -> detached.Made:
        """See `detached.start`."""
        return detached.made(self._config)

    async def _queue(self) -> TaskQueue:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await self._opening

    async def _open(self) -> TaskQueue:
        config = self._config
        collect_seldom()
        measures = Measures()
        database = await Database(
            config.database_url,
            connections=CONNECTIONS,
            pinned_plans=True,
            within_s=30.0,
            measured=measures.metrics,
        ).open()
        hot = LiveResults(config.redis_url, ttl_s=config.hot_ttl_s, measured=measures.metrics).open()
        feed = FeedWriter(config.redis_url, measures.metrics).open()
        news = NewsWriter(config.redis_url)
        queue = TaskQueue(
            QueueStore(database, config.region), hot, feed, config.policy, steady_clock, measures=measures,
            tell_others=news.tell,
        )  # fmt: skip
        heard = NewsReader(config.redis_url, config.region, queue.hear)
        read_limits, forget = TenantStore(database).work_limits, partial(_forget, database)
        housekeeping = Housekeeping(read_limits, queue.waiting.limits_are, forget, steady_clock)
        self._running = asyncio.create_task(_run(queue, housekeeping, heard))
        detached.end_process_with(self._running)
        return queue

    async def announce(self, tickets: bytes) -> None:
        """See `TaskQueue.announce`; the tickets are packed."""
        await (await self._queue()).announce(packing.unpack_tickets(tickets))

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> tuple[bytes, bool]:
        """See `TaskQueue.lease`; the grants of the reply are packed."""
        reply = await (await self._queue()).lease(worker, slots, wait_s)
        return packing.pack_grants(reply.grants), reply.draining

    async def beat(self, beat: Beat) -> BeatReply:
        """See `TaskQueue.beat`."""
        return await (await self._queue()).beat(beat)

    async def revoked(self, worker: Worker, wait_s: float) -> list[tuple[str, str]]:
        """See `TaskQueue.revoked`."""
        return await (await self._queue()).revoked(worker, wait_s)

    async def settle(self, outcomes: bytes) -> list[bool]:
        """See `TaskQueue.settle`; the outcomes are packed."""
        return await (await self._queue()).settle(packing.unpack_outcomes(outcomes))

    async def leave(self, worker: Worker) -> None:
        """See `TaskQueue.leave`."""
        await (await self._queue()).leave(worker)

    async def cancel(self, task_id: str) -> Moved | None:
        """See `TaskQueue.cancel`."""
        return await (await self._queue()).cancel(task_id)

    async def retry(self, task_id: str) -> Moved | None:
        """See `TaskQueue.retry`."""
        return await (await self._queue()).retry(task_id)

    async def replay(self, task_ids: Sequence[str]) -> int:
        """See `TaskQueue.replay`."""
        return await (await self._queue()).replay(task_ids)

    async def cancel_dag(self, dag_id: str) -> Moved | None:
        """See `TaskQueue.cancel_dag`."""
        return await (await self._queue()).cancel_dag(dag_id)

    async def resume_dag(self, dag_id: str) -> Moved | None:
        """See `TaskQueue.resume_dag`."""
        return await (await self._queue()).resume_dag(dag_id)

    async def load(self, tenants: Sequence[str]) -> Load:
        """See `TaskQueue.load`."""
        return await (await self._queue()).load(tenants)

    async def drain(self) -> int:
        """See `TaskQueue.drain`."""
        return await (await self._queue()).drain()

    async def metrics(self) -> str:
        """See `TaskQueue.metrics`."""
        return await (await self._queue()).metrics()

    async def stats(self) -> dict[str, Any]:
        """See `TaskQueue.stats`, with the id of the process."""
        return {**await (await self._queue()).stats(), "pid": os.getpid()}


async def _forget(database: Database, now: float, limit: int) -> int:
    """Delete what has expired of answers and of streams, up to `limit` of each; return the larger number."""
    return max(await forget_expired(database, now, limit), await forget_streams(database, now, limit))


async def _run(queue: TaskQueue, housekeeping: Housekeeping, news: NewsReader) -> None:
    await housekeeping.begin()
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.run(), name="queue")
        group.create_task(housekeeping.run(), name="housekeeping")
        group.create_task(news.run(), name="news")


def start_queue(config: QueueConfig) -> None:
    """Start the region's queue, or find it running."""
    detached.start(QueueShell, QUEUE, config)
