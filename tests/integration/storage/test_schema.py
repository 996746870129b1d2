"""Rows that no task may ever be in are refused by the table itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from making import EPOCH, task_id_at

TOKEN = "00000000-0000-4000-8000-000000000000"
QUEUED: dict[str, Any] = {
    "tenant_id": "acme",
    "task_type": "TEXT",
    "priority": 1,
    "region": "us-east",
    "status": "QUEUED",
    "attempt": 0,
    "max_attempts": 4,
    "created_at": "2026-01-01T00:00:00Z",
    "available_at": "2026-01-01T00:00:00Z",
    "payload": "{}",
}
RUN = {"attempt": 1, "worker_id": "w1", "version": "v1", "started_at": "2026-01-01T00:00:01Z"}
ENDED = {**RUN, "completed_at": "2026-01-01T00:00:02Z"}
STATES: dict[str, dict[str, Any]] = {
    "QUEUED": QUEUED,
    "PENDING": {**QUEUED, "status": "PENDING"},
    "PROCESSING": {**QUEUED, **RUN, "status": "PROCESSING", "lease_token": TOKEN},
    "COMPLETED": {**QUEUED, **ENDED, "status": "COMPLETED", "result": "{}"},
    "FAILED": {**QUEUED, **ENDED, "status": "FAILED", "error_code": "overloaded"},
    "CANCELLED": {**QUEUED, **ENDED, "status": "CANCELLED"},
    "EXPIRED": {**QUEUED, "status": "EXPIRED", "completed_at": "2026-01-01T00:00:02Z"},
}


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url) as connection:
        yield connection
        connection.rollback()


def insert(connection: psycopg.Connection, row: dict[str, Any]) -> None:
    values = {"task_id": task_id_at(EPOCH), **row}
    columns, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    connection.execute(f"INSERT INTO tasks ({columns}) VALUES ({places})".encode(), values)


@pytest.mark.parametrize("status", STATES)
def test_every_state_has_rows_that_are_accepted(connection: psycopg.Connection, status: str) -> None:
    insert(connection, STATES[status])
    assert connection.execute("SELECT status::text FROM tasks").fetchall() == [(status,)]


@pytest.mark.parametrize(
    ("status", "change", "constraint"),
    [
        ("QUEUED", {"lease_token": TOKEN}, "lease_iff_processing"),
        ("PROCESSING", {"lease_token": None}, "lease_iff_processing"),
        ("COMPLETED", {"lease_token": TOKEN}, "lease_iff_processing"),
        ("PROCESSING", {"worker_id": None}, "processing_has_started"),
        ("PROCESSING", {"started_at": None}, "processing_has_started"),
        ("PROCESSING", {"attempt": 0}, "processing_has_started"),
        ("QUEUED", {"completed_at": "2026-01-01T00:00:02Z"}, "completed_iff_terminal"),
        ("COMPLETED", {"completed_at": None}, "completed_iff_terminal"),
        ("CANCELLED", {"completed_at": None}, "completed_iff_terminal"),
        ("EXPIRED", {"completed_at": None}, "completed_iff_terminal"),
        ("COMPLETED", {"result": None}, "result_iff_completed"),
        ("FAILED", {"result": "{}"}, "result_iff_completed"),
        ("CANCELLED", {"result": "{}"}, "result_iff_completed"),
        ("COMPLETED", {"attempt": 0}, "completed_has_run"),
        ("FAILED", {"error_code": None}, "failed_says_why"),
        ("QUEUED", {"attempt": 5}, "attempts_are_counted"),
        ("QUEUED", {"attempt": -1}, "attempts_are_counted"),
        ("QUEUED", {"priority": 3}, "tasks_priority_check"),
        ("QUEUED", {"tenant_id": ""}, "tasks_tenant_id_check"),
        ("QUEUED", {"tenant_id": "x" * 129}, "tasks_tenant_id_check"),
        ("QUEUED", {"task_type": "text"}, "tasks_task_type_check"),
        ("QUEUED", {"region": ""}, "tasks_region_check"),
    ],
)
def test_an_impossible_task_is_refused(
    connection: psycopg.Connection, status: str, change: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        insert(connection, {**STATES[status], **change})
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    ("sql", "constraint"),
    [
        ("UPDATE attempts SET attempt = 0", "attempts_attempt_check"),
    ],
)
def test_an_impossible_attempt_is_refused(connection: psycopg.Connection, sql: str, constraint: str) -> None:
    connection.execute(
        "INSERT INTO attempts (task_id, lease_token, attempt, worker_id, version, started_at, ended_at, outcome, seq)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), 1, 'w1', 'v1', now(), now(), 'LOST', 3)"
    )
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(sql.encode())
    assert refused.value.diag.constraint_name == constraint


@pytest.mark.parametrize(
    "change", ["index = -1", "size_bytes = -1", "sha256 = 'XYZ'", "width = 0", "height = 0", "duration_s = -0.5"]
)
def test_an_impossible_artifact_is_refused(connection: psycopg.Connection, change: str) -> None:
    connection.execute(
        "INSERT INTO artifacts (task_id, index, key, content_type, size_bytes, sha256, created_at)"
        " VALUES (gen_random_uuid(), 0, 'k', 'image/png', 1, repeat('0', 64), now())"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE artifacts SET {change}".encode())


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("index = -1", "uploads_index_check"),
        ("attempts = -1", "uploads_attempts_check"),
        ("size_bytes = -1", "uploads_size_bytes_check"),
        ("status = 'FAILED'", "failed_says_why"),
        ("status = 'STORED', attempts = 0", "stored_was_sent"),
    ],
)
def test_an_impossible_upload_is_refused(connection: psycopg.Connection, change: str, constraint: str) -> None:
    connection.execute(
        "INSERT INTO uploads (task_id, lease_token, index, status, attempts, size_bytes, started_at, ended_at)"
        " VALUES (gen_random_uuid(), gen_random_uuid(), 0, 'ABANDONED', 1, 1, now(), now())"
    )
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(f"UPDATE uploads SET {change}".encode())
    assert refused.value.diag.constraint_name == constraint


DAG = (
    "INSERT INTO dags (dag_id, tenant_id, priority, region, created_at)"
    " VALUES (gen_random_uuid(), 'acme', 1, 'us-east', now())"
)
STEP = (
    "INSERT INTO dag_steps (task_id, dag_id, place, step_id, parents, on_failure, waited)"
    " VALUES (gen_random_uuid(), gen_random_uuid(), 0, 'draw', '{}', 'fail', false)"
)
MEMO = "INSERT INTO memos (tenant_id, key, task_id) VALUES ('acme', sha256('x'), gen_random_uuid())"


@pytest.mark.parametrize(
    ("row", "change", "constraint"),
    [
        (DAG, "dags SET tenant_id = ''", "dags_tenant_id_check"),
        (DAG, "dags SET tenant_id = repeat('x', 129)", "dags_tenant_id_check"),
        (DAG, "dags SET priority = -1", "dags_priority_check"),
        (DAG, "dags SET priority = 3", "dags_priority_check"),
        (DAG, "dags SET region = ''", "dags_region_check"),
        (DAG, "dags SET region = repeat('x', 33)", "dags_region_check"),
        (DAG, "dags SET status = 'COMPLETED'", "completed_iff_over"),
        (DAG, "dags SET status = 'CANCELLED'", "completed_iff_over"),
        (DAG, "dags SET completed_at = now()", "completed_iff_over"),
        (DAG, "dags SET status = 'FAILED', completed_at = now()", "failed_says_why"),
        (DAG, "dags SET error_code = 'step_failed'", "failed_says_why"),
        (STEP, "dag_steps SET place = -1", "dag_steps_place_check"),
        (STEP, "dag_steps SET place = 100", "dag_steps_place_check"),
        (STEP, "dag_steps SET step_id = ''", "dag_steps_step_id_check"),
        (STEP, "dag_steps SET step_id = repeat('x', 65)", "dag_steps_step_id_check"),
        (STEP, "dag_steps SET on_failure = 'ignore'", "dag_steps_on_failure_check"),
        (STEP, "dag_steps SET released_at = now()", "released_has_waited"),
        (MEMO, "memos SET key = 'short'", "memos_key_check"),
    ],
)
def test_an_impossible_dag_step_or_memo_is_refused(
    connection: psycopg.Connection, row: str, change: str, constraint: str
) -> None:
    connection.execute(row.encode())
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(f"UPDATE {change}".encode())
    assert refused.value.diag.constraint_name == constraint


def test_a_place_of_a_dag_is_taken_once_a_round_and_a_key_once_a_tenant(connection: psycopg.Connection) -> None:
    step = STEP.replace("gen_random_uuid(), gen_random_uuid()", f"gen_random_uuid(), '{TOKEN}'")
    connection.execute(step.encode())
    connection.execute(MEMO.encode())
    for twice in (step, MEMO):
        with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
            connection.execute(twice.encode())
    second = step.replace("waited)", "waited, round)").replace("false)", "false, 2)")
    connection.execute(second.encode())


TENANT = "INSERT INTO tenants (tenant_id, created_at, updated_at) VALUES (%s, now(), now())"
KEY = (
    "INSERT INTO api_keys (key_id, tenant_id, digest, prefix, scopes, created_at)"
    " VALUES (gen_random_uuid(), 'acme', sha256('x'), 'flik_live_', '{read}', '2026-01-01T00:00:00Z')"
)


@pytest.mark.parametrize("tenant_id", ["a", "A.b:c@d-e_f", "0" * 128])
def test_tenant_ids_that_the_interface_accepts_are_accepted(connection: psycopg.Connection, tenant_id: str) -> None:
    connection.execute(TENANT.encode(), (tenant_id,))


@pytest.mark.parametrize("tenant_id", ["", "-a", "a b", "a/b", "é", "a\n", "\na", "0" * 129])
def test_an_impossible_tenant_is_refused(connection: psycopg.Connection, tenant_id: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(TENANT.encode(), (tenant_id,))


@pytest.mark.parametrize(
    "change",
    [
        "rate_per_s = 0", "rate_per_s = -1", "rate_per_s = 'NaN'", "rate_per_s = 'Infinity'", "burst = 0",
        "max_running = -1", "max_queued = -1", "weight = 0", "highest_priority = 3", "highest_priority = -1",
        "max_payload_bytes = 1", "max_payload_bytes = 262145", "name = repeat('x', 201)",
    ],
)  # fmt: skip
def test_an_impossible_limit_is_refused(connection: psycopg.Connection, change: str) -> None:
    connection.execute(TENANT.encode(), ("acme",))
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE tenants SET {change}".encode())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("scopes = '{}'", psycopg.errors.CheckViolation),
        ("scopes = '{root}'", psycopg.errors.InvalidTextRepresentation),
        ("digest = 'short'", psycopg.errors.CheckViolation),
        ("expires_at = created_at", psycopg.errors.CheckViolation),
        ("prefix = ''", psycopg.errors.CheckViolation),
        ("prefix = repeat('x', 17)", psycopg.errors.CheckViolation),  # a whole key has no place here
        ("tenant_id = 'nobody'", psycopg.errors.ForeignKeyViolation),
    ],
)
def test_an_impossible_key_is_refused(connection: psycopg.Connection, change: str, error: type[psycopg.Error]) -> None:
    connection.execute(TENANT.encode(), ("acme",))
    connection.execute(KEY.encode())
    with pytest.raises(error):
        connection.execute(f"UPDATE api_keys SET {change}".encode())


def test_two_keys_of_one_digest_are_refused(connection: psycopg.Connection) -> None:
    connection.execute(TENANT.encode(), ("acme",))
    connection.execute(KEY.encode())
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute(KEY.encode())


@pytest.mark.parametrize("change", ["actor = ''", "action = 'Created'", "action = 'created'", "subject = ''"])
def test_an_impossible_note_is_refused(connection: psycopg.Connection, change: str) -> None:
    connection.execute(
        "INSERT INTO audit_log (entry_id, at, actor, action, subject, detail)"
        " VALUES (gen_random_uuid(), now(), 'flik', 'key.created', 'k1', '{}')"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE audit_log SET {change}".encode())
