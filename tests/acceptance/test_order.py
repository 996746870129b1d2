"""Promise 3: urgent first, everybody served. One slot, so that the order is the order of the attempts."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.acceptance.running import RunningFlik, eventually, task

INSTANT = {"prompt": "x", "script": {"durationS": 0, "progressSteps": 0}}


def block_the_slot(flik: RunningFlik, seconds: float) -> str:
    """Occupy the only TEXT slot; return the id of the task that does."""
    blocker = flik.submit("TEXT", tenantId="blocker", priority=0, payload={"script": {"durationS": seconds * 20}})
    flik.wait(blocker, until=("PROCESSING",))
    return blocker


def order_of_start(flik: RunningFlik, ids: list[str]) -> list[str]:
    """Return the ids in the order in which they were granted, once all are finished."""
    listed = ", ".join(f"'{task_id}'" for task_id in ids)
    unfinished = f"SELECT count(*) FROM tasks WHERE completed_at IS NULL AND task_id IN ({listed})"
    eventually(lambda: flik.query(unfinished)[0][0] == 0, within_s=90, what="the end of all tasks")
    rows = flik.query(f"SELECT task_id::text FROM attempts WHERE task_id IN ({listed}) ORDER BY started_at, ended_at")
    return [row[0] for row in rows]


def test_with_one_slot_p0_goes_before_p1_before_p2(flik: RunningFlik) -> None:
    block_the_slot(flik, 0.5)
    priorities = {}
    for priority in (2, 1, 0, 2, 1, 0, 2, 0, 1):
        priorities[flik.submit("TEXT", priority=priority, payload=INSTANT)] = priority

    started = order_of_start(flik, list(priorities))

    assert [priorities[task_id] for task_id in started] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    by_submission = list(priorities)
    for priority in (0, 1, 2):
        same = [task_id for task_id in by_submission if priorities[task_id] == priority]
        assert [task_id for task_id in started if priorities[task_id] == priority] == same


@pytest.mark.parametrize("expected", [{"heavy": 750, "light": 250}, {"equal-a": 500, "equal-b": 500}])
def test_tenants_share_by_weight_within_ten_percent(flik: RunningFlik, expected: dict[str, int]) -> None:
    """Judged over 1,000 grants, of tenants with 1,100 tasks each, so that none runs out of them meanwhile."""
    blocker = block_the_slot(flik, 8)
    for tenant in expected:
        flik.submit_many([task("TEXT", tenantId=tenant, priority=2, payload=INSTANT)] * 1100)
    assert flik.get(blocker)["status"] == "PROCESSING", "the tasks must all wait before the first is granted"
    assert flik.http.delete(f"/api/v1/tasks/{blocker}").status_code == 200

    listed = ", ".join(f"'{tenant}'" for tenant in expected)
    of_these = f"FROM attempts JOIN tasks USING (task_id) WHERE tenant_id IN ({listed})"
    eventually(lambda: flik.query(f"SELECT count(*) {of_these}")[0][0] >= 1000, within_s=120, what="1,000 grants")
    drop_backlog(flik)

    started = flik.query(f"SELECT tenant_id {of_these} ORDER BY attempts.started_at LIMIT 1000")
    shares = Counter(row[0] for row in started)
    for tenant, share in expected.items():
        assert shares[tenant] == pytest.approx(share, rel=0.1)


def test_heavy_backlog_of_one_tenant_delays_another_by_a_few_tasks(flik: RunningFlik) -> None:
    flik.submit_many([task("TEXT", tenantId="crowd", priority=1, payload=INSTANT)] * 10_000)
    newcomer = flik.submit("TEXT", tenantId="newcomer", priority=1, payload=INSTANT)
    ended = flik.wait(newcomer, within_s=30)

    ahead = flik.query(
        "SELECT count(*) FROM attempts JOIN tasks USING (task_id) WHERE tenant_id = 'crowd' "
        f"AND attempts.started_at > (SELECT created_at FROM tasks WHERE task_id = '{newcomer}') "
        f"AND attempts.started_at < (SELECT started_at FROM attempts WHERE task_id = '{newcomer}')"
    )[0][0]
    assert ended["status"] == "COMPLETED"
    assert ahead <= 20
    drop_backlog(flik)


def drop_backlog(flik: RunningFlik) -> None:
    """End what still waits, so that later tests start with an empty queue."""
    flik.query("UPDATE tasks SET status = 'CANCELLED', completed_at = now() WHERE status = 'QUEUED'")
    unfinished = "SELECT count(*) FROM tasks WHERE completed_at IS NULL"
    eventually(lambda: flik.query(unfinished)[0][0] == 0, within_s=30, what="the end of the backlog")


def test_urgent_task_passes_a_backlog_of_5000_background_tasks(flik: RunningFlik) -> None:
    flik.submit_many([task("TEXT", tenantId="crowd", priority=2, payload=INSTANT)] * 5_000)
    waits_ms = []
    for _ in range(20):
        started = time.monotonic()
        flik.wait(flik.submit("TEXT", tenantId="urgent", priority=0, payload=INSTANT), within_s=10)
        waits_ms.append((time.monotonic() - started) * 1000)
    assert sorted(waits_ms)[len(waits_ms) // 2] < 1000
    drop_backlog(flik)
