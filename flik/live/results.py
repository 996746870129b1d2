"""HOT results and progress: what can be answered without asking PostgreSQL.

Reads answer None and writes do nothing while Redis is away; after one failure it is not asked
any more until it answers again (`flik/guard.py`), so that a dead one costs each request nothing.
Only COMPLETED tasks are kept, because only they never change again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flik.domain.breaker import BreakerPolicy, Verdict
from flik.domain.task import StoredArtifact, TaskView
from flik.errors import Unavailable
from flik.guard import Guard
from flik.live import keys
from flik.live.connect import connect
from flik.telemetry import Metrics

# What Redis cannot say PostgreSQL says, so one failure is enough.
BREAKER = BreakerPolicy(failures=1, most_open_s=1.0)
# One command for a batch: packing and answering a SET for each task costs the sender three times as much.
_SET_ALL = """
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end
"""
_RESULT = TaskView._fields.index("result")


class LiveResults:
    """The HOT tier. `ttl_s` is how long a result stays in it."""

    def __init__(self, url: str, *, ttl_s: int, measured: Metrics | None = None) -> None:
        self._url = url
        self._ttl_s = ttl_s
        self._redis: Redis | None = None
        self._set_all: Any = None
        self._guard = Guard("redis", self._answer, BREAKER, verdict_of=verdict_of, measured=measured)

    def open(self) -> Self:
        """Prepare to connect; the first command does."""
        self._redis = connect(self._url)
        self._set_all = self._redis.register_script(_SET_ALL)
        return self

    async def close(self) -> None:
        """Close the connections."""
        self._guard.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def ping(self) -> bool:
        """Return whether Redis answers now; while it is not asked, this may be the probe."""
        try:
            await self._guard.ping()
        except Unavailable:
            return False
        return True

    async def get(self, task_id: str) -> TaskView | None:
        """Return a completed task; None when it is not HOT or Redis is away."""
        raw = await self._ask(lambda: self._open.get(keys.result(task_id)))
        return _task_of(orjson.loads(raw)) if raw else None

    async def put(self, tasks: Sequence[tuple[TaskView, str]]) -> None:
        """Keep completed tasks for `ttl_s`, each with its result as JSON text."""
        if not self._guard.closed:
            return
        values = [
            orjson.dumps((*task[:_RESULT], orjson.Fragment(result), *task[_RESULT + 1 :])) for task, result in tasks
        ]
        names = [keys.result(task.task_id) for task, _ in tasks]
        await self._ask(lambda: self._set_all(keys=names, args=[self._ttl_s, *values]))

    async def put_progress(self, fractions: Mapping[str, float]) -> None:
        """Keep how far running tasks are."""
        if not self._guard.closed or not fractions:
            return
        pipeline = self._open.pipeline(transaction=False)
        for task_id, fraction in fractions.items():
            pipeline.set(keys.progress(task_id), f"{fraction:.3f}", ex=keys.PROGRESS_TTL_S)
        await self._ask(pipeline.execute)

    async def progress(self, task_id: str) -> float | None:
        """Return how far a running task is (0 to 1); None when that is not known."""
        raw = await self._ask(lambda: self._open.get(keys.progress(task_id)))
        return float(raw) if raw else None

    @property
    def _open(self) -> Redis:
        assert self._redis is not None, "open() comes first"  # noqa: S101
        return self._redis

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        try:
            with self._guard.call(verdict_of):
                return await command()
        except (Unavailable, RedisError, OSError):
            return None

    async def _answer(self) -> None:
        """Probe."""
        await self._open.ping()


def verdict_of(error: Exception) -> Verdict:
    """Return what a command's failure says about Redis."""
    away = isinstance(error, RedisConnectionError | RedisTimeoutError | OSError)
    return Verdict.AWAY if away else Verdict.ANSWERED


def _task_of(raw: Sequence[Any]) -> TaskView | None:
    """Return the task that was kept; None when another version of Flik kept it in another form."""
    try:
        *rest, artifacts, progress = raw
        return TaskView._make([*rest, tuple(StoredArtifact(**artifact) for artifact in artifacts), progress])
    except (TypeError, ValueError):
        return None
