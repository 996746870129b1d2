"""Every error that leaves the service, as RFC 9457 problem+json: one table from exception to answer.

Flik's own errors are rows of `TABLE`; what the framework, Ray Serve or HAProxy refuse has a name
in `NAMED`. docs/errors.md tells callers of each code; a test holds the three together.
"""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from flik import errors
from flik.domain import trace

_log = logging.getLogger("flik.gateway")


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of error is answered."""

    status: int
    title: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """A problem without an exception of Flik's; `detail` is what it says unless there is more to say."""

    code: str
    row: Row
    detail: str


TABLE: Mapping[type[errors.FlikError], Row] = {
    errors.MalformedBody: Row(400, "The body cannot be read"),
    errors.InvalidRequest: Row(422, "A field breaks a rule"),
    errors.InvalidParameters: Row(400, "A parameter breaks a rule"),
    errors.BodyTooLarge: Row(413, "The body is too large"),
    errors.UnsupportedMediaType: Row(415, "The body has an unknown type"),
    errors.Unauthenticated: Row(401, "A credential is needed"),
    errors.ScopeMissing: Row(403, "The credential does not allow this"),
    errors.TenantMismatch: Row(403, "The credential is another tenant's"),
    errors.TenantUnknown: Row(403, "The tenant is not known"),
    errors.TenantNotFound: Row(404, "There is no such tenant"),
    errors.TenantExists: Row(409, "There is such a tenant already"),
    errors.KeyNotFound: Row(404, "There is no such key"),
    errors.WebhookNotFound: Row(404, "There is no such webhook"),
    errors.DeliveryNotFound: Row(404, "There is no such delivery"),
    errors.TooManyWebhooks: Row(409, "The tenant has as many webhooks as it may"),
    errors.WebhookInactive: Row(409, "The webhook sends nothing"),
    errors.TaskNotFound: Row(404, "There is no such task"),
    errors.StreamNotFound: Row(404, "There is no such stream"),
    errors.ArtifactNotFound: Row(404, "There is no such artifact"),
    errors.StateConflict: Row(409, "The task's state forbids this"),
    errors.DagNotFound: Row(404, "There is no such dag"),
    errors.DagStateConflict: Row(409, "The dag's state forbids this"),
    errors.StepOfDag: Row(409, "The task goes on with its dag only"),
    errors.RateLimited: Row(429, "Too many tasks a second", retryable=True),
    errors.ExceedsBurst: Row(422, "More tasks at once than the limit ever grants"),
    errors.TenantQueueFull: Row(429, "Too many tasks of this tenant wait", retryable=True),
    errors.PriorityNotAllowed: Row(403, "The priority is not allowed"),
    errors.PayloadTooLarge: Row(413, "The payload is too large"),
    errors.IdempotencyKeyInvalid: Row(400, "The idempotency key cannot be read"),
    errors.IdempotencyKeyReused: Row(422, "The idempotency key was used for another request"),
    errors.IdempotencyInFlight: Row(409, "The first request with this key is in flight", retryable=True),
    errors.TooManyFollowers: Row(429, "Too many connections follow tasks", retryable=True),
    errors.StreamMalformed: Row(400, "What was sent breaks the protocol"),
    errors.StreamTooLarge: Row(413, "What was sent is too large"),
    errors.StreamVersionUnknown: Row(400, "No version of the protocol in common"),
    errors.StreamIdle: Row(408, "The connection followed nothing"),
    errors.TooManySubscriptions: Row(409, "Too many subscriptions on one connection"),
    errors.NotBuilt: Row(501, "Not offered yet"),
    errors.Unavailable: Row(503, "A dependency is not available", retryable=True),
    errors.GatewayStops: Row(503, "The gateway is being stopped", retryable=True),
    errors.TooManyStrangers: Row(503, "Too many WebSockets have not said who they are", retryable=True),
    errors.QueueFull: Row(503, "Too much waits", retryable=True),
}
INTERNAL = Named(
    "internal",
    Row(500, "Something went wrong inside Flik", retryable=True),
    "the error was logged under the request id",
)
BAD_REQUEST = Named("bad_request", Row(400, "The request cannot be read"), "the request is not HTTP that Flik reads")
CORS_REFUSED = Named(
    "cors_refused", Row(400, "Pages of this origin may not do this"), "see the setting FLIK_CORS_ORIGINS"
)
ROUTE_NOT_FOUND = Named(
    "route_not_found",
    Row(404, "There is no such route"),
    "nothing is at this path; /openapi.json lists what there is",
)
METHOD_NOT_ALLOWED = Named(
    "method_not_allowed",
    Row(405, "The route has no such method"),
    "the Allow header lists the methods of this path",
)
REQUEST_TIMEOUT = Named(
    "request_timeout",
    Row(408, "The request took too long", retryable=True),
    "the request was given up; what it asked for may still happen",
)
RANGE_NOT_SATISFIABLE = Named(
    "range_not_satisfiable", Row(416, "The range cannot be had"), "the range lies outside of the artifact"
)
GATEWAY_LOST = Named(
    "gateway_lost",
    Row(502, "The gateway broke off", retryable=True),
    "the connection to the gateway broke; what was asked for may have happened",
)
GATEWAY_TIMEOUT = Named(
    "gateway_timeout",
    Row(504, "The gateway did not answer in time", retryable=True),
    "the gateway did not answer in time; what was asked for may still happen",
)
NAMED = (
    INTERNAL, BAD_REQUEST, CORS_REFUSED, ROUTE_NOT_FOUND, METHOD_NOT_ALLOWED, REQUEST_TIMEOUT, RANGE_NOT_SATISFIABLE,
    GATEWAY_LOST, GATEWAY_TIMEOUT,
)  # fmt: skip
NO_GATEWAY = Named(errors.Unavailable.code, TABLE[errors.Unavailable], str(errors.Unavailable("the gateway")))
"""What is answered when nobody can take the request."""
_GENERIC: Mapping[int, type[errors.FlikError]] = {
    400: errors.MalformedBody,
    401: errors.Unauthenticated,
    403: errors.ScopeMissing,
    404: errors.TaskNotFound,
    409: errors.StateConflict,
    413: errors.BodyTooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.InvalidRequest,
    503: errors.Unavailable,
}
"""What a route means that names a status alone."""
SUBMITTING = (
    400, 401, 403, 413, 415, 422, 503, errors.TenantMismatch, errors.TenantUnknown, errors.IdempotencyKeyInvalid,
    errors.IdempotencyKeyReused, errors.IdempotencyInFlight, errors.RateLimited, errors.ExceedsBurst,
    errors.TenantQueueFull, errors.QueueFull, errors.PriorityNotAllowed, errors.PayloadTooLarge,
)  # fmt: skip
"""What every route that submits tasks can answer."""
READMITTING = (
    errors.TenantUnknown, errors.RateLimited, errors.TenantQueueFull, errors.QueueFull, errors.PriorityNotAllowed,
)  # fmt: skip
"""What the door says to tasks that are to be queued again."""
PROBLEM_TYPE = "application/problem+json"
_COME_BACK_S = 1.0  # where nothing better is known
_COME_BACK = frozenset({429, 503})
_BY_STATUS = {named.row.status: named for named in (ROUTE_NOT_FOUND, METHOD_NOT_ALLOWED, RANGE_NOT_SATISFIABLE)}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def codes() -> dict[str, Row]:
    """Return how each code is answered, in the order of the statuses."""
    rows = {kind.code: row for kind, row in TABLE.items()} | {named.code: named.row for named in NAMED}
    return dict(sorted(rows.items(), key=lambda item: (item[1].status, item[0])))


