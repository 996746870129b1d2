"""Puts the HTTP face together: what stands here, top to bottom, is what a request meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from flik import __version__
from flik.artifacts.link import PATH_PREFIX
from flik.errors import FlikError
from flik.gateway import (
    artifacts,
    audit,
    dead_letters,
    deliveries,
    events,
    family_tasks,
    keys,
    problems,
    service,
    sockets,
    streams,
    submit,
    tasks,
    tenants,
    tickets,
    webhooks,
)  # fmt: skip
from flik.gateway.description import Described, operation_id
from flik.gateway.headers import REQUEST_ID, Cors, StandardHeaders, read_request_id
from flik.gateway.parts import Parts
from flik.gateway.stopping import Listener, NotingListener, let_go


def create_app(
    open_parts: Callable[[], AbstractAsyncContextManager[Parts]],
    *,
    echo_request_id: bool,
    public_url: str | None = None,
    cors_origins: Collection[str] = (),
) -> FastAPI:
    """Return the application; `open_parts` is entered at its start and left at its end.

    `echo_request_id`: Ray Serve echoes X-Request-ID by itself, a bare server does not.
    `cors_origins`: pages of these origins may call it; "*" means all.
    """

    listener = Listener()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_parts() as parts:
            app.state.parts = parts
            watching = asyncio.create_task(let_go(parts.followers, listener), name="listener")
            try:
                yield
            finally:
                watching.cancel()

    app = Described(
        title="Flik",
        summary="A durable, fair front door for generative models",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_id,
        middleware=[
            Middleware(NotingListener, listener=listener),
            Middleware(StandardHeaders, public_url=public_url),
            Middleware(RequestId, echo=echo_request_id),
            *([Middleware(Cors, origins=cors_origins)] if cors_origins else []),
            Middleware(Faults),
            Middleware(HeadAsGet),
        ],
    )
    app.router.default = nothing_here
    app.add_exception_handler(FlikError, problems.on_flik_error)
    app.add_exception_handler(HTTPException, problems.on_framework_error)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_parameters)
    for module in (
        service, submit, tasks, events, streams, tickets, sockets, dead_letters, webhooks, deliveries, keys, tenants,
        audit, artifacts, family_tasks,
    ):  # fmt: skip
        app.include_router(module.router)
    return app


class RequestId:
    """Gives each request an id: the caller's X-Request-ID when it is usable, else a new one."""

    def __init__(self, app: ASGIApp, *, echo: bool) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = read_request_id(scope["headers"])
        scope["flik_request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            await send(message)

        await self._app(scope, receive, send_with_id if self._echo else send)


class Faults:
    """Answers a fault of ours with a problem, unless the answer has begun; in there, so that it gets its request id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        begun = False

        async def noting_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            answer = await problems.on_unexpected_error(Request(scope), error)
            await answer(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET without the body (RFC 9110, section 9.3.2); artifacts do so without reading the file."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].startswith(PATH_PREFIX):
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", "flik_head": True}, receive, send_head)


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no route matched."""
    if scope["type"] != "websocket":
        raise HTTPException(404)
    if "websocket.http.response" in scope.get("extensions", ()):
        await problems.on_no_websocket(HTTPConnection(scope))(scope, receive, send)
    else:
        await WebSocketClose()(scope, receive, send)
