"""`FlikAdmin`: what an operator does through HTTP, for the command line: keys, tenants.

Answers are handed out as the gateway sent them (JSON objects). A key with the scope `admin` is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from flik.client.documents import Document, DocumentClient


class FlikAdmin(DocumentClient):
    """An operator's hand on one gateway."""

    async def create_key(
        self,
        tenant_id: str,
        *,
        name: str = "",
        scopes: Sequence[str] = ("submit", "read"),
        expires_at: str | None = None,
        kind: str = "live",
    ) -> Document:
        """Make a key; the answer has it in `key`, this once."""
        body = {"tenantId": tenant_id, "name": name, "scopes": list(scopes), "expiresAt": expires_at, "kind": kind}
        return await self._send("POST", "/api/v1/keys", body)

    async def keys(self, tenant_id: str | None = None) -> list[Document]:
        """Return all keys, newest first."""
        return await self._all("/api/v1/keys", {"tenantId": tenant_id})

    async def revoke_key(self, key_id: str) -> Document:
        """Revoke a key for good."""
        return await self._send("DELETE", f"/api/v1/keys/{quote(key_id, safe='')}")

    async def create_tenant(
        self, tenant_id: str, *, name: str = "", limits: Mapping[str, Any] | None = None
    ) -> Document:
        """Make a tenant; limits by their names on the wire (`ratePerS`, `burst` ...)."""
        body = {"tenantId": tenant_id, "name": name, "limits": dict(limits or {})}
        return await self._send("POST", "/api/v1/tenants", body)

    async def tenants(self) -> list[Document]:
        """Return all tenants in the order of their ids."""
        return await self._all("/api/v1/tenants", {})

    async def tenant(self, tenant_id: str) -> Document:
        """Return one tenant."""
        return await self._send("GET", f"/api/v1/tenants/{quote(tenant_id, safe='')}")

    async def change_tenant(self, tenant_id: str, changes: Mapping[str, Any]) -> Document:
        """Change `name` or `limits`; a limit that is None follows the default again."""
        return await self._send("PATCH", f"/api/v1/tenants/{quote(tenant_id, safe='')}", dict(changes))
