"""Each grant leaves one row of `attempts` when it ends, with what came of it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from making import EPOCH, new_task, ticket_of, worker

from flik.domain.task import NewTask, Status
from flik.storage import queries
from flik.storage.database import Database
from flik.storage.queue import Ended, GrantedRow, QueueStore, Settlement
from flik.storage.tasks import TaskStore


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database(database_url, connections=2, pinned_plans=True).open()
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> QueueStore:
    return QueueStore(database, "us-east")


@pytest.fixture
async def task(database: Database) -> NewTask:
    task = new_task()
    await TaskStore(database, max_attempts=4).insert([task])
    return task


async def grant(store: QueueStore, task: NewTask) -> GrantedRow:
    (row,) = await store.grant([(ticket_of(task), str(uuid.uuid4()), worker())], EPOCH + 1)
    return row


async def attempts(database: Database, task: NewTask) -> list[tuple[Any, ...]]:
    return await database.repeatable(
        "SELECT attempt, outcome::text, error_code, worker_id FROM attempts"
        " WHERE task_id = %(task_id)s::uuid ORDER BY ended_at, attempt",
        {"task_id": task.task_id},
    )


@pytest.mark.parametrize(
    ("status", "outcome", "code"),
    [
        (Status.COMPLETED, "COMPLETED", None),
        (Status.FAILED, "FAILED", "overloaded"),
        (Status.FAILED, "TIMED_OUT", "run_timeout"),
        (Status.QUEUED, "LOST", "worker_lost"),
        (Status.QUEUED, "HANDED_BACK", None),
    ],
)
async def test_an_attempt_ends_with_its_outcome(  # noqa: PLR0917
    database: Database, store: QueueStore, task: NewTask, status: Status, outcome: str, code: str | None
) -> None:
    row = await grant(store, task)
    result = "{}" if status is Status.COMPLETED else None
    await store.settle(
        [Settlement(row.task_id, row.lease_token, status, outcome, result=result, error_code=code)], EPOCH + 2
    )
    assert await attempts(database, task) == [(1, outcome, code, "w1")]


async def test_a_cancel_closes_the_attempt(database: Database, store: QueueStore, task: NewTask) -> None:
    await grant(store, task)
    await store.cancel(task.task_id, EPOCH + 2)
    assert await attempts(database, task) == [(1, "CANCELLED", None, "w1")]


async def test_a_refused_settlement_writes_nothing(database: Database, store: QueueStore, task: NewTask) -> None:
    row = await grant(store, task)
    await store.settle([Settlement(row.task_id, str(uuid.uuid4()), Status.COMPLETED, "COMPLETED", result="{}")], EPOCH)
    assert await attempts(database, task) == []


async def test_an_attempt_handed_back_has_its_own_row_beside_the_next(
    database: Database, store: QueueStore, task: NewTask
) -> None:
    row = await grant(store, task)
    back = Settlement(row.task_id, row.lease_token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=EPOCH)
    await store.settle([back], EPOCH + 2)
    row = await grant(store, task)
    await store.settle(
        [Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result="{}")], EPOCH + 3
    )
    assert await attempts(database, task) == [(1, "HANDED_BACK", None, "w1"), (1, "COMPLETED", None, "w1")]


# ---- a cancel that has to wait for the row


async def cancelled_during(
    database_url: str, sql: str, values: dict[str, Any], store: QueueStore, task_id: str
) -> tuple[Status, Ended | None] | None:
    """Run `sql` in a transaction that commits only when a cancel of its task is waiting for the row."""
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute(sql.encode(), values)
        cancelling = asyncio.create_task(store.cancel(task_id, EPOCH + 3))
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watching:
            async with asyncio.timeout(5):
                while not await _somebody_waits(watching):  # noqa: ASYNC110  # PostgreSQL does not tell
                    await asyncio.sleep(0.005)
        await other.commit()
        return await cancelling


async def _somebody_waits(connection: psycopg.AsyncConnection[Any]) -> bool:
    cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def test_a_cancel_that_waited_for_a_completion_does_not_undo_it(
    database_url: str, store: QueueStore, task: NewTask, database: Database
) -> None:
    await grant(store, task)
    completion = """UPDATE tasks SET status = 'COMPLETED', lease_token = NULL, completed_at = now(), result = '{}'
                    WHERE task_id = ANY(%(task_ids)s::uuid[])"""
    found = await cancelled_during(database_url, completion, {"task_ids": [task.task_id]}, store, task.task_id)
    assert found == (Status.COMPLETED, None)
    assert await attempts(database, task) == []


async def test_a_cancel_that_waited_for_a_grant_cancels_what_was_granted_and_closes_its_attempt(
    database_url: str, store: QueueStore, task: NewTask, database: Database
) -> None:
    granting = {"task_ids": f"{{{task.task_id}}}", "lease_tokens": f"{{{uuid.uuid4()}}}", "places": "{1}",
                "worker_ids": ["w1"], "versions": ["v1"], "now": EPOCH + 1}  # fmt: skip
    found = await cancelled_during(database_url, queries.load("queue")["grant_tasks"], granting, store, task.task_id)
    assert found == (Status.PROCESSING, Ended(task.task_id, "acme", 3, 1, "w1", "v1"))
    view = await TaskStore(database, max_attempts=4).get(task.task_id)
    assert view is not None
    assert view.status == "CANCELLED"
    assert await attempts(database, task) == [(1, "CANCELLED", None, "w1")]
