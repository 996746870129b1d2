"""Whatever happens in whatever order: the promises hold.

Random sequences of submits, leases, beats, outcomes (also late, doubled and of dead workers),
cancels, retries, clock jumps, outages, lost replies and crashes of the queue before, during
and after a statement, all on a store in memory. Invariants are checked at every statement
and after every step; at the end everything must reach a terminal state.

`FLIK_SEQUENCES` says how many sequences are tried; 1,000 without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import Clock, new_task, ticket_of
from memory_store import MemoryStore, Row
from queue_scene import FeedFake, HotFake, turn

from flik.domain.event import STATUS_AFTER, Event, Kind, log_of
from flik.domain.task import (
    TERMINAL,
    TRANSITIONS,
    Completed,
    Failed,
    Grant,
    HandedBack,
    Outcome,
    Status,
    TaskFilter,
    Ticket,
    Worker,
)
from flik.errors import Unavailable
from flik.pipeline import schedule
from flik.pipeline.ports import Beat, LeaseReply
from flik.pipeline.queue import loops, reap, settle
from flik.pipeline.schedule import QueuePolicy, TaskQueue
from flik.storage.queue import GrantedRow

SEQUENCES = int(os.environ.get("FLIK_SEQUENCES", "1000"))
TYPES = ("TEXT", "IMAGE")
WORKERS = tuple(Worker(f"w{n}", TYPES[n % 2], "v1") for n in range(4))
JUMPS_S = (0.3, 1.0, 1.0, 2.9, 3.1, 5.0, 15.0, 60.0, 2000.0)


class WatchedStore(MemoryStore):
    """Checks at every statement what must hold at every statement."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._statuses: dict[str, Status] = {}
        self.logs: dict[str, list[Event]] = {}

    async def grant(self, picks: Sequence[tuple[Ticket, str, Worker]], now: float) -> list[GrantedRow]:
        for ticket, _, _ in picks:
            passed_over = [other for other in self._world.held(ticket.task_type) if other.priority < ticket.priority]
            assert not [each for each in passed_over if each.available_at <= now and self._waits(each)]
        return await super().grant(picks, now)

    def _waits(self, ticket: Ticket) -> bool:
        return self.rows[ticket.task_id].status is Status.QUEUED

    async def _leave(self, call: str) -> None:
        for task_id, row in self.rows.items():
            row.check()
            assert row.status is not Status.QUEUED or row.attempt < row.max_attempts, "it would wait for ever"
            before = self._statuses.get(task_id, row.status)
            assert before is row.status or row.status in TRANSITIONS[before]
            self._statuses[task_id] = row.status
            self._check_log(task_id, row)
        await super()._leave(call)

    def _check_log(self, task_id: str, row: Row) -> None:
        """Numbers have no gap, and what was in the log stays as it was."""
        before = self.logs.get(task_id, [])
        if row.seq == len(before):
            return
        log = self.logs[task_id] = log_of(self.history(row))
        assert [event.seq for event in log] == list(range(1, row.seq + 1))
        assert log[: len(before)] == before
        assert STATUS_AFTER[Kind(log[-1].kind)] is row.status


