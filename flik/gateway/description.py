"""The OpenAPI description: what FastAPI finds in the routes, and what it cannot find there.

Routes read their bodies by themselves and check the bearer token in code, so the models of
requests, the security scheme, an example of each problem and the answers that every route
shares are added here. What only the catalog or this service's settings know, the task types with
their payloads and the regions, is added as well: whatever fits the description is accepted, unless
it breaks a rule that JSON Schema cannot say (tests/fuzz/hooks.py has the list of those).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import models_json_schema

from flik import errors, schemas
from flik.catalog import TASK_TYPES, TaskType
from flik.errors import FieldError
from flik.gateway import headers, problems

_REF = "#/components/schemas/{model}"
_SHARED = (401, 403, 500, 503)
"""What every route below /api/ can answer, whatever it is for."""
_RATE = ("RateLimit", "RateLimit-Policy")
_TASK_ID = "01998b6f-3c1e-7cc0-9d21-6c1f0b3a5e77"
_SAID = (
    errors.MalformedBody("the body is not valid JSON: unexpected end of data: line 1 column 12 (char 11)"),
    errors.InvalidRequest((FieldError("/payload/prompt", "is required"),)),
    errors.InvalidParameters((FieldError("/parameters/prompt", "is required"),)),
    errors.BodyTooLarge(1_048_576),
    errors.UnsupportedMediaType("text/plain"),
    errors.Unauthenticated("send the header Authorization: Bearer <api-key>"),
    errors.ScopeMissing("admin"),
    errors.TenantMismatch("acme"),
    errors.TenantUnknown("acme"),
    errors.TenantNotFound("acme"),
    errors.TenantExists("acme"),
    errors.KeyNotFound(_TASK_ID),
    errors.WebhookNotFound(_TASK_ID),
    errors.DeliveryNotFound(_TASK_ID),
    errors.TooManyWebhooks("acme", 10),
    errors.WebhookInactive(_TASK_ID, "PAUSED"),
    errors.TaskNotFound(_TASK_ID),
    errors.StreamNotFound("support:chat-1"),
    errors.ArtifactNotFound("the link has expired"),
    errors.StateConflict(_TASK_ID, "COMPLETED", "cancelled"),
    errors.RateLimited("acme", 0.25, 300),
    errors.ExceedsBurst(2_000, 1_000),
    errors.TenantQueueFull("acme", 5_000, 2.0),
    errors.QueueFull("the queue of priority 2", 12.0),
    errors.PriorityNotAllowed(0, 1),
    errors.PayloadTooLarge(262_145, 262_144),
    errors.TooManyFollowers("this credential", 1_000),
    errors.StreamMalformed("the first frame must be CONNECT or STOMP"),
    errors.StreamTooLarge("the body of a frame", 65_536),
    errors.StreamVersionUnknown(("1.0", "1.1", "1.2")),
    errors.TooManySubscriptions(100),
    errors.Unavailable("postgresql", 1.0),
)
"""What the examples of problems say; one that is not here says its title."""


def operation_id(route: APIRoute) -> str:
    """Return the operationId of a route: its function's name in camelCase, so that it stays when a path moves."""
    return to_camel(route.name)


class Described(FastAPI):
    """A FastAPI application that describes itself in full."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, built at the first call."""
        if self.openapi_schema is None:
            self.openapi_schema = _describe(self)
        return self.openapi_schema


def _describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = document.setdefault("components", {})
    parts = getattr(app.state, "parts", None)
    components["schemas"] = {**components.get("schemas", {}), **_models(parts.regions if parts else ())}
    components["examples"] = dict(_examples())
    components["headers"] = dict(headers.DESCRIBED)
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key of a tenant."}
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            protected = path.startswith("/api/") or path == "/stream"
            _complete(operation, protected=protected and "security" not in operation)
    return document


def _complete(operation: dict[str, Any], *, protected: bool) -> None:
    """Add to an operation what all have in common."""
    if protected:
        operation["security"] = [{"apiKey": []}]
    for status, shared in problems.responses(*(_SHARED if protected else (500,))).items():
        answer = operation["responses"].setdefault(str(status), shared)
        examples = answer.get("content", {}).get(problems.PROBLEM_TYPE, {}).get("examples", {})
        examples.update(shared["content"][problems.PROBLEM_TYPE]["examples"])
    passes_the_door = "429" in operation["responses"]
    for status, answer in operation["responses"].items():
        rate = _RATE if passes_the_door and (status[0] == "2" or status == "429") else ()
        answer["headers"] = {**answer.get("headers", {}), **headers.told("X-Request-ID", *rate)["headers"]}


def _examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an example of each problem that there is, by its code."""
    said = {error.code: error for error in _SAID}
    scope = {"path": "/api/v1/tasks", "flik_request_id": "b7c7d5f0-8f5e-4d2e-9a53-0d2d6e0c8c11"}
    named = {each.code: each for each in problems.NAMED}
    for code, row in problems.codes().items():
        error = said.get(code)
        each = named.get(code) or problems.Named(code, row, str(error) if error else row.title)
        example = problems.document(each, scope, retry_after_s=error.retry_after_s if error else None)
        if isinstance(error, errors.InvalidRequest):
            example["errors"] = [{"pointer": field.pointer, "detail": field.detail} for field in error.errors]
        yield code, {"summary": row.title, "value": example}


def _models(regions: Collection[str]) -> dict[str, Any]:
    """Return the schemas of requests, which FastAPI does not see, and of problems."""
    requests = (
        schemas.TaskRequest, schemas.BatchRequest, schemas.ReplayRequest, schemas.NewKey, schemas.NewTenant,
        schemas.TenantChange, schemas.NewWebhook, schemas.WebhookChange,
    )  # fmt: skip
    read_by_us: list[type[BaseModel]] = [*requests, *(task_type.payload for task_type in TASK_TYPES.values())]
    _, read = models_json_schema([(model, "validation") for model in read_by_us], ref_template=_REF)
    _, written = models_json_schema([(schemas.Problem, "serialization")], ref_template=_REF)
    found: dict[str, Any] = {**read["$defs"], **written["$defs"]}
    named = {"anyOf": [{"type": "string", "enum": list(TASK_TYPES)}, {"type": "null"}]}
    found["ReplayRequest"]["properties"]["taskType"] |= named
    return found | _tasks(found["TaskRequest"], regions)


def _tasks(shared: Mapping[str, Any], regions: Collection[str]) -> dict[str, Any]:
    """Return the schema of a submitted task: one of its task types, each with its own payload."""
    kinds = {f"{name.capitalize()}TaskRequest": _task(shared, row, regions) for name, row in TASK_TYPES.items()}
    references = {kind["properties"]["taskType"]["const"]: _REF.format(model=title) for title, kind in kinds.items()}
    one_of = {
        "title": shared["title"],
        "description": shared["description"],
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "taskType", "mapping": references},
    }
    return {**kinds, shared["title"]: one_of}


def _task(shared: Mapping[str, Any], row: TaskType, regions: Collection[str]) -> dict[str, Any]:
    properties = {
        **shared["properties"],
        "taskType": {"type": "string", "const": row.name},
        "payload": {"$ref": _REF.format(model=row.payload.__name__)},
    }
    if regions:
        known = {"anyOf": [{"type": "string", "enum": sorted(regions)}, {"type": "null"}]}
        properties["region"] = {**properties["region"], **known}
    article = "An" if row.name[0] in "AEIOU" else "A"
    described = f"{article} {row.name} task to do."
    return {
        **shared,
        "title": f"{row.name.capitalize()}TaskRequest",
        "description": described,
        "properties": properties,
    }
