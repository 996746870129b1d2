"""Whatever happens in whatever order: dags keep the promises.

The world of `test_sequences.py` with random dags in it, of 1 to 30 steps: also steps and whole dags are cancelled,
failed ones resumed, and the queue dies in these statements. At every statement it must hold that no step runs, or
ran, before its parents completed, that a dag is over when its steps are and not before, and that its log has no gap.
Some steps may reuse what others made. At the end every dag must be over, with exactly those steps run that should
have, each end of a step with a cause that is known, and again when those that failed have been resumed.

`FLIK_DAG_SEQUENCES` says how many sequences are tried, each with one dag at least; without it 500, and 2,000 in the
long form (`make chaos`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import new_task, task_id_at, ticket_of
from memory_dags import DagRow
from memory_store import Row
from queue_scene import turn
from test_sequences import NAMES, STEPS, TYPES, WORKERS, WatchedStore, World

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.dag.progress import PARENT_FAILED, PARENT_SKIPPED, DagStatus
from flik.domain.task import TERMINAL, Completed, Failed, Grant, Outcome, Status, Ticket, Worker
from flik.errors import Unavailable
from flik.pipeline import schedule
from flik.pipeline.queue import loops, reap, settle
from flik.storage.queue import GrantedRow

SEQUENCES = int(os.environ.get("FLIK_DAG_SEQUENCES") or (2_000 if os.environ.get("FLIK_CHAOS") == "long" else 500))
MOST_STEPS = 30
MOST_DAGS = 4  # in one sequence
STOPPED = (PARENT_FAILED, PARENT_SKIPPED)
CALLS = ("grant", "find_made", "settle", "remember", "expire", "late_dags", "scan_recent", "scan_waiting")
LOST_AFTER_S = 3.0  # a lease
TIMED_OUT_AFTER_S = 1800.0


class DagsWatchedStore(WatchedStore):
    """Checks of dags, too, what must hold at every statement."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.completed_as: dict[tuple[str, int], str] = {}  # (dag, place) -> the one task of the step that completed

    async def grant(self, picks: Sequence[tuple[Ticket, str, Worker]], now: float) -> list[GrantedRow]:
        rows = await super().grant(picks, now)
        for row in rows:
            if row.dag_id is not None:
                self._check_outputs(row, self.dags.dags[row.dag_id])
        return rows

    def _check_outputs(self, row: GrantedRow, dag: DagRow) -> None:
        """A step is given what its parents made, in their order."""
        if row.task_id not in dag.task_ids:  # its queue died in this grant, and the dag has been resumed since
            return
        parents = dag.dag.steps[dag.task_ids.index(row.task_id)].parents
        made = [(each["step_id"], each["text"]) for each in json.loads(row.outputs or "[]")]
        texts = [json.loads(self.rows[dag.task_ids[place]].result or "{}")["text"] for place in parents]
        assert made == [(dag.dag.steps[place].step_id, text) for place, text in zip(parents, texts, strict=True)]

    async def _leave(self, call: str) -> None:
        for dag in self.dags.dags.values():
            self._check_dag(dag)
        await super()._leave(call)

    def _check_dag(self, dag: DagRow) -> None:
        rows = [self.rows[task_id] for task_id in dag.task_ids]
        completed = [row.status is Status.COMPLETED for row in rows]
        for place, (step, row) in enumerate(zip(dag.dag.steps, rows, strict=True)):
            may_run = all(completed[parent] for parent in step.parents)
            assert may_run or row.attempt == 0, "it ran before its parents had completed"
            assert may_run or row.status in (Status.PENDING, Status.CANCELLED), "it waits for a worker too early"
            assert not may_run or row.status is not Status.PENDING, "nothing would release it"
            if completed[place]:
                task_id = self.completed_as.setdefault((dag.dag.dag_id, place), row.task.task_id)
                assert task_id == row.task.task_id, "it completed twice"
        assert (dag.status in tuple(DagStatus)[1:]) == all(row.status in TERMINAL for row in rows)
        self._check_dag_log(dag)

    def _check_dag_log(self, dag: DagRow) -> None:
        """One number for its submit, one for each end of a step and of itself, one for each resume."""
        is_over = dag.status is not DagStatus.RUNNING
        assert dag.seq == 1 + len(dag.ended_seq) + 2 * (dag.round - 1) + is_over
        assert len(set(dag.ended_seq.values())) == len(dag.ended_seq)
        told = {task_id for task_id in (*dag.task_ids, *dag.past) if self.rows[task_id].status in TERMINAL}
        assert told == set(dag.ended_seq)


