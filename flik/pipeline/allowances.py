"""A gateway's answer to "may this tenant send so much now?", nearly always without a call.

    decision = await allowances.spend("acme", 1, tenant.limits)

While the gateway holds tokens of the tenant, that is a look into a dictionary, a comparison and a
subtraction. Else the request waits for the region's limiter, a few milliseconds; one call is in flight for
all tenants, and what is asked meanwhile shares the next. When there is nothing to be had, requests are
refused without a call until there may be. `flik/domain/allowance.py` decides how many tokens to ask for.

Requests of one tenant are served in the order in which they came; one that waits is not overtaken.

Metrics: flik_rate_tasks, flik_rate_ask_seconds, flik_rate_tenants, flik_rate_local.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from flik.domain.allowance import RESERVE, Allowance
from flik.domain.identity import Limits
from flik.domain.rate import Admitted, Ask, Decision, Limited, Line, Loan, NeverFits
from flik.errors import Unavailable
from flik.pipeline.limit import ROUND_S, steady_clock
from flik.telemetry import Metrics

METRICS = ("flik_rate_*",)
ANSWER_S = ROUND_S + 0.1  # a limiter that takes longer is taken for away
AWAY_S = 0.1  # then requests are turned away without a call for so long
COME_BACK_S = 1.0  # what those are told
MOST_LINES = 1_000
MOST_RESERVED = 250  # tenants of which a reserve is held: each is renewed three times a second
_LOOK_EVERY_S = 0.1
_log = logging.getLogger("flik.gateway")


@dataclass(eq=False, slots=True)
class _Waiting:
    cost: int
    done: asyncio.Future[Decision]
    asked: bool = False  # its cost is in the call that is in flight


@dataclass(eq=False, slots=True)
class _Tenant:
    allowance: Allowance
    waiting: deque[_Waiting] = field(default_factory=deque)


class Allowances:
    """What this gateway may admit. `ask` calls the limiter and raises `Unavailable` when it does not answer.

    Not thread-safe: it lives on one event loop, from `open` to `close`.
    """

    def __init__(
        self,
        ask: Callable[[Ask], Awaitable[Loan]],
        *,
        measured: Metrics | None = None,
        holder: str | None = None,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self._call = ask
        self._clock = clock
        self._holder = holder or uuid4().hex
        self._tenants: dict[str, _Tenant] = {}
        self._due: dict[str, None] = {}
        self._stir = asyncio.Event()
        self._number = 0
        self._looked_at = clock()
        self._away_until = 0.0
        self._loop: asyncio.Task[None] | None = None
        self._counted = {Admitted: 0, Limited: 0, NeverFits: 0}
        self._measured = measured or Metrics(*METRICS)
        self._measured["flik_rate_tenants"].set_function(lambda: len(self._tenants))

    def open(self) -> Allowances:
        """Begin to ask."""
        self._loop = asyncio.create_task(self._run())
        return self

    async def close(self) -> None:
        """Stop to ask; what is held lapses by itself."""
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop

    def __len__(self) -> int:
        return len(self._tenants)

    async def spend(self, tenant_id: str, cost: int, limits: Limits) -> Decision:
        """Return whether `cost` tasks may be stored now; if so, they are paid for.

        Raises:
            Unavailable: it is not known, because the limiter or what it asks is away.
        """
        now = self._clock()
        tenant = self._tenants.get(tenant_id)
        if tenant is not None and not tenant.waiting:
            held = tenant.allowance
            held.rate_per_s, held.burst = limits.rate_per_s, limits.burst
            if held.tokens >= cost and now < held.ends_at and cost <= limits.burst:
                held.take(cost)
                if held.tokens < held.low:
                    self._want(tenant_id)
                self._counted[Admitted] += cost
                return Admitted(held.remaining(now))
        decision = await self._spend_slowly(tenant_id, cost, limits, now)
        self._counted[type(decision)] += cost
        return decision

    async def _spend_slowly(self, tenant_id: str, cost: int, limits: Limits, now: float) -> Decision:
        if cost > limits.burst:
            return NeverFits(limits.burst)
        if now < self._away_until:
            raise Unavailable("limiter", COME_BACK_S)
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            reserve = RESERVE if len(self._tenants) < MOST_RESERVED else 0
            tenant = _Tenant(Allowance(limits.rate_per_s, limits.burst, now, now, reserve))
            self._tenants[tenant_id] = tenant
        tenant.allowance.limits_are(limits)
        refusal = tenant.allowance.refusal(cost, now)
        if refusal is not None:
            return refusal
        waiting = _Waiting(cost, asyncio.get_running_loop().create_future())
        tenant.waiting.append(waiting)
        self._want(tenant_id)
        return await waiting.done

    def _want(self, tenant_id: str) -> None:
        self._due[tenant_id] = None
        self._stir.set()

    # In the background

    async def _run(self) -> None:
        while True:
            try:
                await self._stirred()
                self._look()
                await self._ask()
            except Exception:  # what waits is told by `_ask`; a gateway that never asks again would be worse
                _log.exception("asking for tokens failed")

    async def _stirred(self) -> None:
        """Return when somebody lacks something, and now and then while there are tenants to look after."""
        if self._due:
            return
        self._stir.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY_S if self._tenants else None):
                await self._stir.wait()

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        self._count()
        for tenant_id, tenant in list(self._tenants.items()):
            if tenant.waiting or tenant.allowance.has_news(now):
                self._due[tenant_id] = None
            elif tenant.allowance.is_idle(now):
                del self._tenants[tenant_id]
                self._due.pop(tenant_id, None)

    def _count(self) -> None:
        for kind, word in ((Admitted, "admitted"), (Limited, "limited"), (NeverFits, "never_fits")):
            self._measured["flik_rate_tasks"].labels(word).inc(self._counted[kind])
            self._counted[kind] = 0

    async def _ask(self) -> None:
        sent_at = self._clock()
        self._number += 1
        ask = Ask(self._holder, self._number, list(self._lines(sent_at)))
        if not ask.lines:
            return
        loan = await self._answer(ask)
        now = self._clock()
        if loan is None or now - sent_at > ANSWER_S:
            self._turn_away(ask, now)
            return
        self._away_until = 0.0
        self._measured["flik_rate_ask_seconds"].observe(now - sent_at)
        self._measured["flik_rate_local"].set(loan.local)
        for line, lent in zip(ask.lines, loan.lines, strict=True):
            tenant = self._tenants[line.tenant_id]
            tenant.allowance.borrow(line, lent, sent_at, now)
            self._serve(line.tenant_id, tenant, now)

    def _lines(self, now: float) -> Iterator[Line]:
        for tenant_id in list(self._due)[:MOST_LINES]:
            del self._due[tenant_id]
            tenant = self._tenants[tenant_id]
            waiting = [each for each in tenant.waiting if not each.done.done()]
            for each in waiting:
                each.asked = True
            tenant.waiting = deque(waiting)
            line = tenant.allowance.line(tenant_id, [each.cost for each in waiting], now)
            if line.want > 0 or line.returned > 0 or tenant.allowance.has_news(now):
                yield line

    async def _answer(self, ask: Ask) -> Loan | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._call(ask)
        except (Unavailable, TimeoutError):
            return None
        except Exception:
            _log.exception("the limiter failed")
            return None

    def _turn_away(self, ask: Ask, now: float) -> None:
        self._away_until = now + AWAY_S
        for line in ask.lines:
            tenant = self._tenants[line.tenant_id]
            tenant.allowance.low = -1.0  # not before somebody lacks something, or a call fails for each request
            while tenant.waiting:
                _fail(tenant.waiting.popleft().done)
            self._due.pop(line.tenant_id, None)

    def _serve(self, tenant_id: str, tenant: _Tenant, now: float) -> None:
        """Admit those that wait, in order; refuse those whose cost was asked for in vain."""
        held = tenant.allowance
        while tenant.waiting:
            first = tenant.waiting[0]
            affordable = held.tokens >= first.cost and now < held.ends_at
            if not affordable and not first.asked:
                self._want(tenant_id)
                return
            tenant.waiting.popleft()
            if first.done.done():
                continue
            if affordable:
                held.take(first.cost)
                first.done.set_result(Admitted(held.remaining(now)))
            elif held.known:
                first.done.set_result(held.refuse(first.cost, now))
            else:
                _fail(first.done)


def _fail(done: asyncio.Future[Decision]) -> None:
    if not done.done():
        done.set_exception(Unavailable("limiter", COME_BACK_S))
