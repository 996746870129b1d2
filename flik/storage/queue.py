"""The moves of tasks after they were submitted, in batches, and what the queue reads to rebuild itself."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import orjson

from flik.domain.dag.memo import Made
from flik.domain.dag.progress import DagStatus
from flik.domain.task import Requeued, Status, StoredArtifact, Ticket, Upload, Worker, compact_ticket
from flik.domain.window import BacklogKey, Page
from flik.storage import dags, queries
from flik.storage.dags import Advanced
from flik.storage.database import Database, Query, Rows, Statement, array_of

_SQL = queries.load("queue")


class GrantedRow(NamedTuple):
    """One task that was granted."""

    task_id: str
    lease_token: str
    tenant_id: str
    task_type: str
    priority: int
    attempt: int
    max_attempts: int
    payload: str
    queued_at: float
    request_id: str | None
    trace_id: str | None
    region: str
    start_deadline_at: float | None
    seq: int
    dag_id: str | None = None
    outputs: str | None = None  # of its parents, as JSON text
    reuse: bool = False  # it may take what an earlier run made


class RunningRow(NamedTuple):
    """One task that is PROCESSING."""

    task_id: str
    lease_token: str
    worker_id: str
    task_type: str
    priority: int
    tenant_id: str
    queued_at: float
    attempt: int
    max_attempts: int
    started_at: float
    dag_id: str | None = None


class Settlement(NamedTuple):
    """How one attempt ends: the task's next status and the attempt's outcome. `result` is JSON text."""

    task_id: str
    lease_token: str
    status: Status
    outcome: str
    uncounted: bool = False
    available_at: float | None = None
    result: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    artifacts: tuple[StoredArtifact, ...] = ()
    uploads: tuple[Upload, ...] = ()
    made_by: str | None = None


class Settled(NamedTuple):
    """One task that a settlement moved. `attempt` is the number it has now; `ticket` is there when it is QUEUED."""

    task_id: str
    status: str
    attempt: int
    seq: int
    task_type: str
    tenant_id: str
    version: str
    started_at: float
    ticket: Ticket | None


class Ended(NamedTuple):
    """One task that was cancelled or expired; `seq` is the number of that event, the rest of the attempt that ran.

    `elsewhere` is its region when that is another one than that of the queue that moved it.
    """

    task_id: str
    tenant_id: str
    seq: int
    attempt: int | None = None
    worker_id: str | None = None
    version: str | None = None
    elsewhere: str | None = None


class Cancelled(NamedTuple):
    """What came of cancelling a dag: its steps that were ended by it, and what followed."""

    ended: Sequence[Ended]
    advanced: Advanced


class QueueStore:
    """The table of tasks, for the queue of one region.

    What callers ask for (cancel, retry, replay, resume) moves tasks of any region; the rest is about those of this one.
    """

    def __init__(self, database: Database, region: str) -> None:
        self._database = database
        self._region = region

    async def grant(self, picks: Sequence[tuple[Ticket, str, Worker]], now: float) -> list[GrantedRow]:
        """Grant each (ticket, lease token, worker); return those that were still to be had.

        Raises:
            Unavailable: PostgreSQL is away; some or all may have been granted.
        """
        picks = sorted(picks, key=lambda pick: pick[0].task_id)  # the order in which whoever locks many of them does so
        places: dict[Worker, int] = {}
        for _, _, worker in picks:
            places.setdefault(worker, len(places) + 1)
        parameters = {
            "task_ids": array_of(ticket.task_id for ticket, _, _ in picks),
            "lease_tokens": array_of(token for _, token, _ in picks),
            "places": array_of(str(places[worker]) for _, _, worker in picks),
            "worker_ids": [worker.worker_id for worker in places],
            "versions": [worker.version for worker in places],
            "now": now,
        }
        return await self._with_outputs(
            list(map(GrantedRow._make, await self._database.once(_SQL["grant_tasks"], parameters)))
        )

    async def _with_outputs(self, rows: list[GrantedRow]) -> list[GrantedRow]:
        """Return the rows, those of steps with what their parents made, and whether they may reuse something."""
        steps = [row.task_id for row in rows if row.dag_id is not None]
        if not steps:
            return rows
        outputs = await dags.outputs_of(self._database, steps)
        for place, row in enumerate(rows):
            if row.task_id in outputs:
                reuse, made = outputs[row.task_id]
                rows[place] = row._replace(outputs=made, reuse=reuse)
        return rows

    async def forget(self, steps: Sequence[str]) -> None:
        """Forget what was made by the parents of these steps."""
        await dags.forget_made(self._database, steps=steps)

    async def reusing(self) -> list[tuple[GrantedRow, str]]:
        """Return the running steps that may reuse something, each with the model version that was to run it."""
        found = await dags.reusing(self._database, self._region)
        rows = await self._with_outputs([GrantedRow(*row[:-1]) for row in found])
        return [(row, version) for row, (*_, version) in zip(rows, found, strict=True)]

    async def find_made(self, places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Made]:
        """Return what completed under keys of tenants, each (tenant id, key); the others are left out."""
        return await dags.find_made(self._database, places)

    async def remember(self, made: Sequence[tuple[str, str, str]]) -> None:
        """Note which tasks completed under keys: (tenant id, key, task id)."""
        await dags.remember_made(self._database, made)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """End attempts, none of them of a step; return the tasks that were moved.

        A settlement whose lease token is not the task's current one changes nothing and is not
        among them, so repeating a call is harmless.

        Raises:
            Unavailable: PostgreSQL is away; whether it took effect is unknown.
        """
        return list(map(_settled, await self._database.once(*_settling(settlements, now))))

    async def cancel(self, task_id: str, now: float) -> tuple[Status, Ended | None] | None:
        """Cancel a task that has not ended and is no step.

        Returns:
            Its status before, and its end if it was cancelled; None if there is no such task.

        Raises:
            Unavailable: PostgreSQL is away; whether it was cancelled is unknown.
        """
        return _cancelled(task_id, await self._database.once(*self._cancelling(task_id, now)))

    async def retry(self, task_id: str, attempts: int, now: float) -> tuple[Status, Requeued | None] | None:
        """Queue a failed task for up to `attempts` more; return (status before, what waits now), None if unknown."""
        parameters = {"task_id": task_id, "round": attempts, "now": now, "region": self._region}
        rows = await self._database.once(_SQL["retry_task"], parameters)
        if not rows:
            return None
        before, *requeued = rows[0]
        return Status(before), None if requeued[0] is None else _requeued(requeued)

    async def replay(self, task_ids: Sequence[str], attempts: int, now: float) -> list[Requeued]:
        """Queue those of the tasks that are dead letters for up to `attempts` more; return what waits now."""
        parameters = {"task_ids": list(task_ids), "round": attempts, "now": now, "region": self._region}
        return list(map(_requeued, await self._database.once(_SQL["replay_tasks"], parameters)))

    async def expire(self, limit: int, now: float) -> list[Ended]:
        """End up to `limit` tasks that never started by their start deadline, and that are no steps; return them."""
        return [Ended(*row) for row in await self._database.repeatable(*_expiring(self._region, (), limit, now))]

    # ---- steps of dags: with each move goes what follows from it, in one transaction

    async def dags_of(self, task_ids: Sequence[str]) -> set[str]:
        """Return the dags that have steps among these tasks."""
        return await dags.dags_of(self._database.repeatable, task_ids)

    async def settle_steps(
        self, settlements: Sequence[Settlement], now: float, dag_ids: Collection[str]
    ) -> tuple[list[Settled], Advanced]:
        """End attempts as `settle` does, those of steps of these dags among them; return what followed, too."""

        rows, advanced = await self._move(dag_ids, _settling(settlements, now), now)
        return list(map(_settled, rows)), advanced

    async def cancel_step(
        self, task_id: str, now: float, dag_ids: Collection[str]
    ) -> tuple[tuple[Status, Ended | None] | None, Advanced]:
        """Cancel a step of one of these dags as `cancel` does; return what followed, too."""

        rows, advanced = await self._move(dag_ids, self._cancelling(task_id, now), now)
        return _cancelled(task_id, rows), advanced

    async def late_dags(self, limit: int, now: float) -> list[str]:
        """Return up to `limit` dags with a step that never started by its start deadline."""
        return await dags.late_dags(self._database, self._region, limit, now)

    async def expire_steps(self, limit: int, now: float, dag_ids: Collection[str]) -> tuple[list[Ended], Advanced]:
        """End up to `limit` tasks as `expire` does, steps of these dags among them; return what followed, too."""

        rows, advanced = await self._move(dag_ids, _expiring(self._region, dag_ids, limit, now), now)
        return [Ended(*row) for row in rows], advanced

    async def _move(self, dag_ids: Collection[str], statement: Query, now: float) -> tuple[Rows, Advanced]:
        return await self._database.transaction(lambda run: dags.move(run, dag_ids, statement, now))

    async def cancel_dag(self, dag_id: str, now: float) -> tuple[DagStatus, Cancelled | None] | None:
        """Cancel all steps of a dag that have not ended.

        Returns:
            Its status before and, if it was cancelled, what that moved; None if there is no such dag.

        Raises:
            Unavailable: PostgreSQL is away; whether it was cancelled is unknown.
        """

        async def cancel(run: Statement) -> tuple[DagStatus, Cancelled | None] | None:
            locked = await dags.lock(run, [dag_id])
            if not locked:
                return None
            before = DagStatus(locked[0].status)
            if before is not DagStatus.RUNNING:
                return before, None
            found = [
                _cancelled(task_id, await run(*self._cancelling(task_id, now)))
                for task_id in await dags.open_steps(run, dag_id)
            ]
            advanced = await dags.advance_cancelled(run, locked[0], now)
            return before, Cancelled([each[1] for each in found if each and each[1]], advanced)

        return await self._database.transaction(cancel)

    async def resume_dag(self, dag_id: str, now: float) -> tuple[DagStatus, Sequence[Requeued]] | None:
        """Have the steps of a failed dag run again that did not complete, as new tasks.

        Returns:
            Its status before, and what waits for a worker now; None if there is no such dag.

        Raises:
            Unavailable: PostgreSQL is away; whether it was resumed is unknown.
        """

        async def resume(run: Statement) -> tuple[DagStatus, Sequence[Requeued]] | None:
            locked = await dags.lock(run, [dag_id])
            if not locked:
                return None
            before = DagStatus(locked[0].status)
            failed = before is DagStatus.FAILED
            return before, await dags.resume(run, locked[0], self._region, now) if failed else ()

        return await self._database.transaction(resume)

    def _cancelling(self, task_id: str, now: float) -> Query:
        """Return the statement whose rows `_cancelled` reads."""
        return _SQL["cancel_task"], {"task_id": task_id, "now": now, "region": self._region}

    # ---- what the queue rebuilds itself from

    async def backlogs(self) -> list[tuple[str, int, str, int]]:
        """Return (task type, priority, tenant, tasks) for everything that waits."""
        rows = await self._database.repeatable(_SQL["count_backlogs"], {"region": self._region})
        return [(sys.intern(row[0]), row[1], sys.intern(row[2]), row[3]) for row in rows]

    async def pages(self, task_type: str, pages: Sequence[Page]) -> list[list[Ticket]]:
        """Return, for each page, the next waiting tickets of its backlog in the order of their ids."""
        found = await self._tickets(
            "page_backlogs",
            task_type=task_type,
            priorities=[page.key[0] for page in pages],
            tenant_ids=[page.key[1] for page in pages],
            afters=array_of(page.after or _FIRST_ID for page in pages),
            limits=[page.limit for page in pages],
        )
        by_key: dict[BacklogKey, list[Ticket]] = {page.key: [] for page in pages}
        for ticket in found:
            by_key[ticket.priority, ticket.tenant_id].append(ticket)
        return list(by_key.values())

    async def scan_recent(self, after: str, limit: int) -> list[Ticket]:
        """Return waiting tickets with ids after `after`, the oldest first."""
        return await self._tickets("scan_recent", after=after, limit=limit)

    async def scan_waiting(self, after: Ticket | None, limit: int) -> list[Ticket]:
        """Return the next page of a walk over all that waits, after the ticket `after` (None: from the start)."""
        start = after or Ticket(_FIRST_ID, "", "", 0, 0.0, 0.0)
        return await self._tickets(
            "scan_waiting",
            task_type=start.task_type,
            priority=start.priority,
            tenant_id=start.tenant_id,
            task_id=start.task_id,
            limit=limit,
        )

    async def running(self) -> list[RunningRow]:
        """Return all tasks that are PROCESSING."""
        rows = await self._database.repeatable(_SQL["list_running"], {"region": self._region})
        return [RunningRow(*row) for row in rows]

    async def _tickets(self, query: str, **parameters: Any) -> list[Ticket]:
        rows = await self._database.repeatable(_SQL[query], {"region": self._region, **parameters})
        return list(map(compact_ticket, rows))


_FIRST_ID = "00000000-0000-0000-0000-000000000000"


def _settling(settlements: Sequence[Settlement], now: float) -> Query:
    """Return the statement whose rows `_settled` reads."""
    rows = orjson.dumps([_row_of(each) for each in settlements]).decode()
    return _SQL["settle_tasks"], {"rows": rows, "now": now}


def _cancelled(task_id: str, rows: Rows) -> tuple[Status, Ended | None] | None:
    if not rows:
        return None
    before, *ended = rows[0]
    return Status(before), None if ended[0] is None else Ended(task_id, *ended)


def _expiring(region: str, dag_ids: Collection[str], limit: int, now: float) -> Query:
    """Return the statement whose rows begin an `Ended`."""
    return _SQL["expire_tasks"], {"region": region, "limit": limit, "now": now, "dag_ids": list(dag_ids)}


def _settled(row: tuple[Any, ...]) -> Settled:
    task_id, status, attempt, seq, task_type, tenant_id, version, started_at, priority, created_at, available_at = row
    again = status == Status.QUEUED
    ticket = Ticket(task_id, tenant_id, task_type, priority, created_at, available_at) if again else None
    return Settled(task_id, status, attempt, seq, task_type, tenant_id, version, started_at, ticket)


def _requeued(row: Sequence[Any]) -> Requeued:
    seq, *ticket, elsewhere = row
    return Requeued(seq, Ticket._make(ticket), elsewhere)


def _row_of(settlement: Settlement) -> dict[str, Any]:
    """Return what PostgreSQL must be told; what is left out is NULL."""
    task_id, token, status, outcome, uncounted, available_at, result, code, message, artifacts, uploads, by = settlement
    row: dict[str, Any] = {
        "task_id": task_id, "lease_token": token, "status": status, "outcome": outcome, "uncounted": int(uncounted),
    }  # fmt: skip
    if result is not None:
        row["result"] = orjson.Fragment(result)
    if artifacts:
        row["artifacts"] = artifacts
    if uploads:
        row["uploads"] = uploads
    if by is not None:
        row["made_by"] = by
    if status is not Status.COMPLETED:
        row |= {"available_at": available_at, "error_code": code, "error_message": message}
    return row
