"""What every request meets: the request id, the credential, HEAD, and problems for whatever goes wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes, body, task_id, view

from flik import schemas

PROBLEM_TYPE = "application/problem+json"
PATH = f"/api/v1/tasks/{task_id(1)}"


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a whole problem, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM_TYPE
    found: dict[str, Any] = answer.json()
    schemas.Problem.model_validate(found)
    assert found["status"] == status
    assert found["code"] == code
    assert found["type"] == f"urn:flik:problem:{code}"
    assert [found["requestId"]] == answer.headers.get_list("x-request-id")
    return found


@pytest.mark.parametrize("given", ["r-1", "x" * 128, "a:b/c=d"])
async def test_request_id_of_the_caller_is_kept(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get(PATH, headers={"X-Request-ID": given})
    assert problem(answer, 404, "task_not_found")["requestId"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\tb", b"\xc3\xa9", b"\x7f"])
async def test_unusable_request_id_is_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    answer = await client.get(PATH, headers={b"X-Request-ID": given})
    assert len(problem(answer, 404, "task_not_found")["requestId"]) == 36


async def test_answers_carry_exactly_one_request_id_also_when_they_succeed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"X-Request-ID": "r-2"})
    assert answer.headers.get_list("x-request-id") == ["r-2"]


async def test_request_id_is_not_echoed_where_the_server_does_it() -> None:
    fakes = gateway_parts.build(echo_request_id=False)
    async with (
        fakes.app.router.lifespan_context(fakes.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as client,
    ):
        assert "x-request-id" not in (await client.get("/")).headers


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Token abc"])
async def test_request_without_a_token_is_refused(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get(PATH, headers={b"Authorization": header.encode()})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="flik"'


@pytest.mark.parametrize("header", ["Bearer a b", "bearer é", "Bearer " + "x" * 4097])
async def test_request_with_what_is_no_token_is_refused(client: httpx.AsyncClient, header: str) -> None:
    answer = await client.get(PATH, headers={b"Authorization": header.encode()})
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="flik", error="invalid_token"'


@pytest.mark.parametrize("header", ["Bearer x", "bearer test-token", "BEARER   x"])
async def test_any_token_will_do(client: httpx.AsyncClient, header: str) -> None:
    assert (await client.get("/api/v1/tasks", headers={"Authorization": header})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/tasks"), ("POST", "/api/v1/tasks"), ("POST", "/api/v1/tasks:batch"), ("GET", PATH),
        ("DELETE", PATH), ("POST", f"{PATH}/cancel"), ("POST", f"{PATH}/retry"), ("GET", f"{PATH}/result"),
        ("GET", f"{PATH}/events"), ("GET", "/api/v1/dead-letters"), ("POST", "/api/v1/dead-letters:replay"),
        ("POST", f"/api/v1/dead-letters/{task_id(1)}/replay"),
    ],
)  # fmt: skip
async def test_every_route_of_the_interface_wants_a_token(fakes: Fakes, method: str, path: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as stranger:
        problem(await stranger.request(method, path), 401, "unauthenticated")


@pytest.mark.parametrize(
    "path",
    ["/nope", "/api", "/api/v1/", "/api/v1/tasks/", "/api/v2/tasks", "/api/v1/tasks/a/b/c", "/%00", "/..%2f..%2fetc",
     "/docs", "/swagger", "/%ff", "/api/v1/tasks/%2e%2e/%2e%2e/etc/passwd", "/" + "x" * 5000],
)  # fmt: skip
async def test_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    found = problem(await client.get(path), 404, "route_not_found")
    assert found["instance"].isascii()
    assert found["instance"].isprintable()


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/tasks", "GET, HEAD, POST"),
        ("OPTIONS", "/api/v1/tasks", "GET, HEAD, POST"),
        ("PATCH", PATH, "GET, HEAD, DELETE"),
        ("GET", f"{PATH}/cancel", "POST"),
        ("DELETE", "/health", "GET, HEAD"),
        ("TRACE", "/", "GET, HEAD"),
        ("POST", "/artifacts/x", "GET, HEAD"),
    ],
)
async def test_wrong_method_is_told_all_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/openapi.json", "/api/v1/tasks", "/nope"])
async def test_head_is_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    whole, head = await client.get(path), await client.head(path)
    assert head.content == b""
    assert head.status_code == whole.status_code
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_no_byte_of_a_body_is_sent_in_answer_to_head(fakes: Fakes) -> None:
    """The client used in the other tests would drop such a body by itself."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "HEAD", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [],
             "scheme": "http", "root_path": "", "http_version": "1.1", "server": ("flik", 80)}  # fmt: skip
    await fakes.app(scope, receive, send)
    lengths = dict(sent[0]["headers"])
    assert int(lengths[b"content-length"]) > 0
    assert [message["body"] for message in sent[1:]] == [b""]


