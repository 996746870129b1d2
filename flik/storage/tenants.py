"""The table of tenants, for the gateway: who there is, and with which limits of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flik.domain.identity import LIMIT_NAMES, OwnLimits, TenantRecord, WorkLimits
from flik.storage import queries
from flik.storage.audit import By, entry_of
from flik.storage.database import Database

_SQL = queries.load("tenants")


class TenantStore:
    """Tenants are made, changed and read; none is ever deleted, as tasks belong to them.

    Every method raises Unavailable when PostgreSQL is away; whether a change took effect is unknown then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, tenant_id: str, name: str, limits: OwnLimits, now: float, by: By) -> TenantRecord | None:
        """Make a tenant and note it; None when there is one of this id."""
        rows = await self._database.once(_SQL["create_tenant"], creation(tenant_id, name, limits, now, by))
        return record_of(rows[0]) if rows else None

    async def change(self, tenant_id: str, changes: Mapping[str, Any], now: float, by: By) -> TenantRecord | None:
        """Set what `changes` names (`name` and fields of OwnLimits), and note it; None when there is no such tenant."""
        values = {name: changes.get(name) for name in ("name", *LIMIT_NAMES)}
        parameters = {"tenant_id": tenant_id, "given": list(changes), "now": now, **values, **entry_of(by, changes)}
        rows = await self._database.once(_SQL["change_tenant"], parameters)
        return record_of(rows[0]) if rows else None

    async def find(self, tenant_ids: Collection[str]) -> dict[str, TenantRecord]:
        """Return those of the tenants that there are, by id."""
        rows = await self._database.repeatable(_SQL["find_tenants"], {"tenant_ids": list(tenant_ids)})
        return {row[0]: record_of(row) for row in rows}

    async def work_limits(self) -> Sequence[WorkLimits]:
        """Return the tenants that have a share or a cap of running tasks of their own."""
        rows = await self._database.repeatable(_SQL["work_limits"], {})
        return [WorkLimits(*row) for row in rows]

    async def list(self, *, after: str, limit: int) -> list[TenantRecord]:
        """Return up to `limit` tenants after the id `after`, in the order of their ids."""
        rows = await self._database.repeatable(_SQL["list_tenants"], {"after": after, "limit": limit})
        return [record_of(row) for row in rows]


def creation(tenant_id: str, name: str, limits: OwnLimits, now: float, by: By) -> dict[str, Any]:
    """Return the parameters of `create_tenant`."""
    own = asdict(limits)
    noted = {"name": name, **{limit: value for limit, value in own.items() if value is not None}}
    return {"tenant_id": tenant_id, "name": name, "now": now, **own, **entry_of(by, noted)}


def record_of(row: tuple[Any, ...]) -> TenantRecord:
    """Return the tenant of a row, its limits at the end."""
    tenant_id, name, created_at, updated_at, *limits = row
    return TenantRecord(tenant_id, name, created_at, updated_at, OwnLimits(*limits))
