"""Dags: stored with the tasks of their steps, moved on, cancelled and resumed by the queue, read by the gateway.

What the queue does runs in a transaction of its caller: first the dags are locked, then steps are moved, then what
follows is written (`flik/domain/dag/progress.py`). `move` does all of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from uuid_utils import uuid7

from flik.domain.dag import progress
from flik.domain.dag.graph import DagFilter, DagView, NewDag, StepView
from flik.domain.dag.log import WEBHOOK_KINDS
from flik.domain.dag.memo import Made
from flik.domain.dag.progress import DagEnd, DagStatus, StepState
from flik.domain.event import Kind
from flik.domain.task import TERMINAL, Requeued, Status, StoredArtifact, Ticket
from flik.storage import queries, tasks
from flik.storage.conditions import where
from flik.storage.database import Database, Query, Rows, Statement, Transaction, array_of
from flik.storage.tasks import own_webhooks_of, rows_of, storing, views_of

_SQL = queries.load("dags")
_TASKS = queries.load("tasks")
COLUMNS, COUNTS = _SQL["columns"], _SQL["counts"]
INSERTS = {name: _SQL[name] for name in ("insert_dags", "insert_dag_webhooks", "insert_steps")}
_STORE = _SQL["store_dags"].format(storing=storing("winners, json_to_recordset(winners.tasks)"), **INSERTS)
_RESUME = _SQL["resume_dag"].format(tell_submitted=_TASKS["tell_submitted"])
_GET = _SQL["get_dag"].format(columns=COLUMNS)
_STEPS = _SQL["list_steps"].format(columns=tasks.COLUMNS)


class LockedDag(NamedTuple):
    """A dag that nobody else moves until the transaction ends. `seq` is the number of its latest event."""

    dag_id: str
    status: str
    seq: int
    deadline_at: float | None
    tenant_id: str
    round: int
    heard: bool  # whether a webhook may want to hear of it


class Stopped(NamedTuple):
    """A step that never runs; `seq` is the number of that event."""

    task_id: str
    tenant_id: str
    task_type: str
    seq: int
    error_code: str
    error_message: str


class DagMoved(NamedTuple):
    """How far the log of a dag is now, and its end if it has ended."""

    dag_id: str
    tenant_id: str
    seq: int
    end: DagEnd | None


class Advanced(NamedTuple):
    """What followed from moves of steps."""

    released: Sequence[Requeued] = ()
    stopped: Sequence[Stopped] = ()
    dags: Sequence[DagMoved] = ()


class _Step(NamedTuple):
    """One row of `read_steps`."""

    dag_id: str
    task_id: str
    start_within_s: float | None
    ended_seq: int | None
    state: StepState


class DagStore:
    """The tables of dags, for the gateway."""

    def __init__(self, database: Database, *, max_attempts: int) -> None:
        self._database = database
        self._max_attempts = max_attempts

    async def insert(self, dags: Sequence[NewDag]) -> None:
        """Commit dags with the tasks of their steps in one transaction; those that are stored already stay as they are.

        Raises:
            Unavailable: PostgreSQL is away; whether they were stored is unknown.
        """
        steps = [task for dag in dags for task in dag.tasks]
        parameters = {
            "tasks": orjson.dumps(rows_of(steps)).decode(),
            "dags": orjson.dumps([row_of(dag) for dag in dags]).decode(),
            "steps": orjson.dumps([row for dag in dags for row in step_rows_of(dag)]).decode(),
            "own_webhooks": own_webhooks_of([], dags),
            "max_attempts": self._max_attempts,
        }
        await self._database.repeatable(_STORE, parameters)

    async def get(self, dag_id: str) -> DagView | None:
        """Return one dag with its steps; None when there is none.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        rows = await self._database.repeatable(_GET, {"dag_id": dag_id})
        if not rows:
            return None
        # After the dag: of one that has ended, no step is seen that has not.
        steps = await self._database.repeatable(_STEPS, {"dag_id": dag_id})
        views = await views_of(self._database, [row[3:] for row in steps])
        found = [
            StepView(step_id, tuple(parents), on_failure, view)
            for (step_id, parents, on_failure, *_), view in zip(steps, views, strict=True)
        ]
        return DagView._make((*rows[0], Counter(view.status for view in views), tuple(found)))

    async def forget(self, task_id: str) -> None:
        """Have no step reuse what a task made.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        await forget_made(self._database, makers=[task_id])

    async def find(self, wanted: DagFilter) -> list[DagView]:
        """Return up to `wanted.limit` dags without their steps, newest first.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        conditions, parameters = where(wanted, _CONDITIONS)
        sql = _SQL["list_dags"].format(columns=COLUMNS, counts=COUNTS, conditions=conditions)
        rows = await self._database.repeatable(sql, {**parameters, "limit": wanted.limit})
        return [DagView(*row) for row in rows]


