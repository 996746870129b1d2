"""Around Ray Serve: its own answers become problems, its headers are not for callers, ours pass unchanged."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from flik import schemas
from flik.gateway.edge import Edge, middlewares


def around(answer: Response | Exception, seen: list[Any] | None = None) -> httpx.AsyncClient:
    """A client of an edge around something that always answers this."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if seen is not None:
            seen.append(Request(scope).headers)
        if isinstance(answer, Exception):
            raise answer
        await answer(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(Edge(serve)), base_url="http://flik")


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(404, "route_not_found", False), (408, "request_timeout", True), (429, "unavailable", True),
     (500, "internal", True), (503, "unavailable", True)],
)  # fmt: skip
async def test_serves_own_answer_becomes_a_problem(status: int, code: str, retryable: bool) -> None:
    async with around(PlainTextResponse("Request 17 was dropped", status)) as client:
        answer = await client.get("/api/v1/tasks", headers={"X-Request-ID": "r-1"})
    assert answer.headers["content-type"] == "application/problem+json"
    found = schemas.Problem.model_validate(answer.json())
    assert (found.status, found.code, found.retryable) == (answer.status_code, code, retryable)
    assert (found.request_id, answer.headers.get_list("x-request-id")) == ("r-1", ["r-1"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get_list("content-length") == [str(len(answer.content))]
    assert "dropped" not in answer.text
    if answer.status_code in (429, 503):
        assert answer.headers["retry-after"] == "1"
        assert found.retry_after_ms == 1000


async def test_where_serve_says_nothing_the_gateway_was_lost() -> None:
    async def say_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        """As Serve's proxy does when the replica that has the request dies; uvicorn would answer 500 in text."""

    async with httpx.AsyncClient(transport=httpx.ASGITransport(Edge(say_nothing)), base_url="http://flik") as client:
        answer = await client.post("/api/v1/tasks", headers={"X-Request-ID": "r-1"})
    found = schemas.Problem.model_validate(answer.json())
    assert (answer.status_code, found.code, found.retryable, found.request_id) == (502, "gateway_lost", True, "r-1")


async def test_every_piece_of_a_replaced_answer_is_dropped() -> None:
    async def pieces() -> Any:
        yield "Internal "
        yield "Server Error"

    async with around(StreamingResponse(pieces(), 500, media_type="text/plain")) as client:
        assert (await client.get("/x")).json()["code"] == "internal"


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("flik_queue_depth 7\n"),
        JSONResponse({"status": "DOWN"}, 503),
        Response(b'{"code":"task_not_found"}', 404, media_type="application/problem+json"),
        PlainTextResponse("I am a teapot", 418),
        Response(b"\x00\x01", 206, media_type="image/png"),
    ],
    ids=["text", "health", "problem", "unknown", "bytes"],
)
async def test_what_is_not_serves_own_error_passes_unchanged(answer: Response) -> None:
    async with around(answer) as client:
        found = await client.get("/x")
    assert (found.status_code, found.content) == (answer.status_code, answer.body)
    assert found.headers["content-type"] == answer.headers["content-type"]


async def test_paths_of_operators_pass_unchanged() -> None:
    async with around(PlainTextResponse("unhealthy", 503)) as client:
        assert (await client.get("/-/healthz")).text == "unhealthy"


async def test_fault_outside_of_the_gateway_is_a_problem_that_gives_nothing_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with around(RuntimeError("password=hunter2")) as client:
        answer = await client.get("/x", headers={"X-Request-ID": "r-2"})
    assert (answer.status_code, answer.json()["code"], answer.json()["requestId"]) == (500, "internal", "r-2")
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text


async def test_fault_after_the_answer_began_is_not_answered_twice() -> None:
    async def pieces() -> Any:
        yield "half"
        raise RuntimeError("cut off")

    async with around(StreamingResponse(pieces(), 200)) as client:
        with pytest.raises(RuntimeError, match="cut off"):
            await client.get("/x")


@pytest.mark.parametrize("sent", [b"\xff\xfe", b"a b", b"x" * 129, b"<script>\t"])
async def test_serve_never_sees_an_unusable_request_id(sent: bytes) -> None:
    seen: list[Any] = []
    async with around(PlainTextResponse("x"), seen) as client:
        await client.get("/x", headers={b"X-Request-ID": sent})
    assert len(seen[0].getlist("x-request-id")) == 1
    assert len(seen[0]["x-request-id"]) == 36


async def test_serve_sees_one_request_id_and_none_of_its_own_headers() -> None:
    seen: list[Any] = []
    given = [
        ("X-Request-ID", "r-3"), ("X-Request-ID", "r-4"), ("X-Request-Timeout-Seconds", "0.001"),
        ("X-Request-Disconnect-Disabled", "?1"), ("serve_multiplexed_model_id", "m"), ("X-Session-ID", "s"),
        ("Authorization", "Bearer x"),
    ]  # fmt: skip
    async with around(PlainTextResponse("x"), seen) as client:
        await client.get("/x", headers=given)
    assert seen[0].getlist("x-request-id") == ["r-3"]
    assert seen[0]["authorization"] == "Bearer x"
    assert not [name for name in seen[0] if name.startswith(("x-request-t", "x-request-d", "serve", "x-session"))]


def test_serve_is_given_what_it_takes_for_middleware() -> None:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("x"))], middleware=middlewares())
    assert app.user_middleware[0].cls is Edge