class DagWorld(World):
    """The queue, its callers, who submit dags, too, and its workers."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self.store = DagsWatchedStore(self)
        self.queue = self._queue()
        self.submitted: list[str] = []
        self.cancels_asked: set[str] = set()  # of dags and tasks, whatever was answered
        self.failures: set[tuple[str, str]] = set()  # what workers reported: (task, error code)
        self.completions: set[str] = set()
        self.cancelled_dags: set[str] = set()

    def _dag_by(self, a: int, b: int, status: DagStatus = DagStatus.RUNNING) -> DagRow | None:
        """Choose a dag: mostly one of this status."""
        dags = [self.store.dags.dags[dag_id] for dag_id in self.submitted]
        dags = [dag for dag in dags if dag.status is status] if a % 4 else dags
        return dags[(a * 12 + b) % len(dags)] if dags else None

    # ---- callers

    async def submit_dag(self, a: int, b: int) -> None:
        if len(self.submitted) == MOST_DAGS:
            return
        dag = random_dag(random.Random(f"{a} {b} {len(self.submitted)}"), self.clock())
        try:
            await self.store._enter("insert")
            await self.store.dags.insert([dag])
            await self.store._leave("insert")
        except Unavailable:
            if dag.dag_id not in self.store.dags.dags:
                return
        self.submitted.append(dag.dag_id)
        self.acknowledged += [task.task_id for task in dag.tasks]
        if b % 4:
            await self.queue.announce([ticket_of(task) for task in dag.tasks if not task.waits])

    async def _cancel(self, task_id: str) -> None:
        self.cancels_asked.add(task_id)
        await super()._cancel(task_id)

    async def _report(self, outcomes: list[Outcome]) -> bool:
        self.failures |= {(each.task_id, each.error_code) for each in outcomes if isinstance(each, Failed)}
        return await super()._report(outcomes)

    def _completion(self, grant: Grant) -> Completed:
        self.completions.add(grant.task_id)
        return super()._completion(grant)

    async def cancel_step(self, a: int, b: int) -> None:
        dag = self._dag_by(a, b)
        if dag:
            await self._cancel(dag.task_ids[(a * 12 + b) % len(dag.task_ids)])

    async def cancel_dag(self, a: int, b: int) -> None:
        dag = self._dag_by(a, b)
        if dag is None:
            return
        self.cancels_asked.add(dag.dag.dag_id)
        try:
            moved = await self.queue.cancel_dag(dag.dag.dag_id)
        except Unavailable:
            return
        assert moved is not None
        assert moved.moved == (moved.before == "RUNNING")
        if moved.moved:
            self.cancelled_dags.add(dag.dag.dag_id)

    async def resume_dag(self, a: int, b: int) -> None:
        dag = self._dag_by(a, b, DagStatus.FAILED)
        if dag:
            await self._resume(dag)

    async def _resume(self, dag: DagRow) -> None:
        before, was = list(dag.task_ids), dag.status
        try:
            moved = await self.queue.resume_dag(dag.dag.dag_id)
        except Unavailable:
            return
        finally:
            self.acknowledged += [task_id for task_id in dag.task_ids if task_id not in before]
        assert moved is not None
        assert moved.moved == (was is DagStatus.FAILED)
        for old, new in zip(before, dag.task_ids, strict=True):
            assert (old == new) == (not moved.moved or self.store.rows[old].status is Status.COMPLETED)

    async def retry(self, a: int, b: int) -> None:
        """Steps go on with their dags alone."""
        if self.acknowledged:
            task_id = self.acknowledged[(a * 12 + b) % len(self.acknowledged)]
            if self.store.rows[task_id].task.dag_id is None:
                await super().retry(a, b)
                return
            try:
                moved = await self.queue.retry(task_id)
            except Unavailable:
                return
            assert moved is not None
            assert not moved.moved

    # ---- workers

    async def work(self, a: int, b: int) -> None:
        """A worker of each type runs what it can get: without it few dags would get far."""
        for worker in (a % 4, (a + 1) % 4):
            await self.lease(worker, 2)
            await self.complete_all(worker, b)

    # ---- what goes wrong

    async def crash_in_dag_statement(self, a: int, b: int) -> None:
        """The queue dies while a dag is cancelled or resumed, or a step is cancelled or expires."""
        late, gates = b % 3 == 2, (self.store.gates_before, self.store.gates_after)[b % 3 % 2]
        call = ("cancel_dag", "resume_dag", "cancel", "expire")[a % 4]
        gate = gates[call] = asyncio.Event()
        move = (self.cancel_dag, self.resume_dag, self.cancel_step, self.sweep)[a % 4]
        dying = asyncio.ensure_future(move(a, b))
        await turn()
        del gates[call]
        self.replies_were_lost |= not dying.done()
        if not late:
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
        await self.crash(a, b)
        gate.set()
        await asyncio.gather(dying, return_exceptions=True)

    async def crash_between_statements(self, a: int, b: int) -> None:
        """The queue dies at any of its statements, before or after it, as it grants, settles, reaps and reads on."""
        call, gates = CALLS[(a * 12 + b) // 2 % len(CALLS)], (self.store.gates_before, self.store.gates_after)[b % 2]
        gate = gates[call] = asyncio.Event()
        arrived = self.store.arrived[call] = asyncio.Event()
        dying = asyncio.ensure_future(self._all_that_a_queue_does())
        await asyncio.wait(
            {dying, waiting := asyncio.ensure_future(arrived.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        self.replies_were_lost |= arrived.is_set()
        for each in (dying, waiting):
            each.cancel()
        await asyncio.gather(dying, waiting, return_exceptions=True)
        del gates[call]
        await self.crash(a, b)
        gate.set()

    async def _all_that_a_queue_does(self) -> None:
        queue = self.queue
        for _ in range(3):  # what is granted completes, then its children, then theirs
            for number in range(len(WORKERS)):
                await self.ask(number, 2)
            await queue.granting.step()
            await turn()
            self._collect()
            reporting = self._go(queue.settle([self._completion(grant) for had in self.had.values() for grant in had]))
            while not reporting.done() and queue.rebuilt.is_set():
                await turn()
                await queue.settling.step()
        await queue.reaping.sweep(self.clock())
        await queue.refilling.read_pages()
        await queue.refilling.scan(self.clock())
        await queue.settling.step()

    # ---- what must hold

    def check(self) -> None:
        super().check()
        for dag_id in self.cancelled_dags:
            assert self.store.dags.dags[dag_id].status is DagStatus.CANCELLED
        if self.queue.rebuilt.is_set() and not self.replies_were_lost and self.policy.window > MOST_STEPS:
            self._check_released()

    def _check_released(self) -> None:
        """What was released or resumed waits for a worker at once; no scan has to find it.

        But for what is past its start deadline: a grant has let go of it, and the next sweep ends it, found or not.
        """
        for dag in self.store.dags.dags.values():
            for row in map(self.store.rows.__getitem__, dag.task_ids):
                is_late = row.start_deadline_at is not None and row.start_deadline_at <= self.clock()
                if row.status is Status.QUEUED and not is_late and (row.released_at is not None or dag.round > 1):
                    held = row.ticket.task_id in self.queue.waiting.lanes[row.task.task_type]
                    assert held or self.queue.waiting.is_busy(row.ticket.task_id), "nobody knows that it waits"

    def _note_completed(self, outcome: Completed) -> None:
        assert self.store.rows[outcome.task_id].task.dag_id not in self.cancelled_dags
        super()._note_completed(outcome)

    async def let_the_dust_settle(self) -> None:
        """As with tasks; each step of a chain takes a round of its own."""
        for _ in range(MOST_STEPS):
            try:
                await super().let_the_dust_settle()
                return
            except AssertionError as error:
                if not (error.args and isinstance(error.args[0], list)):
                    raise
        raise AssertionError([dag for dag in self.store.dags.dags.values() if dag.status is DagStatus.RUNNING])

    async def resume_all(self) -> None:
        """Now that all goes well, what failed is resumed."""
        for dag in list(self.store.dags.dags.values()):
            if dag.status is DagStatus.FAILED:
                await self._resume(dag)
                assert dag.status is DagStatus.RUNNING

    def check_ends(self) -> None:
        for dag in self.store.dags.dags.values():
            assert dag.status is not DagStatus.RUNNING
            self._check_steps(dag)
            assert dag.status is self._status_of(dag)

    def _check_steps(self, dag: DagRow) -> None:
        """Exactly those ran that should have: a step without a failed parent has an end of its own, and its cause."""
        rows = [self.store.rows[task_id] for task_id in dag.task_ids]
        for step, row in zip(dag.dag.steps, rows, strict=True):
            parents = [rows[place] for place in step.parents]
            if all(parent.status is Status.COMPLETED for parent in parents):
                self._check_cause(dag, step, row)
            else:
                assert (row.status, row.attempt) == (Status.CANCELLED, 0)
                assert row.error_code in (None, *STOPPED)
            assert [outcome for _, outcome in row.closed].count("COMPLETED") == (row.status is Status.COMPLETED)

    def _check_cause(self, dag: DagRow, step: NewStep, row: Row) -> None:
        """A step that may run completes, but for what was done to it."""
        task_id, out_of_attempts = row.task.task_id, row.attempt == row.max_attempts
        ran_s = (row.completed_at or 0.0) - (row.started_at or 0.0)
        if row.status is Status.CANCELLED:
            assert row.error_code not in STOPPED
            assert {task_id, dag.dag.dag_id} & self.cancels_asked
        elif row.status is Status.EXPIRED:
            assert (step.start_within_s, step.task.start_deadline_at, dag.dag.deadline_at) != (None, None, None)
            assert row.start_deadline_at is not None
            assert row.completed_at is not None
            assert row.start_deadline_at <= row.completed_at
        elif row.status is Status.FAILED:
            if row.error_code == "worker_lost":
                assert out_of_attempts
                assert ran_s >= LOST_AFTER_S
            elif row.error_code == "run_timeout":
                assert ran_s >= TIMED_OUT_AFTER_S
            else:
                assert (task_id, row.error_code) in self.failures
                assert out_of_attempts or row.error_code == "refused"
        else:
            assert row.status is Status.COMPLETED
            assert task_id in self.completions or (step.reuse and "reused" in json.loads(row.result or "{}"))

    def _status_of(self, dag: DagRow) -> DagStatus:
        """How it must have ended: the causes of all that did not complete, or the cancel."""
        rows = [self.store.rows[task_id] for task_id in dag.task_ids]
        if dag.dag.dag_id in self.cancelled_dags:
            return DagStatus.CANCELLED
        if dag.dag.dag_id in self.cancels_asked and dag.status is DagStatus.CANCELLED:
            return DagStatus.CANCELLED  # the answer was lost
        causes = [
            step.on_failure
            for step, row in zip(dag.dag.steps, rows, strict=True)
            if row.status is not Status.COMPLETED and row.error_code not in STOPPED
        ]
        return DagStatus.FAILED if "fail" in causes else DagStatus.COMPLETED


def random_dag(chance: random.Random, now: float) -> NewDag:
    """A chain, a graph with few edges or one with many; its steps stand in any order."""
    dag_id, tenant_id = task_id_at(now), f"tenant{chance.randrange(3)}"
    count = min(MOST_STEPS, chance.choice((1, 2, 3, 3, 5, 8, 12, 30)))
    chain, density = chance.random() < 0.3, chance.choice((0.05, 0.2, 0.6))
    places = chance.sample(range(count), count)
    steps: list[NewStep] = []
    for number in range(count):
        parents = [n for n in range(number) if (n == number - 1 if chain else chance.random() < density)]
        changes = {"task_type": chance.choice(TYPES), "priority": chance.randrange(3), "tenant_id": tenant_id}
        deadline_at = now + chance.choice((2.0, 20.0)) if not parents and chance.random() < 0.2 else None
        task = new_task(
            now, dag_id=dag_id, waits=bool(parents), max_attempts=chance.choice((None, 1, 2, 5)),
            start_deadline_at=deadline_at, payload=chance.choice(PAYLOADS[: 3 if parents else 2]), **changes,
        )  # fmt: skip
        within_s = chance.choice((1.0, 30.0)) if parents and chance.random() < 0.2 else None
        on_failure = chance.choice(("fail", "fail", "skip"))
        reuse = chance.random() < 0.4
        steps.append(NewStep(f"s{number}", task, tuple(places[n] for n in parents), on_failure, within_s, reuse))
    ordered = tuple(step for _, step in sorted(zip(places, steps, strict=True), key=lambda each: each[0]))
    deadline_at = now + chance.choice((10.0, 300.0)) if chance.random() < 0.2 else None
    return NewDag(dag_id, tenant_id, 1, "us-east", now, deadline_at, None, None, None, ordered)


PAYLOADS = ('{"prompt": "rain"}', '{"prompt": "snow"}', "{}")  # without a prompt it is what the parents wrote


MOVES: dict[str, tuple[int, Callable[[DagWorld, int, int], Awaitable[None]]]] = {  # with their weights
    "submit dag": (6, DagWorld.submit_dag),
    "work": (9, DagWorld.work),
    "cancel step": (1, DagWorld.cancel_step),
    "cancel dag": (1, DagWorld.cancel_dag),
    "resume dag": (3, DagWorld.resume_dag),
    "retry": (1, DagWorld.retry),
    "crash in dag statement": (2, DagWorld.crash_in_dag_statement),
    "crash between statements": (2, DagWorld.crash_between_statements),
}
ALL: dict[str, Callable[[Any, int, int], Awaitable[None]]] = {
    **{name: move for name, (_, move) in STEPS.items()},
    **{name: move for name, (_, move) in MOVES.items()},
}
ALL_NAMES = [name for name in NAMES if name != "retry"] + [
    name for name, (weight, _) in MOVES.items() for _ in range(weight)
]

move = st.tuples(st.sampled_from(ALL_NAMES), st.integers(0, 11), st.integers(0, 11))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def play(first: tuple[int, int], moves: list[tuple[str, int, int]], window: int) -> None:
    world = DagWorld(window)
    await world.start()
    try:
        for name, a, b in [("submit dag", *first), *moves]:
            await ALL[name](world, a, b)
            world.check()
        if window > 100:
            await world.check_depth()
        await world.let_the_dust_settle()
        world.check()
        world.check_ends()
        await world.resume_all()
        await world.let_the_dust_settle()
        world.check()
        world.check_ends()
    finally:
        await world.close()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("window", "share"), [(50_000, 0.8), (4, 0.2)], ids=["all in memory", "a window of four"])
def test_dags_keep_the_promises_in_every_sequence(
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
    @given(st.tuples(st.integers(0, 11), st.integers(0, 11)), st.lists(move, min_size=20, max_size=60))
    def sequence(first: tuple[int, int], moves: list[tuple[str, int, int]]) -> None:
        loop.run_until_complete(play(first, moves, window))

    sequence()