# ---- inside a transaction of the queue


async def dags_of(run: Statement, task_ids: Sequence[str]) -> set[str]:
    """Return the dags that these tasks are steps of."""
    return {row[0] for row in await run(_SQL["find_dags_of"], {"task_ids": list(task_ids)})}


async def lock(run: Statement, dag_ids: Collection[str]) -> list[LockedDag]:
    """Wait until nobody else moves these dags, and return those that there are."""
    return list(map(LockedDag._make, await run(*_locking(dag_ids))))


async def move(run: Transaction, dag_ids: Collection[str], statement: Query, now: float) -> tuple[Rows, Advanced]:
    """Run a statement that moves steps of these dags while nobody else does; return its rows, and what followed."""
    locked, rows, steps = await run.together(_locking(dag_ids), statement, _reading_steps(dag_ids))
    return rows, await _follow(run, map(LockedDag._make, locked), map(_step_of, steps), now)


async def open_steps(run: Statement, dag_id: str) -> list[str]:
    """Return the tasks of a locked dag's steps that have not ended, those that wait for no other first.

    These are in the order of their ids, as in a grant: of two that lock the same tasks, one waits for the other.
    """
    steps = [step for step in await _read_steps(run, [dag_id]) if step.state.status not in TERMINAL]
    return [
        step.task_id for step in sorted(steps, key=lambda step: (step.state.status == Status.PENDING, step.task_id))
    ]


async def advance_cancelled(run: Statement, dag: LockedDag, now: float) -> Advanced:
    """Write what follows from the states of the steps of a locked dag that is being cancelled."""
    return await _follow(run, [dag], await _read_steps(run, [dag.dag_id]), now, cancelled=True)


async def _follow(
    run: Statement, locked: Iterable[LockedDag], read: Iterable[_Step], now: float, *, cancelled: bool = False
) -> Advanced:
    """Write what follows from the states of the steps of locked dags; of those that have ended nothing does."""
    steps_of: dict[str, list[_Step]] = defaultdict(list)
    for step in read:
        steps_of[step.dag_id].append(step)
    moves: list[dict[str, Any]] = []
    noted: list[dict[str, Any]] = []
    moved: list[DagMoved] = []
    told: list[dict[str, Any]] = []
    for dag in (each for each in locked if each.status == DagStatus.RUNNING):
        steps = steps_of[dag.dag_id]
        found = progress.advance([step.state for step in steps], cancelled=cancelled)
        moves += _moves(dag, steps, found, now)
        noted += ({"task_id": steps[place].task_id, "released_at": now} for place in found.released)
        seq = dag.seq
        for place, step in enumerate(steps):
            if step.ended_seq is None and (step.state.status in TERMINAL or place in found.stopped):
                seq += 1
                noted.append({"task_id": step.task_id, "ended_seq": seq})
                if dag.heard:
                    told.append(_step_told(dag.dag_id, seq, step, found.stopped.get(place)))
        if found.end is not None:
            seq += 1
            if dag.heard:
                told.append(_end_told(dag.dag_id, seq, found.end))
        if seq > dag.seq:
            moved.append(DagMoved(dag.dag_id, dag.tenant_id, seq, found.end))
    if not moves and not moved:
        return Advanced()
    parameters = {
        "moves": orjson.dumps(moves).decode(),
        "steps": orjson.dumps(noted).decode(),
        "dags": orjson.dumps([_dag_row(each) for each in moved]).decode(),
        "told": orjson.dumps(told).decode(),
        "now": now,
    }
    released: list[Requeued] = []
    stopped: list[Stopped] = []
    for status, number, error_code, error_message, *columns in await run(_SQL["advance_dags"], parameters):
        ticket = Ticket._make(columns)
        if status == Status.QUEUED:
            released.append(Requeued(number, ticket))
        else:
            stopped.append(
                Stopped(ticket.task_id, ticket.tenant_id, ticket.task_type, number, error_code, error_message)
            )
    return Advanced(tuple(released), tuple(stopped), tuple(moved))


