"""`FlikAdmin`: what an operator does through HTTP, for the command line: keys, tenants.

Answers are handed out as the gateway sent them (JSON objects). A key with the scope `admin` is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

from flik.client.access import resolve
from flik.client.failures import UnreadableAnswer
from flik.client.transport import Transport

MAX_PAGE = 100
Document = dict[str, Any]


class FlikAdmin:
    """An operator's hand on one gateway; an async context manager.

    Methods raise what those of `FlikClient` raise.
    """

    def __init__(self, base_url: str | None = None, api_key: str | None = None, timeout_s: float = 30.0) -> None:
        self.access = resolve(base_url, api_key)
        self._transport = Transport(self.access, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

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

    async def _send(self, method: str, path: str, body: Document | None = None) -> Document:
        answer = await self._transport.call(method, path, body=body)
        return self._object(answer.document)

    async def _all(self, path: str, filters: Mapping[str, Any]) -> list[Document]:
        found: list[Document] = []
        cursor: str | None = None
        while True:
            params = {**filters, "limit": MAX_PAGE, "cursor": cursor}
            page = self._object((await self._transport.call("GET", path, params=params)).document)
            items, following = page.get("items"), page.get("nextCursor")
            if not isinstance(items, list) or following == cursor is not None:
                raise UnreadableAnswer(self.access.base_url, "it is not a page of a list")
            found += [self._object(item) for item in items]
            if following is None:
                return found
            cursor = following

    def _object(self, document: Any) -> Document:
        if not isinstance(document, dict):
            raise UnreadableAnswer(self.access.base_url, "it is not a JSON object")
        return document
