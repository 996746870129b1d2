"""Tasks as submitters and readers see them: stored in batches, read one by one or in pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from flik.domain.dag.graph import NewDag
from flik.domain.task import DeadLetter, NewTask, Status, StoredArtifact, TaskFilter, TaskView
from flik.storage import queries
from flik.storage.conditions import where
from flik.storage.database import Database

_SQL = queries.load("tasks")
COLUMNS = _SQL["columns"]
_GET = _SQL["get_task"].format(columns=COLUMNS)


def storing(source: str) -> str:
    """Return the parts of a WITH that store the tasks of a source, their own webhooks, and what is to be told."""
    stored, hooked, told = (
        _SQL["insert_tasks"].format(source=source),
        _SQL["store_own_webhooks"],
        _SQL["tell_submitted"],
    )
    return f"stored AS (\n{stored}\n), hooked AS (\n{hooked}\n), told AS (\n{told}\n)"  # of named queries only


_INSERT = _SQL["store_tasks"].format(storing=storing("json_to_recordset(%(rows)s::json)"))


class TaskStore:
    """The table of tasks, for the gateway."""

    def __init__(self, database: Database, *, max_attempts: int) -> None:
        self._database = database
        self._max_attempts = max_attempts

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        """Commit all tasks in one transaction; those that are stored already stay as they are.

        When this returns they are on disk.

        Raises:
            Unavailable: PostgreSQL is away; whether the tasks were stored is unknown.
        """
        parameters = {
            "rows": orjson.dumps(rows_of(tasks)).decode(),
            "own_webhooks": own_webhooks_of(tasks),
            "max_attempts": self._max_attempts,
        }
        await self._database.repeatable(_INSERT, parameters)

    async def get(self, task_id: str) -> TaskView | None:
        """Return one task with its artifacts; None when there is none."""
        rows = await self._database.repeatable(_GET, {"task_id": task_id})
        return (await views_of(self._database, rows))[0] if rows else None

    async def find(self, wanted: TaskFilter) -> list[TaskView]:
        """Return up to `wanted.limit` tasks, newest first."""
        conditions, parameters = conditions_of(wanted)
        sql = _SQL["list_tasks"].format(columns=COLUMNS, conditions=conditions)
        rows = await self._database.repeatable(sql, {**parameters, "limit": wanted.limit})
        return await views_of(self._database, rows)

    async def dead_letters(self, wanted: TaskFilter) -> list[DeadLetter]:
        """Return up to `wanted.limit` tasks that failed for good, the oldest first; steps go on with their dag only."""
        conditions, parameters = conditions_of(replace(wanted, status=Status.FAILED))
        sql = _SQL["list_dead_letters"].format(conditions=f"{conditions} AND dag_id IS NULL")
        rows = await self._database.repeatable(sql, {**parameters, "limit": wanted.limit})
        return list(map(DeadLetter._make, rows))

    async def ping(self) -> None:
        """Return when PostgreSQL answers.

        Raises:
            Unavailable: it does not.
        """
        await self._database.ping()


async def views_of(database: Database, rows: Sequence[tuple[Any, ...]]) -> list[TaskView]:
    """Return tasks with their artifacts, given their `COLUMNS`."""
    completed = [row[0] for row in rows if row[5] == "COMPLETED"]
    artifacts: dict[str, list[StoredArtifact]] = {}
    if completed:
        for task_id, *columns in await database.repeatable(_SQL["list_artifacts"], {"task_ids": completed}):
            artifacts.setdefault(task_id, []).append(StoredArtifact(*columns))
    return [TaskView(*row)._replace(artifacts=tuple(artifacts.get(row[0], ()))) for row in rows]


def rows_of(tasks: Sequence[NewTask]) -> list[dict[str, Any]]:
    """Return tasks as `insert_tasks` reads them, for orjson."""
    return [_row_of(task) for task in tasks]


def _row_of(task: NewTask) -> dict[str, Any]:
    task_id, tenant_id, task_type, priority, region, payload, created_at, deadline, request_id, trace_id, *_ = task
    row = {
        "task_id": task_id, "tenant_id": tenant_id, "task_type": task_type, "priority": priority, "region": region,
        "payload": orjson.Fragment(payload), "created_at": created_at, "request_id": request_id,
    }  # fmt: skip
    if deadline is not None:
        row["start_deadline_at"] = deadline
    if trace_id is not None:
        row["trace_id"] = trace_id
    if task.webhook is not None:
        row["hook_kinds"] = task.webhook.kinds
    if task.max_attempts is not None:
        row["max_attempts"] = task.max_attempts
    if task.dag_id is not None:
        row["dag_id"], row["waits"] = task.dag_id, task.waits
    return row


def own_webhooks_of(tasks: Iterable[NewTask], dags: Iterable[NewDag] = ()) -> str:
    """Return the webhooks that tasks and dags bring with them, as `store_own_webhooks` reads them."""
    owners = [(task.task_id, task.webhook) for task in tasks] + [(dag.dag_id, dag.webhook) for dag in dags]
    rows = [
        {"task_id": owner, "receiver_id": hook.receiver_id, "url": hook.url, "secret": hook.secret}
        for owner, hook in owners
        if hook is not None
    ]
    return orjson.dumps(rows).decode()


_CONDITIONS = {
    "tenant_id": "tenant_id = %(tenant_id)s",
    "status": "status = %(status)s::task_status",
    "task_type": "task_type = %(task_type)s",
    "priority": "priority = %(priority)s",
    "error_code": "error_code = %(error_code)s",
    "created_from": "task_id >= %(created_from)s::uuid",
    "created_until": "task_id < %(created_until)s::uuid",
    "before_id": "task_id < %(before_id)s::uuid",
}


# Spelled as the index of dead letters is, so that the planner sees that it fits.
_IS_DEAD = "status = 'FAILED' AND completed_at IS NOT NULL AND error_code IS NOT NULL"


def conditions_of(wanted: TaskFilter) -> tuple[str, dict[str, Any]]:
    """Return the WHERE clause of a filter, and its parameters."""
    replaced = {}
    if wanted.status == "FAILED":
        # The literal lets the planner use the index of dead letters, also in a prepared statement.
        replaced["status"] = _IS_DEAD
    elif wanted.status in ("PENDING", "QUEUED", "PROCESSING"):
        # So that the index of what is not finished fits: without it all of a tenant's history would be read.
        replaced["status"] = f"status = '{wanted.status}' AND completed_at IS NULL"
    return where(wanted, _CONDITIONS, replaced)
