"""Who locks several steps of a dag does so in one order: then one waits, and PostgreSQL need not break a deadlock."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest
from making import EPOCH, new_task, task_id_at, ticket_of, worker

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.dag.progress import DagStatus
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.queue import QueueStore

STEPS = 9


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database(database_url, connections=4, pinned_plans=True).open()
    yield opened
    await opened.close()


async def test_a_grant_and_a_cancel_of_the_same_steps_wait_for_one_another(
    database: Database, database_url: str
) -> None:
    dag_id = task_id_at(EPOCH)
    tasks = [new_task(dag_id=dag_id) for _ in range(STEPS)]
    steps = tuple(NewStep(f"s{task.task_id}", task, (), "fail") for task in reversed(tasks))  # not in the order of ids
    await DagStore(database, max_attempts=4).insert(
        [NewDag(dag_id, "acme", 1, "us-east", EPOCH, None, None, None, None, steps)]
    )
    store = QueueStore(database, "us-east")
    picks = [(ticket_of(step.task), str(uuid.uuid4()), worker()) for step in steps]
    middle = steps[STEPS // 2].task.task_id
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        await other.execute("SELECT FROM tasks WHERE task_id = %s FOR UPDATE", [middle])
        granting = asyncio.ensure_future(store.grant(picks, EPOCH + 1))
        await until_so_many_wait(1, database_url)
        cancelling = asyncio.ensure_future(store.cancel_dag(dag_id, EPOCH + 1))
        await until_so_many_wait(2, database_url)
        await other.rollback()
    granted, cancelled = await asyncio.gather(granting, cancelling)
    assert len(granted) == STEPS
    assert cancelled is not None
    assert cancelled[0] is DagStatus.RUNNING
    assert cancelled[1] is not None
    assert len(cancelled[1].ended) == STEPS


async def until_so_many_wait(count: int, database_url: str) -> None:
    """Return when so many statements wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for _ in range(1_000):
            if await (await connection.execute(waiting)).fetchone() == (count,):
                return
            await asyncio.sleep(0.01)
    raise AssertionError(f"{count} statements do not wait")
