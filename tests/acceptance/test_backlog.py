"""A queue of a million tasks of thousands of tenants costs bounded memory, and urgent work is leased out of it at once.

It has 200,000 without `make chaos`: four times what is held in memory.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.acceptance.running import RunningFlik, eventually

ROWS = 1_000_000 if os.environ.get("FLIK_CHAOS") == "long" else 200_000
LIGHT = 15_000  # tenants beside the one that has half of the tasks
URGENT = 40
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def loaded(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik of our own, to be filled."""
    running = RunningFlik(data_folder / "backlog", WORKER_CONCURRENCY="8", FLIK_SIMULATED_SPEED="100").start()
    yield running
    running.stop()


def insert_backlog(flik: RunningFlik) -> None:
    """COPY the waiting TEXT tasks, of two priorities, into the table, announced to nobody; each takes a slot 0.05 s."""
    now = datetime.now(UTC)
    first_ms = int(now.timestamp() * 1000) - 60_000 - ROWS
    flik.query(f"""
        COPY tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts, created_at, available_at,
                    payload)
        FROM PROGRAM 'seq 1 {ROWS} | awk ''{{
            at = {first_ms} + $1
            id = sprintf("%08x-%04x-7000-8000-%012x", int(at / 65536), at % 65536, $1)
            tenant = $1 % 2 ? "heavy" : "light-" int($1 / 4) % {LIGHT}
            printf "%s\\t%s\\tTEXT\\t%d\\tus-east\\tQUEUED\\t4\\t", id, tenant, int($1 / 2) % 2 + 1
            printf "{now.isoformat()}\\t{now.isoformat()}\\t"
            printf "{{\\"prompt\\": \\"x\\", \\"script\\": {{\\"durationS\\": 5, \\"progressSteps\\": 0}}}}\\n" }}'''
    """)
    for statement in ("VACUUM (ANALYZE) tasks", "CHECKPOINT"):  # what so large a COPY leaves behind slows all commits
        flik.query(statement)


def counter(flik: RunningFlik, name: str) -> float:
    """Return a counter of the queue from /metrics, summed over its labels."""
    text = flik.http.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def lease_latency(flik: RunningFlik) -> tuple[float, float]:
    """Submit urgent tasks one by one; return the median seconds from submit to lease, and of a grant meanwhile."""
    sum_s, grants = counter(flik, "flik_grant_seconds_sum"), counter(flik, "flik_grant_seconds_count")
    waited_s = []
    for _ in range(URGENT):
        urgent = flik.submit("TEXT", tenantId="urgent", priority=0, payload={"script": {"durationS": 0}})
        assert flik.wait(urgent, within_s=30)["status"] == "COMPLETED"
        (row,) = flik.query(
            f"SELECT extract(epoch FROM started_at - created_at)::float8 FROM tasks WHERE task_id = '{urgent}'"
        )
        waited_s.append(row[0])
        time.sleep(0.05)
    sum_s, grants = counter(flik, "flik_grant_seconds_sum") - sum_s, counter(flik, "flik_grant_seconds_count") - grants
    return statistics.median(waited_s), sum_s / grants


@pytest.mark.chaos
def test_million_waiting_tasks_cost_little_memory_and_no_latency(loaded: RunningFlik) -> None:
    lease_latency(loaded)  # the first ones open connections
    empty_s, empty_grant_s = lease_latency(loaded)

    insert_backlog(loaded)
    loaded.kill("queue")  # it rebuilds itself over the whole backlog
    started = time.monotonic()
    eventually(lambda: loaded.http.get("/health").status_code == 200, within_s=60, what="health")
    eventually(lambda: counter(loaded, "flik_queue_depth") > ROWS * 0.9, within_s=60, what="the backlog")
    rebuilt_at, rebuilt_s = time.time(), time.monotonic() - started
    full_s, full_grant_s = lease_latency(loaded)

    (queue,) = loaded.find("queue")
    rss_mb = queue.memory_info().rss / 2**20
    told = (
        f"{ROWS} tasks of {LIGHT + 1} tenants: {rss_mb:.0f} MB, there after {rebuilt_s:.1f} s; submit to lease "
        f"{empty_s * 1000:.1f} ms empty, {full_s * 1000:.1f} ms full; a grant {empty_grant_s * 1000:.1f} and "
        f"{full_grant_s * 1000:.1f} ms"
    )
    sys.stderr.write(f"{told}\n")
    assert rss_mb < 500, told
    assert full_grant_s < 3 * max(empty_grant_s, 0.002), told
    assert full_s < 3 * max(empty_s, 0.020), told  # a slot falls free every 6 ms

    ((heavy, begun, tenants),) = loaded.query(f"""
        SELECT count(*) FILTER (WHERE tenant_id = 'heavy'), count(*), count(DISTINCT tenant_id)
        FROM tasks WHERE tenant_id <> 'urgent' AND started_at > to_timestamp({rebuilt_at})
    """)
    assert begun > 200
    assert heavy <= 5, "half of the tasks are one tenant's, and its turn is as long as the others'"
    assert tenants > begun - 10
