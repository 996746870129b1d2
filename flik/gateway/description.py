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
from flik.domain.dag.references import FROM, INPUT, MAX_INPUTS, PATH
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
        schemas.TenantChange, schemas.NewWebhook, schemas.WebhookChange, schemas.DagRequest,
    )  # fmt: skip
    payloads = (model for task_type in TASK_TYPES.values() for model in (task_type.payload, task_type.step))
    read_by_us: list[type[BaseModel]] = [*requests, *payloads]
    _, read = models_json_schema([(model, "validation") for model in read_by_us], ref_template=_REF)
    _, written = models_json_schema([(schemas.Problem, "serialization")], ref_template=_REF)
    found: dict[str, Any] = {**read["$defs"], **written["$defs"]}
    named = {"anyOf": [{"type": "string", "enum": list(TASK_TYPES)}, {"type": "null"}]}
    found["ReplayRequest"]["properties"]["taskType"] |= named
    found["DagRequest"]["properties"] |= _known(found["DagRequest"]["properties"], regions)
    for row in TASK_TYPES.values():
        _take_references(found[row.step.__name__])
    steps = _one_of(found["DagStep"], {row.name: _step(found["DagStep"], row) for row in TASK_TYPES.values()})
    tasks = {row.name: _task(found["TaskRequest"], row, regions) for row in TASK_TYPES.values()}
    return found | _one_of(found["TaskRequest"], tasks) | steps | {"Reference": _REFERENCE}


_REFERENCE: dict[str, Any] = {
    "type": "object",
    "description": "What a parent made: its text, a member of its metadata or, under `input`, its files.",
    "required": [FROM],
    "additionalProperties": False,
    "properties": {
        FROM: {
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "pattern": r"^[A-Za-z][A-Za-z0-9_-]*$",
            "description": "The id of a step.",
        },
        PATH: {
            "type": "string",
            **schemas.STORABLE,
            "description": "text (by default), metadata.<name>, artifacts (by default in `input`), artifacts.<index>.",
        },
    },
}


def _take_references(payload: dict[str, Any]) -> None:
    """Say of the payload of a step that any value may be a reference, and what its input may be."""
    reference = {"$ref": _REF.format(model="Reference")}
    properties = payload["properties"]
    for name, schema in properties.items():
        properties[name] = {"anyOf": [schema, reference]}
    properties[INPUT] = {
        "description": "What it starts from; by default all files that its parents made, but for texts.",
        "anyOf": [reference, {"type": "array", "items": reference, "maxItems": MAX_INPUTS}, {"type": "null"}],
    }


def _one_of(shared: Mapping[str, Any], kinds_of: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the schema of something that has a task type: one of its kinds, each with its own payload."""
    kinds = {kind["title"]: kind for kind in kinds_of.values()}
    references = {name: _REF.format(model=kind["title"]) for name, kind in kinds_of.items()}
    one_of = {
        "title": shared["title"],
        "description": shared["description"],
        "oneOf": [{"$ref": reference} for reference in references.values()],
        "discriminator": {"propertyName": "taskType", "mapping": references},
    }
    return {**kinds, shared["title"]: one_of}


def _task(shared: Mapping[str, Any], row: TaskType, regions: Collection[str]) -> dict[str, Any]:
    kind = _kind(shared, row, row.payload, f"{_an(row)} task to do.")
    return {**kind, "properties": kind["properties"] | _known(kind["properties"], regions)}


def _step(shared: Mapping[str, Any], row: TaskType) -> dict[str, Any]:
    return _kind(shared, row, row.step, f"{_an(row)} step.")


def _kind(shared: Mapping[str, Any], row: TaskType, payload: type[BaseModel], described: str) -> dict[str, Any]:
    properties = {
        **shared["properties"],
        "taskType": {"type": "string", "const": row.name},
        "payload": {"$ref": _REF.format(model=payload.__name__)},
    }
    title = f"{row.name.capitalize()}{shared['title']}"
    return {**shared, "title": title, "description": described, "properties": properties}


def _an(row: TaskType) -> str:
    return f"{'An' if row.name[0] in 'AEIOU' else 'A'} {row.name}"


def _known(properties: Mapping[str, Any], regions: Collection[str]) -> dict[str, Any]:
    """Return the property `region` with the names of the regions that there are."""
    if not regions:
        return {}
    known = {"anyOf": [{"type": "string", "enum": sorted(regions)}, {"type": "null"}]}
    return {"region": {**properties["region"], **known}}
