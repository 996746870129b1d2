"""The WHERE clause of a filter, made of fixed fragments only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID


def where(
    wanted: object, fragments: Mapping[str, str], replaced: Mapping[str, str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the clause and its parameters: a fragment for each field of the filter `wanted` that is not None.

    Where one is `replaced`, its value is not a parameter. `created_from` and `created_until` are times, and compared
    with ids.
    """
    replaced = replaced or {}
    values = {name: value for name in fragments if (value := getattr(wanted, name)) is not None}
    for bound in ("created_from", "created_until"):
        if bound in values:
            values[bound] = first_id_at(values[bound])
    clauses = [replaced.get(name, fragments[name]) for name in values]
    return " AND ".join(clauses) or "true", {name: values[name] for name in values if name not in replaced}


def first_id_at(at: float) -> str:
    """Return the smallest UUIDv7 of the millisecond that holds `at` (seconds since the epoch; RFC 9562, 5.7)."""
    milliseconds = min(max(0, int(at * 1000)), 2**48 - 1)
    return str(UUID(int=milliseconds << 80))