class World:
    """The queue, its callers and its workers."""

    def __init__(self, window: int) -> None:
        self.clock = Clock()
        self.hot = HotFake()
        self.feed = FeedFake()
        self.store = WatchedStore(self)
        self.policy = QueuePolicy(task_types=TYPES, ageing_s=0.0, window=window)
        self.queue = self._queue()
        self.acknowledged: list[str] = []
        self.cancelled: set[str] = set()
        self.completed: dict[str, str] = {}  # task -> the text whose completion was acknowledged
        self.had: dict[Worker, list[Grant]] = {worker: [] for worker in WORKERS}
        self.old: list[Grant] = []  # settled, revoked, or of a worker that vanished
        self.replies_were_lost = False
        self._calls: dict[Worker, asyncio.Task[LeaseReply]] = {}
        self._open: set[asyncio.Task[Any]] = set()
        self._texts = 0

    def _queue(self) -> TaskQueue:
        return TaskQueue(self.store, self.hot, self.feed, self.policy, self.clock)  # type: ignore[arg-type]  # its stand-in

    def held(self, task_type: str) -> list[Ticket]:
        return list(self.queue.waiting.lanes[task_type])

    async def start(self) -> None:
        try:
            await self.queue.rebuild()
        except Unavailable:
            await turn()

    async def close(self) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._calls.clear()

    def _go(self, call: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(call)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task

    # ---- callers

    async def submit(self, a: int, b: int) -> None:
        deadline = self.clock() + 4.0 if b == 11 else None
        place = {"tenant_id": f"tenant{b % 3}", "priority": a % 3, "task_type": TYPES[a // 3 % 2]}
        task = new_task(self.clock(), **place, start_deadline_at=deadline)
        try:
            await self.store.insert([task])
        except Unavailable:
            return
        self.acknowledged.append(task.task_id)
        if b % 4:
            await self.queue.announce([ticket_of(task)])

    async def cancel(self, a: int, b: int) -> None:
        if self.acknowledged:
            await self._cancel(self.acknowledged[(a * 12 + b) % len(self.acknowledged)])

    async def _cancel(self, task_id: str) -> None:
        try:
            moved = await self.queue.cancel(task_id)
        except Unavailable:
            return
        assert moved is not None
        if moved.moved:
            assert task_id not in self.completed
            self.cancelled.add(task_id)
        else:
            assert Status(moved.before) in TERMINAL

    async def retry(self, a: int, b: int) -> None:
        if self.acknowledged:
            task_id = self.acknowledged[(a * 12 + b) % len(self.acknowledged)]
            try:
                moved = await self.queue.retry(task_id)
            except Unavailable:
                return
            assert moved is not None
            assert moved.moved == (moved.before == "FAILED")

    async def replay(self, a: int, b: int) -> None:
        try:
            found = await self.store.dead_letters(TaskFilter(tenant_id=f"tenant{b % 3}", limit=1 + a))
            await self.queue.replay([each.task_id for each in found])
        except Unavailable:
            return

    # ---- workers

    async def ask(self, a: int, b: int) -> None:
        worker = WORKERS[a % 4]
        self._calls[worker] = self._go(self.queue.lease(worker, 1 + b % 3, 3600.0))
        await turn()

    async def lease(self, a: int, b: int) -> None:
        await self.ask(a, b)
        await self.grant(a, b)

    async def grant(self, a: int, b: int) -> None:
        await self.queue.granting.step()
        await turn()
        self._collect()

    def _collect(self) -> None:
        for worker, call in list(self._calls.items()):
            if call.done():
                del self._calls[worker]
                self.had[worker] += call.result().grants

    async def beat(self, a: int, b: int) -> None:
        worker = WORKERS[a % 4]
        held = self.had[worker]
        call = self._go(self.queue.beat(Beat(worker, 3, [(g.task_id, g.lease_token, 0.5) for g in held])))
        await turn()
        if call.done():  # it waits while the queue cannot be rebuilt
            lost = set(call.result().revoked)
            self.old += [grant for grant in held if grant.task_id in lost]
            self.had[worker] = [grant for grant in held if grant.task_id not in lost]
        else:
            call.cancel()

    async def vanish(self, a: int, b: int) -> None:
        self.old += self.had[WORKERS[a % 4]]
        self.had[WORKERS[a % 4]] = []

    async def complete(self, a: int, b: int) -> None:
        await self._settle(a, b, self._completion)

    async def complete_all(self, a: int, b: int) -> None:
        """A worker's whole hand, doubled and with old grants beside it."""
        worker = WORKERS[a % 4]
        grants, self.had[worker] = self.had[worker], []
        self.old += grants
        beside = self.old[-(b % 5) :] if b % 5 else []
        await self._report([self._completion(grant) for grant in beside + grants])

    async def fail(self, a: int, b: int) -> None:
        await self._settle(a, b, lambda g: Failed(g.task_id, g.lease_token, "overloaded", "", retryable=True))

    async def fail_for_good(self, a: int, b: int) -> None:
        await self._settle(a, b, lambda g: Failed(g.task_id, g.lease_token, "refused", "", retryable=False))

    async def hand_back(self, a: int, b: int) -> None:
        await self._settle(a, b, lambda g: HandedBack(g.task_id, g.lease_token))

    async def settle_late(self, a: int, b: int) -> None:
        """Somebody wakes with an old token, or reports a second time."""
        if self.old:
            grant = self.old[(a * 12 + b) % len(self.old)]
            failure = Failed(grant.task_id, grant.lease_token, "late", "", retryable=True)
            await self._report([failure if a % 3 == 0 else self._completion(grant)])

    def _completion(self, grant: Grant) -> Completed:
        self._texts += 1
        return Completed(grant.task_id, grant.lease_token, f"text {self._texts}")

    async def _settle(self, a: int, b: int, outcome_of: Callable[[Grant], Outcome]) -> None:
        held = self.had[WORKERS[a % 4]]
        if held:
            grant = held.pop(b % len(held))
            self.old.append(grant)
            if not await self._report([outcome_of(grant)]):
                held.append(grant)

    async def _report(self, outcomes: list[Outcome]) -> bool:
        call = self._go(self.queue.settle(outcomes))
        await self.settle_all()
        if not self.queue.rebuilt.is_set():
            call.cancel()
            return False
        assert call.done(), "a worker would wait for ever"
        try:
            answers = call.result()
        except Unavailable:
            return False
        for outcome, took_effect in zip(outcomes, answers, strict=True):
            if took_effect and isinstance(outcome, Completed):
                self._note_completed(outcome)
        return True

    def _note_completed(self, outcome: Completed) -> None:
        assert outcome.task_id not in self.completed, "two completions took effect"
        assert outcome.task_id not in self.cancelled
        row = self.store.rows[outcome.task_id]
        assert f'"{outcome.text}"' in (row.result or "")
        self.completed[outcome.task_id] = outcome.text or ""

    # ---- the queue's loops

    async def settle_all(self) -> None:
        await turn()
        while self.queue.settling.gathered:
            await self.queue.settling.step()
            await turn()

    async def wait(self, a: int, b: int) -> None:
        self.clock.forward(JUMPS_S[a % len(JUMPS_S)])
        if self.queue.rebuilt.is_set():
            self.queue.reaping.reap(self.clock())
            await self.settle_all()
            self._collect()

    async def sweep(self, a: int, b: int) -> None:
        if self.queue.rebuilt.is_set():
            await self.queue.reaping.sweep(self.clock())
            await self.settle_all()

    async def scan(self, a: int, b: int) -> None:
        try:
            if not self.queue.rebuilt.is_set():
                await self.queue.rebuild()
            await self.queue.refilling.read_pages()
            await self.queue.refilling.scan(self.clock())
        except Unavailable:
            await turn()

    # ---- what goes wrong

    async def outage(self, a: int, b: int) -> None:
        self.store.fail_before = set() if a % 2 else {"*"}

    async def lose_replies(self, a: int, b: int) -> None:
        self.replies_were_lost = True
        self.store.fail_after = set() if a % 2 else {"*"}

    async def crash(self, a: int, b: int) -> None:
        await self.close()
        self.queue = self._queue()
        await self.start()

    async def crash_in_statement(self, a: int, b: int) -> None:
        """The queue dies before the commit, after it, or its statement commits when the next queue is there."""
        await self.ask(b, a)
        late, gates = b % 3 == 2, (self.store.gates_before, self.store.gates_after)[b % 3 % 2]
        call = ("grant", "settle")[a % 2]
        gate = gates[call] = asyncio.Event()
        dying = asyncio.ensure_future(self._statement(call, a))
        await turn()
        del gates[call]
        self.replies_were_lost |= not dying.done()
        if not late:
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
        await self.crash(a, b)
        gate.set()
        await asyncio.gather(dying, return_exceptions=True)

    async def _statement(self, call: str, a: int) -> None:
        queue = self.queue
        if call == "grant":
            await queue.granting.step()
        elif self.had[WORKERS[a % 4]]:
            self._go(queue.settle([self._completion(grant) for grant in self.had[WORKERS[a % 4]]]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await queue.settling.step()

    async def cancel_in_grant(self, a: int, b: int) -> None:
        """A cancel commits while a grant is under way, before it or after it."""
        gates = (self.store.gates_before, self.store.gates_after)[b % 2]
        gate = gates["grant"] = asyncio.Event()
        granting = asyncio.ensure_future(self.queue.granting.step())
        await turn()
        for task_id in sorted(self.queue.waiting.in_grant)[: 1 + a % 2]:
            if task_id in self.acknowledged:
                await self._cancel(task_id)
        del gates["grant"]
        gate.set()
        await granting
        await turn()
        self._collect()

    # ---- what must hold

    def check(self) -> None:
        for task_id in self.cancelled:
            assert self.store.rows[task_id].status is Status.CANCELLED
        for task_id in self.completed:
            assert self.store.rows[task_id].status is Status.COMPLETED
        for task_id, view in self.hot.results.items():
            row = self.store.rows[task_id]
            assert row.status is Status.COMPLETED
            assert view.result is not None
            assert f'"{view.result["text"]}"' in (row.result or "")
        self.check_notices()

    def check_notices(self) -> None:
        """What followers are told is in the log, word for word but for what they read themselves."""
        told, self.feed.notices = self.feed.notices, []
        for tenant_id, event in told:
            if event.kind == Kind.MOVED:  # of a dag: its log is to be read
                assert tenant_id == self.store.dags.dags[event.task_id].dag.tenant_id
                continue
            assert tenant_id == self.store.rows[event.task_id].task.tenant_id
            if event.is_durable:
                logged = self.store.logs[event.task_id][event.seq - 1]
                known = {name: getattr(event, name) for name in ("attempt", "worker_id", "version")}
                assert event == logged._replace(task=None, **known)
                assert all(value in (None, getattr(logged, name)) for name, value in known.items())

    async def check_depth(self) -> None:
        """What the queue says waits is what waits, when it could hear of everything."""
        self.store.fail_before, self.store.fail_after = set(), set()
        await self.scan(0, 0)
        await self.scan(0, 0)
        stats = await self.queue.stats()
        for task_type in TYPES:
            waits = [row.task for row in self.store.rows.values() if row.status is Status.QUEUED]
            # After a lost reply the queue may believe for a while that a task runs, or waits, that does not.
            unknown = [task for task in waits if self.queue.waiting.is_busy(task.task_id)]
            held = [self.store.rows[ticket.task_id].task for ticket in self.held(task_type)]
            gone = [task for task in held if task not in waits]
            runs = sum(
                row.status is Status.PROCESSING and row.task.task_type == task_type for row in self.store.rows.values()
            )
            assert self.replies_were_lost or unknown + gone == []
            assert self.replies_were_lost or stats["types"][task_type]["running"] == runs
            depth = stats["types"][task_type]["waiting"]
            expected = [task for task in {*waits, *gone} - {*unknown} if task.task_type == task_type]
            assert depth == [sum(task.priority == level for task in expected) for level in range(3)]

    async def let_the_dust_settle(self) -> None:
        self.store.fail_before, self.store.fail_after = set(), set()
        for _ in range(60):
            self.clock.forward(3.1)
            await self.wait(1, 0)
            await self.sweep(0, 0)
            await self.scan(0, 0)
            for number in (0, 1):
                await self.lease(number, 2)
                await self.beat(number, 0)
                await self.complete_all(number, 0)
            if all(row.status in TERMINAL for row in self.store.rows.values()):
                return
        raise AssertionError([row for row in self.store.rows.values() if row.status not in TERMINAL])


STEPS: dict[str, tuple[int, Callable[[World, int, int], Awaitable[None]]]] = {  # with their weights
    "submit": (6, World.submit),
    "lease": (7, World.lease),
    "ask": (2, World.ask),
    "grant": (2, World.grant),
    "beat": (3, World.beat),
    "complete": (2, World.complete),
    "complete all": (1, World.complete_all),
    "fail": (4, World.fail),
    "fail for good": (1, World.fail_for_good),
    "hand back": (2, World.hand_back),
    "settle late": (3, World.settle_late),
    "vanish": (2, World.vanish),
    "cancel": (2, World.cancel),
    "cancel in grant": (1, World.cancel_in_grant),
    "retry": (1, World.retry),
    "replay": (1, World.replay),
    "wait": (4, World.wait),
    "sweep": (2, World.sweep),
    "scan": (2, World.scan),
    "outage": (2, World.outage),
    "lose replies": (1, World.lose_replies),
    "crash": (1, World.crash),
    "crash in statement": (1, World.crash_in_statement),
}
NAMES = [name for name, (weight, _) in STEPS.items() for _ in range(weight)]

step = st.tuples(st.sampled_from(NAMES), st.integers(0, 11), st.integers(0, 11))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One loop for all sequences: opening one takes longer than a short sequence."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def play(steps: list[tuple[str, int, int]], window: int) -> None:
    world = World(window)
    await world.start()
    try:
        for name, a, b in steps:
            await STEPS[name][1](world, a, b)
            world.check()
        if window > 100:
            await world.check_depth()
        await world.let_the_dust_settle()
        world.check()
    finally:
        await world.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("window", "share"), [(50_000, 0.8), (4, 0.2)], ids=["all in memory", "a window of four"])
def test_the_promises_hold_in_every_sequence(
    window: int, share: float, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "PAUSE_S", 0.0)
    monkeypatch.setattr("flik.domain.window.MIN_SHARE", 2)
    for part in (reap, settle, schedule):
        monkeypatch.setattr(part, "_log", logging.getLogger("quiet"))
    logging.getLogger("quiet").setLevel(logging.CRITICAL)

    @settings(
        max_examples=max(1, round(SEQUENCES * share)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(step, min_size=20, max_size=80))
    def sequence(steps: list[tuple[str, int, int]]) -> None:
        loop.run_until_complete(play(steps, window))

    sequence()
