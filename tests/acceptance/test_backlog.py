"""A queue of a million tasks costs bounded memory, and a lease out of it is as fast as out of a short one.

It has 200,000 without `make chaos`: four times what is held in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import RunningFlik, eventually, task

ROWS = 1_000_000 if os.environ.get("FLIK_CHAOS") == "long" else 200_000
WARM_UP = 2_000
INSTANT = '{"prompt": "x", "script": {"durationS": 0, "progressSteps": 0}}'
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def loaded(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik of our own, to be filled."""
    running = RunningFlik(data_folder / "backlog", WORKER_CONCURRENCY="8", FLIK_SIMULATED_SPEED="100").start()
    yield running
    running.stop()


def insert_million(flik: RunningFlik) -> None:
    """COPY so many waiting TEXT tasks of 1,000 tenants into the table, announced to nobody."""
    flik.query(f"""
        COPY tasks (task_id, tenant_id, task_type, priority, region, status, max_attempts, created_at, available_at,
                    payload)
        FROM PROGRAM 'seq 1 {ROWS} | awk ''{{
            printf "%08x-0000-7000-8000-%012x\\ttenant-%d\\tTEXT\\t%d\\tus-east\\tQUEUED\\t4\\t", 1700000000 + $1, $1, $1 % 1000, $1 % 2 + 1
            printf "2026-01-01Z\\t2026-01-01Z\\t{{\\"prompt\\": \\"x\\", \\"script\\": {{\\"durationS\\": 0, \\"progressSteps\\": 0}}}}\\n" }}'''
    """)  # noqa: E501


def counter(flik: RunningFlik, name: str) -> float:
    """Return a counter of the queue from /metrics, summed over its labels."""
    text = flik.http.get("/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def mean_grant_s(flik: RunningFlik, completed: int) -> float:
    """Return the mean duration of a grant while `completed` more tasks complete."""
    sum_s, grants = counter(flik, "flik_grant_seconds_sum"), counter(flik, "flik_grant_seconds_count")
    done = counter(flik, "flik_tasks_completed_total") + completed
    eventually(lambda: counter(flik, "flik_tasks_completed_total") >= done, within_s=60, every_s=0.2)
    return (counter(flik, "flik_grant_seconds_sum") - sum_s) / (counter(flik, "flik_grant_seconds_count") - grants)


@pytest.mark.chaos
def test_million_waiting_tasks_cost_little_memory_and_no_latency(loaded: RunningFlik) -> None:
    body = task("TEXT", payload={"prompt": "x", "script": {"durationS": 0, "progressSteps": 0}})
    loaded.submit_many([body] * (WARM_UP + 1000))
    short = mean_grant_s(loaded, WARM_UP)

    insert_million(loaded)
    loaded.kill("queue")  # it rebuilds itself over the whole backlog
    eventually(lambda: loaded.http.get("/health").status_code == 200, within_s=60, what="health")
    eventually(lambda: counter(loaded, "flik_queue_depth") > ROWS * 0.9, within_s=60, what="the backlog")
    long = mean_grant_s(loaded, WARM_UP)

    (queue,) = loaded.find("queue")
    assert queue.memory_info().rss < 500 * 1024 * 1024
    assert long < 3 * max(short, 0.002), (
        f"a grant took {short * 1000:.1f} ms, and {long * 1000:.1f} ms out of a million"
    )

    urgent = loaded.submit("TEXT", tenantId="urgent", priority=0, payload={"script": {"durationS": 0}})
    assert loaded.wait(urgent, within_s=30)["status"] == "COMPLETED"
