"""Cancelling: at once while a task waits, within two seconds while it runs, and never taken back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.acceptance.running import RunningFlik, task

LONG = {"script": {"durationS": 400}}  # 20 s at the speed of these tests


def cancel(flik: RunningFlik, task_id: str) -> httpx.Response:
    return flik.http.post(f"/api/v1/tasks/{task_id}/cancel")


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_waiting_task_is_cancelled_at_once(flik: RunningFlik, method: str) -> None:
    blocker = flik.submit(payload=LONG)
    flik.wait(blocker, until=("PROCESSING",))
    waiting = flik.submit()
    path = f"/api/v1/tasks/{waiting}" + ("/cancel" if method == "POST" else "")
    answer = flik.http.request(method, path)
    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    assert "completedAt" in answer.json()
    assert cancel(flik, blocker).status_code == 200
    assert flik.wait(flik.submit())["status"] == "COMPLETED"
    assert flik.get(waiting)["attempt"] == 0


def test_slot_of_a_cancelled_task_is_free_within_a_second(flik: RunningFlik) -> None:
    running = flik.submit("IMAGE", payload=LONG)
    flik.wait(running, until=("PROCESSING",))
    following = flik.submit("IMAGE", payload=LONG)
    cancelled_at = time.monotonic()
    assert cancel(flik, running).json()["status"] == "CANCELLED"
    flik.wait(following, until=("PROCESSING",), within_s=10)
    assert time.monotonic() - cancelled_at < 1.0
    assert cancel(flik, following).status_code == 200
    rows = flik.query(f"SELECT attempt, outcome::text FROM attempts WHERE task_id = '{running}'")
    assert rows == [(1, "CANCELLED")]
    assert flik.get(running)["status"] == "CANCELLED"
    assert flik.query(f"SELECT count(*) FROM artifacts WHERE task_id = '{running}'") == [(0,)]


def test_of_fifty_cancels_at_once_one_takes_effect(flik: RunningFlik) -> None:
    for payload in (LONG, {}):
        task_id = flik.submit(payload=payload)
        if payload:
            flik.wait(task_id, until=("PROCESSING",))
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda _, task_id=task_id: cancel(flik, task_id), range(50)))
        assert sorted(answer.status_code for answer in answers)[-1] == 409
        done = flik.wait(task_id)
        won = [answer for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} <= {200, 409}
        assert len(won) == (done["status"] == "CANCELLED")  # the short one may have completed before
        assert not payload or done["status"] == "CANCELLED"


def test_cancel_that_was_acknowledged_holds_against_a_completion(flik: RunningFlik) -> None:
    script = {"script": {"durationS": 2, "progressSteps": 0}}
    ids = flik.submit_many([task(payload={"prompt": "x", **script}) for _ in range(40)])
    acknowledged: set[str] = set()
    refused: set[str] = set()
    for number, task_id in enumerate(ids):
        time.sleep(0.01 * (number % 7))  # some are cancelled before they run, some while, some after
        answer = cancel(flik, task_id)
        assert answer.status_code in (200, 409)
        (acknowledged if answer.status_code == 200 else refused).add(task_id)
    for task_id in ids:
        flik.wait(task_id)
    assert {task_id for task_id in ids if flik.get(task_id)["status"] == "CANCELLED"} == acknowledged
    assert {task_id for task_id in ids if flik.get(task_id)["status"] == "COMPLETED"} == refused


def test_task_that_waits_for_a_retry_can_be_cancelled(flik: RunningFlik) -> None:
    script = {"script": {"durationS": 0.1, "failures": [{}, {}, {}]}}
    task_id = flik.submit(payload=script)
    flik.wait(task_id, until=("PROCESSING", "QUEUED"))
    assert cancel(flik, task_id).status_code == 200
    assert flik.wait(flik.submit())["status"] == "COMPLETED"
    assert flik.get(task_id)["status"] == "CANCELLED"
