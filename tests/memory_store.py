"""The stores of tasks in a dictionary: passes the same conformance suite as the ones on PostgreSQL.

Calls are atomic, as statements are, and can be told to fail: `before` the commit, `after` it
(it took effect, the answer is lost), or to stop at a gate there, for races.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from memory_dags import MemoryDags

from flik.domain.dag.log import DagHistory
from flik.domain.dag.memo import Made
from flik.domain.dag.progress import DagStatus
from flik.domain.event import EndedAttempt, History, Round
from flik.domain.task import (
    TERMINAL,
    DeadLetter,
    NewTask,
    Requeued,
    Status,
    StoredArtifact,
    TaskFilter,
    TaskView,
    Ticket,
    Worker,
)
from flik.domain.window import Page
from flik.errors import Unavailable
from flik.storage.conditions import first_id_at
from flik.storage.dags import Advanced
from flik.storage.queue import Cancelled, Ended, GrantedRow, RunningRow, Settled, Settlement


@dataclass(slots=True)
class Row:
    """One task. `closed` holds (lease token, outcome) of its attempts that ended."""

    task: NewTask
    max_attempts: int
    status: Status
    available_at: float
    start_deadline_at: float | None
    attempt: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    lease_token: str | None = None
    worker: Worker | None = None
    error_code: str | None = None
    error_message: str | None = None
    result: str | None = None
    artifacts: tuple[StoredArtifact, ...] = ()
    closed: list[tuple[str, str]] = field(default_factory=list)
    seq: int = 1
    ended: list[EndedAttempt] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    released_at: float | None = None

    def end_attempt(self, token: str, outcome: str, now: float, *, attempt: int) -> None:
        """Note how an attempt ended, with the number that `seq` is now."""
        assert self.worker and self.started_at is not None
        self.closed.append((token, outcome))
        again_at = self.available_at if self.status is Status.QUEUED else None
        self.ended.append(
            EndedAttempt(
                self.seq, attempt, self.worker.worker_id, self.worker.version, self.started_at, now, outcome, again_at,
                self.error_code, self.error_message,
            )
        )  # fmt: skip

    def end(self, status: Status, now: float) -> Ended:
        """End without an outcome: cancelled or expired."""
        token, self.status, self.completed_at, self.lease_token = self.lease_token, status, now, None
        self.seq += 1
        ended = Ended(self.task.task_id, self.task.tenant_id, self.seq)
        if token and self.worker:
            self.end_attempt(token, status.value, now, attempt=self.attempt)
            ended = Ended(*ended[:3], self.attempt, self.worker.worker_id, self.worker.version)
        self.check()
        return ended

    @property
    def ticket(self) -> Ticket:
        task = self.task
        return Ticket(task.task_id, task.tenant_id, task.task_type, task.priority, task.created_at, self.available_at)

    @property
    def place(self) -> tuple[str, int, str, str]:
        return (self.task.task_type, self.task.priority, self.task.tenant_id, self.task.task_id)

    def view(self) -> TaskView:
        task, worker = self.task, self.worker
        return TaskView(
            task.task_id, task.tenant_id, task.task_type, task.priority, task.region, self.status.value, self.attempt,
            self.max_attempts, task.created_at, self.available_at, self.start_deadline_at, self.started_at,
            self.completed_at, worker.worker_id if worker else None, worker.version if worker else None,
            self.error_code, self.error_message, task.request_id, task.dag_id,
        )  # fmt: skip

    def check(self) -> None:
        """Hold what the CHECKs of the table hold."""
        assert 0 <= self.attempt <= self.max_attempts
        assert (self.lease_token is not None) == (self.status is Status.PROCESSING)
        assert (self.completed_at is not None) == (self.status in TERMINAL)
        assert (self.result is not None) == (self.status is Status.COMPLETED)
        assert self.status is not Status.FAILED or self.error_code is not None


class MemoryStore:
    """Both stores in one. `calls` counts calls by name."""

    def __init__(self, region: str = "us-east", *, max_attempts: int = 4) -> None:
        self.rows: dict[str, Row] = {}
        self.dags = MemoryDags(self.rows, self._add, self._whole, self._forget_made)
        self.memos: dict[tuple[str, str], str] = {}
        self.calls: Counter[str] = Counter()
        self.fail_before: set[str] = set()  # these calls raise and do nothing; "*" for all
        self.fail_after: set[str] = set()  # these calls take effect and raise
        self.gates_before: dict[str, asyncio.Event] = {}  # these calls wait here before they take effect
        self.gates_after: dict[str, asyncio.Event] = {}
        self.arrived: dict[str, asyncio.Event] = {}  # set when a call has come to its gate
        self._region = region
        self._max_attempts = max_attempts

    # ---- TaskStore

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        await self._enter("insert")
        for task in tasks:
            self._add(task)
        await self._leave("insert")

    def _add(self, task: NewTask) -> Row:
        status = Status.PENDING if task.waits else Status.QUEUED
        row = Row(task, task.max_attempts or self._max_attempts, status, task.created_at, task.start_deadline_at)
        return self.rows.setdefault(task.task_id, row)

    async def get(self, task_id: str) -> TaskView | None:
        row = self.rows.get(task_id)
        return self._whole(row) if row else None

    async def find(self, wanted: TaskFilter) -> list[TaskView]:
        await self._enter("find")
        found = sorted((row for row in self.rows.values() if _matches(row, wanted)), key=_id, reverse=True)
        return [self._whole(row) for row in found[: wanted.limit]]

    async def dead_letters(self, wanted: TaskFilter) -> list[DeadLetter]:
        wanted = replace(wanted, status="FAILED")
        found = sorted(
            (row for row in self.rows.values() if _matches(row, wanted) and row.task.dag_id is None), key=_id
        )[: wanted.limit]
        return [DeadLetter(_id(row), row.task.tenant_id, row.task.task_type, row.task.priority) for row in found]

    # ---- HistoryStore

    async def read(self, task_id: str) -> History | None:
        await self._enter("read")
        row = self.rows.get(task_id)
        history = self.history(row) if row else None
        await self._leave("read")
        return history

    def history(self, row: Row) -> History:
        return History(self._whole(row), row.seq, list(row.ended), list(row.rounds), row.task.waits, row.released_at)

    async def read_dag(self, dag_id: str) -> DagHistory | None:
        await self._enter("read_dag")
        history = self.dags.history(dag_id)
        await self._leave("read_dag")
        return history

    async def positions(self, ids: Sequence[str]) -> dict[str, int]:
        await self._enter("positions")
        found = {task_id: self.rows[task_id].seq for task_id in ids if task_id in self.rows}
        found |= {dag_id: self.dags.dags[dag_id].seq for dag_id in ids if dag_id in self.dags.dags}
        await self._leave("positions")
        return found

    # ---- QueueStore

    async def grant(self, picks: Sequence[tuple[Ticket, str, Worker]], now: float) -> list[GrantedRow]:
        await self._enter("grant")
        granted = []
        for ticket, token, worker in picks:
            row = self.rows.get(ticket.task_id)
            if row and row.status is Status.QUEUED and row.attempt < row.max_attempts and not _expired(row, now):
                row.status, row.lease_token, row.worker, row.started_at = Status.PROCESSING, token, worker, now
                row.attempt += 1
                row.seq += 1
                row.check()
                granted.append(_granted(row, token)._replace(**self._of_step(row)))
        await self._leave("grant")
        return granted

    def _of_step(self, row: Row) -> dict[str, Any]:
        """What a grant tells of a step: what its parents made, and whether it may reuse something."""
        if row.task.dag_id is None:
            return {}
        dag = self.dags.dags[row.task.dag_id]
        step = dag.dag.steps[dag.task_ids.index(row.task.task_id)]
        parents = [(dag.dag.steps[place].step_id, self.rows[dag.task_ids[place]]) for place in step.parents]
        outputs = [
            {"step_id": step_id, **json.loads(parent.result or "{}"), "artifacts": list(map(_made, parent.artifacts))}
            for step_id, parent in parents
        ]
        return {"outputs": json.dumps(outputs) if parents else None, "reuse": step.reuse}

    async def reusing(self) -> list[tuple[GrantedRow, str]]:
        await self._enter("reusing")
        found = []
        for row in self.rows.values():
            if row.status is Status.PROCESSING and self._ours(row) and row.lease_token and row.worker:
                granted = _granted(row, row.lease_token)._replace(**self._of_step(row))
                if granted.reuse:
                    found.append((granted, row.worker.version))
        await self._leave("reusing")
        return found

    async def find_made(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Made]:
        await self._enter("find_made")
        found = {}
        for place in places:
            row = self.rows.get(self.memos.get(place, ""))
            if row and row.status is Status.COMPLETED:
                assert row.result is not None
                ran_s = (row.completed_at or 0.0) - (row.started_at or 0.0)
                found[place] = Made(row.task.task_id, row.result, row.artifacts, ran_s)
        await self._leave("find_made")
        return found

    async def remember(self, made: Sequence[tuple[str, str, str]]) -> None:
        await self._enter("remember")
        for tenant_id, key, task_id in made:
            self.memos[tenant_id, key] = task_id
        await self._leave("remember")

    async def forget(self, steps: Sequence[str]) -> None:
        await self._enter("forget")
        for task_id in steps:
            for parent in self.dags.parents_of(task_id):
                result = json.loads(self.rows[parent].result or "{}")
                self._forget_made(result.get("reused", {}).get("from", parent))
        await self._leave("forget")

    def _forget_made(self, task_id: str) -> None:
        for place in [place for place, maker in self.memos.items() if maker == task_id]:
            del self.memos[place]

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        await self._enter("settle")
        moved = self._settle(settlements, now)
        await self._leave("settle")
        return moved

    def _settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        if any("\\u0000" in (s.result or "") or "\0" in (s.error_message or "") for s in settlements):
            raise ValueError("unsupported Unicode escape sequence")
        moved = []
        for s in settlements:
            row = self.rows.get(s.task_id)
            if row and row.status is Status.PROCESSING and row.lease_token == s.lease_token:
                _settle(row, s, now)
                moved.append(_settled(row))
        return moved

    async def dags_of(self, task_ids: Sequence[str]) -> set[str]:
        await self._enter("dags_of")
        found = {self.rows[task_id].task.dag_id for task_id in task_ids if task_id in self.rows}
        await self._leave("dags_of")
        return {dag_id for dag_id in found if dag_id is not None}

    async def settle_steps(
        self, settlements: Sequence[Settlement], now: float, dag_ids: Collection[str]
    ) -> tuple[list[Settled], Advanced]:
        await self._enter("settle")
        moved = self._settle(settlements, now)
        advanced = self.dags.advance(list(dag_ids), now)
        await self._leave("settle")
        return moved, advanced

    async def cancel(self, task_id: str, now: float) -> tuple[Status, Ended | None] | None:
        await self._enter("cancel")
        found = self._cancel(task_id, now)
        await self._leave("cancel")
        return found

    def _cancel(self, task_id: str, now: float) -> tuple[Status, Ended | None] | None:
        row = self.rows.get(task_id)
        if row is None:
            return None
        before = row.status
        return before, None if before in TERMINAL else row.end(Status.CANCELLED, now)

    async def cancel_step(
        self, task_id: str, now: float, dag_ids: Collection[str]
    ) -> tuple[tuple[Status, Ended | None] | None, Advanced]:
        await self._enter("cancel")
        found = self._cancel(task_id, now)
        advanced = self.dags.advance(list(dag_ids), now)
        await self._leave("cancel")
        return found, advanced

    async def cancel_dag(self, dag_id: str, now: float) -> tuple[DagStatus, Cancelled | None] | None:
        await self._enter("cancel_dag")
        dag = self.dags.dags.get(dag_id)
        found: tuple[DagStatus, Cancelled | None] | None = None
        if dag:
            before, cancelled = dag.status, None
            if before is DagStatus.RUNNING:
                ended = [row.end(Status.CANCELLED, now) for row in self.dags.open_steps(dag_id)]
                cancelled = Cancelled(ended, self.dags.advance([dag_id], now, cancelled=True))
            found = (before, cancelled)
        await self._leave("cancel_dag")
        return found

    async def resume_dag(self, dag_id: str, now: float) -> tuple[DagStatus, Sequence[Requeued]] | None:
        await self._enter("resume_dag")
        dag = self.dags.dags.get(dag_id)
        found: tuple[DagStatus, Sequence[Requeued]] | None = None
        if dag:
            found = (dag.status, self.dags.resume(dag_id, now) if dag.status is DagStatus.FAILED else ())
        await self._leave("resume_dag")
        return found

    async def retry(self, task_id: str, attempts: int, now: float) -> tuple[Status, Requeued | None] | None:
        await self._enter("retry")
        row = self.rows.get(task_id)
        found = None
        if row:
            retried = row.status is Status.FAILED and row.task.dag_id is None
            found = (row.status, _requeue(row, attempts, now) if retried else None)
        await self._leave("retry")
        return found

    async def replay(self, task_ids: Sequence[str], attempts: int, now: float) -> list[Requeued]:
        await self._enter("replay")
        found = [self.rows[task_id] for task_id in dict.fromkeys(task_ids) if task_id in self.rows]
        tickets = [
            _requeue(row, attempts, now) for row in found if row.status is Status.FAILED and row.task.dag_id is None
        ]
        await self._leave("replay")
        return tickets

    async def expire(self, limit: int, now: float) -> list[Ended]:
        await self._enter("expire")
        ended = self._expire(limit, now, (None,))
        await self._leave("expire")
        return ended

    def _expire(self, limit: int, now: float, dag_ids: Collection[str | None]) -> list[Ended]:
        late = [row for row in self._waiting() if _expired(row, now) and row.task.dag_id in dag_ids]
        return [row.end(Status.EXPIRED, now) for row in sorted(late, key=_deadline)[:limit]]

    async def late_dags(self, limit: int, now: float) -> list[str]:
        await self._enter("late_dags")
        late = {row.task.dag_id for row in self._waiting() if _expired(row, now) and row.task.dag_id is not None}
        await self._leave("late_dags")
        return sorted(each for each in late if each)[:limit]

    async def expire_steps(self, limit: int, now: float, dag_ids: Collection[str]) -> tuple[list[Ended], Advanced]:
        await self._enter("expire")
        ended = self._expire(limit, now, (None, *dag_ids))
        advanced = self.dags.advance(list(dag_ids), now)
        await self._leave("expire")
        return ended, advanced

    async def backlogs(self) -> list[tuple[str, int, str, int]]:
        await self._enter("backlogs")
        counts = Counter(row.place[:3] for row in self._waiting())
        await self._leave("backlogs")
        return [(*place, rows) for place, rows in counts.items()]

    async def pages(self, task_type: str, pages: Sequence[Page]) -> list[list[Ticket]]:
        await self._enter("pages")
        found = [self._page(task_type, page) for page in pages]
        await self._leave("pages")
        return found

    def _page(self, task_type: str, page: Page) -> list[Ticket]:
        found = sorted((row for row in self._waiting() if row.place[:3] == (task_type, *page.key)), key=_id)
        return [row.ticket for row in found if _id(row) > page.after][: page.limit]

    async def scan_recent(self, after: str, limit: int) -> list[Ticket]:
        await self._enter("scan_recent")
        tickets = [row.ticket for row in sorted(self._waiting(), key=_id) if _id(row) > after][:limit]
        await self._leave("scan_recent")
        return tickets

    async def scan_waiting(self, after: Ticket | None, limit: int) -> list[Ticket]:
        await self._enter("scan_waiting")
        start = (after.task_type, after.priority, after.tenant_id, after.task_id) if after else ("", 0, "", "")
        found = sorted((row for row in self._waiting() if row.place > start), key=lambda row: row.place)
        await self._leave("scan_waiting")
        return [row.ticket for row in found[:limit]]

    async def running(self) -> list[RunningRow]:
        await self._enter("running")
        rows = [_running(row) for row in self.rows.values() if row.status is Status.PROCESSING and self._ours(row)]
        await self._leave("running")
        return rows

    # ---- small parts

    def _waiting(self) -> list[Row]:
        return [row for row in self.rows.values() if row.status is Status.QUEUED and self._ours(row)]

    def _ours(self, row: Row) -> bool:
        return row.task.region == self._region

    def _whole(self, row: Row) -> TaskView:
        result = json.loads(row.result) if row.result else None
        return row.view()._replace(result=result, artifacts=tuple(sorted(row.artifacts, key=lambda file: file.index)))

    async def _enter(self, call: str) -> None:
        self.calls[call] += 1
        await self._pass(self.gates_before, call)
        if self.fail_before & {call, "*"}:
            raise Unavailable("postgresql")

    async def _leave(self, call: str) -> None:
        await self._pass(self.gates_after, call)
        if self.fail_after & {call, "*"}:
            raise Unavailable("postgresql")

    async def _pass(self, gates: dict[str, asyncio.Event], call: str) -> None:
        gate = gates.get(call)
        if gate is not None:
            self.arrived.setdefault(call, asyncio.Event()).set()
            await gate.wait()


def _made(file: StoredArtifact) -> dict[str, Any]:
    """What a child is told of a file: how often it was sent is no part of it."""
    return {name: value for name, value in asdict(file).items() if name != "upload_attempts"}


def _id(row: Row) -> str:
    return row.task.task_id


def _deadline(row: Row) -> float:
    return row.start_deadline_at or 0.0


def _expired(row: Row, now: float) -> bool:
    return row.started_at is None and row.start_deadline_at is not None and row.start_deadline_at <= now


def _granted(row: Row, token: str) -> GrantedRow:
    task = row.task
    return GrantedRow(
        task.task_id, token, task.tenant_id, task.task_type, task.priority, row.attempt, row.max_attempts,
        task.payload, task.created_at, task.request_id, task.trace_id, task.region, row.start_deadline_at, row.seq,
        task.dag_id,
    )  # fmt: skip


def _running(row: Row) -> RunningRow:
    task = row.task
    assert row.lease_token and row.worker and row.started_at is not None
    return RunningRow(
        task.task_id, row.lease_token, row.worker.worker_id, task.task_type, task.priority, task.tenant_id,
        task.created_at, row.attempt, row.max_attempts, row.started_at, task.dag_id,
    )  # fmt: skip


def _settled(row: Row) -> Settled:
    task = row.task
    assert row.worker and row.started_at is not None
    ticket = row.ticket if row.status is Status.QUEUED else None
    return Settled(
        task.task_id, row.status.value, row.attempt, row.seq, task.task_type, task.tenant_id, row.worker.version,
        row.started_at, ticket,
    )  # fmt: skip


def _settle(row: Row, s: Settlement, now: float) -> None:
    attempt = row.attempt
    row.attempt -= int(s.uncounted)
    hopeless = s.status is Status.QUEUED and row.attempt >= row.max_attempts
    row.status = Status.FAILED if hopeless else s.status
    row.lease_token = None
    row.completed_at = None if row.status is Status.QUEUED else now
    row.available_at = row.available_at if s.available_at is None else s.available_at
    row.result, row.error_code, row.error_message = s.result, s.error_code, s.error_message
    row.artifacts = s.artifacts if row.status is Status.COMPLETED else ()
    row.seq += 1 + len(row.artifacts)
    row.end_attempt(s.lease_token, s.outcome, now, attempt=attempt)
    row.check()


def _requeue(row: Row, attempts: int, now: float) -> Requeued:
    row.status, row.completed_at, row.available_at, row.start_deadline_at = Status.QUEUED, None, now, None
    row.max_attempts, row.error_code, row.error_message = row.attempt + attempts, None, None
    row.seq += 1
    row.rounds.append(Round(row.seq, now))
    row.check()
    return Requeued(row.seq, row.ticket)


def _matches(row: Row, wanted: TaskFilter) -> bool:
    task = row.task
    equal = (
        (wanted.tenant_id, task.tenant_id),
        (wanted.status, row.status),
        (wanted.task_type, task.task_type),
        (wanted.priority, task.priority),
        (wanted.error_code, row.error_code),
    )
    from_id = first_id_at(wanted.created_from) if wanted.created_from is not None else ""
    until_id = first_id_at(wanted.created_until) if wanted.created_until is not None else "~"
    return all(want is None or want == have for want, have in equal) and from_id <= task.task_id < min(
        until_id, wanted.before_id or "~"
    )
