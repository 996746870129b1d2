"""The region's rate limiter: lends gateways what it got from Redis, or the region's share while Redis is away.

One call to Redis is in flight at a time, for all tenants; what gateways lack meanwhile goes into the next.
There is one at least every `CONTACT_S`, because Redis and the region judge by them whether the other is
there. `flik/domain/stock.py` decides, this is its clock and its wire.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

from flik.domain.rate import CALL_S, CONTACT_S, Ask, Contact, Loan, Standing
from flik.domain.stock import Stock
from flik.errors import Unavailable

ROUND_S = CALL_S + 0.1  # so long a gateway waits for Redis, then it gets what is there
_RETRY_S = 0.05
_CONFIRM_S = 0.02
_log = logging.getLogger("flik.limiter")


def steady_clock() -> float:
    """Return seconds that run on while the machine is suspended: tokens must not outlive that."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Buckets(Protocol):
    """The buckets in Redis."""

    async def contact(self, contact: Contact) -> Standing:
        """Say what is held, and get what is lacking.

        Raises:
            Unavailable: no answer; whether the call took effect is unknown.
        """


class RegionLimiter:
    """`share` is the region's part of rate and burst while Redis is away. Not thread-safe."""

    def __init__(
        self,
        buckets: Buckets,
        region: str,
        share: float,
        *,
        holder: str | None = None,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self._buckets = buckets
        self._clock = clock
        self._stock = Stock(region, holder or uuid4().hex, share, clock())
        self._lacking = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._looked_at = clock()

    @property
    def local(self) -> bool:
        """Whether the region admits by its share."""
        return self._stock.local

    def __len__(self) -> int:
        return len(self._stock)

    async def lend(self, ask: Ask) -> Loan:
        """Answer a gateway; takes the time of a call to Redis when there is not enough here."""
        now = heard_at = self._clock()
        lacking = self._stock.hear(ask, now) and self._stock.lacks(ask, now)
        while lacking:
            await self._next_round(heard_at + ROUND_S - now)
            now = self._clock()
            lacking = now < heard_at + ROUND_S and self._stock.lacks(ask, now, since=heard_at)
        return self._stock.lend(ask, now)

    async def run(self) -> None:
        """Call Redis for ever."""
        pause_s = 0.0
        while True:
            await self._woken(pause_s)
            pause_s = await self._call()

    async def _next_round(self, within_s: float) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._lacking.set()
        await asyncio.wait({done}, timeout=within_s)

    async def _woken(self, within_s: float) -> None:
        if self._stock.more:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._lacking.wait()
        except TimeoutError:
            pass

    async def _call(self) -> float:
        """Call Redis once; return in how many seconds to call again when nobody lacks anything."""
        self._lacking.clear()
        waiting, self._waiting = self._waiting, []
        sent_at = self._clock()
        if sent_at - self._looked_at >= CONTACT_S / 2:
            self._stock.look(sent_at)
            self._looked_at = sent_at
        contact = self._stock.contact(sent_at)
        was_local = self._stock.local
        answered = await self._answered(contact, sent_at)
        if was_local is not self._stock.local:
            _log.warning("rate limits: the region admits by %s", "its share" if self._stock.local else "one bucket")
        if not answered:
            # Not sooner, or each request would call a Redis that is known to be away.
            await asyncio.sleep(_RETRY_S)
        for done in waiting:
            if not done.done():
                done.set_result(None)
        if not answered:
            return 0.0
        return CONTACT_S if self._stock.settled or self._stock.local else _CONFIRM_S

    async def _answered(self, contact: Contact, sent_at: float) -> bool:
        try:
            async with asyncio.timeout(CALL_S):
                standing = await self._buckets.contact(contact)
        except (Unavailable, TimeoutError):
            self._stock.unanswered(self._clock())
            return False
        now = self._clock()
        if now - sent_at > CALL_S:  # this process was frozen: Redis may have given up on it
            self._stock.unanswered(now)
            return False
        self._stock.answered(contact, standing, sent_at, now)
        return True
