"""Retry and settle of one task at the same moment."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import psycopg
import pytest
from making import EPOCH, new_task, ticket_of, worker

from flik.domain.task import Status
from flik.storage.database import Database
from flik.storage.queue import QueueStore
from flik.storage.tasks import TaskStore


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database(database_url, connections=2, pinned_plans=True).open()
    yield database
    await database.close()


async def test_retry_that_waits_for_the_settle_of_its_task_succeeds(database: Database, database_url: str) -> None:
    store, task = QueueStore(database, "us-east"), new_task()
    await TaskStore(database, max_attempts=4).insert([task])
    await store.grant([(ticket_of(task), str(uuid.uuid4()), worker())], EPOCH + 1)
    async with await psycopg.AsyncConnection.connect(database_url) as settling:
        await settling.execute(
            "UPDATE tasks SET status = 'FAILED', lease_token = NULL, completed_at = now(), error_code = 'boom'"
            " WHERE task_id = %s",
            [task.task_id],
        )
        retry = asyncio.create_task(store.retry(task.task_id, 4, EPOCH + 2))
        async with asyncio.timeout(10):
            while True:
                found = await settling.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if (await found.fetchone()) != (0,):
                    break
        await settling.commit()
    before, ticket = await retry or (None, None)
    assert (before, ticket is not None) == (Status.FAILED, True)
