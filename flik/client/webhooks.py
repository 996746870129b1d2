"""`FlikWebhooks`: a tenant's webhooks through HTTP, for the command line.

Answers are handed out as the gateway sent them (JSON objects). A key of the tenant is enough: `submit` to change,
`read` to look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flik.client.documents import Document, DocumentClient

_PATH = "/api/v1/webhooks"


class FlikWebhooks(DocumentClient):
    """A tenant's hand on its webhooks."""

    async def create(self, tenant_id: str, url: str, kinds: Sequence[str] = ()) -> Document:
        """Make a webhook; the answer has its secret in `secret`, this once. Without kinds it hears of ends."""
        body: Document = {"tenantId": tenant_id, "url": url}
        return await self._send("POST", _PATH, body | ({"kinds": list(kinds)} if kinds else {}))

    async def list(self, tenant_id: str | None = None) -> list[Document]:
        """Return the webhooks that the key reaches, newest first."""
        return await self._all(_PATH, {"tenantId": tenant_id})

    async def change(self, webhook_id: str, changes: Mapping[str, Any]) -> Document:
        """Change `url`, `kinds` or `status` (ACTIVE, PAUSED)."""
        return await self._send("PATCH", f"{_PATH}/{webhook_id}", dict(changes))

    async def delete(self, webhook_id: str) -> Document:
        """Delete a webhook for good; return it as it was."""
        return await self._send("DELETE", f"{_PATH}/{webhook_id}")

    async def rotate(self, webhook_id: str) -> Document:
        """Make a new secret, in `secret`; the old one signs beside it for a day."""
        return await self._send("POST", f"{_PATH}/{webhook_id}/rotate-secret")

    async def test(self, webhook_id: str) -> Document:
        """Send a ping; return its delivery."""
        return await self._send("POST", f"{_PATH}/{webhook_id}/test")

    async def redeliver(self, webhook_id: str, delivery_id: str) -> Document:
        """Send a delivery again."""
        return await self._send("POST", f"{_PATH}/{webhook_id}/deliveries/{delivery_id}/redeliver")

    async def deliveries(self, webhook_id: str, most: int) -> Sequence[Document]:
        """Return the latest deliveries, newest first."""
        return await self._all(f"{_PATH}/{webhook_id}/deliveries", {}, most)
