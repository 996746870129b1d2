"""Grants: matches what waits with workers that wait for work.

One UPDATE grants the lot, at most `MAX_GRANTS`; what arrives meanwhile goes with the next.
The tickets of a type are dealt to its waiting workers in turn, one each, up to their slots.

When PostgreSQL does not answer, some of the grants may have taken effect. Their tokens are
noted as uncertain, for the reaper to take back, and the tickets wait again: a later grant
changes nothing in a row that is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from uuid_utils import uuid4

from flik.domain.lease import Lease, Leases
from flik.domain.task import Grant, Status, TaskView, Ticket, Worker
from flik.errors import Unavailable
from flik.pipeline.queue import telling
from flik.pipeline.queue.loops import pause, wait
from flik.pipeline.queue.measures import Measures
from flik.pipeline.queue.memo import Reuse
from flik.pipeline.queue.policy import QueuePolicy
from flik.pipeline.queue.roster import Roster, Waiter, in_turn
from flik.pipeline.queue.settle import Settling
from flik.pipeline.queue.telling import Feed
from flik.pipeline.queue.waiting import Waiting
from flik.storage.queue import GrantedRow, QueueStore, Settlement

MAX_GRANTS = 2_000
Pick = tuple[Ticket, str, Worker]  # with the lease token


class Granting:
    """The grant loop. `wanted` wakes it; it sets `refill_wanted` when it made room in memory."""

    def __init__(
        self,
        store: QueueStore,
        feed: Feed,
        policy: QueuePolicy,
        *,
        waiting: Waiting,
        leases: Leases,
        roster: Roster,
        uncertain: dict[str, str],
        measures: Measures,
        now: Callable[[], float],
        wanted: asyncio.Event,
        refill_wanted: asyncio.Event,
        settling: Settling,
        reuse: Reuse,
    ) -> None:
        self._store = store
        self._reuse = reuse
        self._settling = settling
        self._feed = feed
        self._policy = policy
        self._waiting = waiting
        self._leases = leases
        self._roster = roster
        self._uncertain = uncertain
        self._measures = measures
        self._now = now
        self._wanted = wanted
        self._refill_wanted = refill_wanted
        self._cancelled: set[str] = set()  # while their grant was under way
        self._first = 0  # which type is dealt first

    async def run(self) -> None:
        """Grant whenever a ticket or a worker arrives or a retry falls due, else look each second."""
        while True:
            await wait(self._wanted, self.until_next_ticket())
            self._wanted.clear()
            while await self.step():
                pass

    async def step(self) -> bool:
        """Grant what waits to whoever waits for it, in one transaction; return whether there was anything to grant."""
        now = round(self._now(), 6)  # as PostgreSQL keeps it; what is due is what is due by this
        picks = self._deal(now)
        if picks:
            await self._grant(picks, now)
        return bool(picks)

    def note_cancelled(self, task_id: str) -> None:
        """Note a cancel that committed; if a grant of the task is under way, its worker must not get it."""
        if task_id in self._waiting.in_grant:
            self._cancelled.add(task_id)

    def until_next_ticket(self) -> float:
        """Return for how many seconds there is nothing to grant unless something arrives; at most 1."""
        at = self._waiting.next_at()
        return 1.0 if at is None else min(1.0, at - self._now())

    def _deal(self, now: float) -> list[Pick]:
        picks: list[Pick] = []
        for task_type in self._types_in_turn():
            slots = self._roster.open_slots(task_type)
            wanted = min(MAX_GRANTS, sum(count for _, count in slots))
            tickets = self._waiting.take(task_type, wanted, now) if wanted > 0 else []
            picks += [(ticket, str(uuid4()), worker) for ticket, worker in zip(tickets, in_turn(slots), strict=False)]
        return picks

    def _types_in_turn(self) -> list[str]:
        """Return the types, another one first each time: of what a tenant's cap allows, none must get it all."""
        types = list(self._waiting.lanes)
        self._first = (self._first + 1) % len(types)
        return types[self._first :] + types[: self._first]

    async def _grant(self, picks: list[Pick], now: float) -> None:
        waiters = self._call({worker.worker_id for _, _, worker in picks})
        try:
            with self._measures["flik_grant_seconds"].time():
                rows = await self._store.grant(picks, now)
        except Unavailable:
            self._put_back(picks)
            _answer(waiters, {})
            await pause()
            return
        by_task = {pick[0].task_id: pick for pick in picks}
        memos = await self._memos_of(rows, by_task)
        grants = self._lease_out(rows, by_task, memos, now)
        self._waiting.end_grant(ticket.task_id for ticket, _, _ in picks)
        self._cancelled.clear()  # only this grant was under way
        _answer(waiters, grants)
        self._waiting.note_pace(row.task_type for row in rows)
        self._measures.note_granted(rows, now)
        self._feed.tell(telling.granted(row, by_task[row.task_id][2], now) for row in rows)
        self._refill_wanted.set()

    async def _memos_of(self, rows: list[GrantedRow], picks: dict[str, Pick]) -> Mapping[str, str | Settlement]:
        steps = [row for row in rows if row.reuse]
        return await self._reuse.look_up(steps, {row.task_id: picks[row.task_id][2].version for row in steps})

    def _call(self, worker_ids: Iterable[str]) -> dict[str, Waiter]:
        return {each: waiter for each in worker_ids if (waiter := self._roster.call(each)) is not None}

    def _put_back(self, picks: list[Pick]) -> None:
        """Let the tickets wait again; some may be granted: then a later grant finds them taken."""
        self._uncertain.update({token: ticket.task_id for ticket, token, _ in picks})
        self._waiting.end_grant(ticket.task_id for ticket, _, _ in picks)
        self._waiting.offer(ticket for ticket, _, _ in picks if ticket.task_id not in self._cancelled)
        self._cancelled.clear()

    def _lease_out(
        self, rows: list[GrantedRow], picks: dict[str, Pick], memos: Mapping[str, str | Settlement], now: float
    ) -> dict[str, list[Grant]]:
        """Hold a lease for each grant that took effect; return the grants by worker.

        What need not run, as an earlier run made it, is settled instead; its lease is held until it is.
        """
        grants: dict[str, list[Grant]] = {}
        expires_at = now + self._policy.lease_s
        timeouts_s = {task_type: self._policy.timeouts_s(task_type) for task_type in self._waiting.lanes}
        for row in rows:
            if row.task_id in self._cancelled:
                continue
            soft_s, hard_s = timeouts_s[row.task_type]
            ticket, _, worker = picks[row.task_id]
            shown = _shown(row, ticket, worker, now)
            lease, memo = _lease(row, worker, expires_at, now + hard_s, shown), memos.get(row.task_id)
            self._leases.hold(lease)
            if isinstance(memo, Settlement):
                self._settling.end_reused(lease, memo)
                continue
            lease.memo_key = memo
            grants.setdefault(worker.worker_id, []).append(_grant(row, soft_s, hard_s))
        return grants


