"""The audit log: who changed tenants and keys. Rows are written by the statements that they tell of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from uuid_utils import uuid7

from flik.domain.identity import AuditEntry
from flik.storage import queries
from flik.storage.database import Database

_SQL = queries.load("audit")


@dataclass(frozen=True, slots=True)
class By:
    """Who does something, and in which request."""

    actor: str
    request_id: str | None = None


def entry_of(by: By, detail: object = None) -> dict[str, Any]:
    """Return the parameters with which a statement writes its row."""
    return {
        "entry_id": str(uuid7()),
        "actor": by.actor,
        "request_id": by.request_id,
        "detail": orjson.dumps(detail or {}).decode(),
    }


class AuditLog:
    """The table, for reading."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, *, before_id: str | None, limit: int) -> list[AuditEntry]:
        """Return up to `limit` entries before `before_id`, newest first.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        rows = await self._database.repeatable(_SQL["list_audit"], {"before_id": before_id, "limit": limit})
        return [AuditEntry(*row) for row in rows]
