"""Sends webhooks: takes events from the outbox, claims deliveries that are due, sends them, writes what came of it.

Any number of couriers may run on one database. A claim is a lease: what a killed courier had is sent by another one
when the lease is over, so a delivery is made at least once. Deliveries of one task to one webhook go strictly in
order: the next is due only when the one before was delivered or given up.

A courier looks every second, every 0.1 s while something is on its way, and at once when the outbox held something
or a slot gets free. `slots` is how many deliveries it has on their way. It tells each claim which tenant holds how many
of them, so that none gets more than its share, however many of its receivers are dead. Each courier keeps room for the
others in this way, and need not know of other couriers. Metrics: flik_webhook_*.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from flik.domain.webhook.attempt import AgainAt, Delivered, GivenUp, Outcome, Unreached, hold_s, judge, says
from flik.domain.webhook.message import body_of, headers_of
from flik.domain.webhook.record import AttemptNote, Claimed, DeliveryState
from flik.domain.webhook.signature import ID, SIGNATURE, TIMESTAMP, sign
from flik.errors import Unavailable
from flik.telemetry import Metrics

IDLE_S, BUSY_S, MORE_S, AWAY_S = 1.0, 0.1, 0.01, 1.0
SWEEP_S = 60.0
_log = logging.getLogger("flik.webhooks")


class Deliveries(Protocol):
    """Where deliveries are stored; every call may raise Unavailable."""

    async def expand(self, now: float) -> int:
        """Make deliveries of what lies in the outbox; return how many events were taken."""

    async def claim(self, slots: int, now: float, held: Mapping[str, int]) -> list[Claimed]:
        """Take deliveries that are due; `held`: how many slots of this courier each tenant has already."""

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
        """Write what an attempt came to; False when the claim is not current any more."""

    async def sweep(self, now: float) -> int:
        """End what is too old, forget what ended long ago; return how many."""


class Sender(Protocol):
    """How a message gets to a receiver."""

    async def send(self, tenant_id: str, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send it once to a URL of a tenant; within seconds. Failures are outcomes."""


class Courier:
    """One sender of webhooks. `run` runs until it is cancelled."""

    def __init__(
        self,
        store: Deliveries,
        sender: Sender,
        *,
        slots: int = 32,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        measured: Metrics | None = None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._slots = slots
        self._now = now
        self._chance = chance
        self._measured = measured or Metrics("flik_webhook_*")
        self._sending: dict[asyncio.Task[None], str] = {}  # with its tenant
        self._swept_at = now()
        self._woken = asyncio.Event()
        self._asking = asyncio.Lock()  # one statement at a time: the others' connections are for submits

    def wake(self) -> None:
        """Look at once: something was made due."""
        self._woken.set()

    async def run(self) -> None:
        """Send for ever. Its own faults are logged, and cost a pause."""
        try:
            while True:
                await self._wait(await self._round_or_pause())
        finally:
            for task in self._sending:
                task.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)

    async def _round_or_pause(self) -> float:
        try:
            return await self._round()
        except Unavailable:
            return AWAY_S
        except Exception:
            _log.exception("a round of webhooks failed")
            return AWAY_S

    async def _round(self) -> float:
        """Look once; return after how many seconds to look again."""
        self._woken.clear()
        async with self._asking:
            now = self._now()
            if now - self._swept_at >= SWEEP_S and not await self._store.sweep(now):
                self._swept_at = now
            taken = await self._store.expand(now)
            free = self._slots - len(self._sending)
            held = Counter(self._sending.values())
            claimed = await self._store.claim(free, self._now(), held) if free > 0 else []
        for one in claimed:
            self._start(one)
        if taken:
            return MORE_S
        return BUSY_S if claimed or self._sending else IDLE_S

    async def _wait(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._woken.wait()

    def _start(self, claimed: Claimed) -> None:
        task = asyncio.create_task(self._deliver(claimed))
        self._sending[task] = claimed.message.tenant_id
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("what came of a webhook was not written down", exc_info=error)

    async def _deliver(self, claimed: Claimed) -> None:
        began_at, began = self._now(), time.perf_counter()
        try:
            outcome = await self._send(claimed, began_at)
        except Exception:  # counts as an attempt, or it would come back with each lease for ever
            _log.exception("a webhook was not sent", extra={"deliveryId": claimed.message.delivery_id})
            outcome = Unreached("a fault in Flik")
        duration_s = time.perf_counter() - began
        now = self._now()
        verdict = judge(outcome, claimed.attempt, now, self._chance())
        status = None if isinstance(outcome, Unreached) else outcome.status
        note = AttemptNote(began_at, status, says(outcome), round(duration_s * 1000))
        hold = 0.0 if note.error is None else hold_s(claimed.failures + 1)
        state = {Delivered: DeliveryState.DELIVERED, GivenUp: DeliveryState.GIVEN_UP}.get(type(verdict))
        self._measured["flik_webhook_attempts"].labels(state or "AGAIN").inc()
        self._measured["flik_webhook_seconds"].observe(duration_s)
        with suppress(Unavailable):  # the lease lapses, and it is sent again
            async with self._asking:
                await self._store.record(
                    claimed, note, state or DeliveryState.WAITING,
                    next_at=verdict.at if isinstance(verdict, AgainAt) else None,
                    held_until=now + hold if hold else None,
                    gone=isinstance(verdict, GivenUp) and verdict.gone,
                    now=now,
                )  # fmt: skip

    async def _send(self, claimed: Claimed, now: float) -> Outcome:
        message = claimed.message
        body, timestamp = body_of(message), int(now)
        signature = sign(message.delivery_id, timestamp, body, claimed.secrets)
        signed = {ID: message.delivery_id, TIMESTAMP: str(timestamp), SIGNATURE: signature}
        return await self._sender.send(message.tenant_id, claimed.url, {**headers_of(message), **signed}, body)
