"""What a million waiting tasks cost: the memory of the queue, and how much longer the next task takes to be leased.

They are of a hundred tenants that may run none, so that they wait and the slots are free: what a task of somebody else
then waits longer is what holding them costs. They are copied into the table, announced to nobody; a queue that starts
finds them. The row comes last in its region, whose data folder goes with it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import httpx
import psycopg

from benchmarks.drive import single_posts
from benchmarks.measurement import Measurement, Outcome, percentile
from benchmarks.plan import Plan
from benchmarks.region import KNOWN_WITHIN_S, QUEUE, Region

TENANTS = 100
SUBMITS, PAUSE_S = 200, 0.02
FOUND_WITHIN_S = 120.0
COPY = """
    COPY tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts, created_at, available_at,
                payload)
    FROM STDIN
"""
MB = 1e6


def measure(region: Region, plan: Plan) -> Outcome:
    """Memory with the backlog, and the time from submit to lease with it and without."""
    if region.data_dir is None:
        return Outcome((Measurement("backlog_mb", None, "MB", "only of a region that this run started"),))
    for tenant in range(TENANTS):
        region.limit(f"backlog-{tenant}", maxRunning=0)
    time.sleep(KNOWN_WITHIN_S)
    _leased_after_ms(region)  # the first ones open connections
    empty_ms = _leased_after_ms(region)
    _insert(region.data_dir, plan.waiting_tasks)
    for queue in region.processes(QUEUE) or ():
        queue.kill()
    found = _wait_found(region, plan.waiting_tasks)
    full_ms = _leased_after_ms(region)
    held = region.held_bytes(QUEUE)
    note = f"{plan.waiting_tasks:,} tasks of {TENANTS} tenants wait"
    times = f"median of {SUBMITS} submits; empty {empty_ms:.1f} ms, full {full_ms:.1f} ms"
    return Outcome(
        (
            Measurement("backlog_mb", None if held is None else held / MB, "MB", note),
            Measurement("backlog_lease_ratio", full_ms / empty_ms, "x", times),
        ),
        () if found else ("the queue did not find what was inserted",),
    )


def _leased_after_ms(region: Region) -> float:
    """Submit one by one; return the median of what each waited for a worker."""
    waited = []
    for post in islice(cycle(single_posts()), SUBMITS):
        answer = region.submit(post)
        answer.raise_for_status()
        time.sleep(PAUSE_S)
        task = region.client.get(f"/api/v1/tasks/{answer.json()['taskId']}").json()
        if started_at := task.get("startedAt"):
            wait = datetime.fromisoformat(started_at) - datetime.fromisoformat(task["createdAt"])
            waited.append(wait.total_seconds() * 1000)
    return percentile(waited, 0.5) or float("nan")


def _insert(data_dir: Path, count: int) -> None:
    """Copy the waiting tasks into the table, the older ones first."""
    now = datetime.now(UTC)
    first_ms = int(now.timestamp() * 1000) - count
    with psycopg.connect(
        host=str(data_dir / "postgres"), port=5432, user="flik", dbname="flik", autocommit=True
    ) as connection:
        with connection.cursor() as cursor, cursor.copy(COPY) as copy:
            for number in range(count):
                ms = f"{first_ms + number:012x}"
                task_id = f"{ms[:8]}-{ms[8:]}-7000-8000-{number:012x}"
                tenant = f"backlog-{number % TENANTS}"
                copy.write_row((task_id, tenant, "TEXT", 1, "us-east", "QUEUED", 4, now, now, '{"prompt": "x"}'))
        for statement in (b"VACUUM (ANALYZE) tasks", b"CHECKPOINT"):  # else they slow what is measured next
            connection.execute(statement)


def _wait_found(region: Region, count: int) -> bool:
    deadline = time.monotonic() + FOUND_WITHIN_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        with suppress(httpx.HTTPError):
            if sum(region.counters().waiting.values()) >= count:
                return True
    return False
