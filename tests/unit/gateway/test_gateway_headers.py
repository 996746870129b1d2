"""What every answer carries, what pages of other origins may do, and how a limit is told."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes, body, task_id
from hypothesis import given
from hypothesis import strategies as st

from flik import schemas
from flik.gateway.headers import EXPOSED, StandardHeaders, rate_limit_fields, read_request_id

STANDARD = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
PAGE = "https://app.example"
PATH = f"/api/v1/tasks/{task_id(1)}"


@asynccontextmanager
async def calling(fakes: Fakes) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        fakes.app.router.lifespan_context(fakes.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik.test") as client,
    ):
        yield client


# ---- on every answer


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nope"),
     ("GET", PATH), ("PUT", "/health"), ("OPTIONS", "/"), ("HEAD", "/"), ("GET", "/artifacts/x"),
     ("POST", "/api/v1/tasks")],
)  # fmt: skip
async def test_every_answer_carries_the_standard_headers_once(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert {name: answer.headers.get_list(name) for name in STANDARD} == {
        name: [value] for name, value in STANDARD.items()
    }
    assert "strict-transport-security" not in answer.headers


async def test_fault_of_ours_carries_them_too(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.fault = RuntimeError("broken")
    answer = await client.get(PATH)
    assert answer.status_code == 500
    assert STANDARD.items() <= dict(answer.headers).items()


@pytest.mark.parametrize(
    ("public_url", "said"),
    [(None, None), ("http://flik.example", None), ("https://flik.example", "max-age=31536000"),
     ("HTTPS://flik.example", "max-age=31536000")],
)  # fmt: skip
async def test_browsers_are_told_to_insist_on_https_only_where_it_is(public_url: str | None, said: str | None) -> None:
    async with calling(gateway_parts.build(public_url=public_url)) as client:
        assert (await client.get("/")).headers.get("strict-transport-security") == said


async def test_header_that_a_route_set_stays() -> None:
    sent: list[Any] = []

    async def route(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"private")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await StandardHeaders(route)({"type": "http"}, receive, send)
    caching = [value for name, value in sent[0]["headers"] if name == b"cache-control"]
    assert caching == [b"private"]
    assert sent[1] == {"type": "http.response.body", "body": b"x"}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [([b"r-1"], True), ([b"x" * 128], True), ([b"r-1", b"r-2"], True), ([b"x" * 129], False), ([b""], False),
     ([b"a b"], False), ([b"\xff"], False), ([b"a\r\nSet-Cookie: x"], False), ([], False)],
)  # fmt: skip
def test_request_id_is_the_callers_when_it_is_usable(sent: list[bytes], kept: bool) -> None:
    found = read_request_id([(b"host", b"flik"), *((b"x-request-id", value) for value in sent)])
    assert (found == sent[0].decode()) if kept else re.fullmatch(r"[0-9a-f-]{36}", found)


# ---- other origins


@asynccontextmanager
async def open_to(*origins: str) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(gateway_parts.build(cors_origins=origins)) as client:
        yield client


def preflight(origin: str = PAGE, method: str = "POST", headers: str = "authorization,content-type") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


async def test_without_the_setting_no_other_origin_is_answered(client: httpx.AsyncClient) -> None:
    for answer in (
        await client.options("/api/v1/tasks", headers=preflight()),
        await client.get("/", headers={"Origin": PAGE}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_preflight_of_an_allowed_origin_needs_no_token() -> None:
    async with open_to("https://other.example", PAGE) as client:
        answer = await client.options("/api/v1/tasks", headers=preflight(headers="Authorization, Idempotency-Key"))
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]


async def test_allowed_origin_may_read_answers_and_problems_and_their_headers() -> None:
    async with open_to(PAGE) as client:
        for path, status in (("/", 200), (PATH, 401), ("/nope", 404)):
            answer = await client.get(path, headers={"Origin": PAGE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
            assert "Origin" in answer.headers["vary"]


async def test_star_means_every_origin() -> None:
    async with open_to("*") as client:
        assert (await client.get("/", headers={"Origin": "null"})).headers["access-control-allow-origin"] == "*"
        answer = await client.options("/api/v1/tasks", headers=preflight("http://x"))
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("asked", "said"),
    [(preflight("https://evil.example"), "origin"), (preflight(f"{PAGE}.evil.example"), "origin"),
     (preflight(method="TRACE"), "method"), (preflight(headers="cookie"), "headers")],
)  # fmt: skip
async def test_refused_preflight_is_a_problem(asked: dict[str, str], said: str) -> None:
    async with open_to(PAGE) as client:
        answer = await client.options("/api/v1/tasks", headers=asked)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    found = schemas.Problem.model_validate(answer.json())
    assert (found.code, found.instance) == ("cors_refused", "/api/v1/tasks")
    assert said in found.detail
    assert found.request_id == answer.headers["x-request-id"]
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]


async def test_other_origin_is_answered_without_leave_to_read() -> None:
    async with open_to(PAGE) as client:
        answer = await client.get("/", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


# ---- traces


async def test_trace_of_the_caller_is_kept_on_the_task(fakes: Fakes, client: httpx.AsyncClient) -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    for sent, kept in ((f"00-{trace_id}-{span_id}-01", trace_id), (f"00-{trace_id}-{'0' * 16}-01", None)):
        await client.post("/api/v1/tasks", json=body(), headers={"traceparent": sent})
        assert fakes.tasks.stored[-1].trace_id == kept
    two = [("traceparent", f"00-{trace_id}-{span_id}-01")] * 2
    await client.post("/api/v1/tasks", json=body(), headers=two)
    assert fakes.tasks.stored[-1].trace_id is None


# ---- limits


@pytest.mark.parametrize(
    ("limit", "policy", "left"),
    [
        ((300, 300, 50, 0.8), '"tasks";q=300;w=1', '"tasks";r=50;t=1'),
        ((300, 1000, 999.9, 0), '"tasks";q=1000;w=4', '"tasks";r=999;t=0'),
        ((0.5, 1, 0, 1.2), '"tasks";q=1;w=2', '"tasks";r=0;t=2'),
        ((100, 10, -3, -1), '"tasks";q=10;w=1', '"tasks";r=0;t=0'),
        ((10, 5, 7, 1), '"tasks";q=5;w=1', '"tasks";r=5;t=1'),
        ((0, 5, 5, math.inf), '"tasks";q=5', '"tasks";r=5;t=999999999999999'),
        ((1e-300, 10**18, 10**18, 0), '"tasks";q=999999999999999;w=999999999999999', '"tasks";r=999999999999999;t=0'),
    ],
)
def test_limit_is_told_as_quota_window_and_rest(limit: tuple[float, int, float, float], policy: str, left: str) -> None:
    assert rate_limit_fields(*limit) == {"RateLimit-Policy": policy, "RateLimit": left}


@given(
    rate_per_s=st.floats(0, 1e9),
    burst=st.integers(0, 10**16),
    remaining=st.floats(-1e6, 1e17),
    reset_s=st.floats(-10, 1e20),
)
def test_fields_keep_to_the_grammar_of_the_draft(
    rate_per_s: float, burst: int, remaining: float, reset_s: float
) -> None:
    """A list of one String item each, parameters that are Integers of at most 15 digits (RFC 9651), w above 0."""
    fields = rate_limit_fields(rate_per_s, burst, remaining, reset_s)
    policy = re.fullmatch(r'"tasks";q=(\d{1,15})(?:;w=(\d{1,15}))?', fields["RateLimit-Policy"])
    left = re.fullmatch(r'"tasks";r=(\d{1,15});t=\d{1,15}', fields["RateLimit"])
    assert policy
    assert left
    assert policy[2] is None or int(policy[2]) >= 1
    assert int(left[1]) <= int(policy[1])
    if policy[2] and burst < 10**15 and int(policy[2]) < 10**14:
        assert int(policy[1]) / int(policy[2]) <= rate_per_s * (1 + 1e-9)  # never promises more than there is
