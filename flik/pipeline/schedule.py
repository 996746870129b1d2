"""The queue of one region: orders what waits, grants it, hears of outcomes, and puts right what went wrong.

It is the only writer of a task after admission, and it is a cache with a mailbox: all it
knows can be rebuilt from PostgreSQL, so it may be killed at any moment. What keeps a task
from being done twice is not in here but in the lease token of its row.

Loops, each of which has one statement in flight and takes whatever gathered meanwhile:

grant    matches waiting tickets with workers that wait for work; one UPDATE grants the lot
settle   ends attempts, by outcomes of workers or by the reaper; one UPDATE for all
reap     requeues attempts whose worker fell silent, fails those that run too long,
         expires tasks whose start deadline passed
refill   reads on in backlogs that are only partly in memory, and finds tasks that nobody
         announced, every 2 s: among those submitted lately, and by walking over all
         that waits, `SCAN_ROWS` at a time

Metrics: flik_tasks_*, flik_attempts, flik_queue_*, flik_workers, flik_run_seconds,
flik_grant_seconds, flik_settle_seconds, flik_stale_settlements.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
from prometheus_client import generate_latest
from uuid_utils import uuid4

from flik.domain import retry
from flik.domain.lane import Lane
from flik.domain.lease import Lease, Leases
from flik.domain.task import (
    Completed,
    Failed,
    Grant,
    HandedBack,
    Outcome,
    Priority,
    Status,
    StoredArtifact,
    TaskFilter,
    TaskView,
    Ticket,
    Worker,
)
from flik.domain.window import Page, Window
from flik.errors import Unavailable
from flik.pipeline.ports import Beat, BeatReply, LeaseReply, Moved
from flik.storage.queue import GrantedRow, QueueStore, RunningRow, Settlement
from flik.storage.tasks import first_id_at
from flik.telemetry import Metrics

SCAN_ROWS = 5_000
SCAN_EVERY_S = 2.0
RECENT_S = 5.0
RECENT_ROWS = 10_000
MAX_SETTLEMENTS = 2_000
MAX_GRANTS = 2_000
LOOK_S = 15.0  # how often what is PROCESSING is compared with the leases
READERS = 2  # pages read at a time; the other connections stay free for grants and settlements
_TICK_S = 0.25
_PAUSE_S = 0.5
_log = logging.getLogger("flik.queue")


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The queue's settings; see `flik.settings` for units and defaults."""

    task_types: tuple[str, ...]
    lease_s: float = 3.0
    retry_delays_s: tuple[float, ...] = (5.0, 15.0, 60.0)
    ageing_s: float = 600.0
    window: int = 50_000
    tenant_weights: Mapping[str, int] | None = None
    soft_timeout_s: float = 1500.0
    hard_timeout_s: float = 1800.0
    type_timeouts_s: Mapping[str, tuple[float, float]] | None = None

    def timeouts_s(self, task_type: str) -> tuple[float, float]:
        """Return the soft and the hard timeout of a task type."""
        return (self.type_timeouts_s or {}).get(task_type, (self.soft_timeout_s, self.hard_timeout_s))


class HotResults(Protocol):
    """Where completed tasks and progress are kept for fast reads; allowed to forget."""

    async def put(self, tasks: Sequence[TaskView]) -> None:
        """Keep completed tasks."""

    async def put_progress(self, fractions: Mapping[str, float]) -> None:
        """Keep how far running tasks are."""


@dataclass(slots=True)
class _Waiter:
    """A worker that waits for work."""

    worker: Worker
    slots: int
    reply: asyncio.Future[LeaseReply]


@dataclass(slots=True)
class _Presence:
    """When a worker was last heard of, and how many tasks it can take."""

    worker: Worker
    slots: int
    heard_at: float


class _Ending:
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


class _Entry(NamedTuple):
    """One settlement that waits for the next transaction, and its place among those asked for with it."""

    settlement: Settlement
    ending: _Ending
    place: int


