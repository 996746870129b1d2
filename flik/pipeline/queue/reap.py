"""Puts right what went wrong: workers that fell silent, attempts that take too long, deadlines, lost grants.

Every `TICK_S` it requeues attempts whose lease lapsed and fails those beyond the hard timeout.
Each second it expires tasks whose start deadline passed and takes back the grants of which the
queue never learnt whether they took effect. Every `LOOK_S` it compares what is PROCESSING with
the leases: a grant may commit when its queue is gone, and a cancel in another region which could not tell.

A gap in its own running is given to all leases: while this process stood still it heard no
beat either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from flik.domain.event import Kind
from flik.domain.lease import Lease, Leases
from flik.errors import Unavailable
from flik.pipeline.queue import endings, telling
from flik.pipeline.queue.dags import Dags
from flik.pipeline.queue.loops import in_background
from flik.pipeline.queue.measures import Measures
from flik.pipeline.queue.policy import QueuePolicy
from flik.pipeline.queue.roster import Roster
from flik.pipeline.queue.settle import Settling
from flik.pipeline.queue.telling import Feed
from flik.pipeline.queue.waiting import Waiting
from flik.storage.queue import Ended, QueueStore, RunningRow, Settlement

TICK_S = 0.25
LOOK_S = 15.0
MAX_EXPIRIES = 1_000
_log = logging.getLogger("flik.queue")


class Reaping:
    """The reap loop. `uncertain` (token -> task) holds grants of which it is unknown whether they took effect."""

    def __init__(
        self,
        store: QueueStore,
        feed: Feed,
        policy: QueuePolicy,
        settling: Settling,
        *,
        waiting: Waiting,
        leases: Leases,
        roster: Roster,
        uncertain: dict[str, str],
        measures: Measures,
        dags: Dags,
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._dags = dags
        self._feed = feed
        self._policy = policy
        self._settling = settling
        self._waiting = waiting
        self._leases = leases
        self._roster = roster
        self._uncertain = uncertain
        self._measures = measures
        self._now = now
        self._next_look_at = 0.0

    async def run(self) -> None:
        """Reap every `TICK_S`, sweep each second."""
        seen_at = self._now()
        next_sweep_at = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = self._now()
            if now - seen_at > self._policy.lease_s / 3:
                self._leases.extend(now - seen_at)
            seen_at = now
            self.reap(now)
            if now >= next_sweep_at:
                next_sweep_at = now + 1.0
                await self.sweep(now)
                seen_at = self._now()

    def reap(self, now: float) -> None:
        """Have the attempts ended that lapsed or run too long, and forget silent workers."""
        for lease in [each for each in self._leases.overdue(now) if not each.reused]:
            self._leases.release(lease.task_id)
            _, hard_timeout_s = self._policy.timeouts_s(lease.task_type)
            in_background(self._end(lease, endings.timed_out(lease, hard_timeout_s)))
        for lease in self._leases.lapsed(now):
            self._leases.release(lease.task_id)
            if lease.reused:  # it reached no worker: what should have ended it was not stored
                in_background(self._end(lease, endings.taken_back(lease.task_id, lease.token, now)))
                continue
            _log.warning("a worker fell silent", extra={"taskId": lease.task_id, "workerId": lease.worker_id})
            in_background(self._end(lease, endings.lost(lease, now)))
        self._roster.forget_silent(now)

    async def _end(self, lease: Lease, settlement: Settlement) -> None:
        """End an attempt; while PostgreSQL is away its lease is kept, to be reaped again."""
        try:
            await self._settling.end(settlement)
        except Unavailable:
            _log.warning("an attempt's end must wait for PostgreSQL", extra={"taskId": lease.task_id})
            if lease.task_id not in self._leases:
                self._leases.hold(lease)

    async def sweep(self, now: float) -> None:
        """Expire what waited too long, and free attempts that were granted but never reached a worker."""
        try:
            await self._expire(now)
            if now >= self._next_look_at:
                await self._compare(now)
                self._next_look_at = now + LOOK_S
        except Unavailable:
            return
        uncertain = list(self._uncertain.items())
        self._uncertain.clear()
        for token, task_id in uncertain:
            in_background(self._take_back(endings.taken_back(task_id, token, now)))

    async def _expire(self, now: float) -> None:
        now = round(now, 6)  # as PostgreSQL keeps it
        self._note_expired(await self._store.expire(MAX_EXPIRIES, now), now)
        late = await self._store.late_dags(MAX_EXPIRIES, now)
        if late:
            ended, advanced = await self._store.expire_steps(MAX_EXPIRIES, now, late)
            self._note_expired(ended, now)
            self._dags.take_in(advanced, now)

    def _note_expired(self, ended: Iterable[Ended], now: float) -> None:
        for expired in ended:
            self._waiting.forget(expired.task_id)
            self._measures["flik_tasks_expired"].inc()
            self._feed.tell([telling.ended(expired, Kind.EXPIRED, now)])

    async def _compare(self, now: float) -> None:
        leased = self._leases.tokens()
        running = {row.lease_token: row for row in await self._store.running()}
        for task_id, token in leased:
            if token not in running:  # cancelled in another region, or settled at this moment
                self._leases.release(task_id, token)
        for row in running.values():
            if self._is_orphan(row, now):
                self._uncertain[row.lease_token] = row.task_id

    def _is_orphan(self, row: RunningRow, now: float) -> bool:
        """A grant of which we know nothing: it committed when we, or the queue before us, no longer waited for it."""
        is_ours = row.task_type in self._waiting.lanes and not self._waiting.is_busy(row.task_id)
        return is_ours and row.started_at < now - self._policy.lease_s

    async def _take_back(self, settlement: Settlement) -> None:
        """Take a grant back that reached nobody; when it never took effect, its token fits no task."""
        try:
            await self._settling.end(settlement)
        except Unavailable:
            self._uncertain[settlement.lease_token] = settlement.task_id
