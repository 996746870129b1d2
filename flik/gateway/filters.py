"""Which tasks a list or a replay is about: query parameters and fields become a `TaskFilter`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams

from flik import schemas
from flik.catalog import TASK_TYPES
from flik.domain.identity import is_tenant_id
from flik.domain.task import Status, TaskFilter
from flik.errors import FieldError, InvalidRequest
from flik.gateway import cursor
from flik.gateway.body import escape

_ERROR_CODE: Mapping[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": "^[ -~]+$",
}  # printable ASCII
_TIME = {"type": "string", "format": "date-time"}
_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "status": {"type": "string"},
    "taskType": {"type": "string", "enum": list(TASK_TYPES)},
    "priority": {"type": "integer", "minimum": 0, "maximum": 2},
    "tenantId": schemas.TENANT_ID_SCHEMA,
    "errorCode": _ERROR_CODE,
    "createdAfter": _TIME,
    "createdBefore": _TIME,
    "limit": {"type": "integer", "minimum": 1, "maximum": schemas.MAX_PAGE, "default": 50},
}


def query_parameters(
    names: tuple[str, ...], cursors: str = cursor.OF_IDS, *, statuses: tuple[str, ...] = tuple(Status)
) -> dict[str, Any]:
    """Return the OpenAPI fragment of a route that reads its query by itself.

    Args:
        cursors: the pattern of its cursors.
        statuses: what `status` may be.
    """
    described = {
        **{name: _SCHEMAS[name] for name in (*names, "limit")},
        **({"status": {"type": "string", "enum": list(statuses)}} if "status" in names else {}),
        "cursor": {"type": "string", "pattern": cursors},
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in described.items()
        ]
    }


def read_filter(
    query: QueryParams, allowed: tuple[str, ...], *, statuses: tuple[str, ...] = tuple(Status)
) -> TaskFilter:
    """Return the filter that query parameters ask for; `statuses` are what `status` may be.

    Raises:
        InvalidRequest: names the parameter that is unknown or has an impossible value.
    """
    limit, after = read_page(query, allowed)
    return TaskFilter(
        tenant_id=read_tenant_id(query.get("tenantId"), "tenantId"),
        status=_one_of(query, "status", statuses),
        task_type=_one_of(query, "taskType", tuple(TASK_TYPES)),
        priority=_whole_number(query, "priority", 0, 2, None),
        error_code=_text(query.get("errorCode"), "errorCode", _ERROR_CODE, "1 to 128 printable ASCII characters"),
        created_from=read_time(query.get("createdAfter"), "createdAfter"),
        created_until=read_time(query.get("createdBefore"), "createdBefore"),
        before_id=None if after is None else cursor.decode(after),
        limit=limit,
    )


def read_page(query: QueryParams, allowed: tuple[str, ...] = ()) -> tuple[int, str | None]:
    """Return how many items a list is asked for, and the cursor it goes on from.

    Raises:
        InvalidRequest: names the parameter that is unknown, there twice or out of bounds.
    """
    for name in query:
        if name not in (*allowed, "limit", "cursor"):
            raise _refused(escape(name), "is not a known parameter")
        if len(query.getlist(name)) > 1:
            raise _refused(name, "stands there more than once")
    return _whole_number(query, "limit", 1, schemas.MAX_PAGE, 50) or 50, query.get("cursor")


def _refused(name: str, detail: str) -> InvalidRequest:
    return InvalidRequest((FieldError(f"/{name}", detail),))


def read_tenant_id(value: str | None, name: str) -> str | None:
    """Return the id of a tenant that a query names; None passes.

    Raises:
        InvalidRequest: no tenant can have it.
    """
    if value is not None and not is_tenant_id(value):
        raise _refused(name, "must be 1 to 128 letters, digits and . _ : @ - that begin with a letter or digit")
    return value


def _text(value: str | None, name: str, schema: Mapping[str, Any], words: str) -> str | None:
    if value is not None and not (len(value) <= schema["maxLength"] and re.fullmatch(schema["pattern"][:-1], value)):
        raise _refused(name, f"must be {words}")
    return value


def _one_of(query: Mapping[str, str], name: str, values: tuple[str, ...]) -> str | None:
    value = query.get(name)
    if value is not None and value not in values:
        raise _refused(name, f"must be one of {', '.join(values)}")
    return value


def _whole_number(query: Mapping[str, str], name: str, least: int, most: int, default: int | None) -> int | None:
    value = query.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not least <= int(value) <= most:
        raise _refused(name, f"must be a whole number from {least} to {most}")
    return int(value)


def read_time(value: str | None, name: str) -> float | None:
    """Return an ISO 8601 time as seconds since the epoch; without an offset it is UTC."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise _refused(name, "must be an ISO 8601 time such as 2026-02-17T14:00:00Z") from None


def require_known_type(task_type: str | None, pointer: str = "") -> None:
    """Refuse a task type that the catalog does not have; None passes. `pointer` is where its object stands.

    Raises:
        InvalidRequest: it is not there.
    """
    if task_type is not None and task_type not in TASK_TYPES:
        raise InvalidRequest((FieldError(f"{pointer}/taskType", f"must be one of {', '.join(TASK_TYPES)}"),))
