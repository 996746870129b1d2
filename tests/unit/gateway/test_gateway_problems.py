"""The tree of errors, the table of answers, docs/errors.md and the OpenAPI description name the same problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, task_id
from starlette.requests import Request

from flik import errors, schemas
from flik.errors import FieldError, FlikError
from flik.gateway import problems

ROOT = Path(__file__).parents[3]
PATH = f"/api/v1/tasks/{task_id(1)}"
NEVER_ANSWERED = {
    FlikError, errors.RequestError,  # nothing raises them directly
    errors.ProviderError,  # ends an attempt, never a request
    errors.StartupRefused, errors.MigrationError, errors.SettingInvalid,  # before anything is served
}  # fmt: skip
NOT_OF_A_ROUTE = {
    "not_implemented",  # of a route that the description leaves out
    "bad_request", "cors_refused", "route_not_found", "method_not_allowed", "request_timeout", "gateway_lost",
    "gateway_timeout",
    "stream_malformed", "stream_too_large", "stream_version_unknown", "too_many_subscriptions",  # of WebSockets
    "stream_idle", "too_many_strangers",
}  # fmt: skip


def kinds(kind: type[FlikError] = FlikError) -> Iterator[type[FlikError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from kinds(child)


def documented() -> dict[str, list[str]]:
    """Return the cells (status, again, title, prose) of docs/errors.md by code, in its order."""
    section = (ROOT / "docs" / "errors.md").read_text().partition("\n## Codes\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "`" in line[:3]]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_every_error_has_an_answer_or_never_needs_one() -> None:
    answered = set(problems.TABLE)
    unanswered = {kind for kind in kinds() if kind not in answered}
    assert {kind for kind in unanswered if not issubclass(kind, errors.ProviderError)} <= NEVER_ANSWERED
    assert answered.isdisjoint(NEVER_ANSWERED)


def test_no_two_problems_share_a_code() -> None:
    codes = [kind.code for kind in problems.TABLE] + [named.code for named in problems.NAMED]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(("code", "row"), problems.codes().items())
def test_each_code_has_a_line_in_the_documentation(code: str, row: problems.Row) -> None:
    expected = [str(row.status), "yes" if row.retryable else "no", row.title]
    line = f"| `{code}` | {' | '.join(expected)} | <when, and what to do> |"
    cells = documented().get(code)
    assert cells is not None, f"add to docs/errors.md: {line}"
    assert cells[:3] == expected, f"docs/errors.md should say: {line}"
    assert len(cells[3]) > 20


def test_documentation_has_no_code_that_is_not_there() -> None:
    assert list(documented()) == list(problems.codes())


async def test_description_has_an_example_of_each_code_and_routes_answer_with_it(client: httpx.AsyncClient) -> None:
    raw = (await client.get("/openapi.json")).text
    document = httpx.Response(200, text=raw).json()
    examples = document["components"]["examples"]
    assert set(examples) == set(problems.codes())
    for code, example in examples.items():
        said = schemas.Problem.model_validate(example["value"])
        assert (said.code, said.status) == (code, problems.codes()[code].status)
        assert (said.retry_after_ms is not None) or said.status not in (429, 503)
    used = set(re.findall(r'"#/components/examples/(\w+)"', raw))
    assert used == set(examples) - NOT_OF_A_ROUTE


async def test_each_example_stands_under_its_own_status(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                content = answer.get("content", {}).get(problems.PROBLEM_TYPE)
                for code in (content or {}).get("examples", {}):
                    assert str(problems.codes()[code].status) == status
                assert content is None or content["examples"]
                assert (status in ("429", "503")) <= ("Retry-After" in answer.get("headers", {}) or content is None)


def a_request() -> Request:
    return Request({"type": "http", "path": "/p\xe9", "headers": [], "flik_request_id": "r-1"})


@pytest.mark.parametrize(
    ("error", "seconds", "ms"),
    [
        (errors.RateLimited("acme", 0.0, 300), "1", 0),
        (errors.RateLimited("acme", 0.2501, 300), "1", 251),
        (errors.TenantQueueFull("acme", 5, 2.0), "2", 2000),
        (errors.QueueFull("the queue", 61.5), "62", 61_500),
        (errors.Unavailable("postgresql"), "1", 1000),
        (errors.QueueFull("the queue", -1.0), "1", 0),
    ],
)
def test_refusal_for_now_says_when_to_come_back(error: FlikError, seconds: str, ms: int) -> None:
    problem = problems.problem_of(error, a_request())
    answer = problems.respond(problem)
    assert answer.status_code in (429, 503)
    assert (problem["retryable"], problem["retryAfterMs"], answer.headers["retry-after"]) == (True, ms, seconds)


def test_every_kind_of_429_and_503_takes_a_time_to_come_back() -> None:
    for_now = {kind for kind, row in problems.TABLE.items() if row.status in (429, 503)}
    assert {errors.RateLimited, errors.TenantQueueFull, errors.QueueFull, errors.Unavailable} <= for_now
    for kind in for_now:
        assert "retry_after_s" in kind.__init__.__annotations__
        assert problems.TABLE[kind].retryable


def test_refusal_for_good_says_nothing_of_the_sort() -> None:
    problem = problems.problem_of(errors.PriorityNotAllowed(0, 1), a_request())
    answer = problems.respond(problem)
    assert (answer.status_code, problem["retryable"]) == (403, False)
    assert "retryAfterMs" not in problem
    assert "retry-after" not in answer.headers


def test_problem_has_all_its_members() -> None:
    problem = problems.problem_of(errors.InvalidRequest((FieldError("/a~1b", "is required"),)), a_request())
    assert problem == {
        "type": "urn:flik:problem:invalid_request",
        "title": "A field breaks a rule",
        "status": 422,
        "detail": "/a~1b: is required",
        "instance": "/p%C3%A9",
        "code": "invalid_request",
        "errors": [{"pointer": "/a~1b", "detail": "is required"}],
        "requestId": "r-1",
        "retryable": False,
    }


@pytest.mark.parametrize("error", [errors.StartupRefused("no"), errors.ProviderError("x", "secret", True), KeyError(1)])
def test_error_that_is_none_of_the_callers_business_gives_nothing_away(error: Exception) -> None:
    problem = problems.problem_of(error, a_request())
    assert (problem["status"], problem["code"]) == (500, "internal")
    assert "secret" not in problem["detail"]


# ---- WebSockets, where there are none


async def handshake(fakes: Fakes, path: str, **scope: Any) -> list[Any]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    base = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"x-request-id", b"r-1")], "scheme": "ws", "subprotocols": [], **scope}  # fmt: skip
    await fakes.app(base, receive, send)
    return sent


@pytest.mark.parametrize("path", ["/", PATH, "/nope"])
async def test_handshake_where_no_websocket_is_gets_a_problem(fakes: Fakes, path: str) -> None:
    start, content = await handshake(fakes, path, extensions={"websocket.http.response": {}})
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    headers = dict(start["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-request-id"] == b"r-1"
    assert headers[b"x-content-type-options"] == b"nosniff"
    said = schemas.Problem.model_validate_json(content["body"])
    assert (said.code, said.request_id, said.instance) == ("route_not_found", "r-1", path)


async def test_handshake_is_closed_where_the_server_can_answer_nothing_else(fakes: Fakes) -> None:
    assert [message["type"] for message in await handshake(fakes, "/")] == ["websocket.close"]
