"""Whatever is sent, the answer is a problem that says what is wrong, and nothing is stored."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from flik import schemas
from tests.acceptance.running import RunningFlik, task

UNKNOWN = "0199a1b2-0000-7000-8000-000000000001"
JSON = {"Content-Type": "application/json"}
MEBIBYTE = 1024 * 1024
ID_ROUTES = [
    ("GET", "{}"), ("DELETE", "{}"), ("POST", "{}/cancel"), ("POST", "{}/retry"), ("GET", "{}/result"),
    ("GET", "{}/events"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_stored(flik: RunningFlik, request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare what is stored before and after each test."""
    before = flik.query("SELECT count(*) FROM tasks")
    yield
    if "stores" not in request.fixturenames:
        assert flik.query("SELECT count(*) FROM tasks") == before


@pytest.fixture
def stores() -> None:
    """Marks a test that stores tasks on purpose."""


def problem(answer: httpx.Response, status: int, code: str) -> schemas.Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = schemas.Problem.model_validate(answer.json())
    assert (said.status, said.code, said.retryable) == (status, code, False)
    assert answer.headers.get_list("x-request-id") == [said.request_id]
    return said


def refused(answer: httpx.Response) -> list[str]:
    return [error.pointer for error in problem(answer, 422, "invalid_request").errors]


def raw(flik: RunningFlik, *parts: bytes) -> bytes:
    """Send bytes as they are; return what comes back until it pauses or ends."""
    with socket.create_connection(("127.0.0.1", flik.port), timeout=10) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break  # refused before all of it was sent
        answer = b""
        try:
            while b"}" not in answer and (more := connection.recv(65_536)):
                answer += more
        except OSError:
            return answer
    return answer


def head(flik: RunningFlik, *lines: str) -> bytes:
    fixed = ["POST /api/v1/tasks HTTP/1.1", f"Host: 127.0.0.1:{flik.port}", f"Authorization: Bearer {flik.key}"]
    return "\r\n".join([*fixed, "Content-Type: application/json", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"taskType": "AUDIO"}, "/taskType"),
        ({"priority": 3}, "/priority"),
        ({"priority": -1}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": 1.5}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"unknown": 1}, "/unknown"),
        ({"tenantId": 7}, "/tenantId"),
        ({"payload": "text"}, "/payload"),
        ({"payload": {}}, "/payload/prompt"),
        ({"payload": {"prompt": "x", "colour": "red"}}, "/payload/colour"),
        ({"payload": {"prompt": "x" * 32_001}}, "/payload/prompt"),
        ({"payload": {"prompt": "x" * (256 * 1024)}}, "/payload"),
        ({"payload": {"prompt": "x", "seed": 10**40}}, "/payload/seed"),
        ({"payload": {"prompt": "x", "a": [1] * 1000, "script": {"failAt": 2}}}, "/payload/a"),
        ({"payload": {"prompt": "a\x00b"}}, "/payload/prompt"),
        ({"payload": {"prompt": "x", "a\x00": 1}}, "/payload"),
        ({"region": "us-west"}, "/region"),
    ],
)
def test_wrong_field_is_named(flik: RunningFlik, fields: dict[str, Any], pointer: str) -> None:
    assert pointer in refused(flik.http.post("/api/v1/tasks", json=task(**fields)))


@pytest.mark.parametrize("missing", ["taskType", "payload"])
def test_missing_field_is_named(flik: RunningFlik, missing: str) -> None:
    asked = {name: value for name, value in task().items() if name != missing}
    assert refused(flik.http.post("/api/v1/tasks", json=asked)) == [f"/{missing}"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b'{"tenantId":"\xff\xfe"}', 400, "malformed_body"),
        (b'{"priority":1e400}', 400, "malformed_body"),
        (b'{"priority":NaN}', 400, "malformed_body"),
        (b"[" * 100_000, 400, "malformed_body"),
        (json.dumps(task()).encode("utf-16"), 400, "malformed_body"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, 422, "invalid_request"),
        (rb'{"tenantId":"\ud800"}', 422, "invalid_request"),
        (rb'{"\udc00":1}', 422, "invalid_request"),
        (b'{"tenantId":"a","tenantId":"b"}', 422, "invalid_request"),
        (b'{"tenantId":"' + b"x" * MEBIBYTE + b'"}', 413, "body_too_large"),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/tasks:batch", "/api/v1/dead-letters:replay"])
