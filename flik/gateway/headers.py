"""The headers that answers share: what protects browsers, what other origins may read, how much of a limit is left.

`StandardHeaders` puts the same few headers on every answer, whoever made it; one that a route
set itself stays as it is. It costs about a microsecond a request. It also adds what a route
noted of the tenant's rate, so that a refusal tells it as well as a success. `Cors` lets pages of other
origins call Flik, when FLIK_CORS_ORIGINS names them; without it no header of CORS is ever sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid4

from flik.gateway import problems
from flik.pipeline.admit import Quota

REQUEST_ID = b"x-request-id"
STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
EXPOSED = (
    "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Request-ID", "Idempotency-Replayed"
)  # fmt: skip
DESCRIBED: Mapping[str, dict[str, Any]] = {
    "Location": {
        "description": "Where what was made is to be found.",
        "schema": {"type": "string", "format": "uri"},
    },
    "Retry-After": {
        "description": "Whole seconds after which to look or to come again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit": {
        "description": "What is left of the tenant's rate (draft-ietf-httpapi-ratelimit-headers-10): `r` tasks now, "
        "`t` seconds until the burst is whole again or, after a refusal, until it is worth to come again.",
        "schema": {"type": "string", "pattern": r'^"tasks";r=[0-9]+;t=[0-9]+$'},
    },
    "RateLimit-Policy": {
        "description": "The tenant's rate: a burst of `q` tasks, which comes in within `w` seconds.",
        "schema": {"type": "string", "pattern": r'^"tasks";q=[0-9]+(?:;w=[0-9]+)?$'},
    },
    "X-Request-ID": {
        "description": "The id of the request: the caller's, or one that Flik made. Logs and tasks carry it.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    },
    "Idempotency-Replayed": {
        "description": "There when the answer is that of an earlier request under the same `Idempotency-Key`.",
        "schema": {"type": "string", "const": "true"},
    },
}
"""Headers of answers as OpenAPI describes them, under `components.headers`."""
_USABLE_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_ALLOWED_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "X-Request-ID", "traceparent", "tracestate", "Last-Event-ID",
    "Range",
)  # fmt: skip
_ALLOWED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_Number = TypeVar("_Number", int, float)
_QUOTA = "flik_quota"  # where a request's scope keeps what `note_quota` noted
_YEAR_S = 365 * 86_400
_MAX_INTEGER = 999_999_999_999_999  # the largest Integer of a structured field (RFC 9651, section 3.3.1)


def told(*names: str) -> dict[str, Any]:
    """Return the OpenAPI fragment of an answer that can have these headers."""
    return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names}}


def read_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the caller's X-Request-ID when it is usable (1 to 128 visible ASCII characters), else a new one."""
    given = next((value for name, value in headers if name == REQUEST_ID), b"")
    return given.decode() if _USABLE_REQUEST_ID.fullmatch(given) else str(uuid4())


def standard_headers(public_url: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of every answer. Browsers are told to insist on HTTPS only when the public URL has it."""
    always = (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-frame-options", b"DENY"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
        (b"cache-control", b"no-store"),
    )
    if public_url is None or not public_url.lower().startswith("https://"):
        return always
    return (*always, (b"strict-transport-security", b"max-age=%d" % _YEAR_S))


class StandardHeaders:
    """Adds the standard headers to every answer that does not have them."""

    def __init__(self, app: ASGIApp, *, public_url: str | None = None) -> None:
        self._app = app
        self._headers = standard_headers(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in STARTS:
                given = message.get("headers", ())
                names = {name for name, _ in given}
                missing = (pair for pair in self._headers if pair[0] not in names)
                message["headers"] = [*given, *missing, *scope.get(_QUOTA, ())]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Cors(CORSMiddleware):
    """Cross-origin calls from the origins that a setting names. A preflight needs no token; refused it is a problem."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_ALLOWED_METHODS, allow_headers=_ALLOWED_HEADERS,
            expose_headers=EXPOSED,
        )  # fmt: skip

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight."""
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return _RefusedPreflight(bytes(answer.body).decode(), kept)


class _RefusedPreflight(Response):
    """Becomes a problem when it is sent: only then is it known which request it answers."""

    def __init__(self, said: str, kept: dict[str, str]) -> None:
        super().__init__(status_code=problems.CORS_REFUSED.row.status)
        self._said = said
        self._kept = kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        document = problems.document(problems.CORS_REFUSED, scope, detail=self._said)
        await problems.respond(document, self._kept)(scope, receive, send)


def note_quota(scope: Scope, quota: Quota) -> None:
    """Have the answer to this request tell what is left of the tenant's rate, whatever the answer will be."""
    fields = rate_limit_fields(quota.rate_per_s, quota.burst, quota.remaining, quota.reset_s)
    scope[_QUOTA] = [(name.lower().encode(), value.encode()) for name, value in fields.items()]


def rate_limit_fields(rate_per_s: float, burst: int, remaining: float, reset_s: float) -> dict[str, str]:
    """Return the headers RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10) of a token bucket.

    The bucket holds `burst` tasks and fills up from empty in `burst / rate_per_s` seconds: that is
    the quota and the window of the policy. 300 a second with a burst of 1,000 is q=1000 and w=4:
    whole seconds, rounded up, so who keeps to them is never refused. `remaining` is what the bucket
    holds now, `reset_s` when it will be full again, or when the refused request would pass.

    >>> rate_limit_fields(300, 300, 50, 0.8)
    {'RateLimit-Policy': '"tasks";q=300;w=1', 'RateLimit': '"tasks";r=50;t=1'}
    """
    quota = _bounded(burst)
    window = f";w={max(1, math.ceil(_bounded(burst / rate_per_s)))}" if rate_per_s > 0 else ""
    left = math.floor(min(_bounded(remaining), quota))
    return {
        "RateLimit-Policy": f'"tasks";q={quota}{window}',
        "RateLimit": f'"tasks";r={left};t={math.ceil(_bounded(reset_s))}',
    }


def _bounded(number: _Number) -> _Number | int:
    return min(max(0, number), _MAX_INTEGER)
