"""Answers under idempotency keys in a dictionary: passes the same conformance suite as the table.

A call is atomic, as a statement is. `before` and `after` make the next calls fail before or after
they took effect; a gate holds them before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from flik.domain.dag.graph import NewDag
from flik.domain.idempotency import Kept, Keyed, Place
from flik.domain.task import NewTask


class MemoryAnswers:
    """`insert_tasks` stores the tasks of the submissions whose key is free, `put_dag` a dag with its own."""

    def __init__(
        self,
        insert_tasks: Callable[[Sequence[NewTask]], Awaitable[None]],
        *,
        ttl_s: float = 86_400,
        put_dag: Callable[[NewDag], None] = lambda dag: None,
    ) -> None:
        self.rows: dict[Place, tuple[str, Kept]] = {}
        self.batches: list[list[Keyed]] = []
        self.looked_up: list[list[Place]] = []
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()
        self._insert_tasks = insert_tasks
        self._ttl_s = ttl_s
        self._put_dag = put_dag

    async def insert(self, submissions: Sequence[Keyed]) -> frozenset[str]:
        self.batches.append(list(submissions))
        places = [each.asked.place for each in submissions]
        assert len(set(places)) == len(places), "a statement cannot take one key twice"
        self.arrived.set()
        await self.open.wait()
        _raise_next(self.before)
        won = [each for each in submissions if self._may_take(each)]
        await self._insert_tasks([task for each in won if each.dag is None for task in each.tasks])
        for each in won:
            if each.dag is not None:
                self._put_dag(each.dag)
        for each in won:
            kept = Kept(each.asked.fingerprint, each.asked.asked_at + self._ttl_s, each.answer)
            self.rows[each.asked.place] = (each.submission_id, kept)
        _raise_next(self.after)
        return frozenset(each.submission_id for each in won)

    def _may_take(self, each: Keyed) -> bool:
        submission_id, kept = self.rows.get(each.asked.place, (None, None))
        return kept is None or kept.expires_at <= each.asked.asked_at or submission_id == each.submission_id

    async def find(self, places: Collection[Place]) -> Mapping[Place, Kept]:
        self.looked_up.append(list(places))
        return {place: self.rows[place][1] for place in places if place in self.rows}

    async def forget(self, now: float, limit: int) -> int:
        expired = sorted((kept.expires_at, place) for place, (_, kept) in self.rows.items() if kept.expires_at <= now)
        for _, place in expired[:limit]:
            del self.rows[place]
        return len(expired[:limit])


def _raise_next(failures: list[Exception | None]) -> None:
    if failures and (failure := failures.pop(0)):
        raise failure
