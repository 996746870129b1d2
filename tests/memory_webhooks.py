"""Webhooks and deliveries in memory: what the tables do, for tests of the gateway and of couriers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from uuid_utils import uuid7

from flik.domain.webhook.message import PING, Message
from flik.domain.webhook.record import (
    MAX_LOG,
    MAX_WEBHOOKS,
    AttemptNote,
    Claimed,
    Delivery,
    DeliveryState,
    Webhook,
    WebhookStatus,
)
from flik.errors import Unavailable
from flik.storage.audit import By


@dataclass
class MemoryWebhooks:
    """The gateway's side. `away` makes every call fail."""

    rows: dict[str, Webhook] = field(default_factory=dict)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    sent: dict[str, Delivery] = field(default_factory=dict)
    noted: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("postgresql")

    async def create(self, webhook: Webhook, secret: str, by: By) -> Webhook | None:
        self._answer()
        if sum(each.tenant_id == webhook.tenant_id for each in self.rows.values()) >= MAX_WEBHOOKS:
            return None
        self.secrets[webhook.webhook_id] = [secret]
        self.noted.append(("webhook.created", by.actor))
        return self.rows.setdefault(webhook.webhook_id, webhook)

    async def get(self, webhook_id: str) -> Webhook | None:
        self._answer()
        return self.rows.get(webhook_id)

    async def find(self, *, tenant_id: str | None, before_id: str | None, limit: int) -> list[Webhook]:
        self._answer()
        newest_first = sorted(self.rows.values(), key=lambda row: row.webhook_id, reverse=True)
        return [
            row
            for row in newest_first
            if tenant_id in (None, row.tenant_id) and (before_id is None or row.webhook_id < before_id)
        ][:limit]

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
        self._answer()
        if webhook_id not in self.rows:
            return None
        given: dict[str, Any] = {"url": url, "kinds": None if kinds is None else tuple(kinds), "status": status}
        given = {name: value for name, value in given.items() if value is not None}
        self.noted.append(("webhook.changed", by.actor))
        reason = {"reason": None} if status is not None else {}
        self.rows[webhook_id] = replace(self.rows[webhook_id], updated_at=now, **given, **reason)
        return self.rows[webhook_id]

    async def rotate(self, webhook_id: str, secret: str, until: float, now: float, by: By) -> Webhook | None:
        self._answer()
        if webhook_id not in self.rows:
            return None
        self.secrets[webhook_id] = [secret, self.secrets.get(webhook_id, [""])[0]]
        self.noted.append(("webhook.rotated", by.actor))
        self.rows[webhook_id] = replace(self.rows[webhook_id], updated_at=now, old_secret_until=until)
        return self.rows[webhook_id]

    async def delete(self, webhook_id: str, now: float, by: By) -> bool:
        self._answer()
        self.noted.append(("webhook.deleted", by.actor))
        return self.rows.pop(webhook_id, None) is not None

    async def ping(self, webhook_id: str, now: float) -> Delivery | None:
        self._answer()
        if self.rows[webhook_id].status is not WebhookStatus.ACTIVE:
            return None
        return self._keep(waiting(webhook_id, now=now))

    async def deliveries(self, webhook_id: str, *, before_id: str | None, limit: int) -> list[Delivery]:
        self._answer()
        newest_first = sorted(self.sent.values(), key=lambda row: row.delivery_id, reverse=True)
        return [
            row
            for row in newest_first
            if row.webhook_id == webhook_id and (before_id is None or row.delivery_id < before_id)
        ][:limit]

    async def own_deliveries(self, task_id: str, *, before_id: str | None, limit: int) -> list[Delivery]:
        self._answer()
        newest_first = sorted((row for row in self.sent.values() if _is_own(row, task_id)), key=_id, reverse=True)
        return [row for row in newest_first if before_id is None or row.delivery_id < before_id][:limit]

    async def redeliver_own(self, task_id: str, delivery_id: str, now: float) -> Delivery | None:
        self._answer()
        found = self.sent.get(delivery_id)
        return self._again(found, now) if found is not None and _is_own(found, task_id) else None

    async def has_delivery(self, webhook_id: str, delivery_id: str) -> bool:
        self._answer()
        return delivery_id in self.sent and self.sent[delivery_id].webhook_id == webhook_id

    async def redeliver(self, webhook_id: str, delivery_id: str, now: float) -> Delivery | None:
        if not await self.has_delivery(webhook_id, delivery_id):
            return None
        if self.rows[webhook_id].status is not WebhookStatus.ACTIVE:
            return None
        return self._again(self.sent[delivery_id], now)

    def _again(self, sent: Delivery, now: float) -> Delivery:
        return self._keep(replace(sent, state=DeliveryState.WAITING, attempts=0, next_at=now, ended_at=None))

    def _keep(self, delivery: Delivery) -> Delivery:
        self.sent[delivery.delivery_id] = delivery
        return delivery


