"""Tasks from before the log was numbered get the numbers that they would have."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from making import EPOCH, task_id_at

from flik.domain.event import log_of
from flik.storage.database import Database
from flik.storage.events import HistoryStore
from flik.storage.migrate import MIGRATIONS, migrate

_TASK = """INSERT INTO tasks (task_id, tenant_id, task_type, priority, region, status, attempt, max_attempts,
                              created_at, available_at, started_at, completed_at, lease_token, worker_id, version,
                              error_code, payload, result)
           SELECT %(task_id)s, 'acme', 'TEXT', 1, 'us-east', status::task_status, attempt, 4, at, at,
                  CASE WHEN attempt > 0 THEN at + interval '1 s' END,
                  CASE WHEN status IN ('COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED') THEN at + interval '9 s' END,
                  CASE WHEN status = 'PROCESSING' THEN gen_random_uuid() END,
                  CASE WHEN attempt > 0 THEN 'w1' END, CASE WHEN attempt > 0 THEN 'v1' END,
                  CASE WHEN status = 'FAILED' THEN 'overloaded' END, '{}',
                  CASE WHEN status = 'COMPLETED' THEN '{}'::jsonb END
           FROM (VALUES (%(status)s::text, %(attempt)s::smallint, to_timestamp(%(at)s))) AS v(status, attempt, at)"""
_ATTEMPT = """INSERT INTO attempts (task_id, lease_token, attempt, worker_id, version, started_at, ended_at, outcome)
              VALUES (%(task_id)s, gen_random_uuid(), %(n)s, 'w1', 'v1', to_timestamp(%(at)s),
                      to_timestamp(%(at)s + 0.5), %(outcome)s::attempt_outcome)"""
_FILE = """INSERT INTO artifacts (task_id, index, key, content_type, size_bytes, sha256, created_at)
           VALUES (%(task_id)s, %(index)s, 'k', 'image/png', 1, repeat('0', 64), now())"""


@pytest.fixture
async def histories(database_url: str, tmp_path: Path) -> AsyncIterator[tuple[str, Path, HistoryStore]]:
    """A database as it was before the log, the folder of its migrations, and what reads histories."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    for path in sorted(MIGRATIONS.glob("*.sql")):
        if path.name < "0005":
            shutil.copy(path, tmp_path)
    migrate(database_url, directory=tmp_path)
    database = await Database(database_url, connections=1).open()
    yield database_url, tmp_path, HistoryStore(database)
    await database.close()


@pytest.mark.parametrize(
    ("status", "outcomes", "files", "kinds"),
    [
        ("QUEUED", [], 0, ["queued"]),
        ("EXPIRED", [], 0, ["queued", "expired"]),
        ("CANCELLED", [], 0, ["queued", "cancelled"]),
        ("PROCESSING", [], 0, ["queued", "processing"]),
        ("CANCELLED", ["CANCELLED"], 0, ["queued", "processing", "cancelled"]),
        ("COMPLETED", ["COMPLETED"], 2, ["queued", "processing", "artifact", "artifact", "completed"]),
        ("QUEUED", ["FAILED"], 0, ["queued", "processing", "retryScheduled"]),
        ("PROCESSING", ["HANDED_BACK"], 0, ["queued", "processing", "retryScheduled", "processing"]),
        ("FAILED", ["LOST", "FAILED"], 0, ["queued", "processing", "retryScheduled", "processing", "failed"]),
        ("COMPLETED", ["FAILED", "COMPLETED"], 0,
         ["queued", "processing", "retryScheduled", "processing", "completed"]),
        ("CANCELLED", ["FAILED"], 0, ["queued", "processing", "retryScheduled", "cancelled"]),
    ],
)  # fmt: skip
async def test_the_log_of_a_task_from_before_is_whole(
    histories: tuple[str, Path, HistoryStore], status: str, outcomes: list[str], files: int, kinds: list[str]
) -> None:
    url, folder, store = histories
    task_id = task_id_at(EPOCH)
    attempt = len(outcomes) + (status == "PROCESSING")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TASK, {"task_id": task_id, "status": status, "attempt": attempt, "at": EPOCH})
        for n, outcome in enumerate(outcomes, 1):
            connection.execute(_ATTEMPT, {"task_id": task_id, "n": n, "at": EPOCH + n, "outcome": outcome})
        for index in range(files):
            connection.execute(_FILE, {"task_id": task_id, "index": index})
    for path in MIGRATIONS.glob("*.sql"):
        shutil.copy(path, folder)
    migrate(url, directory=folder)
    history = await store.read(task_id)
    assert history is not None
    assert [event.kind for event in log_of(history)] == kinds
    assert [event.seq for event in log_of(history)] == list(range(1, history.seq + 1))
