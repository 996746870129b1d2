"""What stands around Ray Serve's own handling of HTTP, in every process of its that takes requests.

Serve answers some requests by itself and in plain text (no replica, a timeout, a fault), others not at all, obeys
headers of its own, and echoes X-Request-ID as it came. `middlewares` puts `Edge` outside of all
that when RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it: such answers become problems, an
unusable X-Request-ID is replaced before Serve sees it, and callers cannot set Serve's headers.
Flik's own answers pass unchanged. What is refused before any Python runs is HAProxy's to answer.
"""

from __future__ import annotations

import logging

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flik.gateway import problems
from flik.gateway.headers import REQUEST_ID, read_request_id, standard_headers

# Serve would shorten or lift the time limit of a request, or leave it running for nobody; a value
# that is not UTF-8 would make it fail.
_NOT_FOR_CALLERS = frozenset({
    REQUEST_ID, b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve_multiplexed_model_id",
    b"serve-multiplexed-model-id", b"x-session-id",
})  # fmt: skip
_SERVES_OWN = {
    404: problems.ROUTE_NOT_FOUND,
    408: problems.REQUEST_TIMEOUT,
    429: problems.NO_GATEWAY,
    500: problems.INTERNAL,
    503: problems.NO_GATEWAY,
}
_OPERATORS_PATHS = "/-/"  # Serve's health and routes, for HAProxy and operators
_log = logging.getLogger("flik.edge")


def middlewares() -> list[Middleware]:
    """Return what Ray Serve puts around its own handling."""
    return [Middleware(Edge)]


class Edge:
    """Makes requests safe for Serve, and problems of Serve's own answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._headers = list(standard_headers(None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = read_request_id(scope["headers"])
        kept = [pair for pair in scope["headers"] if pair[0] not in _NOT_FOR_CALLERS]
        scope["headers"] = [*kept, (REQUEST_ID, request_id.encode())]
        scope["flik_request_id"] = request_id
        if scope["type"] == "websocket" or scope["path"].startswith(_OPERATORS_PATHS):
            await self._app(scope, receive, send)
            return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = replaced = False

        async def send_problems(message: Message) -> None:
            nonlocal begun, replaced
            if message["type"] == "http.response.start":
                begun = True
                replaced = _is_serves_own(message)
                if replaced:
                    await self._answer(_SERVES_OWN[message["status"]], scope, send)
            if not replaced:
                await send(message)

        try:
            await self._app(scope, receive, send_problems)
        except Exception:
            if begun:
                raise
            _log.exception("unexpected error outside of the gateway", extra={"requestId": scope["flik_request_id"]})
            await self._answer(problems.INTERNAL, scope, send)
        else:
            if not begun:  # Serve's proxy says nothing at all when the replica dies
                await self._answer(problems.GATEWAY_LOST, scope, send)

    async def _answer(self, named: problems.Named, scope: Scope, send: Send) -> None:
        answer = problems.respond(problems.document(named, scope))
        echoed = (REQUEST_ID, scope["flik_request_id"].encode())
        headers = [*answer.raw_headers, echoed, *self._headers]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(answer.body)})


def _is_serves_own(message: Message) -> bool:
    """Return whether Serve made this answer: Flik's errors are JSON, Serve's are text."""
    if message["status"] not in _SERVES_OWN:
        return False
    kind = next((value for name, value in message.get("headers", ()) if name.lower() == b"content-type"), b"")
    return not bytes(kind).split(b";")[0].strip().endswith(b"json")
