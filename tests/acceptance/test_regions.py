"""Two regions of one `flik up`: tasks run where they belong, whichever gateway is asked; one survives the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.followers import ENDED, Follow, Place, json_socket, stomp_socket
from tests.acceptance.running import RunningFlik, eventually
from tests.acceptance.test_start_stop import left_over

EAST, WEST = "us-east", "us-west"
LONG = {"script": {"durationS": 400}}  # 20 s at the speed of these tests
WHOLE = ["queued", "processing", "artifact", "completed"]
SHORT = {"script": {"durationS": 60}}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def east(data_folder: Path) -> Iterator[RunningFlik]:
    """Both regions, spoken to in the east."""
    running = RunningFlik(
        data_folder / "regions", EAST, WEST,
        WORKER_CONCURRENCY="1", FLIK_SIMULATED_SPEED="20", FLIK_RETRY_DELAYS_S="0.2,0.4,0.6",
    ).start()  # fmt: skip
    yield running
    took_s = running.stop()
    assert took_s < 15, f"stopping took {took_s:.1f} s"
    assert left_over(running.data_dir) == []


@pytest.fixture(scope="module")
def west(east: RunningFlik) -> Iterator[RunningFlik]:
    """The same, spoken to in the west."""
    west = east.at(WEST)
    yield west
    west.http.close()


def events_of(flik: RunningFlik, task_id: str, follow: Follow) -> list[str]:
    """Follow a task to its end; return its numbered events."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1].get("status") not in ENDED:
        place = Place(flik.url, flik.key, task_id, since=seen[-1]["seq"] if seen else 0)
        for event in follow(place):
            if "seq" in event:
                seen.append(event)
            if event.get("status") in ENDED:
                break
    return [event["event"] for event in seen]


def works_in(task: dict[str, Any], flik: RunningFlik, region: str) -> bool:
    """Whether the worker of a task is a process of the region."""
    return int(task["workerId"].split(":")[1]) in {process.pid for process in flik.of_region(region)}


def test_a_task_runs_in_the_region_it_names_and_is_polled_and_followed_at_both(
    east: RunningFlik, west: RunningFlik
) -> None:
    here, there, back = east.submit(), east.submit(payload=SHORT, region=WEST), west.submit(region=EAST)
    assert events_of(east, there, json_socket) == WHOLE
    for gateway in (east, west):
        for task_id, region in ((here, EAST), (there, WEST), (back, EAST)):
            done = gateway.wait(task_id)
            assert (done["status"], done["region"]) == ("COMPLETED", region)
            assert works_in(done, east, region)
        for follow in (json_socket, stomp_socket):
            assert events_of(gateway, there, follow) == WHOLE
    answer = east.http.post("/api/v1/tasks", json={"tenantId": "tests", "taskType": "TEXT", "payload": {"prompt": "a"},
                                                   "region": "mars"})  # fmt: skip
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "/region", "detail": "is not a region of this service; there is us-east, us-west"}
    ]


def test_a_chain_runs_in_the_region_it_names(east: RunningFlik, west: RunningFlik) -> None:
    steps = [{"taskType": "TEXT", "payload": {"prompt": "a harbour"}}, {"taskType": "IMAGE", "payload": {}}]
    started = east.submit_dag(steps, region=WEST)
    done = west.wait_dag(started["dagId"])
    assert (done["status"], done["region"]) == ("COMPLETED", WEST)
    assert all(works_in(step, east, WEST) for step in done["tasks"])


def test_a_running_task_is_cancelled_at_the_other_gateway_and_its_worker_is_free_again(
    east: RunningFlik, west: RunningFlik
) -> None:
    running = east.submit(payload=LONG, region=WEST)
    east.wait(running, until=("PROCESSING",))
    following = west.submit(payload=LONG)
    assert west.get(following)["status"] == "QUEUED"
    cancelled_at = time.monotonic()
    assert east.http.post(f"/api/v1/tasks/{running}/cancel").json()["status"] == "CANCELLED"
    west.wait(following, until=("PROCESSING",), within_s=10)
    assert time.monotonic() - cancelled_at < 2.5
    assert east.http.post(f"/api/v1/tasks/{following}/cancel").status_code == 200
    assert [flik.get(running)["status"] for flik in (east, west)] == ["CANCELLED"] * 2


def test_a_dead_letter_is_queued_again_at_the_other_gateway(east: RunningFlik, west: RunningFlik) -> None:
    fails = {"script": {"failures": [{"code": "broken", "retryable": False}]}}
    task_id = west.submit(payload=fails)
    assert west.wait(task_id)["status"] == "FAILED"
    assert east.http.post(f"/api/v1/tasks/{task_id}/retry").status_code == 202
    done = east.wait(task_id)
    assert (done["status"], done["region"]) == ("COMPLETED", WEST)
    assert works_in(done, east, WEST)


def test_a_region_that_is_killed_leaves_the_other_serving_and_comes_back_to_its_tasks(
    east: RunningFlik, west: RunningFlik
) -> None:
    running, waiting = (east.submit(payload=payload, region=WEST) for payload in (SHORT, LONG))
    east.wait(running, until=("PROCESSING",))
    for process in west.of_region(WEST):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert east.wait(east.submit(), within_s=10)["status"] == "COMPLETED"
    late = east.submit(region=WEST)  # while nobody is there
    assert east.http.post(f"/api/v1/tasks/{waiting}/cancel").json()["status"] == "CANCELLED"
    eventually(lambda: west.http.get("/health").status_code == 200, within_s=120, every_s=0.5, what="the west")
    assert "the region us-west ended unasked; starting it again" in east.log()
    for task_id in (running, late):
        done = west.wait(task_id, within_s=60)
        assert (done["status"], works_in(done, east, WEST)) == ("COMPLETED", True)
    assert west.get(waiting)["status"] == "CANCELLED"
    assert east.wait(east.submit())["status"] == "COMPLETED"
