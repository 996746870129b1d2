"""Dags in a dictionary, beside the tasks of `memory_store`: what `flik/storage/dags.py` does on PostgreSQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uuid_utils import uuid7

from flik.domain.dag import progress
from flik.domain.dag.graph import DagFilter, DagView, NewDag, StepView
from flik.domain.dag.log import DagHistory, EndedRound, EndedStep
from flik.domain.dag.progress import DagEnd, DagStatus, StepState
from flik.domain.task import TERMINAL, NewTask, Requeued, Status, TaskView
from flik.storage.dags import Advanced, DagMoved, Stopped

if TYPE_CHECKING:
    from memory_store import Row


@dataclass(slots=True)
class DagRow:
    """One dag. `task_ids` are those of its steps now, by place; `past` those that a resume replaced."""

    dag: NewDag
    task_ids: list[str]
    seq: int = 1
    status: DagStatus = DagStatus.RUNNING
    completed_at: float | None = None
    deadline_at: float | None = None
    end: DagEnd | None = None
    round: int = 1
    ended_seq: dict[str, int] = field(default_factory=dict)
    past: list[str] = field(default_factory=list)
    rounds: list[EndedRound] = field(default_factory=list)


class MemoryDags:
    """The dags, and what moves them: `DagStore`, too.

    `add` stores a task, `show` returns it as readers see it, `forget` has nobody reuse what it made.
    """

    def __init__(
        self,
        rows: dict[str, Row],
        add: Callable[[NewTask], Row],
        show: Callable[[Row], TaskView],
        forget: Callable[[str], None],
    ) -> None:
        self.dags: dict[str, DagRow] = {}
        self._rows = rows
        self._add = add
        self._show = show
        self._forget = forget
        self._names: dict[str, str] = {}  # the steps of tasks that a resume made

    async def insert(self, dags: Sequence[NewDag]) -> None:
        for dag in dags:
            self.put(dag)

    def put(self, dag: NewDag) -> None:
        if dag.dag_id in self.dags:
            return
        self.dags[dag.dag_id] = DagRow(dag, [task.task_id for task in dag.tasks], deadline_at=dag.deadline_at)
        for task in dag.tasks:
            self._add(task)

    async def get(self, dag_id: str) -> DagView | None:
        row = self.dags.get(dag_id)
        return self._view(row) if row else None

    async def find(self, wanted: DagFilter) -> list[DagView]:
        found = [self._view(row)._replace(steps=()) for row in self.dags.values()]
        after = wanted.before_id or "~"
        return [
            view
            for view in sorted(found, key=lambda view: view.dag_id, reverse=True)
            if view.dag_id < after
            and wanted.tenant_id in (None, view.tenant_id)
            and wanted.status in (None, view.status)
            and (wanted.created_from is None or view.created_at >= wanted.created_from)
            and (wanted.created_until is None or view.created_at < wanted.created_until)
        ][: wanted.limit]

    async def forget(self, task_id: str) -> None:
        self._forget(task_id)

    def parents_of(self, task_id: str) -> list[str]:
        dag_id = self._rows[task_id].task.dag_id
        dag = None if dag_id is None else self.dags[dag_id]
        if dag is None or task_id not in dag.task_ids:
            return []
        return [dag.task_ids[place] for place in dag.dag.steps[dag.task_ids.index(task_id)].parents]

    def _view(self, row: DagRow) -> DagView:
        dag, end = row.dag, row.end
        steps = tuple(
            StepView(step.step_id, step.parents, step.on_failure, self._show(self._rows[task_id]))
            for step, task_id in zip(dag.steps, row.task_ids, strict=True)
        )
        return DagView(
            dag.dag_id, dag.tenant_id, row.status.value, dag.priority, dag.region, dag.created_at, row.completed_at,
            row.deadline_at, None if dag.metadata is None else json.loads(dag.metadata), end and end.error_code,
            end and end.error_message, end and end.step_id, Counter(step.task.status for step in steps), steps,
        )  # fmt: skip

    def history(self, dag_id: str) -> DagHistory | None:
        row = self.dags.get(dag_id)
        if row is None:
            return None
        names = {step.task.task_id: step.step_id for step in row.dag.steps}
        ended = []
        for task_id, seq in sorted(row.ended_seq.items(), key=lambda item: item[1]):
            task = self._rows[task_id]
            step_id = names.get(task_id) or self._names[task_id]
            assert task.completed_at is not None
            how = (task.status.value, task.completed_at, task.error_code, task.error_message)
            ended.append(EndedStep(seq, step_id, task_id, *how))
        return DagHistory(self._view(row)._replace(steps=()), row.seq, ended, list(row.rounds))

    def open_steps(self, dag_id: str) -> list[Row]:
        rows = [self._rows[task_id] for task_id in self.dags[dag_id].task_ids]
        return [row for row in rows if row.status not in TERMINAL]

    def states(self, dag_id: str) -> list[StepState]:
        dag = self.dags[dag_id]
        found = []
        for task_id, step in zip(dag.task_ids, dag.dag.steps, strict=True):
            row = self._rows[task_id]
            found.append(
                StepState(step.step_id, row.status, step.parents, step.on_failure, row.error_code, row.error_message)
            )
        return found

    def advance(self, dag_ids: Sequence[str], now: float, *, cancelled: bool = False) -> Advanced:
        all_of = [self._advance(dag_id, now, cancelled=cancelled) for dag_id in sorted(set(dag_ids))]
        return Advanced(*(tuple(each for one in all_of for each in one[place]) for place in range(3)))

    def _advance(self, dag_id: str, now: float, *, cancelled: bool) -> Advanced:
        dag = self.dags[dag_id]
        if dag.status is not DagStatus.RUNNING:
            return Advanced()
        moves = progress.advance(self.states(dag_id), cancelled=cancelled)
        released = [self._release(dag, place, now) for place in moves.released]
        stopped = [self._stop(dag.task_ids[place], stop, now) for place, stop in moves.stopped.items()]
        before = dag.seq
        for task_id in dag.task_ids:
            if task_id not in dag.ended_seq and self._rows[task_id].status in TERMINAL:
                dag.seq += 1
                dag.ended_seq[task_id] = dag.seq
        if moves.end is not None:
            dag.seq += 1
            dag.status, dag.end, dag.completed_at = moves.end.status, moves.end, now
        moved = [DagMoved(dag_id, dag.dag.tenant_id, dag.seq, moves.end)] if dag.seq > before else []
        return Advanced(released, stopped, moved)

    def _release(self, dag: DagRow, place: int, now: float) -> Requeued:
        row, step = self._rows[dag.task_ids[place]], dag.dag.steps[place]
        within = None if step.start_within_s is None else now + step.start_within_s
        row.status, row.available_at, row.released_at = Status.QUEUED, now, now
        row.start_deadline_at = min((at for at in (within, dag.deadline_at) if at is not None), default=None)
        row.seq += 1
        row.check()
        return Requeued(row.seq, row.ticket)

    def _stop(self, task_id: str, stop: progress.Stop, now: float) -> Stopped:
        row = self._rows[task_id]
        row.error_code, row.error_message = stop
        ended = row.end(Status.CANCELLED, now)
        return Stopped(task_id, ended.tenant_id, row.task.task_type, ended.seq, *stop)

    def resume(self, dag_id: str, now: float) -> list[Requeued]:
        dag = self.dags[dag_id]
        waiting = []
        for place, status in progress.ready_again(self.states(dag_id)).items():
            old = self._rows[dag.task_ids[place]]
            task = old.task._replace(
                task_id=str(uuid7()), created_at=now, waits=status is Status.PENDING, start_deadline_at=None
            )
            row = self._add(task)
            row.max_attempts = old.max_attempts
            within = dag.dag.steps[place].start_within_s
            row.start_deadline_at = now + within if within is not None and not task.waits else None
            dag.past.append(dag.task_ids[place])
            self._names[task.task_id] = dag.dag.steps[place].step_id
            dag.task_ids[place] = task.task_id
            if not task.waits:
                waiting.append(Requeued(1, row.ticket))
        assert dag.end
        assert dag.completed_at is not None
        code, message, step_id = dag.end.error_code or "", dag.end.error_message or "", dag.end.step_id or ""
        dag.rounds.append(EndedRound(dag.seq, dag.completed_at, code, message, step_id, now))
        dag.status, dag.end, dag.completed_at, dag.deadline_at = DagStatus.RUNNING, None, None, None
        dag.round += 1
        dag.seq += 1
        return waiting
