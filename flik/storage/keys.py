"""The table of API keys, for the gateway: found by digest, made, listed, revoked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from flik.domain.identity import Scope
from flik.domain.key import ApiKey
from flik.storage import queries
from flik.storage.audit import By, entry_of
from flik.storage.database import Database

_SQL = queries.load("keys")


class KeyStore:
    """Keys are never deleted: a revoked one stays to be seen in lists.

    Every method raises Unavailable when PostgreSQL is away; whether a change took effect is unknown then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: ApiKey, digest: bytes, by: By) -> ApiKey | None:
        """Store a key under its digest, and note it; None when its tenant does not exist."""
        rows = await self._database.once(_SQL["create_key"], creation(key, digest, by))
        return key_of(rows[0]) if rows else None

    async def revoke(self, key_id: str, now: float, by: By) -> ApiKey | None:
        """Revoke a key for good, and note it, once; return it as it is then, None when there is none."""
        await self._database.once(_SQL["revoke_key"], {"key_id": key_id, "now": now, **entry_of(by)})
        rows = await self._database.repeatable(_SQL["get_key"], {"key_id": key_id})
        return key_of(rows[0]) if rows else None

    async def find(self, digests: Collection[bytes]) -> dict[bytes, ApiKey]:
        """Return those of the keys that there are, by digest; revoked and expired ones too."""
        rows = await self._database.repeatable(_SQL["find_keys"], {"digests": list(digests)})
        return {bytes(digest): key_of(row) for digest, *row in rows}

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        """Return those of the keys that open something at `now`."""
        parameters = {"key_ids": list(key_ids), "now": now}
        return {row[0] for row in await self._database.repeatable(_SQL["working_keys"], parameters)}

    async def list(self, *, tenant_id: str | None, before_id: str | None, limit: int) -> list[ApiKey]:
        """Return up to `limit` keys before `before_id`, newest first."""
        parameters = {"tenant_id": tenant_id, "before_id": before_id, "limit": limit}
        return [key_of(row) for row in await self._database.repeatable(_SQL["list_keys"], parameters)]

    async def touch(self, key_ids: Collection[str], now: float, at_least_s: float) -> None:
        """Note that the keys were used at `now`, unless that was noted less than `at_least_s` ago."""
        parameters = {"key_ids": list(key_ids), "now": now, "at_least_s": at_least_s}
        await self._database.repeatable(_SQL["touch_keys"], parameters)


def creation(key: ApiKey, digest: bytes, by: By) -> dict[str, Any]:
    """Return the parameters of `create_key`."""
    scopes = sorted(key.scopes)
    noted = {"tenantId": key.tenant_id, "name": key.name, "prefix": key.prefix, "scopes": scopes}
    return {
        "key_id": key.key_id,
        "tenant_id": key.tenant_id,
        "digest": digest,
        "prefix": key.prefix,
        "name": key.name,
        "scopes": [scope.value for scope in scopes],
        "now": key.created_at,
        "expires_at": key.expires_at,
        **entry_of(by, noted),
    }


def key_of(row: Sequence[Any]) -> ApiKey:
    """Return the key of a row, without its digest."""
    key_id, tenant_id, prefix, name, scopes, *times = row
    return ApiKey(key_id, tenant_id, prefix, name, frozenset(map(Scope, scopes)), *times)
