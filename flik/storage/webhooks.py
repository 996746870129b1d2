"""The table of webhooks and the log of deliveries, for the gateway. Secrets go in here and never come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uuid_utils import uuid7

from flik.domain.webhook.message import PING
from flik.domain.webhook.record import MAX_WEBHOOKS, Delivery, DeliveryState, Webhook, WebhookStatus
from flik.storage import queries
from flik.storage.audit import By, entry_of
from flik.storage.database import Database

_SQL = queries.load("webhooks")


class WebhookStore:
    """Every method raises Unavailable when PostgreSQL is away; whether a change took effect is unknown then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, webhook: Webhook, secret: str, by: By) -> Webhook | None:
        """Store a webhook, and note it; None when its tenant has as many as it may."""
        parameters = {
            "webhook_id": webhook.webhook_id,
            "tenant_id": webhook.tenant_id,
            "url": webhook.url,
            "kinds": list(webhook.kinds),
            "now": webhook.created_at,
            "secret": secret,
            "most": MAX_WEBHOOKS,
            **entry_of(by, {"tenantId": webhook.tenant_id, "kinds": list(webhook.kinds)}),
        }
        for _ in range(MAX_WEBHOOKS):  # each miss is a place that another request took
            if rows := await self._database.once(_SQL["create_webhook"], parameters):
                return _webhook(rows[0])
            if (await self._count(webhook.tenant_id)) >= MAX_WEBHOOKS:
                break
        return None

    async def get(self, webhook_id: str) -> Webhook | None:
        """Return one webhook; None when there is none."""
        rows = await self._database.repeatable(_SQL["get_webhook"], {"webhook_id": webhook_id})
        return _webhook(rows[0]) if rows else None

    async def find(self, *, tenant_id: str | None, before_id: str | None, limit: int) -> list[Webhook]:
        """Return up to `limit` webhooks before `before_id`, newest first; `tenant_id` None: of all tenants."""
        parameters = {"tenant_id": tenant_id, "before_id": before_id, "limit": limit}
        return [_webhook(row) for row in await self._database.repeatable(_SQL["list_webhooks"], parameters)]

    async def change(
        self,
        webhook_id: str,
        now: float,
        by: By,
        *,
        url: str | None = None,
        kinds: Sequence[str] | None = None,
        status: WebhookStatus | None = None,
    ) -> Webhook | None:
        """Change what is given, and note it; None when there is no such webhook."""
        changed = {"url": url is not None, "kinds": None if kinds is None else list(kinds), "status": status}
        parameters = {
            "webhook_id": webhook_id,
            "url": url,
            "kinds": None if kinds is None else list(kinds),
            "status": status,
            "anew": url is not None or status is not None,
            "now": now,
            **entry_of(by, {name: value for name, value in changed.items() if value}),
        }
        rows = await self._database.once(_SQL["change_webhook"], parameters)
        return _webhook(rows[0]) if rows else None

    async def rotate(self, webhook_id: str, secret: str, until: float, now: float, by: By) -> Webhook | None:
        """Set a new secret; the one before signs beside it until `until`. None when there is no such webhook."""
        parameters = {"webhook_id": webhook_id, "secret": secret, "until": until, "now": now, **entry_of(by)}
        rows = await self._database.once(_SQL["rotate_secret"], parameters)
        return _webhook(rows[0]) if rows else None

    async def delete(self, webhook_id: str, now: float, by: By) -> bool:
        """Delete a webhook, and note it; return whether it was there. What waits for it is not sent any more."""
        parameters = {"webhook_id": webhook_id, "now": now, **entry_of(by)}
        return bool(await self._database.once(_SQL["delete_webhook"], parameters))

    async def ping(self, webhook_id: str, now: float) -> Delivery | None:
        """Add a ping to what waits; None when the webhook is not active."""
        parameters = {"webhook_id": webhook_id, "delivery_id": str(uuid7()), "kind": PING, "now": now}
        rows = await self._database.once(_SQL["add_ping"], parameters)
        return _delivery(rows[0]) if rows else None

    async def deliveries(self, webhook_id: str, *, before_id: str | None, limit: int) -> list[Delivery]:
        """Return up to `limit` deliveries of a webhook before `before_id`, newest first."""
        parameters = {"webhook_id": webhook_id, "before_id": before_id, "limit": limit}
        return [_delivery(row) for row in await self._database.repeatable(_SQL["list_deliveries"], parameters)]

    async def own_deliveries(self, task_id: str, *, before_id: str | None, limit: int) -> list[Delivery]:
        """Return up to `limit` deliveries of a task's own webhook before `before_id`, newest first."""
        parameters = {"task_id": task_id, "before_id": before_id, "limit": limit}
        return [_delivery(row) for row in await self._database.repeatable(_SQL["list_own_deliveries"], parameters)]

    async def has_delivery(self, webhook_id: str, delivery_id: str) -> bool:
        """Return whether a webhook has this delivery."""
        parameters = {"webhook_id": webhook_id, "delivery_id": delivery_id}
        return bool(await self._database.repeatable(_SQL["has_delivery"], parameters))

    async def redeliver(self, webhook_id: str, delivery_id: str, now: float) -> Delivery | None:
        """Send a delivery again, now, with a new round of attempts; None when there is none, or it is not active."""
        return await self._redeliver(delivery_id, now, webhook_id=webhook_id)

    async def redeliver_own(self, task_id: str, delivery_id: str, now: float) -> Delivery | None:
        """Send a delivery of a task's own webhook again; None when there is none."""
        return await self._redeliver(delivery_id, now, task_id=task_id)

    async def _redeliver(
        self, delivery_id: str, now: float, *, webhook_id: str | None = None, task_id: str | None = None
    ) -> Delivery | None:
        parameters = {"webhook_id": webhook_id, "task_id": task_id, "delivery_id": delivery_id, "now": now}
        rows = await self._database.once(_SQL["redeliver"], parameters)
        return _delivery(rows[0]) if rows else None

    async def _count(self, tenant_id: str) -> int:
        return int((await self._database.repeatable(_SQL["count_webhooks"], {"tenant_id": tenant_id}))[0][0])


def _webhook(row: Sequence[Any]) -> Webhook:
    webhook_id, tenant_id, url, kinds, status, *rest = row
    return Webhook(webhook_id, tenant_id, url, tuple(kinds), WebhookStatus(status), *rest)


def _delivery(row: Sequence[Any]) -> Delivery:
    delivery_id, webhook_id, task_id, seq, kind, state, attempts, next_at, created_at, ended_at, log = row
    return Delivery(
        delivery_id, webhook_id, task_id, seq, kind, DeliveryState(state), attempts, next_at, created_at, ended_at,
        tuple(log),
    )  # fmt: skip