def test_broken_body_is_refused_on_every_route(
    flik: RunningFlik, path: str, body: bytes, status: int, code: str
) -> None:
    problem(flik.http.post(path, content=body, headers=JSON), status, code)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_wrong_content_type_is_refused(flik: RunningFlik, content_type: str) -> None:
    answer = flik.http.post("/api/v1/tasks", content=json.dumps(task()), headers={"Content-Type": content_type})
    problem(answer, 415, "unsupported_media_type")


def test_too_large_body_is_refused_before_it_is_sent(flik: RunningFlik) -> None:
    answer = raw(flik, head(flik, "Content-Length: 99999999"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


def test_too_large_body_without_a_length_is_refused_while_it_arrives(flik: RunningFlik) -> None:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    answer = raw(flik, head(flik, "Transfer-Encoding: chunked"), *[chunk] * 20)  # the last chunk never comes
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


def test_length_that_is_too_short_cuts_the_body(flik: RunningFlik) -> None:
    body = json.dumps(task()).encode()
    answer = raw(flik, head(flik, "Content-Length: 10", "Connection: close"), body)
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_length_that_is_too_long_stores_nothing(flik: RunningFlik) -> None:
    body = json.dumps(task()).encode()
    with socket.create_connection(("127.0.0.1", flik.port), timeout=10) as connection:
        connection.sendall(head(flik, f"Content-Length: {len(body) + 5}") + body)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65_536)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert flik.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    "lines",
    [("Content-Length: -5",), ("Content-Length: x",), ("Content-Length: 2", "Content-Length: 3"), ("Bad Header",),
     ("Transfer-Encoding: gzip",)],
)  # fmt: skip
def test_broken_http_is_refused(flik: RunningFlik, lines: tuple[str, ...]) -> None:
    assert raw(flik, head(flik, *lines), b"{}")[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5", b"")
    assert flik.http.get("/health").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/nope", "/api/v1/tasks/", "/api/v1/tasks/../../etc/passwd", "/api/v1/tasks/%2e%2e/%2e%2e/etc/passwd",
     "/api/v1//tasks", "//api/v1/tasks", "/%00", "/artifacts", "/static/../flik", "/%ff%fe", "/" + "x" * 4000],
)  # fmt: skip
def test_unknown_path_is_a_problem(flik: RunningFlik, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(flik, request.encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"application/problem+json" in answer
    assert b'"code":"route_not_found"' in answer


@pytest.mark.parametrize("path", ["/artifacts/../../etc/passwd", "/artifacts/%2e%2e%2fsigning_key", "/artifacts/%00"])
def test_artifact_outside_of_the_store_is_not_found(flik: RunningFlik, path: str) -> None:
    answer = raw(flik, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/tasks", "GET, HEAD, POST"),
        ("OPTIONS", "/api/v1/tasks", "GET, HEAD, POST"),
        ("PATCH", f"/api/v1/tasks/{UNKNOWN}", "GET, HEAD, DELETE"),
        ("DELETE", "/health", "GET, HEAD"),
    ],
)
def test_wrong_method_is_a_problem(flik: RunningFlik, method: str, path: str, allowed: str) -> None:
    answer = flik.http.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/api/v1/tasks"])
def test_head_is_answered_without_a_body(flik: RunningFlik, path: str) -> None:
    answer = flik.http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(("method", "path"), ID_ROUTES)
def test_unknown_and_malformed_ids(flik: RunningFlik, method: str, path: str) -> None:
    problem(flik.http.request(method, f"/api/v1/tasks/{path.format(UNKNOWN)}"), 404, "task_not_found")
    for wrong in ("17", UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.replace("-", "_"), "%00", "'; DROP TABLE tasks"):
        assert refused(flik.http.request(method, f"/api/v1/tasks/{path.format(wrong)}")) == ["/taskId"]


def test_internal_units_are_no_tasks(flik: RunningFlik, stores: None) -> None:
    """Nothing that names an attempt, an upload or a file leads anywhere, also while the attempt runs."""
    made = flik.submit("IMAGE", payload={"width": 64, "height": 64, "numOutputs": 2})
    flik.wait(made)
    blocker = flik.submit("VIDEO", payload={"script": {"durationS": 400}})
    flik.wait(blocker, until=("PROCESSING",))
    tokens = flik.query(f"""
        SELECT lease_token::text FROM attempts WHERE task_id = '{made}'
        UNION ALL SELECT lease_token::text FROM uploads WHERE task_id = '{made}' AND index = 1
        UNION ALL SELECT lease_token::text FROM tasks WHERE task_id = '{blocker}'
    """)
    assert len(tokens) == 3
    for (token,) in tokens:
        for method, path in ID_ROUTES:
            problem(flik.http.request(method, f"/api/v1/tasks/{path.format(token)}"), 404, "task_not_found")
        problem(flik.http.get(f"/api/tasks/status/{token}"), 404, "task_not_found")
        problem(flik.http.delete(f"/api/tasks/{token}"), 404, "task_not_found")
        problem(flik.http.get(f"/api/v1/dags/{token}"), 404, "dag_not_found")

    ((upload, key, worker),) = flik.query(f"""
        SELECT u.lease_token || ':' || u.index, f.key, a.worker_id
        FROM attempts a JOIN uploads u USING (task_id, lease_token) JOIN artifacts f USING (task_id, index)
        WHERE a.task_id = '{made}' AND index = 0
    """)
    for name in (upload, key, worker):
        answer = flik.http.get(f"/api/v1/tasks/{quote(name, safe='')}")
        assert answer.status_code in (404, 422)
        assert answer.json()["code"] in ("invalid_request", "route_not_found")
    assert flik.get(blocker)["status"] == "PROCESSING"
    assert flik.http.delete(f"/api/v1/tasks/{blocker}").status_code == 200


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("limit=0", "/limit"), ("limit=101", "/limit"), ("limit=abc", "/limit"), ("cursor=abc", "/cursor"),
     ("page=2", "/page"),
     ("status=DONE", "/status"), ("priority=9", "/priority"), ("createdAfter=now", "/createdAfter"),
     ("tenantId=%00", "/tenantId"), ("limit=1&limit=2", "/limit")],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/dead-letters"])
