"""How PostgreSQL runs the statements of the hot path on 200,000 rows, whatever its statistics say about them."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from making import EPOCH, stored_file, task_id_at, worker

from flik.domain.task import Status, TaskFilter, Ticket
from flik.storage import queries
from flik.storage.database import PINNED_PLANS, Database
from flik.storage.queue import QueueStore, Settlement
from flik.storage.tasks import COLUMNS, conditions_of

ROWS = 200_000
QUEUE, TASKS = queries.load("queue"), queries.load("tasks")
VALUES: dict[str, Any] = {
    "region": "us-east",
    "now": EPOCH + 500.0,
    "limit": 1000,
    "task_type": "TEXT",
    "priority": 1,
    "tenant_id": "tenant1",
    "task_id": task_id_at(EPOCH, 150_000),
    "after": task_id_at(EPOCH, 195_000),
    "priorities": [1, 2, 0],
    "tenant_ids": ["tenant1", "tenant2", "nobody"],
    "afters": [task_id_at(EPOCH, 195_000)] * 3,
    "limits": [40, 60, 50],
    "round": 4,
    "dag_ids": [],
}

FILL = f"""
INSERT INTO tasks (task_id, tenant_id, task_type, priority, region, status, attempt, max_attempts, created_at,
                   available_at, start_deadline_at, started_at, completed_at, lease_token, worker_id, version,
                   error_code, payload, result)
SELECT ('{task_id_at(EPOCH, 0)[:24]}' || lpad(to_hex(n), 12, '0'))::uuid, 'tenant' || n % 5, 'TEXT', n % 3, 'us-east',
       s::task_status, (s <> 'QUEUED')::int, 4, to_timestamp({EPOCH}), to_timestamp({EPOCH}),
       CASE WHEN s = 'QUEUED' AND n % 10 = 0 THEN to_timestamp({EPOCH} + n) END,
       CASE WHEN s <> 'QUEUED' THEN to_timestamp({EPOCH}) END,
       CASE WHEN s IN ('COMPLETED', 'FAILED') THEN to_timestamp({EPOCH}) END,
       CASE WHEN s = 'PROCESSING' THEN gen_random_uuid() END, 'w', 'v', CASE WHEN s = 'FAILED' THEN 'x' END,
       '{{}}', CASE WHEN s = 'COMPLETED' THEN '{{}}'::jsonb END
FROM generate_series(1, {ROWS}) n,
     LATERAL (SELECT CASE WHEN n <= 95000 THEN 'COMPLETED' WHEN n <= 100000 THEN 'FAILED'
                          WHEN n <= 110000 THEN 'PROCESSING' ELSE 'QUEUED' END) AS of(s)