def _lease(row: GrantedRow, worker: Worker, expires_at: float, hard_deadline_at: float, shown: TaskView) -> Lease:
    return Lease(
        row.task_id, row.lease_token, worker.worker_id, row.task_type, row.priority, row.tenant_id, row.queued_at,
        row.attempt, row.max_attempts, expires_at, hard_deadline_at, shown, dag_id=row.dag_id,
    )  # fmt: skip


def _grant(row: GrantedRow, soft_timeout_s: float, hard_timeout_s: float) -> Grant:
    return Grant(
        row.task_id, row.lease_token, row.tenant_id, row.task_type, row.priority, row.attempt, row.payload,
        soft_timeout_s, hard_timeout_s, row.request_id, row.trace_id, row.outputs,
    )  # fmt: skip


def _shown(row: GrantedRow, ticket: Ticket, worker: Worker, now: float) -> TaskView:
    """Return how readers are to see the task once this attempt completes; see `Lease.shown`."""
    return TaskView(
        row.task_id, row.tenant_id, row.task_type, row.priority, row.region, Status.COMPLETED.value, row.attempt,
        row.max_attempts, row.queued_at, ticket.available_at, row.start_deadline_at, now, None, worker.worker_id,
        worker.version, None, None, row.request_id, row.dag_id,
    )  # fmt: skip


def _answer(waiters: dict[str, Waiter], grants: dict[str, list[Grant]]) -> None:
    for worker_id, waiter in waiters.items():
        waiter.answer(grants.get(worker_id, []))