def _is_own(delivery: Delivery, task_id: str) -> bool:
    return delivery.webhook_id is None and delivery.task_id == task_id


def _id(delivery: Delivery) -> str:
    return delivery.delivery_id


def waiting(webhook_id: str | None, *, now: float = 0.0, **fields: Any) -> Delivery:
    """A ping that waits, unless `fields` say otherwise."""
    ping = Delivery(str(uuid7()), webhook_id, None, 0, PING, DeliveryState.WAITING, 0, now, now, None)
    return replace(ping, **fields)


@dataclass
class Row:
    """One delivery as a courier's store has it."""

    message: Message
    next_at: float
    attempts: int = 0
    state: DeliveryState = DeliveryState.WAITING
    token: str | None = None
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class MemoryDeliveries:
    """The couriers' side: `outbox` becomes rows, rows are claimed with a lease."""

    secret: str
    outbox: list[Message] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    held_until: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    swept: list[float] = field(default_factory=list)
    away: bool = False
    lease_s: float = 20.0
    each: int = 4
    share: int = 8

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("postgresql")

    async def expand(self, now: float) -> int:
        self._answer()
        taken, self.outbox = self.outbox, []
        self.rows += [Row(message, now) for message in taken]
        return len(taken)

    async def claim(self, slots: int, now: float, held: Mapping[str, int]) -> list[Claimed]:
        self._answer()
        claimed: list[Claimed] = []
        of_tenant = Counter(held)
        for row in self.rows:
            tenant = row.message.tenant_id
            if len(claimed) < slots and of_tenant[tenant] < self.share and self._is_free(row, now):
                of_tenant[tenant] += 1
                row.token, row.next_at = str(uuid7()), now + self.lease_s
                url = f"https://{row.message.webhook_id}.example.com/"
                failures = self.failures.get(row.message.webhook_id, 0)
                claimed.append(Claimed(row.message, row.token, row.attempts + 1, url, (self.secret,), failures))
        return claimed

    def _is_free(self, row: Row, now: float) -> bool:
        mine = [each for each in self.rows if each.message.webhook_id == row.message.webhook_id]
        busy = sum(each.token is not None and each.next_at > now for each in mine)
        before = [
            each
            for each in mine
            if each.message.task_id == row.message.task_id
            and each.message.seq < row.message.seq
            and each.state is DeliveryState.WAITING
        ]
        webhook = row.message.webhook_id
        held = webhook in self.disabled or self.held_until.get(webhook, 0.0) > now
        is_due = row.state is DeliveryState.WAITING and row.next_at <= now
        return is_due and not before and not held and busy < self.each

    async def record(
        self,
        claimed: Claimed,
        note: AttemptNote,
        state: DeliveryState,
        *,
        next_at: float | None,
        held_until: float | None,
        gone: bool,
        now: float,
    ) -> bool:
        self._answer()
        row = next((each for each in self.rows if each.token == claimed.token), None)
        if row is None:
            return False
        webhook = row.message.webhook_id
        row.token, row.state, row.attempts, row.next_at = None, state, row.attempts + 1, next_at or now
        row.log = [*row.log, asdict(note)][-MAX_LOG:]
        self.failures[webhook] = 0 if note.error is None else self.failures.get(webhook, 0) + 1
        self.held_until[webhook] = held_until or 0.0
        self.disabled |= {webhook} if gone else set()
        return True

    async def sweep(self, now: float) -> int:
        self._answer()
        self.swept.append(now)
        return 0