def responses(*answers: int | type[errors.FlikError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI fragment of the problems that a route can answer with.

    A status stands for what is meant by it nearly always (404: the task is not there), an exception
    for itself.
    """
    found: dict[int | str, dict[str, Any]] = {}
    for code, status in map(_code_and_status, answers):
        answer = found.setdefault(status, _described(status))
        examples = answer["content"][PROBLEM_TYPE]["examples"]
        examples[code] = {"$ref": f"#/components/examples/{code}"}
        if status in _COME_BACK or code == errors.IdempotencyInFlight.code:
            answer["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return found


def _code_and_status(answer: int | type[errors.FlikError]) -> tuple[str, int]:
    if not isinstance(answer, int):
        return answer.code, TABLE[answer].status
    if answer in _GENERIC:
        return _GENERIC[answer].code, answer
    return next((named.code, answer) for named in NAMED if named.row.status == answer)


def _described(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {PROBLEM_TYPE: {"schema": schema, "examples": {}}}
    return {"description": http.HTTPStatus(status).phrase, "content": content}


def request_id_of(request: HTTPConnection) -> str:
    """Return the id of a request, as the caller or the edge gave it."""
    return str(request.scope.get("flik_request_id", ""))


def problem_of(error: Exception, request: HTTPConnection) -> dict[str, Any]:
    """Return the problem document of an error."""
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if row is None or not isinstance(error, errors.FlikError):
        return document(INTERNAL, request.scope)
    problem = document(Named(error.code, row, str(error)), request.scope, retry_after_s=error.retry_after_s)
    if isinstance(error, errors.InvalidRequest):
        problem["errors"] = [{"pointer": field.pointer, "detail": field.detail} for field in error.errors]
    return problem


def document(
    named: Named, scope: Scope, *, detail: str | None = None, retry_after_s: float | None = None
) -> dict[str, Any]:
    """Return a problem document; one of 429 or 503 always says when to come back."""
    row = named.row
    problem = {
        "type": f"urn:flik:problem:{named.code}",
        "title": row.title,
        "status": row.status,
        "detail": detail or named.detail,
        "instance": quote(scope["path"], errors="replace"),
        "code": named.code,
        "requestId": str(scope.get("flik_request_id", "")),
        "retryable": row.retryable,
    }
    if retry_after_s is None and row.status in _COME_BACK:
        retry_after_s = _COME_BACK_S
    if retry_after_s is not None:
        problem["retryAfterMs"] = max(0, math.ceil(retry_after_s * 1000))
    return problem


def respond(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that carries a problem."""
    extra = dict(headers or {})
    if "retryAfterMs" in problem:
        extra["Retry-After"] = str(max(1, math.ceil(problem["retryAfterMs"] / 1000)))
    return Response(orjson.dumps(problem), status_code=problem["status"], media_type=PROBLEM_TYPE, headers=extra)


async def on_flik_error(request: Request, error: Exception) -> Response:
    """Answer one of Flik's own errors."""
    return respond(_count(problem_of(error, request), request), _challenge(error))


def _challenge(error: Exception) -> dict[str, str]:
    """Return the header that says which credential is wanted (RFC 6750, section 3)."""
    if isinstance(error, errors.Unauthenticated):
        fault = ', error="invalid_token"' if error.token_sent else ""
    elif isinstance(error, errors.ScopeMissing):
        fault = f', error="insufficient_scope", scope="{error.scope}"'
    else:
        return {}
    return {"WWW-Authenticate": f'Bearer realm="flik"{fault}'}


async def on_framework_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: an unknown path, a wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    said = str(error.detail)
    unknown = Named(BAD_REQUEST.code, Row(error.status_code, BAD_REQUEST.row.title), said)
    problem = document(_BY_STATUS.get(error.status_code, unknown), request.scope)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return respond(_count(problem, request), headers)


def on_no_websocket(connection: HTTPConnection) -> Response:
    """Answer a WebSocket handshake on a path where there is none."""
    problem = document(ROUTE_NOT_FOUND, connection.scope, detail="no WebSocket is at this path")
    return respond(_count(problem, connection), {"X-Request-ID": request_id_of(connection)})


def _allowed(request: Request) -> str:
    """Return all methods of a path (RFC 9110, section 10.2.1); the framework names those of its first route only."""
    scopes = {method: {**request.scope, "method": "GET" if method == "HEAD" else method} for method in _METHODS}
    return ", ".join(
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    )


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """Answer a path or query parameter that the framework could not read."""
    if not isinstance(error, RequestValidationError):
        raise error
    fields = tuple(errors.FieldError(f"/{detail['loc'][-1]}", str(detail["msg"])) for detail in error.errors()[:50])
    return await on_flik_error(request, errors.InvalidRequest(fields))


async def on_unexpected_error(request: Request, error: Exception) -> Response:
    """Answer a fault of ours; what happened goes to the log, not to the caller."""
    known = {"requestId": request_id_of(request), "traceId": trace.read(request.headers.getlist("traceparent"))}
    _log.error("unexpected error", exc_info=error, extra=known)
    return respond(_count(problem_of(error, request), request))


def _count(problem: dict[str, Any], request: HTTPConnection) -> dict[str, Any]:
    request.app.state.parts.measured["flik_http_errors"].labels(problem["code"]).inc()
    return problem
