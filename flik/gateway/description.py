"""The OpenAPI description: what FastAPI finds in the routes, and what it cannot find there.

Routes read their bodies by themselves and check the bearer token in code, so the models of
requests, the security scheme and the answers that every route shares are added here.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from flik import schemas
from flik.gateway import problems

_REF = "#/components/schemas/{model}"


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
    components["schemas"] = {**components.get("schemas", {}), **_models()}
    components["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"]["500"] = problems.responses(500)[500]
            if path.startswith("/api/"):
                operation["security"] = [{"apiKey": []}]
    return document


def _models() -> dict[str, Any]:
    """Return the schemas of requests, which FastAPI does not see, and of problems."""
    requests = (schemas.TaskRequest, schemas.BatchRequest, schemas.ReplayRequest)
    _, read = models_json_schema([(model, "validation") for model in requests], ref_template=_REF)
    _, written = models_json_schema([(schemas.Problem, "serialization")], ref_template=_REF)
    return {**read["$defs"], **written["$defs"]}
