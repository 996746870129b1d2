"""Each attempt that a worker ends leaves a row for every file it made, whatever became of the file and the attempt."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from making import EPOCH, new_task, stored_file, ticket_of, worker

from flik.domain.task import NewTask, Status, Upload, UploadStatus
from flik.storage.database import Database
from flik.storage.events import HistoryStore
from flik.storage.queue import GrantedRow, QueueStore, Settlement
from flik.storage.tasks import TaskStore

STORED = Upload(0, UploadStatus.STORED, 1, 10, EPOCH + 1.25, EPOCH + 1.5)
AGAIN = Upload(1, UploadStatus.STORED, 32_767, 2**40, EPOCH + 1.5, EPOCH + 9.75, 'OSError: "no space" 猫')
FAILED = Upload(2, UploadStatus.FAILED, 7, 10, EPOCH + 1.5, EPOCH + 9.0, "GenericError: away")
ABANDONED = Upload(3, UploadStatus.ABANDONED, 0, 0, EPOCH + 1.5, EPOCH + 1.0)  # a clock that was set back


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


async def rows(database: Database, task: NewTask) -> list[tuple[Any, ...]]:
    return await database.repeatable(
        "SELECT u.lease_token::text, u.index, u.status::text, u.attempts, u.size_bytes,"
        " date_part('epoch', u.started_at), date_part('epoch', u.ended_at), u.error"
        " FROM uploads u JOIN attempts a USING (task_id, lease_token)"
        " WHERE u.task_id = %(task_id)s::uuid ORDER BY a.seq, u.index",
        {"task_id": task.task_id},
    )


def row_of(grant: GrantedRow, upload: Upload) -> tuple[Any, ...]:
    return (
        grant.lease_token, upload.index, upload.status.value, upload.attempts, upload.size_bytes,
        upload.started_at, upload.ended_at, upload.error,
    )  # fmt: skip


async def test_each_attempt_s_uploads_are_recorded_with_it(
    database: Database, store: QueueStore, task: NewTask
) -> None:
    first = await grant(store, task)
    again = Settlement(
        first.task_id, first.lease_token, Status.QUEUED, "FAILED", available_at=EPOCH + 1,
        error_code="artifacts_unavailable", uploads=(STORED, FAILED),
    )  # fmt: skip
    await store.settle([again], EPOCH + 2)
    second = await grant(store, task)
    back = Settlement(
        second.task_id, second.lease_token, Status.QUEUED, "HANDED_BACK", True, EPOCH + 1, uploads=(ABANDONED,)
    )
    await store.settle([back], EPOCH + 3)
    third = await grant(store, task)
    files = (stored_file(0), stored_file(1, upload_attempts=32_767))
    done = Settlement(
        third.task_id, third.lease_token, Status.COMPLETED, "COMPLETED", result="{}", artifacts=files,
        uploads=(STORED, AGAIN),
    )  # fmt: skip
    await store.settle([done], EPOCH + 4)

    assert await rows(database, task) == [
        row_of(first, STORED), row_of(first, FAILED), row_of(second, ABANDONED),
        row_of(third, STORED), row_of(third, AGAIN),
    ]  # fmt: skip
    view = await TaskStore(database, max_attempts=4).get(task.task_id)
    assert view is not None
    assert view.artifacts == files
    history = await HistoryStore(database).read(task.task_id)
    assert history is not None
    assert history.task.artifacts == files


async def test_attempt_that_took_up_an_earlier_generation_says_whose(
    database: Database, store: QueueStore, task: NewTask
) -> None:
    first = await grant(store, task)
    lost = Settlement(first.task_id, first.lease_token, Status.QUEUED, "LOST", available_at=EPOCH + 1)
    await store.settle([lost], EPOCH + 2)
    second = await grant(store, task)
    done = Settlement(
        second.task_id, second.lease_token, Status.COMPLETED, "COMPLETED", result="{}", made_by=first.lease_token
    )
    await store.settle([done], EPOCH + 3)
    assert await database.repeatable(
        "SELECT a.attempt, a.made_by::text FROM attempts a WHERE task_id = %(task_id)s::uuid ORDER BY a.attempt",
        {"task_id": task.task_id},
    ) == [(1, None), (2, first.lease_token)]


async def test_refused_settlement_records_no_uploads(database: Database, store: QueueStore, task: NewTask) -> None:
    row = await grant(store, task)
    stale = Settlement(
        row.task_id, str(uuid.uuid4()), Status.COMPLETED, "COMPLETED", result="{}", artifacts=(stored_file(),),
        uploads=(STORED,),
    )  # fmt: skip
    assert await store.settle([stale], EPOCH + 2) == []
    done = Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result="{}", uploads=(STORED,))
    assert len(await store.settle([done, stale], EPOCH + 2)) == 1
    assert await rows(database, task) == [row_of(row, STORED)]


async def test_batch_records_each_task_s_own_uploads(database: Database, store: QueueStore) -> None:
    tasks = [new_task() for _ in range(5)]
    await TaskStore(database, max_attempts=4).insert(tasks)
    grants = [await grant(store, each) for each in tasks]
    settlements = [
        Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result="{}",
                   uploads=tuple(STORED for _ in range(place % 2)))
        for place, row in enumerate(grants)
    ]  # fmt: skip
    await store.settle(settlements, EPOCH + 2)
    for place, (each, row) in enumerate(zip(tasks, grants, strict=True)):
        assert await rows(database, each) == [row_of(row, STORED)] * (place % 2)


async def test_all_units_of_a_task_s_work_are_found_with_one_query(
    database: Database, store: QueueStore, task: NewTask
) -> None:
    """The task, its attempts, their uploads and the files: as a list of units, and each file with who made it."""
    first = await grant(store, task)
    failed = Settlement(
        first.task_id, first.lease_token, Status.QUEUED, "FAILED", available_at=EPOCH + 1,
        error_code="artifacts_unavailable", uploads=(STORED, FAILED),
    )  # fmt: skip
    await store.settle([failed], EPOCH + 9)
    second = await grant(store, task)
    files = (stored_file(0), stored_file(1, upload_attempts=32_767))
    done = Settlement(
        second.task_id, second.lease_token, Status.COMPLETED, "COMPLETED", result="{}", artifacts=files,
        uploads=(STORED, AGAIN),
    )  # fmt: skip
    await store.settle([done], EPOCH + 10)

    units = await database.repeatable(
        """
        SELECT unit, of_attempt, index, state
        FROM (
            SELECT 'task' AS unit, NULL::smallint AS of_attempt, NULL::smallint AS index, status::text AS state, task_id
            FROM tasks
            UNION ALL SELECT 'attempt', attempt, NULL, outcome::text, task_id FROM attempts
            UNION ALL SELECT 'upload', a.attempt, u.index, u.status::text, task_id
                      FROM uploads u JOIN attempts a USING (task_id, lease_token)
            UNION ALL SELECT 'artifact', NULL, index, status::text, task_id FROM artifacts
        ) units
        WHERE task_id = %(task_id)s::uuid
        ORDER BY of_attempt NULLS FIRST, unit, index
        """,
        {"task_id": task.task_id},
    )
    assert units == [
        ("artifact", None, 0, "STORED"), ("artifact", None, 1, "STORED"), ("task", None, None, "COMPLETED"),
        ("attempt", 1, None, "FAILED"), ("upload", 1, 0, "STORED"), ("upload", 1, 2, "FAILED"),
        ("attempt", 2, None, "COMPLETED"), ("upload", 2, 0, "STORED"), ("upload", 2, 1, "STORED"),
    ]  # fmt: skip

    made = await database.repeatable(
        """
        SELECT t.status::text, a.attempt, a.worker_id, u.index, u.attempts, f.upload_attempts, f.key
        FROM tasks t
        JOIN attempts a ON a.task_id = t.task_id AND a.outcome = 'COMPLETED'
        JOIN uploads u ON u.task_id = a.task_id AND u.lease_token = coalesce(a.made_by, a.lease_token)
        JOIN artifacts f ON f.task_id = u.task_id AND f.index = u.index
        WHERE t.task_id = %(task_id)s::uuid
        ORDER BY u.index
        """,
        {"task_id": task.task_id},
    )
    assert made == [
        ("COMPLETED", 2, "w1", 0, 1, 1, files[0].key), ("COMPLETED", 2, "w1", 1, 32_767, 32_767, files[1].key),
    ]  # fmt: skip