"""


@pytest.fixture(scope="module", params=["never analysed", "analysed", "analysed while nothing waited"])
def filled_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE tasks SET (autovacuum_enabled = false)")
        connection.execute("TRUNCATE tasks, attempts, artifacts")
        connection.execute(FILL.encode())
        if request.param == "analysed":
            connection.execute("ANALYZE tasks")
        if request.param == "analysed while nothing waited":
            connection.execute("DELETE FROM tasks WHERE status IN ('QUEUED', 'PROCESSING')")
            connection.execute("ANALYZE tasks")
            connection.execute(f"{FILL} ON CONFLICT DO NOTHING".encode())
    yield database_url


@pytest.fixture
def queue_connection(filled_url: str) -> Iterator[psycopg.Connection]:
    """A connection as the queue has it."""
    with psycopg.connect(filled_url, options=PINNED_PLANS) as connection:
        yield connection
        connection.rollback()


def plan_of(connection: psycopg.Connection, sql: str, values: dict[str, Any]) -> list[str]:
    return [row[0] for row in connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}".encode(), values)]


def generic_plan_of(connection: psycopg.Connection, sql: str) -> list[str]:
    """The plan that PostgreSQL keeps for the prepared statement."""
    if connection.info.server_version < 160_000:
        pytest.skip("this PostgreSQL cannot show generic plans")
    names: dict[str, str] = {}
    numbered = re.sub(r"%\((\w+)\)s", lambda found: names.setdefault(found[1], f"${len(names) + 1}"), sql)
    return [row[0] for row in connection.execute(f"EXPLAIN (GENERIC_PLAN) {numbered}".encode())]


def scans(plan: list[str]) -> list[str]:
    """How tables are read: `Index Scan using tasks_live on tasks` and the like."""
    found = (re.search(r"(\w[\w ]* Scan(?: Backward)?(?: using \w+)? on \w+|Seq Scan on \w+)", line) for line in plan)
    return [each[1] for each in found if each and not re.search("CTE Scan|Function Scan", each[1])]


def assert_short(plan: list[str]) -> None:
    text = "\n".join(plan)
    assert not re.search(r"Seq Scan|Hash Join|Hash Semi|Merge Join", text), text


def dead_letter_query(name: str) -> str:
    conditions, _ = conditions_of(TaskFilter(status="FAILED", tenant_id="tenant1"))
    return QUEUE[name].format(conditions=conditions)


@pytest.mark.parametrize("name", ["grant_tasks", "settle_tasks", "cancel_task", "retry_task"])
def test_moves_find_their_rows_by_primary_key(queue_connection: psycopg.Connection, name: str) -> None:
    plan = generic_plan_of(queue_connection, QUEUE[name])
    assert_short(plan)
    assert {scan for scan in scans(plan) if "tasks" in scan} <= {
        "Index Scan using tasks_pkey on tasks", "Index Scan using tasks_dead on tasks",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["grant_tasks", "settle_tasks"])
def test_a_plan_made_while_the_table_was_empty_looks_tasks_up_by_key(database_url: str, name: str) -> None:
    with psycopg.connect(database_url, options=PINNED_PLANS) as connection:
        connection.execute("TRUNCATE tasks, attempts, artifacts")
        plan = "\n".join(generic_plan_of(connection, QUEUE[name]))
        connection.rollback()
    assert_short(plan.splitlines())
    assert re.search(r"Index Scan using tasks_pkey on tasks t .*\n +Index Cond: \(task_id = \w+\.task_id\)", plan), plan


@pytest.mark.parametrize("count", [1, 100, 2000])
def test_a_grant_of_many_stays_a_nested_loop(queue_connection: psycopg.Connection, count: int) -> None:
    picks = {
        "task_ids": [task_id_at(EPOCH, 120_000 + n) for n in range(count)],
        "lease_tokens": [str(uuid.uuid4()) for _ in range(count)],
        "places": [1] * count,
    }
    plan = plan_of(
        queue_connection, QUEUE["grant_tasks"], {**picks, "worker_ids": ["w"], "versions": ["v"], "now": EPOCH + 1}
    )
    assert_short(plan)
    assert re.search(rf"Update on tasks .*actual rows={count}", "\n".join(plan))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("page_backlogs", "tasks_live"),
        ("scan_waiting", "tasks_live"),
        ("scan_recent", "tasks_pkey"),
        ("list_running", "tasks_live"),
        ("count_backlogs", "tasks_live"),
        ("expire_tasks", "tasks_start_deadline"),
    ],
)
def test_what_the_queue_reads_it_reads_by_index(queue_connection: psycopg.Connection, name: str, index: str) -> None:
    for plan in (plan_of(queue_connection, QUEUE[name], VALUES), generic_plan_of(queue_connection, QUEUE[name])):
        assert_short(plan)
        assert f"using {index} on tasks" in "\n".join(plan)


@pytest.mark.parametrize("name", ["page_backlogs", "scan_waiting", "scan_recent"])
def test_a_page_is_read_in_the_order_of_its_index_without_a_sort(
    queue_connection: psycopg.Connection, name: str
) -> None:
    for plan in (plan_of(queue_connection, QUEUE[name], VALUES), generic_plan_of(queue_connection, QUEUE[name])):
        assert "Sort" not in "\n".join(plan)


@pytest.mark.parametrize("after", [0, 150_000])
def test_a_page_reads_no_more_rows_than_it_returns(queue_connection: psycopg.Connection, after: int) -> None:
    at = {"task_id": task_id_at(EPOCH, after), "limit": 100, "afters": [task_id_at(EPOCH, after)] * 3}
    for name, rows, loops in (("scan_waiting", 100, 1), ("page_backlogs", 33, 3)):  # rows of a loop, rounded down
        plan = plan_of(queue_connection, QUEUE[name], {**VALUES, **at})
        (read,) = [
            (int(found[1]), int(found[2]))
            for line in plan
            if (found := re.search(r"on tasks.*actual rows=(\d+)[.\d]* loops=(\d+)", line))
        ]
        assert read == (rows, loops)


def test_replay_finds_dead_letters_by_their_index(queue_connection: psycopg.Connection) -> None:
    conditions, _ = conditions_of(TaskFilter(status="FAILED"))
    plan = generic_plan_of(queue_connection, TASKS["list_dead_letters"].format(conditions=conditions))
    assert_short(plan)
    assert "using tasks_dead on tasks" in "\n".join(plan)


@pytest.mark.parametrize(
    "wanted",
    [
        TaskFilter(),
        TaskFilter(tenant_id="tenant1"),
        TaskFilter(tenant_id="tenant1", before_id=task_id_at(EPOCH, 100_000)),
        TaskFilter(tenant_id="tenant1", status="QUEUED"),
        TaskFilter(status="FAILED"),
        TaskFilter(status="FAILED", tenant_id="tenant1", error_code="x"),
        TaskFilter(created_from=EPOCH - 60, created_until=EPOCH + 60),
    ],
)
@pytest.mark.parametrize("filled_url", ["analysed"], indirect=True)  # the gateway's plans rely on statistics
def test_a_list_reads_newest_first_by_index_without_a_sort(filled_url: str, wanted: TaskFilter) -> None:
    conditions, values = conditions_of(wanted)
    sql = TASKS["list_tasks"].format(columns=COLUMNS, conditions=conditions)
    with psycopg.connect(filled_url) as connection:
        for plan in (plan_of(connection, sql, {**values, "limit": 50}), generic_plan_of(connection, sql)):
            assert "Sort" not in "\n".join(plan)
            assert_short(plan)


async def test_two_thousand_grants_and_settlements_with_artifacts_take_less_than_a_second_each(filled_url: str) -> None:
    database = await Database(filled_url, connections=1, pinned_plans=True).open()
    store = QueueStore(database, "us-east")
    ids = [task_id_at(EPOCH, 130_000 + n) for n in range(2000)]
    picks = [(Ticket(task_id, "t", "TEXT", 1, EPOCH, EPOCH), str(uuid.uuid4()), worker()) for task_id in ids]
    rows = await asyncio.wait_for(store.grant(picks, EPOCH), 1.0)
    files = (stored_file(0), stored_file(1))
    settlements = [
        Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result="{}", artifacts=files)
        for row in rows
    ]
    moved = await asyncio.wait_for(store.settle(settlements, EPOCH + 1), 1.0)
    await database.close()
    assert len(moved) == len(rows) > 1500


@pytest.mark.parametrize("filled_url", ["analysed"], indirect=True)
def test_a_list_of_what_hardly_ever_is_there_reads_no_history(filled_url: str) -> None:
    conditions, values = conditions_of(TaskFilter(tenant_id="tenant1", status="PENDING"))
    with psycopg.connect(filled_url) as connection:
        if connection.info.server_version < 180_000:
            pytest.skip("before 18, to read this whole table costs as little as the index of the half of it that lives")
        sql = TASKS["list_tasks"].format(columns=COLUMNS, conditions=conditions)
        plan = "\n".join(plan_of(connection, sql, {**values, "limit": 50}))
    assert "tasks_live" in plan or "tasks_start_deadline" in plan, plan
