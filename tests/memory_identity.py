"""Tenants, keys and the audit log in memory: what the tables do, for tests of the gateway and the directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from uuid_utils import uuid7

from flik.domain.identity import AuditEntry, OwnLimits, TenantRecord
from flik.domain.key import ApiKey
from flik.errors import Unavailable
from flik.storage.audit import By


@dataclass
class MemoryIdentity:
    """All three. `away` makes every call fail; `reads` holds what was asked for, read by read."""

    tenants: dict[str, TenantRecord] = field(default_factory=dict)
    keys: dict[bytes, ApiKey] = field(default_factory=dict)
    entries: list[AuditEntry] = field(default_factory=list)
    reads: list[list[Any]] = field(default_factory=list)
    touched: list[tuple[list[str], float]] = field(default_factory=list)
    away: bool = False

    def answer(self) -> None:
        if self.away:
            raise Unavailable("postgresql")

    def note(self, by: By, action: str, subject: str, detail: Mapping[str, Any], now: float) -> None:
        self.entries.append(AuditEntry(str(uuid7()), now, by.actor, action, subject, detail, by.request_id))


class MemoryTenants:
    def __init__(self, memory: MemoryIdentity) -> None:
        self.memory = memory

    async def create(self, tenant_id: str, name: str, limits: OwnLimits, now: float, by: By) -> TenantRecord | None:
        self.memory.answer()
        if tenant_id in self.memory.tenants:
            return None
        self.memory.note(by, "tenant.created", tenant_id, {"name": name}, now)
        return self.memory.tenants.setdefault(tenant_id, TenantRecord(tenant_id, name, now, now, limits))

    async def change(self, tenant_id: str, changes: Mapping[str, Any], now: float, by: By) -> TenantRecord | None:
        self.memory.answer()
        found = self.memory.tenants.get(tenant_id)
        if found is None:
            return None
        own = {name: value for name, value in changes.items() if name in {each.name for each in fields(OwnLimits)}}
        changed = replace(
            found, name=changes.get("name", found.name), updated_at=now, limits=replace(found.limits, **own)
        )
        self.memory.tenants[tenant_id] = changed
        self.memory.note(by, "tenant.changed", tenant_id, dict(changes), now)
        return changed

    async def find(self, tenant_ids: Collection[str]) -> dict[str, TenantRecord]:
        self.memory.reads.append(list(tenant_ids))
        self.memory.answer()
        return {each: self.memory.tenants[each] for each in tenant_ids if each in self.memory.tenants}

    async def list(self, *, after: str, limit: int) -> list[TenantRecord]:
        self.memory.answer()
        return [self.memory.tenants[each] for each in sorted(self.memory.tenants) if each > after][:limit]


class MemoryKeys:
    def __init__(self, memory: MemoryIdentity) -> None:
        self.memory = memory

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        self.memory.answer()
        return {row.key_id for row in self.memory.keys.values() if row.key_id in key_ids and row.works(now)}

    async def create(self, key: ApiKey, digest: bytes, by: By) -> ApiKey | None:
        self.memory.answer()
        if key.tenant_id not in self.memory.tenants:
            return None
        self.memory.note(by, "key.created", key.key_id, {"tenantId": key.tenant_id}, key.created_at)
        return self.memory.keys.setdefault(digest, key)

    async def revoke(self, key_id: str, now: float, by: By) -> ApiKey | None:
        self.memory.answer()
        for digest, key in self.memory.keys.items():
            if key.key_id == key_id:
                if key.revoked_at is None:
                    self.memory.keys[digest] = replace(key, revoked_at=now)
                    self.memory.note(by, "key.revoked", key_id, {}, now)
                return self.memory.keys[digest]
        return None

    async def find(self, digests: Collection[bytes]) -> dict[bytes, ApiKey]:
        self.memory.reads.append(list(digests))
        self.memory.answer()
        return {each: self.memory.keys[each] for each in digests if each in self.memory.keys}

    async def list(self, *, tenant_id: str | None, before_id: str | None, limit: int) -> list[ApiKey]:
        self.memory.answer()
        newest_first = sorted(self.memory.keys.values(), key=lambda key: key.key_id, reverse=True)
        return [
            key
            for key in newest_first
            if tenant_id in (None, key.tenant_id) and (before_id is None or key.key_id < before_id)
        ][:limit]

    async def touch(self, key_ids: Collection[str], now: float, at_least_s: float) -> None:
        self.memory.answer()
        self.memory.touched.append((list(key_ids), now))
        for digest, key in self.memory.keys.items():
            if key.key_id in key_ids and (key.last_used_at is None or now - key.last_used_at >= at_least_s):
                self.memory.keys[digest] = replace(key, last_used_at=now)


class MemoryAudit:
    def __init__(self, memory: MemoryIdentity) -> None:
        self.memory = memory

    async def list(self, *, before_id: str | None, limit: int) -> list[AuditEntry]:
        self.memory.answer()
        newest_first = reversed(self.memory.entries)
        return [entry for entry in newest_first if before_id is None or entry.entry_id < before_id][:limit]
