"""Every error that leaves the service, as RFC 9457 problem+json: one table from exception to answer."""

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
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from flik import errors

_log = logging.getLogger("flik.gateway")


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of error is answered."""

    status: int
    title: str
    retryable: bool = False


TABLE: Mapping[type[errors.FlikError], Row] = {
    errors.MalformedBody: Row(400, "The body cannot be read"),
    errors.InvalidRequest: Row(422, "A field breaks a rule"),
    errors.BodyTooLarge: Row(413, "The body is too large"),
    errors.UnsupportedMediaType: Row(415, "The body has an unknown type"),
    errors.Unauthenticated: Row(401, "A credential is needed"),
    errors.TaskNotFound: Row(404, "There is no such task"),
    errors.ArtifactNotFound: Row(404, "There is no such artifact"),
    errors.StateConflict: Row(409, "The task's state forbids this"),
    errors.NotBuilt: Row(501, "Not offered yet"),
    errors.Unavailable: Row(503, "A dependency is not available", retryable=True),
}
INTERNAL = Row(500, "Something went wrong inside Flik", retryable=True)
_FRAMEWORK = {
    404: ("route_not_found", "There is no such route", "nothing is at this path; /openapi.json lists what there is"),
    405: ("method_not_allowed", "The route has no such method", "the Allow header lists the methods of this path"),
    416: ("range_not_satisfiable", "The range cannot be had", ""),
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI fragment of the problems that a route can answer with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def request_id_of(request: Request) -> str:
    """Return the id of a request, as the caller or the edge gave it."""
    return str(request.scope.get("flik_request_id", ""))


def problem_of(error: Exception, request: Request) -> dict[str, Any]:
    """Return the problem document of an error."""
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), INTERNAL)
    code = error.code if isinstance(error, errors.FlikError) and row is not INTERNAL else "internal"
    detail = str(error) if row is not INTERNAL else "the error was logged under the request id"
    problem = _document(row.status, row.title, detail, code, request, retryable=row.retryable)
    if isinstance(error, errors.InvalidRequest):
        problem["errors"] = [{"pointer": field.pointer, "detail": field.detail} for field in error.errors]
    if isinstance(error, errors.Unavailable):
        problem["retryAfterMs"] = round(error.retry_after_s * 1000)
    return problem


def _document(status: int, title: str, detail: str, code: str, request: Request, *, retryable: bool) -> dict[str, Any]:
    return {
        "type": f"urn:flik:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": quote(request.scope["path"], errors="replace"),
        "code": code,
        "requestId": request_id_of(request),
        "retryable": retryable,
    }


def respond(problem: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Return the response that carries a problem."""
    extra = dict(headers or {})
    if "retryAfterMs" in problem:
        extra["Retry-After"] = str(max(1, math.ceil(problem["retryAfterMs"] / 1000)))
    if problem["status"] == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="flik"'
    return Response(
        orjson.dumps(problem), status_code=problem["status"], media_type="application/problem+json", headers=extra
    )


async def on_flik_error(request: Request, error: Exception) -> Response:
    """Answer one of Flik's own errors."""
    return respond(_count(problem_of(error, request), request))


async def on_framework_error(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: an unknown path, a wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    said = str(error.detail)
    code, title, detail = _FRAMEWORK.get(error.status_code, ("bad_request", said, said))
    problem = _document(error.status_code, title, detail or said, code, request, retryable=False)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return respond(_count(problem, request), headers)


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
    _log.error("unexpected error", exc_info=error, extra={"requestId": request_id_of(request)})
    return respond(_count(problem_of(error, request), request))


def _count(problem: dict[str, Any], request: Request) -> dict[str, Any]:
    request.app.state.parts.measured["flik_http_errors"].labels(problem["code"]).inc()
    return problem
