"""Settlements: ends attempts, whether by a worker's outcome or by the reaper.

One UPDATE ends all attempts that gathered, at most `MAX_SETTLEMENTS`, each fenced by its lease
token. When PostgreSQL refuses a batch, each is settled alone, and the task whose outcome it
refuses fails: it must not hold up the others.

What completed is kept HOT, as readers are to see it: that is known from the lease. After a
restart it is not; then readers ask PostgreSQL. While Redis takes it in, the next batch is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flik.domain.event import Notice
from flik.domain.lease import Lease, Leases
from flik.domain.task import Completed, Failed, Outcome, Status, TaskView
from flik.errors import InputGone, Unavailable
from flik.pipeline.queue import endings, telling
from flik.pipeline.queue.dags import Dags
from flik.pipeline.queue.loops import in_background
from flik.pipeline.queue.measures import Measures
from flik.pipeline.queue.memo import Reuse
from flik.pipeline.queue.telling import Feed
from flik.pipeline.queue.waiting import Waiting
from flik.storage.dags import Advanced
from flik.storage.queue import QueueStore, Settled, Settlement

MAX_SETTLEMENTS = 2_000
_log = logging.getLogger("flik.queue")


class HotResults(Protocol):
    """Where completed tasks and progress are kept for fast reads; allowed to forget."""

    async def put(self, tasks: Sequence[tuple[TaskView, str]]) -> None:
        """Keep completed tasks, each with its result as JSON text."""

    async def put_progress(self, fractions: Mapping[str, float]) -> None:
        """Keep how far running tasks are."""


class Ending:
    """Settlements that somebody waits for together: `over` tells of each whether it took effect."""

    def __init__(self, count: int) -> None:
        self.over: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._took_effect = [False] * count
        self._left = count

    def note(self, place: int, *, took_effect: bool) -> None:
        """Note what came of the one at `place`."""
        self._took_effect[place] = took_effect
        self._left -= 1
        if self._left == 0 and not self.over.done():
            self.over.set_result(self._took_effect)

    def fail(self, error: Exception) -> None:
        """Give up on all of them; those that took effect will be found stale when they come again."""
        if not self.over.done():
            self.over.set_exception(error)


class Entry(NamedTuple):
    """One settlement that waits for the next transaction, and its place among those asked for with it.

    `lease` is the one it came under: it may be gone when the settlement has taken effect.
    """

    settlement: Settlement
    lease: Lease | None
    ending: Ending
    place: int


class Effects(NamedTuple):
    """What a batch came to: what completed, the tasks that found an input gone, and what followers are to be told."""

    completed: list[tuple[Settlement, Lease | None]]
    bereft: list[str]
    told: list[Notice]


class Settling:
    """The settle loop. It sets `grant_wanted` when tasks may be granted again."""

    def __init__(
        self,
        store: QueueStore,
        hot: HotResults,
        feed: Feed,
        delays_s: tuple[float, ...],
        *,
        waiting: Waiting,
        leases: Leases,
        measures: Measures,
        dags: Dags,
        reuse: Reuse,
        now: Callable[[], float],
        grant_wanted: asyncio.Event,
    ) -> None:
        self._store = store
        self._dags = dags
        self._reuse = reuse
        self._hot = hot
        self._feed = feed
        self._delays_s = delays_s
        self._waiting = waiting
        self._leases = leases
        self._measures = measures
        self._now = now
        self._grant_wanted = grant_wanted
        self._wanted = asyncio.Event()
        self._showing: asyncio.Task[None] | None = None  # what was settled last, to readers and followers
        self.gathered: list[Entry] = []

    # ---- what is asked of it

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """End attempts by the outcomes of workers; return, for each, whether it took effect.

        Raises:
            Unavailable: PostgreSQL is away; whether they took effect is unknown.
        """
        return await self._end_all([self._settlement_of(outcome) for outcome in outcomes])

    async def end(self, settlement: Settlement) -> bool:
        """End one attempt; return whether that took effect.

        Raises:
            Unavailable: PostgreSQL is away; whether it took effect is unknown.
        """
        return (await self._end_all([(settlement, None)]))[0]

    def end_reused(self, lease: Lease, settlement: Settlement) -> None:
        """End a step soon with what an earlier run made; if PostgreSQL is away, the lease lapses and is taken back."""
        lease.reused = True
        in_background(self._end_reused(settlement))

    async def _end_reused(self, settlement: Settlement) -> None:
        try:
            await self.end(settlement)
        except Unavailable:
            _log.warning("what was found for a step could not be stored", extra={"taskId": settlement.task_id})

    async def _end_all(self, settlements: list[tuple[Settlement, Lease | None]]) -> list[bool]:
        if not settlements:
            return []
        ending = Ending(len(settlements))
        self.gathered += [Entry(each, lease, ending, place) for place, (each, lease) in enumerate(settlements)]
        self._wanted.set()
        return await ending.over

    def _settlement_of(self, outcome: Outcome) -> tuple[Settlement, Lease | None]:
        lease = self._leases.get(outcome.task_id, outcome.lease_token)
        if isinstance(outcome, Completed):
            return endings.completed(outcome), lease
        if isinstance(outcome, Failed):
            return endings.failed(outcome, lease, self._delays_s, self._now()), lease
        return endings.handed_back(outcome, self._now()), lease

    # ---- the loop

    async def run(self) -> None:
        """Settle whenever something gathered."""
        while True:
            await self._wanted.wait()
            await self.step()

    async def step(self) -> None:
        """End the attempts that gathered, in one transaction."""
        batch = self._next_batch()
        if not self.gathered:
            self._wanted.clear()
        if batch:
            await self._settle_together(batch)

    async def rest(self) -> None:
        """Return when readers and followers can see all that was settled."""
        if self._showing is not None:
            await self._showing

    def _next_batch(self) -> list[Entry]:
        """Take what gathered, one settlement a task: of two, PostgreSQL would not say which one took effect."""
        batch: dict[str, Entry] = {}
        later = []
        for entry in self.gathered:
            task_id = entry.settlement.task_id
            if len(batch) < MAX_SETTLEMENTS and task_id not in batch:
                batch[task_id] = entry
            else:
                later.append(entry)
        self.gathered = later
        return list(batch.values())

    async def _settle_together(self, batch: list[Entry]) -> None:
        now = round(self._now(), 6)  # as PostgreSQL keeps it: what is HOT is what is stored
        try:
            with self._measures["flik_settle_seconds"].time():
                rows, advanced = await self._store_all(batch, now)
        except Unavailable as error:
            for entry in batch:
                entry.ending.fail(Unavailable(error.dependency, error.retry_after_s))
        except Exception as error:
            await self._settle_one_by_one(batch, error)
        else:
            self._dags.take_in(advanced, now)
            effects = self._note_settled(batch, {row.task_id: row for row in rows}, now)
            await self.rest()  # one batch at most is on its way to Redis while the next one is stored
            self._showing = asyncio.create_task(self._show(effects, now))

    async def _store_all(self, batch: list[Entry], now: float) -> tuple[list[Settled], Advanced]:
        settlements = [entry.settlement for entry in batch]
        dag_ids = {entry.lease.dag_id for entry in batch if entry.lease is not None and entry.lease.dag_id is not None}
        unknown = [entry.settlement.task_id for entry in batch if entry.lease is None]
        if unknown:
            dag_ids |= await self._store.dags_of(unknown)
        if dag_ids:
            return await self._store.settle_steps(settlements, now, dag_ids)
        return await self._store.settle(settlements, now), Advanced()

    async def _settle_one_by_one(self, batch: list[Entry], error: Exception) -> None:
        """Fail the task whose outcome PostgreSQL refuses; it must not hold up the others."""
        if len(batch) > 1:
            for one in batch:
                await self._settle_together([one])
            return
        (entry,) = batch
        _log.exception("an outcome could not be stored", extra={"taskId": entry.settlement.task_id}, exc_info=error)
        refused = endings.unstorable(entry.settlement, error)
        if entry.settlement == refused:
            entry.ending.fail(RuntimeError(str(error)))
            return
        await self._settle_together([entry._replace(settlement=refused)])

    def _note_settled(self, batch: list[Entry], rows: Mapping[str, Settled], now: float) -> Effects:
        """Take in what took effect; return what others are to see of it."""
        ended: list[tuple[Settlement, Settled]] = []
        told: list[Notice] = []
        completed: list[tuple[Settlement, Lease | None]] = []
        for settlement, lease, ending, place in batch:
            released = self._leases.release(settlement.task_id, settlement.lease_token)
            row = rows.get(settlement.task_id)
            if row is None:
                self._measures["flik_stale_settlements"].labels(released.task_type if released else "").inc()
            else:
                ended.append((settlement, row))
                told.append(telling.settled(settlement, row, lease, now))
                if row.status == Status.COMPLETED:
                    completed.append((settlement, lease))
            ending.note(place, took_effect=row is not None)
        self._waiting.offer(row.ticket for _, row in ended if row.ticket is not None)
        self._grant_wanted.set()
        self._measures.note_settled(ended, now)
        bereft = [each.task_id for each, _ in ended if each.error_code == InputGone.code]
        return Effects(completed, bereft, told)

    async def _show(self, effects: Effects, now: float) -> None:
        """Let readers, followers and later steps see what took effect."""
        completed, bereft, told = effects
        if made := list(_to_remember(completed)):
            await self._reuse.remember(made)
        if bereft:
            await self._reuse.forget(bereft)
        if hot := list(_shown(completed, now)):
            await self._hot.put(hot)
        self._feed.tell(told)  # at last: followers read what is HOT


def _to_remember(completed: Iterable[tuple[Settlement, Lease | None]]) -> Iterable[tuple[str, str, str]]:
    for settlement, lease in completed:
        if lease is not None and lease.memo_key is not None:
            yield lease.tenant_id, lease.memo_key, settlement.task_id


def _shown(completed: Iterable[tuple[Settlement, Lease | None]], now: float) -> Iterable[tuple[TaskView, str]]:
    """Yield each completed task as readers are to see it, with its result; those of an unknown lease are left out."""
    for settlement, lease in completed:
        if lease is not None and lease.shown is not None:
            view = lease.shown._replace(completed_at=now, artifacts=settlement.artifacts)
            yield view, settlement.result or "{}"