async def test_fault_of_ours_is_a_problem_that_gives_nothing_away(
    fakes: Fakes, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.tasks.fault = RuntimeError("password=hunter2")
    answer = await client.get(PATH, headers={"X-Request-ID": "r-3"})
    found = problem(answer, 500, "internal")
    assert found["retryable"] is True
    assert "hunter2" not in answer.text
    assert [record.__dict__["requestId"] for record in caplog.records if record.exc_info] == ["r-3"]
    assert fakes.parts.measured.registry.get_sample_value("flik_http_errors_total", {"code": "internal"}) == 1


async def test_dependency_that_is_away_says_when_to_come_back(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.queue.away = True
    answer = await client.delete(PATH)
    found = problem(answer, 503, "unavailable")
    assert found["retryable"] is True
    assert found["retryAfterMs"] == 2500
    assert answer.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("flik.example:8443", "http://flik.example:8443"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[", "http://localhost"),
        ('evil"><script>', "http://localhost"),
        ("a b", "http://localhost"),
        ("user@evil.example", "http://localhost"),
        ("x/../y", "http://localhost"),
    ],
)
async def test_links_use_the_address_of_the_caller_only_when_it_is_one(
    client: httpx.AsyncClient, host: str, base: str
) -> None:
    answer = await client.post("/api/v1/tasks", json=body(), headers={"Host": host})
    assert answer.json()["statusUrl"].startswith(f"{base}/api/v1/tasks/")
    problem(await client.get(PATH, headers={"Host": host}), 404, "task_not_found")


async def test_public_url_is_what_links_start_with() -> None:
    fakes = gateway_parts.build(public_url="https://flik.example/base/")
    fakes.tasks.rows[task_id(1)] = view(status="QUEUED")
    async with (
        fakes.app.router.lifespan_context(fakes.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://inside") as client,
    ):
        answer = await client.post("/api/v1/tasks", json=body(), headers={"Authorization": "Bearer x"})
    assert answer.headers["location"].startswith("https://flik.example/base/api/v1/tasks/")


async def test_description_names_every_route_and_its_problems(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    one, families = "/api/v1/tasks/{task_id}", ("text", "image", "video")
    hook, dag = "/api/v1/webhooks/{webhook_id}", "/api/v1/dags/{dag_id}"
    expected = {
        "GET /": set(),
        "GET /health": set(),
        "GET /metrics": set(),
        "GET /artifacts/{key}": {"404", "416", "503"},
        "POST /api/v1/tasks": {"400", "409", "413", "415", "422", "429"},
        "POST /api/v1/tasks:batch": {"400", "409", "413", "415", "422", "429"},
        "GET /api/v1/tasks": {"422"},
        f"GET {one}": {"404", "422"},
        f"DELETE {one}": {"404", "409", "422"},
        f"GET {one}/result": {"404", "409", "422"},
        f"GET {one}/events": {"404", "422", "429"},
        "POST /stream": {"413", "422", "429"},
        "POST /api/v1/streams/{key}": {"400", "413", "415", "422", "429"},
        "GET /api/v1/streams/{key}": {"404", "422", "429"},
        f"POST {one}/cancel": {"404", "409", "422"},
        f"POST {one}/retry": {"404", "409", "422", "429"},
        "POST /api/v1/dags": {"400", "409", "413", "415", "422", "429"},
        "GET /api/v1/dags": {"422"},
        f"GET {dag}": {"404", "422"},
        f"GET {dag}/events": {"404", "422", "429"},
        f"GET {dag}/deliveries": {"404", "422"},
        f"POST {dag}/deliveries/{{delivery_id}}/redeliver": {"404", "422"},
        f"DELETE {dag}": {"404", "409", "422"},
        f"POST {dag}/cancel": {"404", "409", "422"},
        f"POST {dag}/resume": {"404", "409", "422", "429"},
        f"GET {one}/deliveries": {"404", "422"},
        f"POST {one}/deliveries/{{delivery_id}}/redeliver": {"404", "422"},
        "GET /api/v1/dead-letters": {"422"},
        "POST /api/v1/dead-letters/{task_id}/replay": {"404", "409", "422", "429"},
        "POST /api/v1/dead-letters:replay": {"400", "413", "415", "422", "429"},
        "POST /api/v1/tickets": set(),
        "POST /api/v1/webhooks": {"400", "409", "413", "415", "422"},
        "GET /api/v1/webhooks": {"422"},
        f"GET {hook}": {"404", "422"},
        f"PATCH {hook}": {"400", "404", "413", "415", "422"},
        f"DELETE {hook}": {"404", "422"},
        f"POST {hook}/rotate-secret": {"404", "422"},
        f"POST {hook}/test": {"404", "409", "422"},
        f"GET {hook}/deliveries": {"404", "422"},
        f"POST {hook}/deliveries/{{delivery_id}}/redeliver": {"404", "409", "422"},
        "POST /api/v1/keys": {"400", "413", "415", "422"},
        "GET /api/v1/keys": {"422"},
        "DELETE /api/v1/keys/{key_id}": {"404", "422"},
        "POST /api/v1/tenants": {"400", "409", "413", "415", "422"},
        "GET /api/v1/tenants": {"422"},
        "GET /api/v1/tenants/{tenant_id}": {"404"},
        "PATCH /api/v1/tenants/{tenant_id}": {"400", "404", "413", "415", "422"},
        "GET /api/v1/audit": {"422"},
        **{f"POST /api/tasks/{name}/generate": {"400", "409", "413", "415", "422", "429"} for name in families},
        "GET /api/tasks/status/{task_id}": {"400", "404"},
        **{f"GET /api/tasks/{name}": {"400"} for name in ("list", "pending", "failed")},
        "GET /api/tasks/health": set(),
        "DELETE /api/tasks/{task_id}": {"400", "404", "409"},
        "POST /api/tasks/{task_id}/retry": {"400", "404", "409", "429"},
    }
    shared = {"401", "403", "503"}  # of all that asks who calls
    protected = {name for name in expected if "/api/" in name} - {"GET /api/tasks/health"} | {"POST /stream"}
    problems = {
        name: {code for code, said in operation["responses"].items() if PROBLEM_TYPE in said.get("content", {})}
        for name, operation in operations.items()
    }
    assert problems == {
        name: statuses | {"500"} | (shared if name in protected else set()) for name, statuses in expected.items()
    }
    assert {name for name, operation in operations.items() if operation.get("security")} == protected


async def test_operations_have_readable_names_that_no_two_share(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"(?:[a-z]+)(?:[A-Z][a-z]+)+", name)] == []
    assert {"submitTask", "submitBatch", "getTask", "cancelTask", "deleteTask", "listTasks", "generateImage"} <= set(
        ids
    )


async def test_description_refers_only_to_what_it_holds(client: httpx.AsyncClient) -> None:
    raw = (await client.get("/openapi.json")).text
    document = json.loads(raw)
    references = {part.split('"')[0] for part in raw.split('"#/components/schemas/')[1:]}
    assert references <= set(document["components"]["schemas"])
    assert {"TaskRequest", "BatchRequest", "ReplayRequest", "Problem", "TaskAnswer"} <= references
