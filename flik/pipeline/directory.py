"""Who callers are and what their tenants may use: tables of keys and tenants, as a gateway knows them.

Rows are remembered for 4 s at most (`flik/pipeline/lookup.py`), so a key that is revoked, an
expiry, a scope and a limit that changed hold on every gateway within 5 s, and a request costs a
look into a dictionary. When PostgreSQL is away and what is remembered is older, callers are told
to come back.

That a key was used is written at most once a minute, in the background. The moment is that of a
read of its row: rows in use are read every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from flik.domain import key as keys
from flik.domain.identity import Caller, Limits, Tenant, TenantRecord
from flik.domain.key import ApiKey
from flik.errors import Unavailable
from flik.pipeline.lookup import GATHER_S, UNKNOWN, Lookup

USED_EVERY_S = 60.0
_log = logging.getLogger("flik.gateway")


class Keys(Protocol):
    """Where keys are stored."""

    async def find(self, digests: Collection[bytes]) -> dict[bytes, ApiKey]:
        """Return those of the keys that there are, by digest."""

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        """Return those of the keys that open something."""

    async def touch(self, key_ids: Collection[str], now: float, at_least_s: float) -> None:
        """Note that keys were used."""


class Tenants(Protocol):
    """Where tenants are stored."""

    async def find(self, tenant_ids: Collection[str]) -> dict[str, TenantRecord]:
        """Return those of the tenants that there are, by id."""


class Directory:
    """`defaults` are the limits of a tenant that has none of its own."""

    def __init__(
        self,
        key_store: Keys,
        tenant_store: Tenants,
        defaults: Limits,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        gather_s: float = GATHER_S,
    ) -> None:
        self.defaults = defaults
        self._key_store = key_store
        self._tenant_store = tenant_store
        self._now = now
        self._keys: Lookup[str, _Known] = Lookup(self._read_keys, clock=clock, gather_s=gather_s)
        self._working: Lookup[str, bool] = Lookup(self._read_working, clock=clock, gather_s=gather_s)
        self._tenants: Lookup[str, Tenant] = Lookup(self._read_tenants, clock=clock, gather_s=gather_s)
        self._notes: set[asyncio.Task[None]] = set()

    async def caller_of(self, token: str) -> Caller | None:
        """Return whom a key stands for; None when it is unknown, revoked or expired.

        Raises:
            Unavailable: PostgreSQL is away, and the key was not read in the last 4 s.
        """
        found = self._keys.fresh(token)
        if found is UNKNOWN:
            if keys.parse(token) is None:
                return None
            found = await self._keys.ask(token)
        return found.caller if found is not None and self._works(found) else None

    async def still_works(self, caller: Caller) -> bool:
        """Return whether the credential of somebody who showed it a while ago would open something now.

        Raises:
            Unavailable: PostgreSQL is away, and the key was not read in the last 4 s.
        """
        if caller.key_id is None or (caller.expires_at is not None and caller.expires_at <= self._now()):
            return False
        return caller.is_of_issuer or await self._working.get(caller.key_id) is not None

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """Return a tenant with the limits that hold for it; None when there is none.

        Raises:
            Unavailable: PostgreSQL is away, and the tenant was not read in the last 4 s.
        """
        return await self._tenants.get(tenant_id)

    def forget_tenant(self, tenant_id: str) -> None:
        """Look at a tenant anew: it was made or changed through this gateway."""
        self._tenants.forget(tenant_id)

    async def close(self) -> None:
        """End what runs in the background."""
        await self._keys.close()
        await self._working.close()
        await self._tenants.close()
        for note in self._notes:
            note.cancel()
        await asyncio.gather(*self._notes, return_exceptions=True)

    def _works(self, found: _Known) -> bool:
        return found.expires_at is None or self._now() < found.expires_at

    async def _read_keys(self, tokens: Collection[str]) -> Mapping[str, _Known]:
        digests = {keys.digest(token): token for token in tokens}
        rows = await self._key_store.find(digests)
        now = self._now()
        working = {digests[digest]: row for digest, row in rows.items() if row.works(now)}
        self._note_use([row for row in working.values() if _is_due(row, now)], now)
        return {token: _Known(row) for token, row in working.items()}

    async def _read_working(self, key_ids: Collection[str]) -> Mapping[str, bool]:
        return dict.fromkeys(await self._key_store.working(key_ids, self._now()), True)

    async def _read_tenants(self, tenant_ids: Collection[str]) -> Mapping[str, Tenant]:
        rows = await self._tenant_store.find(tenant_ids)
        return {row.tenant_id: Tenant(row.tenant_id, row.name, row.limits.over(self.defaults)) for row in rows.values()}

    def _note_use(self, used: list[ApiKey], now: float) -> None:
        if used:
            note = asyncio.create_task(self._write_use([key.key_id for key in used], now))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _write_use(self, key_ids: list[str], now: float) -> None:
        try:
            await self._key_store.touch(key_ids, now, USED_EVERY_S)
        except Unavailable:
            _log.warning("the last use of keys was not written", extra={"count": len(key_ids)})


class _Known:
    """What is remembered of a key that works, until it expires."""

    __slots__ = ("caller", "expires_at")

    def __init__(self, row: ApiKey) -> None:
        self.caller = Caller(row.tenant_id, row.scopes, row.key_id, row.expires_at)
        self.expires_at = row.expires_at


def _is_due(row: ApiKey, now: float) -> bool:
    return row.last_used_at is None or now - row.last_used_at >= USED_EVERY_S
