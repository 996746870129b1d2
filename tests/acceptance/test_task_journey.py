"""The way of a task through a running Flik: submitted, worked on, retried, expired, read from each tier."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import httpx
import psutil
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from flik import schemas
from tests.acceptance.running import RunningFlik, eventually, task

TYPES = ("TEXT", "IMAGE", "VIDEO")
SMALL: dict[str, dict[str, Any]] = {
    "TEXT": {"prompt": "rain on a tin roof", "maxWords": 20},
    "IMAGE": {"prompt": "a lighthouse", "width": 96, "height": 64},
    "VIDEO": {"prompt": "a river", "width": 96, "height": 64, "lengthS": 0.5, "fps": 12},
}


def sample(flik: RunningFlik, name: str, **labels: str) -> float:
    """Return the value of one metric; 0 when it was never counted."""
    return sum(
        found.value
        for family in text_string_to_metric_families(flik.http.get("/metrics").text)
        for found in family.samples
        if found.name == name and labels.items() <= found.labels.items()
    )


def attempts(flik: RunningFlik, task_id: str) -> list[tuple[Any, ...]]:
    """Return (attempt, version, worker, outcome, error code) of each attempt."""
    return flik.query(
        "SELECT attempt, version, worker_id, outcome::text, error_code FROM attempts "
        f"WHERE task_id = '{task_id}' ORDER BY started_at"
    )


def test_submit_answers_with_where_to_go_on(flik: RunningFlik) -> None:
    before = datetime.now(UTC)
    answer = flik.http.post("/api/v1/tasks", json=task(payload=SMALL["TEXT"]))
    assert answer.status_code == 202
    said = schemas.Submitted.model_validate(answer.json())
    assert answer.headers["location"] == said.status_url == f"{flik.url}/api/v1/tasks/{said.task_id}"
    assert answer.headers["retry-after"] == "1"
    assert said.status == "QUEUED"
    assert before - timedelta(seconds=1) < said.created_at < datetime.now(UTC) + timedelta(seconds=1)
    assert answer.json()["createdAt"].endswith("Z")
    flik.wait(said.task_id)
    for url in (said.status_url, said.result_url):
        assert flik.http.get(url).status_code == 200
    assert flik.http.post(said.cancel_url).status_code == 409
    assert "event: completed" in flik.http.get(said.events_url).text


def test_every_type_completes_in_every_class(flik: RunningFlik) -> None:
    asked = [(kind, priority) for kind, priority in product(TYPES, (0, 1, 2))]
    ids = flik.submit_many([task(kind, priority=priority, payload=SMALL[kind]) for kind, priority in asked])
    for (kind, priority), task_id in zip(asked, ids, strict=True):
        done = schemas.TaskAnswer.model_validate(flik.wait(task_id))
        assert (done.status, done.task_type, done.priority, done.attempt) == ("COMPLETED", kind, priority, 1)
        assert done.worker_id
        assert done.version == "v1.0.0"
        assert done.created_at <= (done.started_at or done.created_at) <= (done.completed_at or done.created_at)
        assert done.result is not None
        if kind == "TEXT":
            assert done.result.text
        else:
            (made,) = done.result.artifacts
            assert made.url == done.result.url
            assert made.content_type == {"IMAGE": "image/png", "VIDEO": "video/mp4"}[kind]
            assert (made.width, made.height, made.status) == (96, 64, "STORED")
            assert (made.duration_s is not None) == (kind == "VIDEO")


def test_same_seed_gives_the_same_bytes(flik: RunningFlik) -> None:
    payload = {**SMALL["IMAGE"], "seed": 42, "numOutputs": 2}
    twins = [flik.submit("IMAGE", payload=payload) for _ in range(2)]
    other = flik.submit("IMAGE", payload={**payload, "seed": 43})
    hashes = [[made["sha256"] for made in flik.wait(one)["result"]["artifacts"]] for one in (*twins, other)]
    assert [len(set(of_one)) for of_one in hashes] == [2, 2, 2]
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])


def test_running_task_shows_its_progress(flik: RunningFlik) -> None:
    task_id = flik.submit(payload={"script": {"durationS": 60}})
    flik.wait(task_id, until=("PROCESSING",))
    running = eventually(
        lambda: (found := flik.get(task_id)).get("progress", 0) > 0 and found, within_s=10, what="progress"
    )
    assert isinstance(running, dict)
    assert running["status"] == "PROCESSING"
    assert 0 < running["progress"] <= 1
    assert running["startedAt"] >= running["createdAt"]
    assert "result" not in running
    assert "completedAt" not in running
    early = flik.http.get(f"/api/v1/tasks/{task_id}/result")
    assert (early.status_code, early.json()["code"]) == (409, "state_conflict")
    assert flik.http.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 200


def test_task_that_is_not_started_in_time_expires(flik: RunningFlik) -> None:
    blocker = flik.submit(payload={"script": {"durationS": 400}})
    flik.wait(blocker, until=("PROCESSING",))
    late = flik.submit(startDeadlineS=0.3)
    expired = flik.wait(late, within_s=10)
    flik.http.delete(f"/api/v1/tasks/{blocker}")
    assert expired["status"] == "EXPIRED"
    assert expired["attempt"] == 0
    assert "startDeadlineAt" in expired
    assert "startedAt" not in expired
    assert attempts(flik, late) == []


def test_retries_are_visible_and_each_attempt_is_recorded(flik: RunningFlik) -> None:
    failures = [{"code": "overloaded", "message": "come back"}, {"code": "cut_off"}]
    task_id = flik.submit(payload={"script": {"durationS": 1, "failures": failures}})
    waiting = eventually(
        lambda: (found := flik.get(task_id))["status"] == "QUEUED" and found["attempt"] > 0 and found,
        within_s=20, every_s=0.01, what="the wait for a retry",
    )  # fmt: skip
    assert isinstance(waiting, dict)
    assert waiting["error"]["code"] in {"overloaded", "cut_off"}
    assert datetime.fromisoformat(waiting["availableAt"]) > datetime.fromisoformat(waiting["startedAt"])
    done = flik.wait(task_id)
    assert (done["status"], done["attempt"], done["maxAttempts"]) == ("COMPLETED", 3, 4)
    assert "error" not in done
    recorded = attempts(flik, task_id)
    assert [(attempt, outcome, code) for attempt, _, _, outcome, code in recorded] == [
        (1, "FAILED", "overloaded"), (2, "FAILED", "cut_off"), (3, "COMPLETED", None),
    ]  # fmt: skip
    assert {version for _, version, *_ in recorded} == {"v1.0.0"}
    assert all(worker for _, _, worker, *_ in recorded)


def test_permanent_error_fails_at_once(flik: RunningFlik) -> None:
    failures = [{"code": "refused_content", "message": "not that", "retryable": False}]
    done = flik.wait(flik.submit(payload={"script": {"durationS": 1, "failures": failures}}))
    assert (done["status"], done["attempt"]) == ("FAILED", 1)
    assert done["error"] == {"code": "refused_content", "message": "not that"}
    assert "completedAt" in done
    assert "result" not in done


def test_task_fails_for_good_after_its_third_retry(flik: RunningFlik) -> None:
    failures = [{"code": f"failure_{number}"} for number in "abcd"]
    task_id = flik.submit(payload={"script": {"durationS": 0.1, "failures": failures}})
    done = flik.wait(task_id)
    assert (done["status"], done["attempt"], done["error"]["code"]) == ("FAILED", 4, "failure_d")
    assert [row[3] for row in attempts(flik, task_id)] == ["FAILED"] * 4


@pytest.mark.parametrize("own", [1, 6])
def test_a_task_may_say_how_often_it_is_tried(flik: RunningFlik, own: int) -> None:
    failures = [{"code": f"failure_{number}"} for number in range(8)]
    task_id = flik.submit(payload={"script": {"durationS": 0.1, "failures": failures}}, maxAttempts=own)
    done = flik.wait(task_id)
    assert (done["status"], done["attempt"], done["error"]["code"]) == ("FAILED", own, f"failure_{own - 1}")
    assert (done["maxAttempts"], len(attempts(flik, task_id))) == (own, own)


@pytest.mark.parametrize("given", ["journey-7", None])
def test_request_id_is_accepted_or_made_echoed_once_and_kept(flik: RunningFlik, given: str | None) -> None:
    trace = f"00-{'c' * 32}-{'d' * 16}-01"
    headers = {"traceparent": trace, **({"X-Request-ID": given} if given else {})}
    answer = flik.http.post("/api/v1/tasks", json=task(payload=SMALL["TEXT"]), headers=headers)
    (echoed,) = answer.headers.get_list("x-request-id")
    assert given is None or echoed == given
    assert echoed
    assert flik.get(answer.json()["taskId"])["requestId"] == echoed
    stored = flik.query(f"SELECT request_id, trace_id FROM tasks WHERE task_id = '{answer.json()['taskId']}'")
    assert stored == [(echoed, "c" * 32)]


def test_result_is_hot_at_first_and_survives_the_loss_of_redis(flik: RunningFlik) -> None:
    task_id = flik.submit(payload=SMALL["TEXT"])
    flik.wait(task_id)
    eventually(lambda: _tier_of_a_read(flik, task_id) == "HOT", within_s=5, what="a HOT read")
    hot = flik.get(task_id)
    with redis.Redis(unix_socket_path=str(flik.data_dir.resolve() / "valkey" / "valkey.sock")) as server:
        server.flushall()
    assert _tier_of_a_read(flik, task_id) == "WARM"
    assert _without_expiry(flik.get(task_id)) == _without_expiry(hot)
    # An emptied Redis knows nothing of anybody's tokens: for about a second the limiter says so, instead of guessing.
    eventually(lambda: flik.http.post("/api/v1/tasks", json=task()).status_code == 202, within_s=3, what="a 202")


def _without_expiry(answer: dict[str, Any]) -> str:
    """Return an answer without what depends on the second in which it was given."""
    return re.sub(r"expires=\d+&signature=[\w-]+", "", json.dumps(answer, sort_keys=True))


def _tier_of_a_read(flik: RunningFlik, task_id: str) -> str:
    before = {tier: sample(flik, "flik_result_reads_total", tier=tier) for tier in ("HOT", "WARM")}
    flik.get(task_id)
    (tier,) = [
        tier for tier, count in before.items() if sample(flik, "flik_result_reads_total", tier=tier) == count + 1
    ]
    return tier


def test_metrics_tell_what_was_done(flik: RunningFlik) -> None:
    labels = {"task_type": "IMAGE"}
    submitted = sample(flik, "flik_tasks_submitted_total", priority="2", **labels)
    completed = sample(flik, "flik_tasks_completed_total", **labels)
    failed = sample(flik, "flik_tasks_failed_total", error_code="counted", **labels)
    script = {"durationS": 0.1, "failures": [{"code": "counted", "retryable": False}]}
    ids = [flik.submit("IMAGE", priority=2, payload=SMALL["IMAGE"]) for _ in range(2)]
    ids.append(flik.submit("IMAGE", priority=2, payload={**SMALL["IMAGE"], "script": script}))
    for task_id in ids:
        flik.wait(task_id)
    assert sample(flik, "flik_tasks_submitted_total", priority="2", **labels) == submitted + 3
    assert sample(flik, "flik_tasks_completed_total", **labels) == completed + 2
    assert sample(flik, "flik_tasks_failed_total", error_code="counted", **labels) == failed + 1
    assert sample(flik, "flik_attempts_total", attempt="1", **labels) >= 3
    for name in ("flik_submit_seconds_count", "flik_queue_wait_seconds_count", "flik_run_seconds_count"):
        assert sample(flik, name) > 0, name
    for process in ("gateway", "queue"):
        (running,) = flik.find(process)
        shown = sample(flik, "flik_process_resident_bytes", process=process)
        assert shown == pytest.approx(running.memory_info().rss, rel=0.2)
        assert sample(flik, "flik_process_cpu_seconds_total", process=process) > 0


def test_depth_of_the_queue_is_shown_per_type_and_class(flik: RunningFlik) -> None:
    blocker = flik.submit("VIDEO", payload={"script": {"durationS": 400}})
    flik.wait(blocker, until=("PROCESSING",))
    waiting = [flik.submit("VIDEO", priority=priority) for priority in (0, 2, 2)]
    eventually(
        lambda: [sample(flik, "flik_queue_depth", task_type="VIDEO", priority=str(p)) for p in range(3)] == [1, 0, 2],
        within_s=5, what="the depth",
    )  # fmt: skip
    for task_id in (*waiting, blocker):
        assert flik.http.delete(f"/api/v1/tasks/{task_id}").status_code == 200
    eventually(lambda: sample(flik, "flik_queue_depth", task_type="VIDEO") == 0, within_s=5, what="an empty queue")


def test_batch_stores_what_is_right_in_one_commit(flik: RunningFlik) -> None:
    commits = sample(flik, "flik_submit_batch_tasks_count")
    asked = [task(tenantId="batch", payload=SMALL["TEXT"]) for _ in range(40)]
    asked[3] = {**asked[3], "priority": 7}
    asked[39] = {"taskType": "TEXT"}
    answer = flik.http.post("/api/v1/tasks:batch", json={"tasks": asked})
    assert answer.status_code == 207
    items = schemas.BatchAnswer.model_validate(answer.json()).items
    assert [number for number, item in enumerate(items) if item.status == 422] == [3, 39]
    assert items[3].problem is not None
    assert [error.pointer for error in items[3].problem.errors] == ["/tasks/3/priority"]
    ids = [item.task.task_id for item in items if item.task]
    rows = flik.query("SELECT task_id::text, xmin::text FROM tasks WHERE tenant_id = 'batch' ORDER BY task_id")
    assert [row[0] for row in rows] == ids
    assert sample(flik, "flik_submit_batch_tasks_count") == commits + 1
    for task_id in ids:
        flik.wait(task_id)


def test_service_tells_what_it_is_and_how_it_is(flik: RunningFlik) -> None:
    health = flik.http.get("/health")
    assert health.status_code == 200
    assert health.json() == {
        "status": "UP", "components": dict.fromkeys(("queue", "postgresql", "redis", "models"), "UP"), "auth": "keys",
    }  # fmt: skip
    status = schemas.ServiceStatus.model_validate(flik.http.get("/").json())
    assert status.region == "us-east"
    for path in status.links.values():
        assert flik.http.get(path).status_code == 200
    described = flik.http.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert "/api/v1/tasks:batch" in described["paths"]


@pytest.fixture
def frozen(flik: RunningFlik, request: pytest.FixtureRequest) -> Iterator[str]:
    """One role of the running Flik stopped in its tracks, as by a hung disk."""
    stopped: list[psutil.Process] = []
    for process in flik.find(request.param):
        stopped += [process, *process.children(recursive=True)]
    assert stopped
    for process in stopped:
        process.suspend()
    yield request.param
    for process in stopped:
        process.resume()
    eventually(lambda: flik.http.get("/health").status_code == 200, within_s=20, what="recovery")


@pytest.mark.parametrize("frozen", ["postgresql", "queue"], indirect=True)
def test_health_answers_in_time_while_a_component_hangs(flik: RunningFlik, frozen: str) -> None:
    answer = httpx.get(f"{flik.url}/health", timeout=2.9)
    assert answer.status_code == 503
    said = schemas.Health.model_validate(answer.json())
    assert (said.status, said.components[frozen]) == ("DOWN", "DOWN")
    assert said.components["redis"] == "UP"


def test_one_scrape_shows_the_breakers_of_all_processes_and_no_series_twice(flik: RunningFlik) -> None:
    families = list(text_string_to_metric_families(flik.http.get("/metrics").text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    samples = [each for family in families for each in family.samples]
    series = [(each.name, *sorted(each.labels.items())) for each in samples]
    assert len(series) == len(set(series))
    breakers = {
        (each.labels["process"], each.labels["dependency"]) for each in samples if each.name == "flik_breaker_state"
    }
    assert breakers == {
        ("gateway", "postgresql"), ("gateway", "redis"), ("gateway", "artifacts"),
        ("queue", "postgresql"), ("queue", "redis"), ("model", "artifacts"), ("model", "provider"),
    }  # fmt: skip
    assert any("replica" in each.labels for each in samples)
