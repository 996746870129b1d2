"""Numbered pages of the routes below /api/tasks: what a query may ask for.

A page costs as much as all pages before it, so they end at the newest 1,000 tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams

from flik import schemas
from flik.errors import FieldError, InvalidRequest
from flik.gateway import filters
from flik.gateway.body import escape
from flik.gateway.family_words import WORDS

REACH = 1_000
MAX_PAGE_SIZE = 100
DEFAULT_PAGE_SIZE = 50
_NUMBERS: Mapping[str, tuple[int, int]] = {"page": (REACH, 1), "page_size": (MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE)}


class Asked(NamedTuple):
    """A page that is asked for; None means tasks of every status, or of every tenant that the caller reaches."""

    word: str | None
    tenant_id: str | None
    page: int
    page_size: int


def read(query: QueryParams, *, with_status: bool) -> Asked:
    """Return what a query asks for.

    Raises:
        InvalidRequest: names the parameter that is unknown or has an impossible value.
    """
    for name in query:
        if name not in (*_NUMBERS, "tenant_id") and not (with_status and name == "status"):
            raise _refused(escape(name), "is not a known parameter")
    word = _one(query, "status") if with_status else None
    if word is not None and word not in WORDS:
        raise _refused("status", f"must be one of {', '.join(WORDS)}")
    tenant_id = filters.read_tenant_id(_one(query, "tenant_id"), "tenant_id")
    asked = Asked(word, tenant_id, _number(query, "page"), _number(query, "page_size"))
    if asked.page * asked.page_size > REACH:
        raise _refused("page", f"reaches beyond the newest {REACH:,} tasks; /api/v1/tasks reads on from there")
    return asked


def _number(query: QueryParams, name: str) -> int:
    most, default = _NUMBERS[name]
    value = _one(query, name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 6 or not 1 <= int(value) <= most:
        raise _refused(name, f"must be a whole number from 1 to {most:,}")
    return int(value)


def _one(query: QueryParams, name: str) -> str | None:
    values = query.getlist(name)
    if len(values) > 1:
        raise _refused(name, "stands there more than once")
    return values[0] if values else None


def _refused(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest((FieldError(f"/{name}", detail),))


def described(*, with_status: bool) -> dict[str, Any]:
    """Return the OpenAPI fragment of a route that reads such a query."""
    numbers = [
        _parameter(name, {"type": "integer", "minimum": 1, "maximum": most, "default": default})
        for name, (most, default) in _NUMBERS.items()
    ]
    words = [_parameter("status", {"type": "string", "enum": list(WORDS)})] if with_status else []
    return {"parameters": [*words, _parameter("tenant_id", schemas.TENANT_ID_SCHEMA), *numbers]}


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}