def test_wrong_parameter_is_named(flik: RunningFlik, path: str, query: str, pointer: str) -> None:
    assert refused(flik.http.get(f"{path}?{query}")) == [pointer]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic dXNlcjpwYXNz", "Bearer two words", "Bearer " + "x" * 5000]
)
def test_request_without_a_token_is_refused(flik: RunningFlik, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    for method, path in (("POST", "/api/v1/tasks"), ("GET", "/api/v1/tasks"), ("GET", f"/api/v1/tasks/{UNKNOWN}")):
        answer = httpx.request(method, flik.url + path, headers=headers)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("tasks", [[], [1] * 1001, {}, "all"])
def test_batch_of_an_impossible_size_is_refused(flik: RunningFlik, tasks: Any) -> None:
    assert refused(flik.http.post("/api/v1/tasks:batch", json={"tasks": tasks})) == ["/tasks"]


def test_batch_of_nothing_but_bad_tasks_stores_nothing(flik: RunningFlik) -> None:
    answer = flik.http.post("/api/v1/tasks:batch", json={"tasks": [task(priority=9), {}, None, "x"]})
    assert answer.status_code == 207
    assert [item["status"] for item in answer.json()["items"]] == [422] * 4


def test_moves_that_the_state_forbids_are_conflicts(flik: RunningFlik, stores: None) -> None:
    done = flik.submit()
    flik.wait(done)
    running = flik.submit("IMAGE", payload={"script": {"durationS": 400}})
    flik.wait(running, until=("PROCESSING",))
    for path in (f"{done}/cancel", f"{done}/retry", f"{running}/retry"):
        problem(flik.http.post(f"/api/v1/tasks/{path}"), 409, "state_conflict")
    problem(flik.http.delete(f"/api/v1/tasks/{done}"), 409, "state_conflict")
    problem(flik.http.post(f"/api/v1/dead-letters/{running}/replay"), 409, "state_conflict")
    assert flik.get(done)["status"] == "COMPLETED"
    assert flik.get(running)["status"] == "PROCESSING"
    assert flik.http.delete(f"/api/v1/tasks/{running}").status_code == 200


@pytest.mark.parametrize("value", [b"x" * 1000, b"two words", b"\xc3\xa9", b"<script>", b"a;b,c"])
def test_odd_request_id_does_no_harm(flik: RunningFlik, stores: None, value: bytes) -> None:
    answer = flik.http.post("/api/v1/tasks", json=task(), headers={b"X-Request-ID": value})
    assert answer.status_code == 202
    assert len(answer.headers.get_list("x-request-id")) == 1
    kept = flik.get(answer.json()["taskId"])["requestId"]
    assert kept.isascii()
    assert kept.isprintable()
    assert 1 <= len(kept) <= 128


def test_flood_of_bad_requests_leaves_the_service_well(flik: RunningFlik) -> None:
    def send(number: int) -> int:
        body = (b"[" * 50_000, b'{"a":' * 200, b"{" + b'"x":1,' * 50_000, b"\x00" * 1000)[number % 4]
        return flik.http.post("/api/v1/tasks", content=body, headers=JSON).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(send, range(200))) <= {400, 422}
    assert flik.http.get("/health").json()["status"] == "UP"
