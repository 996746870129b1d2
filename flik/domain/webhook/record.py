"""Webhooks and deliveries as they are stored. Times are seconds since the epoch.

A webhook gathers events while it is ACTIVE or PAUSED, and gets them while it is ACTIVE. A tenant pauses it; Flik
disables it when its receiver says that it is gone (410), or when nothing got through for three days. What waits
stays until it is sent, or three days old; a delivery that ended is kept for a week. A task's own webhook, which nobody
can set to ACTIVE, is given up instead, with all that waits for it (`own.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flik.domain.webhook.message import Message

MAX_WEBHOOKS = 10  # of one tenant
OLD_SECRET_S = 86_400.0  # how long the secret before works on after it was changed
TOO_OLD_S = 3 * 86_400.0
DISABLED_AFTER_S = 3 * 86_400.0
KEPT_S = 7 * 86_400.0
MAX_LOG = 20  # attempts that a delivery remembers
GONE = "the receiver answered 410"
NOT_SENT = "not sent: the receiver answered 410 to another event"  # of the same task, whose own webhook it is
SILENT = "nothing got through for three days"


class WebhookStatus(StrEnum):
    """Whether a webhook gets anything."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"  # by its tenant
    DISABLED = "DISABLED"  # by Flik; `reason` says why


class DeliveryState(StrEnum):
    """How far a delivery is."""

    WAITING = "WAITING"
    DELIVERED = "DELIVERED"
    GIVEN_UP = "GIVEN_UP"


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook without its secret. `failing_since`: when the failures began that no success has ended."""

    webhook_id: str
    tenant_id: str
    url: str
    kinds: tuple[str, ...]
    status: WebhookStatus
    reason: str | None
    created_at: float
    updated_at: float
    old_secret_until: float | None = None
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. `log` has the latest attempts, the oldest first; `task_id` None: a ping.

    `webhook_id` None: the webhook is the task's own (`own.py`).
    """

    delivery_id: str
    webhook_id: str | None
    task_id: str | None
    seq: int
    kind: str
    state: DeliveryState
    attempts: int
    next_at: float | None
    created_at: float
    ended_at: float | None
    log: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that a sender has, for as long as its lease lasts; whoever records an attempt shows `token`."""

    message: Message
    token: str
    attempt: int
    url: str
    secrets: tuple[str, ...] = field(repr=False)
    failures: int = 0


@dataclass(frozen=True, slots=True)
class AttemptNote:
    """One attempt as the log of a delivery has it. `error` None: it got through."""

    at: float
    status: int | None
    error: str | None
    duration_ms: int
