"""Names of streams in a dictionary: passes the same conformance suite as the table."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from flik.domain.idempotency import Place
from flik.domain.task import NewTask

TTL_S = 60.0


class MemoryNames:
    """`ended_at` says when a stream's task ended; a name is free `TTL_S` after that."""

    def __init__(self, insert_tasks: Callable[[Sequence[NewTask]], Awaitable[None]]) -> None:
        self.rows: dict[Place, str] = {}
        self.ended_at: dict[str, float] = {}
        self._insert_tasks = insert_tasks

    async def start(self, place: Place, task: NewTask, now: float) -> bool:
        await asyncio.sleep(0)
        if await self.find(place, now) not in (None, task.task_id):
            return False
        await self._insert_tasks([task])
        self.rows[place] = task.task_id
        return True

    async def find(self, place: Place, now: float) -> str | None:
        task_id = self.rows.get(place)
        if task_id is None or self.ended_at.get(task_id, now) <= now - TTL_S:
            return None
        return task_id
