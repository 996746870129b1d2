"""The queue as a Ray actor, and the handle through which gateways and workers talk to it.

The actor is named, detached, asks for no CPU, and is restarted for ever. It holds nothing
that PostgreSQL does not: killed at any moment, it rebuilds itself. When one of its loops
fails, the process ends, because a queue that half works is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flik.actors import NAMESPACE, packing
from flik.domain.pressure import Load
from flik.domain.task import Outcome, TaskFilter, Ticket, Worker
from flik.errors import Unavailable
from flik.live.results import LiveResults
from flik.pipeline.collector import collect_seldom
from flik.pipeline.housekeeping import Housekeeping
from flik.pipeline.ports import Beat, BeatReply, LeaseReply, Moved
from flik.pipeline.schedule import QueuePolicy, TaskQueue
from flik.storage.database import Database
from flik.storage.idempotency import AnswerStore
from flik.storage.queue import QueueStore
from flik.storage.tenants import TenantStore
from flik.telemetry import log_as_json

NAME = "queue"
CONNECTIONS = 4
_CALL_S = 10.0
_log = logging.getLogger("flik.queue")


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

    async def _queue(self) -> TaskQueue:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await self._opening

    async def _open(self) -> TaskQueue:
        config = self._config
        collect_seldom()
        database = await Database(config.database_url, connections=CONNECTIONS, pinned_plans=True, within_s=30.0).open()
        hot = LiveResults(config.redis_url, ttl_s=config.hot_ttl_s).open()
        queue = TaskQueue(QueueStore(database, config.region), hot, config.policy, steady_clock)
        answers = AnswerStore(database, max_attempts=0, ttl_s=0.0)
        housekeeping = Housekeeping(
            TenantStore(database).work_limits, queue.waiting.limits_are, answers.forget, steady_clock
        )
        self._running = asyncio.create_task(_together(queue.run(), housekeeping.run()))
        self._running.add_done_callback(_end_process)
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

    async def replay(self, wanted: TaskFilter) -> int:
        """See `TaskQueue.replay`."""
        return await (await self._queue()).replay(wanted)

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


async def _together(*loops: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(loop)


def _end_process(loops: asyncio.Task[None]) -> None:
    if not loops.cancelled():
        _log.critical("the queue's loops ended; restarting", exc_info=loops.exception())
        os._exit(1)


def start_queue(config: QueueConfig) -> None:
    """Start the region's queue, or find it running."""
    ray.remote(QueueShell).options(
        name=NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=10_000,
    ).remote(config)


class RemoteQueue:
    """The queue of this region, from any process of its Ray cluster.

    Every call raises `Unavailable` when the queue is away or does not answer in time; whether
    the call took effect is unknown then.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    async def announce(self, tickets: list[Ticket]) -> None:
        """Tell of committed tasks."""
        await self._call("announce", packing.pack_tickets(tickets))

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for up to `slots` tasks."""
        grants, draining = await self._call("lease", worker, slots, wait_s, within_s=wait_s + _CALL_S)
        return LeaseReply(packing.unpack_grants(grants), draining)

    async def beat(self, beat: Beat) -> BeatReply:
        """Renew leases."""
        reply: BeatReply = await self._call("beat", beat)
        return reply

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes; False for each whose lease token was not current."""
        accepted: list[bool] = await self._call("settle", packing.pack_outcomes(outcomes), within_s=40.0)
        return accepted

    async def leave(self, worker: Worker) -> None:
        """Say that a worker is gone."""
        await self._call("leave", worker)

    async def cancel(self, task_id: str) -> Moved | None:
        """Cancel a task that is not finished; None when it is unknown."""
        moved: Moved | None = await self._call("cancel", task_id)
        return moved

    async def retry(self, task_id: str) -> Moved | None:
        """Queue a failed task again; None when it is unknown."""
        moved: Moved | None = await self._call("retry", task_id)
        return moved

    async def replay(self, wanted: TaskFilter) -> int:
        """Queue failed tasks again; return how many."""
        replayed: int = await self._call("replay", wanted, within_s=40.0)
        return replayed

    async def load(self, tenants: Sequence[str]) -> Load:
        """Return how full the queue is, and how many tasks of each of these tenants wait."""
        load: Load = await self._call("load", list(tenants))
        return load

    async def drain(self) -> int:
        """Stop granting; return how many tasks still run."""
        running: int = await self._call("drain")
        return running

    async def metrics(self) -> str:
        """Return the queue's metrics as Prometheus text."""
        text: str = await self._call("metrics")
        return text

    async def stats(self) -> dict[str, Any]:
        """Return what the queue holds."""
        stats: dict[str, Any] = await self._call("stats")
        return stats

    async def _call(self, method: str, *arguments: Any, within_s: float = _CALL_S) -> Any:
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(ray.get_actor, NAME, NAMESPACE)
            async with asyncio.timeout(within_s):
                return await getattr(self._handle, method).remote(*arguments)
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None
        except RayActorError as error:
            self._handle = None
            raise Unavailable("queue") from error
        except (RayError, ValueError, TimeoutError) as error:
            raise Unavailable("queue") from error
