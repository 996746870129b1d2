"""HOT results and progress: what can be answered without asking PostgreSQL.

Reads answer None and writes do nothing while Redis is away; after a failure Redis is left
alone for a second, so that a dead one costs each request nothing. Only COMPLETED tasks are
kept, because only they never change again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flik.domain.task import StoredArtifact, TaskView
from flik.live import keys

_PAUSE_S = 1.0
# One command for a batch: packing and answering a SET for each task costs the sender three times as much.
_SET_ALL = """
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end
"""
_log = logging.getLogger("flik.live")


class LiveResults:
    """The HOT tier. `ttl_s` is how long a result stays in it."""

    def __init__(self, url: str, *, ttl_s: int) -> None:
        self._url = url
        self._ttl_s = ttl_s
        self._redis: Redis | None = None
        self._set_all: Any = None
        self._away_until = 0.0

    def open(self) -> Self:
        """Prepare to connect; the first command does."""
        self._redis = Redis.from_url(self._url, socket_timeout=1.0, socket_connect_timeout=1.0)
        self._set_all = self._redis.register_script(_SET_ALL)
        return self

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def ping(self) -> bool:
        """Return whether Redis answers now."""
        self._away_until = 0.0
        return await self._ask(self._open.ping()) is not None

    async def get(self, task_id: str) -> TaskView | None:
        """Return a completed task; None when it is not HOT or Redis is away."""
        raw = await self._ask(self._open.get(keys.result(task_id))) if self._near else None
        return _task_of(orjson.loads(raw)) if raw else None

    async def put(self, tasks: Sequence[TaskView]) -> None:
        """Keep completed tasks for `ttl_s`, and forget their progress."""
        if not self._near:
            return
        values = [orjson.dumps(tuple(task)) for task in tasks]
        names = [keys.result(task.task_id) for task in tasks]
        await self._ask(self._set_all(keys=names, args=[self._ttl_s, *values]))

    async def put_progress(self, fractions: Mapping[str, float]) -> None:
        """Keep how far running tasks are."""
        if not self._near or not fractions:
            return
        pipeline = self._open.pipeline(transaction=False)
        for task_id, fraction in fractions.items():
            pipeline.set(keys.progress(task_id), f"{fraction:.3f}", ex=keys.PROGRESS_TTL_S)
        await self._ask(pipeline.execute())

    async def progress(self, task_id: str) -> float | None:
        """Return how far a running task is (0 to 1); None when that is not known."""
        raw = await self._ask(self._open.get(keys.progress(task_id))) if self._near else None
        return float(raw) if raw else None

    @property
    def _near(self) -> bool:
        return time.monotonic() >= self._away_until

    @property
    def _open(self) -> Redis:
        assert self._redis is not None, "open() comes first"  # noqa: S101
        return self._redis

    async def _ask(self, command: Awaitable[Any]) -> Any:
        try:
            return await command
        except (RedisError, OSError, TimeoutError) as error:
            if self._near:
                _log.warning("redis is away: %s", error)
            self._away_until = time.monotonic() + _PAUSE_S
            return None


def _task_of(raw: Sequence[Any]) -> TaskView | None:
    """Return the task that was kept; None when another version of Flik kept it in another form."""
    try:
        *rest, artifacts, progress = raw
        return TaskView._make([*rest, tuple(StoredArtifact(**artifact) for artifact in artifacts), progress])
    except (TypeError, ValueError):
        return None
