"""The routes below /api/tasks against a running service, and what its edge makes of odd requests."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from flik import schemas
from flik.gateway import family_models as models
from tests.acceptance.running import RunningFlik, eventually

TENANT = "tests"
UNKNOWN = "0199a1b2-0000-7000-8000-000000000001"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def submit(flik: RunningFlik, family: str = "text", **fields: Any) -> models.TaskSubmitResponse:
    asked = {"tenant_id": TENANT, "parameters": {"prompt": "a test"}, **fields}
    answer = flik.http.post(f"/api/tasks/{family}/generate", json=asked)
    assert answer.status_code == 202, answer.text
    return models.TaskSubmitResponse.model_validate(answer.json())


def status(flik: RunningFlik, task_id: str) -> models.TaskStatusResponse:
    answer = flik.http.get(f"/api/tasks/status/{task_id}")
    assert answer.status_code == 200, answer.text
    return models.TaskStatusResponse.model_validate(answer.json())


def wait(flik: RunningFlik, task_id: str, word: str) -> models.TaskStatusResponse:
    def look() -> models.TaskStatusResponse | None:
        found = status(flik, task_id)
        return found if found.status == word else None

    found = eventually(look, within_s=60, what=f"{task_id} being {word}")
    assert found is not None
    return found


@pytest.mark.parametrize(("family", "kind"), [("text", "text/plain"), ("image", "image/png"), ("video", "video/mp4")])
def test_task_of_each_family_runs_to_its_end(flik: RunningFlik, family: str, kind: str) -> None:
    submitted = submit(flik, family, priority=9)
    assert (submitted.status, submitted.task_type, submitted.priority) == ("pending", family, 9)
    done = wait(flik, submitted.task_id, "completed")
    assert done.result is not None
    first = done.result["artifacts"][0]
    assert first["content_type"].startswith(kind.partition("/")[0])
    assert len(httpx.get(first["url"]).content) == first["size_bytes"]
    assert flik.get(submitted.task_id)["priority"] == 0  # the same task, seen from the native routes


def test_failed_task_is_listed_retried_and_cancelled(flik: RunningFlik) -> None:
    failure = {"code": "boom", "message": "it broke", "retryable": False}
    parameters = {"prompt": "a test", "script": {"duration_s": 0, "failures": [failure]}}
    task_id = submit(flik, parameters=parameters).task_id
    failed = wait(flik, task_id, "failed")
    assert (failed.state, failed.error_code, failed.error_message) == ("FAILED", "boom", "it broke")
    listed = models.TaskListResponse.model_validate(flik.http.get("/api/tasks/failed?page_size=100").json())
    assert task_id in {task.task_id for task in listed.tasks}
    assert {task.status for task in listed.tasks} == {"failed"}
    again = flik.http.post(f"/api/tasks/{task_id}/retry")
    assert again.status_code == 202
    assert again.json()["status"] in ("pending", "running")  # a worker may have been faster than the answer
    assert wait(flik, task_id, "completed").attempts == 2


def test_waiting_task_is_listed_and_cancelled(flik: RunningFlik) -> None:
    blocking = submit(flik, "video", priority=10, parameters={"prompt": "x", "script": {"duration_s": 600}}).task_id
    wait(flik, blocking, "running")
    waiting = submit(flik, "video", priority=1).task_id
    pending = models.TaskListResponse.model_validate(flik.http.get("/api/tasks/pending?page_size=100").json())
    assert waiting in {task.task_id for task in pending.tasks}
    everything = flik.http.get("/api/tasks/list?status=running&page_size=100").json()
    assert blocking in {task["task_id"] for task in everything["tasks"]}
    for task_id in (waiting, blocking):
        answer = flik.http.delete(f"/api/tasks/{task_id}")
        assert (answer.status_code, answer.json()["status"], answer.json()["state"]) == (200, "failed", "CANCELLED")
        assert flik.http.delete(f"/api/tasks/{task_id}").status_code == 409


def test_wrong_requests_are_answered_with_400_and_404(flik: RunningFlik) -> None:
    for body in ({"tenant_id": TENANT}, {"tenant_id": TENANT, "parameters": {"prompt": "x"}, "priority": 11}):
        answer = flik.http.post("/api/tasks/text/generate", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameters")
    assert flik.http.get("/api/tasks/list?page=0").status_code == 400
    for method, path in (("GET", f"/status/{UNKNOWN}"), ("DELETE", f"/{UNKNOWN}"), ("POST", f"/{UNKNOWN}/retry")):
        answer = flik.http.request(method, f"/api/tasks{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


def test_health_needs_no_key(flik: RunningFlik) -> None:
    answer = httpx.get(f"{flik.url}/api/tasks/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "healthy")


# ---- the edge


@pytest.mark.parametrize("value", [b"x" * 1000, b"two words", b"\xc3\xa9", b"\xff\xfe"])
def test_unusable_request_id_is_not_echoed(flik: RunningFlik, value: bytes) -> None:
    answer = flik.http.get("/", headers={b"X-Request-ID": value})
    assert answer.status_code == 200
    (echoed,) = answer.headers.get_list("x-request-id")
    assert len(echoed) == 36


def test_usable_request_id_and_trace_are_kept_on_the_task(flik: RunningFlik) -> None:
    headers = {"X-Request-ID": "r-4711", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = {"tenant_id": TENANT, "parameters": {"prompt": "a test"}}
    answer = flik.http.post("/api/tasks/text/generate", json=body, headers=headers)
    assert answer.headers.get_list("x-request-id") == ["r-4711"]
    task_id = answer.json()["task_id"]
    assert flik.query(f"SELECT request_id, trace_id FROM tasks WHERE task_id = '{task_id}'") == [("r-4711", TRACE)]


def test_answers_carry_the_standard_headers_once(flik: RunningFlik) -> None:
    for path in ("/", "/nope", "/api/v1/tasks"):
        headers = flik.http.get(path).headers
        for name, value in (("x-content-type-options", "nosniff"), ("cache-control", "no-store")):
            assert headers.get_list(name) == [value]


def test_caller_cannot_set_the_time_limit_of_serve(flik: RunningFlik) -> None:
    headers = {b"X-Request-Timeout-Seconds": b"\xff", b"X-Session-ID": b"\xff"}
    assert flik.http.get("/", headers=headers).status_code == 200
    assert flik.http.get("/health", headers={"X-Request-Timeout-Seconds": "0.000001"}).status_code == 200


def test_websocket_handshake_where_none_is_gets_a_problem(flik: RunningFlik) -> None:
    lines = ["GET /health HTTP/1.1", f"Host: 127.0.0.1:{flik.port}", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]  # fmt: skip
    with socket.create_connection(("127.0.0.1", flik.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while b"}" not in answer and (more := connection.recv(65_536)):
            answer += more
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 "), answer
    assert b"application/problem+json" in head
    assert schemas.Problem.model_validate_json(content[content.index(b"{") : content.rindex(b"}") + 1]).request_id
