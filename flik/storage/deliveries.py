"""Outbox and deliveries, for senders. Each statement is safe beside itself: any number of senders may run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from flik.domain.webhook.attempt import HOLD_FROM
from flik.domain.webhook.message import Message
from flik.domain.webhook.own import OWN_KEPT_S
from flik.domain.webhook.record import (
    DISABLED_AFTER_S,
    GONE,
    KEPT_S,
    MAX_LOG,
    NOT_SENT,
    SILENT,
    TOO_OLD_S,
    AttemptNote,
    Claimed,
    DeliveryState,
)
from flik.storage import queries
from flik.storage.conditions import first_id_at
from flik.storage.database import Database

EXPANDED = 200  # outbox rows a statement
SWEPT = 1_000
_WEBHOOKS, _LOOK = 50, 64  # of a claim: webhooks, and deliveries of each, that are looked at
_NOBODY: Mapping[str, int] = MappingProxyType({})
_MARGIN_S = 86_400.0  # between the last delivery of a receiver and its own end
_SQL = queries.load("deliveries")


class DeliveryStore:
    """`each`: how many deliveries of one webhook are on their way at most; `lease_s`: how long a claim holds.

    `share`: how many slots of one sender a tenant has at most.

    Every method raises Unavailable when PostgreSQL is away; whether a change took effect is unknown then, and
    what was claimed without anybody knowing comes back when its lease is over.
    """

    def __init__(self, database: Database, *, each: int = 8, share: int = 8, lease_s: float = 20.0) -> None:
        self._database = database
        self._each = each
        self._share = share
        self._lease_s = lease_s

    async def expand(self, now: float) -> int:
        """Make deliveries of what lies in the outbox; return how many of its rows were taken, at most `EXPANDED`."""
        rows = await self._database.once(_SQL["expand_outbox"], {"now": now, "limit": EXPANDED})
        return int(rows[0][0])

    async def claim(self, slots: int, now: float, held: Mapping[str, int] = _NOBODY) -> list[Claimed]:
        """Take up to `slots` deliveries that are due, fairly over tenants and their webhooks, in order within a task.

        `held`: how many slots of this sender each tenant has already.
        """
        parameters = {
            "now": now, "slots": slots, "each": self._each, "lease_s": self._lease_s, "hold_from": HOLD_FROM,
            "webhooks": _WEBHOOKS, "look": _LOOK, "share": self._share, "held": orjson.dumps(dict(held)).decode(),
            "most": MAX_LOG, "not_sent": _entry(AttemptNote(now, None, NOT_SENT, 0)),
        }  # fmt: skip
        return [_claimed(row) for row in await self._database.once(_SQL["claim_deliveries"], parameters)]

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
        """Write what an attempt came to; False when the claim is not the current one any more, and nothing changed."""
        parameters = {
            "delivery_id": claimed.message.delivery_id, "token": claimed.token, "state": state, "now": now,
            "next_at": next_at, "note": _entry(note), "most": MAX_LOG, "held_until": held_until,
            "failed": note.error is not None, "gone": gone, "disabled_after_s": DISABLED_AFTER_S, "gone_reason": GONE,
            "silent_reason": SILENT, "not_sent": _entry(AttemptNote(now, None, NOT_SENT, 0)),
        }  # fmt: skip
        return bool(await self._database.once(_SQL["record_attempt"], parameters))

    async def sweep(self, now: float) -> int:
        """Give up what waited for three days, forget what is a week old, and tasks' own webhooks a month after the end.

        Returns how many, at most `SWEPT` of each.
        """
        old = {"before": now - TOO_OLD_S, "before_id": first_id_at(now - TOO_OLD_S), "limit": SWEPT, "now": now}
        given_up = await self._database.repeatable(_SQL["give_up_old"], old)
        forgotten = {"before_id": first_id_at(now - KEPT_S), "limit": SWEPT}
        ended = {"before": now - OWN_KEPT_S, "before_id": first_id_at(now - OWN_KEPT_S), "limit": SWEPT}
        quiet = {"before": now - KEPT_S - _MARGIN_S, "limit": SWEPT}
        swept = [
            await self._database.repeatable(_SQL["forget_old"], forgotten),
            await self._database.repeatable(_SQL["forget_own_webhooks"], ended),
            await self._database.repeatable(_SQL["forget_receivers"], quiet),
        ]
        return len(given_up) + sum(map(len, swept))


def _entry(note: AttemptNote) -> str:
    """Return what is added to the log of a delivery."""
    entry = {"at": note.at, "status": note.status, "error": note.error, "durationMs": note.duration_ms}
    return orjson.dumps([entry]).decode()


def _claimed(row: Sequence[Any]) -> Claimed:
    delivery_id, webhook_id, tenant_id, task_id, seq, kind, at, data, token, attempt, url, failures, *secrets = row
    message = Message(delivery_id, webhook_id, tenant_id, task_id, seq, kind, at, data)
    return Claimed(message, token, attempt, url, tuple(one for one in secrets if one), failures)