class TaskQueue:
    """The queue. Not thread-safe: it lives on one event loop. `run` must run while it is used."""

    def __init__(self, store: QueueStore, hot: HotResults, policy: QueuePolicy, now: Callable[[], float]) -> None:
        weights = dict(policy.tenant_weights or {})
        self._store = store
        self._hot = hot
        self._policy = policy
        self._now = now
        self._lanes = {
            name: Lane(ageing_s=policy.ageing_s, weight_of=lambda tenant: weights.get(tenant, 1))
            for name in policy.task_types
        }
        self._windows = {name: Window(policy.window) for name in policy.task_types}
        self._leases = Leases(policy.lease_s)
        self._waiters: dict[str, _Waiter] = {}  # by worker
        self._present: dict[str, _Presence] = {}  # by worker
        self._granting: set[str] = set()
        self._cancelled_in_grant: set[str] = set()
        self._settling: list[_Entry] = []
        self._readers = asyncio.Semaphore(READERS)
        self._uncertain: dict[str, str] = {}  # token -> task: grants of which it is unknown whether they took effect
        self._next_look_at = 0.0
        self._scan_after: Ticket | None = None
        self._grant_wanted = asyncio.Event()
        self._settle_wanted = asyncio.Event()
        self._refill_wanted = asyncio.Event()
        self._draining = False
        self._rebuilt = asyncio.Event()
        self.measured = Metrics("flik_tasks_*", "flik_attempts", "flik_queue_*", "flik_worker*", "flik_run_seconds",
                                "flik_grant_seconds", "flik_settle_seconds", "flik_stale_settlements")  # fmt: skip

    # ---- what gateways ask

    async def announce(self, tickets: Sequence[Ticket]) -> None:
        """Take in committed tasks; those that are known already change nothing."""
        for (task_type, priority), count in Counter((each.task_type, each.priority) for each in tickets).items():
            self.measured["flik_tasks_submitted"].labels(task_type, str(priority)).inc(count)
        self._take_in(tickets)

    async def cancel(self, task_id: str) -> Moved | None:
        """Cancel a task that is not finished. Once this returns, no completion of it can take effect.

        Raises:
            Unavailable: PostgreSQL is away; whether the task was cancelled is unknown.
        """
        found = await self._store.cancel(task_id, self._now())
        if found is None:
            return None
        before, moved = found
        if moved:
            if task_id in self._granting:
                self._cancelled_in_grant.add(task_id)
            ticket = self._forget(task_id)
            lease = self._leases.release(task_id)
            task_type = ticket.task_type if ticket else lease.task_type if lease else ""
            self.measured["flik_tasks_cancelled"].labels(task_type).inc()
        return Moved(before.value, moved)

    async def retry(self, task_id: str) -> Moved | None:
        """Queue a failed task for another round of attempts.

        Raises:
            Unavailable: PostgreSQL is away; whether the task was queued is unknown.
        """
        found = await self._store.retry(task_id, retry.max_attempts(self._policy.retry_delays_s), self._now())
        if found is None:
            return None
        before, ticket = found
        if ticket is not None:
            self._take_in([ticket])
        return Moved(before.value, ticket is not None)

    async def replay(self, wanted: TaskFilter) -> int:
        """Queue the failed tasks that match, the oldest first, up to `wanted.limit`; return how many.

        Raises:
            Unavailable: PostgreSQL is away; how many were queued is unknown.
        """
        attempts = retry.max_attempts(self._policy.retry_delays_s)
        tickets = await self._store.replay(replace(wanted, status=Status.FAILED), attempts, self._now())
        self._take_in(tickets)
        return len(tickets)

    # ---- what workers ask

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for work; grant at most `slots` tasks of the worker's type."""
        if self._draining:
            return LeaseReply([], draining=True)
        reply: asyncio.Future[LeaseReply] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(worker, slots, reply)
        earlier = self._waiters.get(worker.worker_id)
        if earlier is not None and not earlier.reply.done():
            earlier.reply.set_result(LeaseReply([]))  # the worker gave up on that call
        self._waiters[worker.worker_id] = waiter
        self._hear(worker)
        self._grant_wanted.set()
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(reply)
        except TimeoutError:
            # A grant may be on its way to this waiter: then wait for it, it would be lost otherwise.
            if self._waiters.get(worker.worker_id) is waiter:
                del self._waiters[worker.worker_id]
                return LeaseReply([])
            return await reply

    async def beat(self, beat: Beat) -> BeatReply:
        """Renew the leases a worker holds; tell it which ones it lost, by a cancel or because they lapsed."""
        await self._rebuilt.wait()  # before that, every lease would look lost
        self._hear(beat.worker, beat.slots)
        now = self._now()
        revoked = self._leases.renew(((task_id, token) for task_id, token, _ in beat.held), now)
        lost = set(revoked)
        await self._hot.put_progress({task_id: done for task_id, _, done in beat.held if task_id not in lost})
        return BeatReply(revoked=revoked, draining=self._draining)

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """End attempts; return, for each outcome, whether it took effect.

        False means that the lease token was not current: the task was cancelled, was given to
        somebody else, or this very outcome had been settled before.

        Raises:
            Unavailable: PostgreSQL is away; the worker asks again, which is harmless.
        """
        await self._rebuilt.wait()
        return await self._end_all([self._settlement_of(outcome) for outcome in outcomes])

    async def leave(self, worker: Worker) -> None:
        """Note that a worker is gone; what it still holds lapses by itself."""
        self._present.pop(worker.worker_id, None)
        waiter = self._waiters.pop(worker.worker_id, None)
        if waiter is not None and not waiter.reply.done():
            waiter.reply.set_result(LeaseReply([], draining=True))

    # ---- what operators ask

    async def drain(self) -> int:
        """Grant nothing more and tell all workers to finish or hand back; return how many tasks still run."""
        self._draining = True
        for waiter in self._waiters.values():
            if not waiter.reply.done():
                waiter.reply.set_result(LeaseReply([], draining=True))
        self._waiters.clear()
        return len(self._leases)

    async def metrics(self) -> str:
        """Return this queue's metrics as Prometheus text."""
        self._measure_levels()
        return generate_latest(self.measured.registry).decode()

    async def stats(self) -> dict[str, Any]:
        """Return what is held, by type: waiting by priority, running, workers, slots."""
        now = self._now()
        present = [p for p in self._present.values() if p.heard_at > now - self._policy.lease_s]
        return {
            "ready": self._rebuilt.is_set(),
            "types": {
                name: {
                    "waiting": [self._depth(name, priority) for priority in Priority],
                    "inMemory": len(lane),
                    "running": self._leases.running(name),
                    "workers": sum(p.worker.task_type == name for p in present),
                    "slots": sum(p.slots for p in present if p.worker.task_type == name),
                }
                for name, lane in self._lanes.items()
            },
        }

    # ---- the loops

    async def run(self) -> None:
        """Rebuild, then run the loops until cancelled. A loop that fails takes the queue down with it."""
        await _until_available(self.rebuild)
        async with asyncio.TaskGroup() as group:
            for loop in (self._grant_loop, self._settle_loop, self._reap_loop, self._refill_loop):
                group.create_task(loop(), name=loop.__name__)

    async def rebuild(self) -> None:
        """Learn from PostgreSQL what waits and what runs; running attempts get a fresh lease.

        Raises:
            Unavailable: PostgreSQL is away; it may be called again.
        """
        running = await self._store.running()
        backlogs = await self._store.backlogs()
        expires_at = self._now() + self._policy.lease_s * 1.5
        for row in running:
            if row.task_type in self._lanes and row.task_id not in self._leases:
                self._leases.hold(self._lease_of(row, expires_at))
        for task_type, priority, tenant_id, rows in backlogs:
            if task_type in self._windows:
                self._windows[task_type].start_reading((priority, tenant_id), rows)
        await self._read_pages()
        self._rebuilt.set()
        _log.info("queue rebuilt", extra={"count": sum(map(len, self._lanes.values())) + len(self._leases)})

    async def _grant_loop(self) -> None:
        while True:
            await _wait(self._grant_wanted, self._until_next_ticket())
            self._grant_wanted.clear()
            while await self.grant_step():
                pass

    async def grant_step(self) -> bool:
        """Grant what waits to whoever waits for it, in one transaction; return whether there was anything to grant."""
        picks = self._match()
        if picks:
            await self._grant(picks)
        return bool(picks)

    def _until_next_ticket(self) -> float:
        now = self._now()
        wakes = [at for lane in self._lanes.values() if (at := lane.wakes_at(now)) is not None]
        return min(1.0, min(wakes) - now) if wakes else 1.0

    def _match(self) -> list[tuple[Ticket, str, Worker]]:
        """Deal the next tickets of each type to its waiting workers, one each in turn, up to their slots."""
        now = self._now()
        picks: list[tuple[Ticket, str, Worker]] = []
        for name, lane in self._lanes.items():
            dealt_to = self._open_slots(name)
            tickets = lane.take(min(len(dealt_to), MAX_GRANTS), now) if dealt_to else []
            for ticket, worker in zip(tickets, dealt_to, strict=False):
                self._windows[name].left(ticket)
                self._granting.add(ticket.task_id)
                picks.append((ticket, str(uuid4()), worker))
        return picks

    def _open_slots(self, task_type: str) -> list[Worker]:
        """Return a worker for each open slot, in turn, leaving out workers that fell silent."""
        silent_before = self._now() - self._policy.lease_s
        waiting = [
            [waiter.worker] * waiter.slots
            for waiter in self._waiters.values()
            if waiter.worker.task_type == task_type and self._present[waiter.worker.worker_id].heard_at > silent_before
        ]
        rounds = max(map(len, waiting), default=0)
        return [slots[turn] for turn in range(rounds) for slots in waiting if turn < len(slots)]

    async def _grant(self, picks: list[tuple[Ticket, str, Worker]]) -> None:
        waiters = {worker.worker_id: self._waiters.pop(worker.worker_id) for _, _, worker in picks
                   if worker.worker_id in self._waiters}  # fmt: skip
        now = self._now()
        try:
            with self.measured["flik_grant_seconds"].time():
                rows = await self._store.grant(picks, now)
        except Unavailable:
            # Some may have been granted: then a later grant finds them taken, and the sweep frees them.
            for ticket, token, _ in picks:
                self._uncertain[token] = ticket.task_id
                self._granting.discard(ticket.task_id)
                if ticket.task_id in self._cancelled_in_grant:
                    self._cancelled_in_grant.discard(ticket.task_id)
                else:
                    self._offer(ticket)
            self._answer(waiters, {})
            await asyncio.sleep(_PAUSE_S)
            return
        workers = {ticket.task_id: worker for ticket, _, worker in picks}
        grants: dict[str, list[Grant]] = {}
        for row in rows:
            if row.task_id in self._cancelled_in_grant:
                continue
            worker = workers[row.task_id]
            self._leases.hold(self._lease_granted(row, worker, now))
            grants.setdefault(worker.worker_id, []).append(self._grant_of(row))
        self._measure_granted(rows, now)
        self._granting.difference_update(workers)
        self._cancelled_in_grant.difference_update(workers)
        self._answer(waiters, grants)
        self._refill_wanted.set()

    def _answer(self, waiters: dict[str, _Waiter], grants: dict[str, list[Grant]]) -> None:
        for worker_id, waiter in waiters.items():
            if not waiter.reply.done():
                waiter.reply.set_result(LeaseReply(grants.get(worker_id, [])))

    async def _settle_loop(self) -> None:
        while True:
            await self._settle_wanted.wait()
            await self.settle_step()

    async def settle_step(self) -> None:
        """End the attempts that gathered, in one transaction."""
        batch = self._next_settlements()
        if not self._settling:
            self._settle_wanted.clear()
        if batch:
            await self._settle_together(batch)

    def _next_settlements(self) -> list[_Entry]:
        """Take what gathered, one settlement a task: of two, PostgreSQL would not say which one took effect."""
        batch: dict[str, _Entry] = {}
        later = []
        for entry in self._settling:
            if len(batch) < MAX_SETTLEMENTS and entry.settlement.task_id not in batch:
                batch[entry.settlement.task_id] = entry
            else:
                later.append(entry)
        self._settling = later
        return list(batch.values())

    async def _settle_together(self, batch: list[_Entry]) -> None:
        now = self._now()
        try:
            with self.measured["flik_settle_seconds"].time():
                moved = await self._store.settle([entry.settlement for entry in batch], now)
        except Unavailable as error:
            for entry in batch:
                entry.ending.fail(Unavailable(error.dependency, error.retry_after_s))
        except Exception as error:
            await self._settle_one_by_one(batch, error)
        else:
            await self._note_settled(batch, {view.task_id: view for view in moved}, now)

    async def _settle_one_by_one(self, batch: list[_Entry], error: Exception) -> None:
        """Fail the task whose outcome PostgreSQL refuses; it must not hold up the others."""
        if len(batch) > 1:
            for one in batch:
                await self._settle_together([one])
            return
        settlement, ending, place = batch[0]
        _log.exception("an outcome could not be stored", extra={"taskId": settlement.task_id}, exc_info=error)
        refused = _unstorable(settlement, error)
        if settlement == refused:
            ending.fail(RuntimeError(str(error)))
            return
        await self._settle_together([_Entry(refused, ending, place)])

    async def _note_settled(self, batch: list[_Entry], moved: Mapping[str, TaskView], now: float) -> None:
        completed = []
        for settlement, ending, place in batch:
            lease = self._leases.release(settlement.task_id, settlement.lease_token)
            view = moved.get(settlement.task_id)
            if view is None:
                self.measured["flik_stale_settlements"].labels(lease.task_type if lease else "").inc()
            elif view.status == Status.QUEUED:
                self._offer(_ticket_of(view))
            elif view.status == Status.COMPLETED:
                result = orjson.loads(settlement.result or "{}")
                completed.append(view._replace(result=result, artifacts=settlement.artifacts))
            ending.note(place, took_effect=view is not None)
        self._measure_settled(
            [
                (entry.settlement, moved[entry.settlement.task_id])
                for entry in batch
                if entry.settlement.task_id in moved
            ],
            now,
        )
        self._grant_wanted.set()
        if completed:
            await self._hot.put(completed)

    async def _reap_loop(self) -> None:
        seen_at = self._now()
        next_sweep_at = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._now()
            if now - seen_at > self._policy.lease_s / 3:
                # This process did not run, so it heard no heartbeat either: nobody is to blame for the gap.
                self._leases.extend(now - seen_at)
            seen_at = now
            self.reap_step(now)
            if now >= next_sweep_at:
                next_sweep_at = now + 1.0
                await self.sweep_step(now)
                seen_at = self._now()

    def reap_step(self, now: float) -> None:
        """End the attempts that lapsed or run too long; `settle_step` carries it out."""
        for lease in self._leases.overdue(now):
            self._leases.release(lease.task_id)
            _in_background(self._end_or_hold(lease, _timed_out(lease, self._policy.timeouts_s(lease.task_type)[1])))
        for lease in self._leases.lapsed(now):
            self._leases.release(lease.task_id)
            _log.warning("a worker fell silent", extra={"taskId": lease.task_id, "workerId": lease.worker_id})
            decision = retry.decide_lost(attempt=lease.attempt, allowed=lease.allowed, now=now)
            _in_background(self._end_or_hold(lease, _lost(lease, decision)))
        gone = [p.worker for p in self._present.values() if p.heard_at < now - 10 * self._policy.lease_s]
        for worker in gone:
            self._present.pop(worker.worker_id)
            waiter = self._waiters.pop(worker.worker_id, None)
            if waiter is not None:
                self._answer({worker.worker_id: waiter}, {})

    async def _end_or_hold(self, lease: Lease, settlement: Settlement) -> None:
        """End an attempt for the reaper; while PostgreSQL is away its lease is kept, to be reaped again."""
        try:
            await self._end(settlement)
        except Unavailable:
            _log.warning("an attempt's end must wait for PostgreSQL", extra={"taskId": lease.task_id})
            if lease.task_id not in self._leases:
                self._leases.hold(lease)

    async def sweep_step(self, now: float) -> None:
        """Expire what waited too long, and free attempts that were granted but never reached a worker."""
        try:
            for task_id in await self._store.expire(1000, now):
                self._forget(task_id)
                self.measured["flik_tasks_expired"].inc()
            if now >= self._next_look_at:
                self._uncertain.update({row.lease_token: row.task_id for row in await self._store.running()
                                        if self._is_orphan(row, now)})  # fmt: skip
                self._next_look_at = now + LOOK_S
        except Unavailable:
            return
        uncertain, self._uncertain = self._uncertain, {}
        for token, task_id in uncertain.items():
            _in_background(self._free_uncertain(Settlement(task_id, token, Status.QUEUED, "HANDED_BACK", True, now)))

    def _is_orphan(self, row: RunningRow, now: float) -> bool:
        """A grant of which we know nothing: it committed when we, or the queue before us, no longer waited for it."""
        known = row.task_id in self._leases or row.task_id in self._granting
        return row.task_type in self._lanes and not known and row.started_at < now - self._policy.lease_s

    async def _free_uncertain(self, settlement: Settlement) -> None:
        """Take a grant back that reached nobody; when it never took effect, its token fits no task."""
        try:
            await self._end(settlement)
        except Unavailable:
            self._uncertain[settlement.lease_token] = settlement.task_id

    async def _refill_loop(self) -> None:
        next_scan_at = 0.0
        while True:
            await _wait(self._refill_wanted, 1.0)
            self._refill_wanted.clear()
            now = self._now()
            try:
                await self._read_pages()
                if now >= next_scan_at:
                    next_scan_at = now + SCAN_EVERY_S
                    await self.scan_step(now)
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)

    async def scan_step(self, now: float) -> None:
        """Find waiting tasks that nobody announced: those submitted lately, and the next page of all that waits.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        self._take_in(await self._store.scan_recent(first_id_at(now - RECENT_S), RECENT_ROWS), counted=True)
        found = await self._store.scan_waiting(self._scan_after, SCAN_ROWS)
        self._scan_after = found[-1] if len(found) == SCAN_ROWS else None
        self._take_in(found, counted=True)

    def _take_in(self, tickets: Iterable[Ticket], *, counted: bool = False) -> None:
        """Hold those tickets that are new and for which there is room; for `counted` see `Window.admits`."""
        for ticket in tickets:
            if self._offer(ticket, counted=counted):
                self._grant_wanted.set()

    async def _read_pages(self) -> None:
        while pages := [(name, page) for name, window in self._windows.items() for page in window.next_pages()]:
            await asyncio.gather(*(self._read_page(name, page) for name, page in pages))
            self._grant_wanted.set()

    async def _read_page(self, task_type: str, page: Page) -> None:
        window, lane = self._windows[task_type], self._lanes[task_type]
        priority, tenant_id = page.key
        try:
            async with self._readers:
                tickets = await self._store.page(task_type, priority, tenant_id, page.after, page.limit)
        except Unavailable:
            window.reading_failed(page)
            raise
        now = self._now()
        for ticket in window.page_read(page, tickets, complete=len(tickets) == page.limit):
            if self._is_busy(ticket.task_id) or not lane.add(ticket, now):
                window.left(ticket)

    # ---- small parts

    def _offer(self, ticket: Ticket, *, counted: bool = False) -> bool:
        """Hold a ticket if it is new and the window has room; return whether it is held now and was not before."""
        lane = self._lanes.get(ticket.task_type)
        if lane is None or ticket.task_id in lane or self._is_busy(ticket.task_id):
            return False
        return self._windows[ticket.task_type].admits(ticket, counted=counted) and lane.add(ticket, self._now())

    def _is_busy(self, task_id: str) -> bool:
        return task_id in self._granting or task_id in self._leases

    def _forget(self, task_id: str) -> Ticket | None:
        for name, lane in self._lanes.items():
            ticket = lane.remove(task_id)
            if ticket is not None:
                self._windows[name].left(ticket)
                return ticket
        return None

    def _hear(self, worker: Worker, slots: int | None = None) -> None:
        present = self._present.setdefault(worker.worker_id, _Presence(worker, slots or 0, 0.0))
        present.heard_at = self._now()
        present.slots = present.slots if slots is None else slots

    async def _end(self, settlement: Settlement) -> bool:
        return (await self._end_all([settlement]))[0]

    async def _end_all(self, settlements: list[Settlement]) -> list[bool]:
        """Have attempts ended with the next transaction; return which settlements took effect."""
        if not settlements:
            return []
        ending = _Ending(len(settlements))
        self._settling += (_Entry(settlement, ending, place) for place, settlement in enumerate(settlements))
        self._settle_wanted.set()
        return await ending.over

    def _settlement_of(self, outcome: Outcome) -> Settlement:
        match outcome:
            case Completed(task_id, token, text, metadata, artifacts):
                settlement = Settlement(task_id, token, Status.COMPLETED, "COMPLETED", artifacts=artifacts)
                try:
                    return settlement._replace(result=orjson.dumps({"text": text, "metadata": metadata}).decode())
                except TypeError as error:  # a lone surrogate, a number beyond 64 bits, an object that is no JSON
                    return _unstorable(settlement, error)
            case HandedBack(task_id, token):
                return Settlement(
                    task_id, token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=self._now()
                )
            case Failed():
                return self._failure(outcome)

    def _failure(self, failed: Failed) -> Settlement:
        now = self._now()
        lease = self._leases.get(failed.task_id, failed.lease_token)
        attempt, allowed = (lease.attempt, lease.allowed) if lease else (0, 1)
        decision = retry.decide(
            attempt=attempt, allowed=allowed, retryable=failed.retryable, delays_s=self._policy.retry_delays_s, now=now
        )
        status, at = (Status.QUEUED, decision.at) if isinstance(decision, retry.RetryAt) else (Status.FAILED, None)
        return Settlement(
            failed.task_id, failed.lease_token, status, "FAILED",
            available_at=at, error_code=failed.error_code, error_message=failed.message,
        )  # fmt: skip

    def _lease_granted(self, row: GrantedRow, worker: Worker, now: float) -> Lease:
        return Lease(
            row.task_id, row.lease_token, worker.worker_id, row.task_type, row.priority, row.tenant_id, row.queued_at,
            row.attempt, row.max_attempts, now + self._policy.lease_s, now + self._policy.timeouts_s(row.task_type)[1],
        )  # fmt: skip

    def _lease_of(self, row: RunningRow, expires_at: float) -> Lease:
        return Lease(
            row.task_id, row.lease_token, row.worker_id, row.task_type, row.priority, row.tenant_id, row.queued_at,
            row.attempt, row.max_attempts, expires_at, row.started_at + self._policy.timeouts_s(row.task_type)[1],
        )  # fmt: skip

    def _grant_of(self, row: GrantedRow) -> Grant:
        return Grant(
            row.task_id, row.lease_token, row.tenant_id, row.task_type, row.priority, row.attempt, row.payload,
            *self._policy.timeouts_s(row.task_type), row.request_id, row.trace_id,
        )  # fmt: skip

    def _depth(self, task_type: str, priority: int) -> int:
        return self._lanes[task_type].depth(priority) + self._windows[task_type].beyond(priority)

    def _measure_granted(self, rows: list[GrantedRow], now: float) -> None:
        kinds = {(row.task_type, row.priority) for row in rows}
        waits = {kind: self.measured["flik_queue_wait_seconds"].labels(kind[0], str(kind[1])) for kind in kinds}
        for row in rows:
            waits[row.task_type, row.priority].observe(max(0.0, now - row.queued_at))

    def _measure_settled(self, ended: list[tuple[Settlement, TaskView]], now: float) -> None:
        """Count a batch, each combination of labels once: a lookup of labels costs more than the rest."""
        counts: Counter[tuple[str, ...]] = Counter()
        for settlement, view in ended:
            attempt = str(min(view.attempt + settlement.uncounted, 10))
            counts["flik_attempts", view.task_type, attempt, settlement.outcome] += 1
            if view.status == Status.COMPLETED:
                counts["flik_tasks_completed", view.task_type, view.version or ""] += 1
            elif view.status == Status.FAILED:
                counts["flik_tasks_failed", view.task_type, settlement.error_code or ""] += 1
        for (name, *labels), count in counts.items():
            self.measured[name].labels(*labels).inc(count)
        seconds = {view.task_type: self.measured["flik_run_seconds"].labels(view.task_type) for _, view in ended}
        for _, view in ended:
            seconds[view.task_type].observe(max(0.0, now - (view.started_at or now)))

    def _measure_levels(self) -> None:
        now = self._now()
        for name in self._lanes:
            for priority in Priority:
                depth = self._depth(name, priority)
                self.measured["flik_queue_depth"].labels(name, str(int(priority))).set(depth)
            self.measured["flik_tasks_running"].labels(name).set(self._leases.running(name))
        self.measured["flik_workers"].clear()
        slots = dict.fromkeys(self._lanes, 0)
        for present in self._present.values():
            if present.heard_at > now - self._policy.lease_s:
                worker = present.worker
                self.measured["flik_workers"].labels(worker.task_type, worker.version).inc()
                slots[worker.task_type] = slots.get(worker.task_type, 0) + present.slots
        for name, count in slots.items():
            self.measured["flik_worker_slots"].labels(name).set(count)


def _ticket_of(view: TaskView) -> Ticket:
    return Ticket(view.task_id, view.tenant_id, view.task_type, view.priority, view.created_at, view.available_at)


def _lost(lease: Lease, decision: retry.Decision) -> Settlement:
    message = f"worker {lease.worker_id} fell silent during attempt {lease.attempt}"
    if isinstance(decision, retry.RetryAt):
        return Settlement(
            lease.task_id, lease.token, Status.QUEUED, "LOST",
            available_at=decision.at, error_code="worker_lost", error_message=message,
        )  # fmt: skip
    return Settlement(
        lease.task_id, lease.token, Status.FAILED, "LOST", error_code="worker_lost", error_message=message
    )


def _timed_out(lease: Lease, hard_timeout_s: float) -> Settlement:
    message = f"the attempt ran longer than the hard timeout of {hard_timeout_s:g} s"
    return Settlement(
        lease.task_id, lease.token, Status.FAILED, "TIMED_OUT", error_code="run_timeout", error_message=message
    )


def _unstorable(settlement: Settlement, error: Exception) -> Settlement:
    no_files: tuple[StoredArtifact, ...] = ()
    return settlement._replace(
        status=Status.FAILED, outcome="FAILED", uncounted=False, available_at=None, result=None,
        error_code="result_not_storable", error_message=type(error).__name__, artifacts=no_files,
    )  # fmt: skip


def _in_background(ending: Coroutine[Any, Any, None]) -> None:
    """Run a settlement of the queue's own, which nobody waits for."""
    task = asyncio.create_task(ending)
    _BACKGROUND.add(task)
    task.add_done_callback(_BACKGROUND.discard)


_BACKGROUND: set[asyncio.Task[None]] = set()


_T = TypeVar("_T")


async def _until_available(ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(_PAUSE_S)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event. Not with `wait_for`: before Python 3.12 it may swallow a cancel, and a loop would live on."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