async def resume(run: Statement, dag: LockedDag, region: str, now: float) -> list[Requeued]:
    """Have those steps of a locked, failed dag run again that did not complete; return those that can at once.

    `region` is that of the queue that asks.
    """
    steps = await _read_steps(run, [dag.dag_id])
    fresh = []
    for place, status in progress.ready_again([step.state for step in steps]).items():
        step = steps[place]
        row: dict[str, Any] = {"ended_id": step.task_id, "task_id": str(uuid7()), "status": status}
        if status is Status.QUEUED and step.start_within_s is not None:
            row["start_deadline_at"] = now + step.start_within_s
        fresh.append(row)
    parameters = {
        "dag_id": dag.dag_id, "round": dag.round, "steps": orjson.dumps(fresh).decode(), "now": now, "region": region,
    }  # fmt: skip
    rows = await run(_RESUME, parameters)
    return [Requeued(seq, Ticket._make(ticket), elsewhere) for seq, *ticket, elsewhere in rows]


async def outputs_of(database: Database, task_ids: Sequence[str]) -> dict[str, tuple[bool, str | None]]:
    """Return of each step whether it may reuse something, and what its parents brought forth, as JSON text.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    rows = await database.repeatable(_SQL["list_outputs"], {"task_ids": array_of(task_ids)})
    return {task_id: (reuse, outputs) for task_id, reuse, outputs in rows}


async def reusing(database: Database, region: str) -> Rows:
    """Return the running steps of a region that may reuse something, each with the version that was to run it.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    return await database.repeatable(_SQL["list_reusing"], {"region": region})


async def find_made(database: Database, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Made]:
    """Return what completed under keys of tenants, each (tenant id, key); the others are left out.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    wanted = [{"tenant_id": tenant_id, "key": key} for tenant_id, key in dict.fromkeys(places)]
    rows = await database.repeatable(_SQL["find_made"], {"places": orjson.dumps(wanted).decode()})
    return {
        (tenant_id, key): Made(task_id, result, tuple(StoredArtifact(*each) for each in artifacts), ran_s)
        for tenant_id, key, task_id, result, artifacts, ran_s in rows
    }


async def remember_made(database: Database, made: Sequence[tuple[str, str, str]]) -> None:
    """Note which tasks completed under keys: (tenant id, key, task id); the latest of each key is kept.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    latest = {(tenant_id, key): task_id for tenant_id, key, task_id in made}
    rows = [{"tenant_id": place[0], "key": place[1], "task_id": latest[place]} for place in sorted(latest)]
    await database.repeatable(_SQL["remember_made"], {"made": orjson.dumps(rows).decode()})


async def forget_made(database: Database, *, steps: Sequence[str] = (), makers: Sequence[str] = ()) -> None:
    """Forget what the parents of these steps made, or reused, and what these tasks made.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    parameters = {"steps": list(steps), "makers": list(makers)}
    await database.repeatable(_SQL["forget_made"], parameters)


async def late_dags(database: Database, region: str, limit: int, now: float) -> list[str]:
    """Return dags with a step that never started by its start deadline.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    parameters = {"region": region, "limit": limit, "now": now}
    return [row[0] for row in await database.repeatable(_SQL["list_late_dags"], parameters)]


async def _read_steps(run: Statement, dag_ids: Sequence[str]) -> list[_Step]:
    return list(map(_step_of, await run(*_reading_steps(dag_ids))))


