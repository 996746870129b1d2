"""The ids that stand in paths: how OpenAPI describes them, and whether what came is one.

The framework is told the description only. A route asks by itself, after it knows who calls, and
answers in its own words.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path

from flik import schemas
from flik.errors import FieldError, InvalidRequest

_UUID = r"^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
Uuid = Annotated[str, Path(json_schema_extra={"format": "uuid", "pattern": _UUID})]
TenantId = Annotated[str, Path(json_schema_extra=schemas.TENANT_ID_SCHEMA)]


def is_uuid(raw: str) -> bool:
    """Return whether a part of a path can be the id of a task or a key."""
    return re.fullmatch(_UUID[:-1], raw) is not None  # a `$` would let a line feed pass


def read_id(raw: str, name: str, wrong: str) -> str:
    """Return an id in its canonical form; `name` is what the path calls it, `wrong` what is said of one that is none.

    Raises:
        InvalidRequest: it is not a UUID.
    """
    if not is_uuid(raw):
        raise InvalidRequest((FieldError(f"/{name}", f"{wrong} (a UUID)"),))
    return raw.lower()


def read_dag_id(raw: str) -> str:
    """Return a dag id in its canonical form. Raises as `read_id`."""
    return read_id(raw, "dagId", "is not a dag id")