def _locking(dag_ids: Collection[str]) -> Query:
    """Return the statement whose rows `LockedDag` has."""
    return _SQL["lock_dags"], {"dag_ids": array_of(sorted(dag_ids))}


def _reading_steps(dag_ids: Collection[str]) -> Query:
    """Return the statement whose rows `_step_of` reads."""
    return _SQL["read_steps"], {"dag_ids": array_of(dag_ids)}


def _step_of(row: tuple[Any, ...]) -> _Step:
    return _Step._make((*row[:4], StepState._make(row[4:])))


def _moves(dag: LockedDag, steps: Sequence[_Step], found: progress.Moves, now: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for place in found.released:
        step = steps[place]
        row: dict[str, Any] = {"task_id": step.task_id, "status": Status.QUEUED}
        within = None if step.start_within_s is None else now + step.start_within_s
        deadlines = [at for at in (within, dag.deadline_at) if at is not None]
        if deadlines:
            row["start_deadline_at"] = min(deadlines)
        rows.append(row)
    for place, stop in found.stopped.items():
        rows.append({"task_id": steps[place].task_id, "status": Status.CANCELLED, **stop._asdict()})
    return rows


def _dag_row(moved: DagMoved) -> dict[str, Any]:
    row: dict[str, Any] = {"dag_id": moved.dag_id, "seq": moved.seq, "status": DagStatus.RUNNING}
    if moved.end is not None:
        status, step_id, error_code, error_message = moved.end
        row |= {"status": status, "error_step": step_id, "error_code": error_code, "error_message": error_message}
    return row


def _step_told(dag_id: str, seq: int, step: _Step, stop: progress.Stop | None) -> dict[str, Any]:
    """Return what webhooks are to hear of the end of a step."""
    status, code, message = step.state.status, step.state.error_code, step.state.error_message
    if stop is not None:
        status, (code, message) = Status.CANCELLED, stop
    told: dict[str, Any] = {"stepId": step.state.step_id, "taskId": step.task_id, "status": status}
    if code is not None and status != Status.COMPLETED:
        told["error"] = {"code": code, "message": message}
    data = {"status": DagStatus.RUNNING, "step": told}
    return {"dag_id": dag_id, "seq": seq, "kind": WEBHOOK_KINDS[Kind.STEP], "data": data}


def _end_told(dag_id: str, seq: int, end: DagEnd) -> dict[str, Any]:
    """Return what webhooks are to hear of the end of a dag."""
    data: dict[str, Any] = {"status": end.status}
    if end.error_code is not None:
        data["error"] = {"code": end.error_code, "message": end.error_message, "stepId": end.step_id}
    return {"dag_id": dag_id, "seq": seq, "kind": WEBHOOK_KINDS[Kind(end.status.lower())], "data": data}


# ---- as `insert_dags` and `insert_steps` read them, for orjson


def row_of(dag: NewDag) -> dict[str, Any]:
    """Return the row of a dag."""
    row = {name: value for name, value in dag._asdict().items() if name not in ("steps", "webhook")}
    if dag.webhook is not None:
        row["hook_kinds"] = dag.webhook.kinds
    if dag.metadata is not None:
        row["metadata"] = orjson.Fragment(dag.metadata)
    return row


def step_rows_of(dag: NewDag) -> list[dict[str, Any]]:
    """Return the rows of a dag's steps."""
    return [
        {
            "task_id": step.task.task_id, "dag_id": dag.dag_id, "place": place, "step_id": step.step_id,
            "parents": f"{{{','.join(map(str, step.parents))}}}", "on_failure": step.on_failure,
            "start_within_s": step.start_within_s, "reuse": step.reuse,
        }
        for place, step in enumerate(dag.steps)
    ]  # fmt: skip


_CONDITIONS: Mapping[str, str] = {
    "tenant_id": "tenant_id = %(tenant_id)s",
    "status": "status = %(status)s::dag_status",
    "created_from": "dag_id >= %(created_from)s::uuid",
    "created_until": "dag_id < %(created_until)s::uuid",
    "before_id": "dag_id < %(before_id)s::uuid",
}
