"""What a gateway holds of one tenant's tokens, how many it asks for, and what it says when there are none.

A tenant that sends at least `STEADY_PER_S` here is provided for `AHEAD_S` ahead, so that its requests wait
for nobody. Of one that sends less, a reserve is held for `RESERVED_S` after its last request, while at least
half of its burst is left: the next request waits for nobody either, and a tenant near its limit may spend
its last token at any gateway. At most `burst / FEW` is held, or gateways would strand the tokens of one
another. Otherwise requests get exactly what they need, when they need it. What is left over goes back with
the next call.

When there are no tokens, requests are refused here, without a call, until some may be there again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flik.domain.identity import Limits
from flik.domain.rate import LEASE_S, LONGEST_WAIT_S, Lent, Limited, Line, wait_s

AHEAD_S = 0.2
STEADY_PER_S = 10.0
FEW = 16
IDLE_S = 1.0
RESERVE = 4  # tokens; renewals alone keep it up at a few requests a second
RESERVED_S = 15.0
PAUSE_S = 0.05  # after an answer that was short nobody asks again for so long
_RENEW_S = 0.5
_MEASURED_EVERY_S = 0.05
_MEASURED_OVER_S = 0.5


@dataclass(slots=True)
class Allowance:
    """Tokens that may be spent until `ends_at`. Below `low`, more are asked for. `reserve`: for a seldom tenant."""

    rate_per_s: float
    burst: int
    measured_at: float
    used_at: float
    reserve: int = 0
    tokens: float = 0.0
    ends_at: float = 0.0
    low: float = -1.0
    spent: float = 0.0  # since the demand was measured
    demand_per_s: float = 0.0
    told: float = 0.0  # what the limiter believes to be here
    known: bool = True  # whether the last answer knew what is left
    left: float = 0.0
    left_at: float = -math.inf
    refill_per_s: float = 0.0
    pause_until: float = -math.inf
    refused: float = 0.0  # since that answer

    def take(self, cost: float) -> None:
        """Spend tokens that are there."""
        self.tokens -= cost
        self.spent += cost

    def remaining(self, now: float) -> int:
        """Return about how many more tasks could be admitted."""
        return int(max(0.0, min(self.burst, self.tokens + self._elsewhere(now))))

    def refusal(self, cost: float, now: float) -> Limited | None:
        """Return the refusal of a request for which there are no tokens; None: it is worth asking for some."""
        if now >= self.pause_until or self.left >= cost - self.tokens:
            return None
        return self.refuse(cost, now)

    def refuse(self, cost: float, now: float) -> Limited:
        """Return a refusal that tells when the tokens may be there, after those that others were told of before."""
        missing = cost + self.refused - self.tokens - self._elsewhere(now)
        self.refused += cost
        wait = max(wait_s(missing, self.refill_per_s), self.pause_until - now)
        return Limited(min(wait, LONGEST_WAIT_S), self.remaining(now))

    def _elsewhere(self, now: float) -> float:
        return self.left + self.refill_per_s * max(0.0, now - self.left_at) if self.left_at > 0 else 0.0

    def has_news(self, now: float) -> bool:
        """Return whether the limiter should hear of this tenant, though no request waits."""
        held, target = self.tokens if now < self.ends_at else 0.0, self._target(now)
        lacks = held < target and now >= self.pause_until
        return held != self.told or lacks or (held > 0 and self.ends_at - now < _RENEW_S) or held > 2 * target

    def is_idle(self, now: float) -> bool:
        """Return whether nothing is lost by forgetting this tenant."""
        return self.tokens <= 0 and self.told <= 0 and now - self.used_at > IDLE_S and now > self.pause_until

    def line(self, tenant_id: str, costs: Sequence[float], now: float) -> Line:
        """Return what to tell the limiter; `costs` are those of the requests that wait."""
        self._measure(now)
        if now >= self.ends_at:
            self.tokens = 0.0
        target = self._target(now)
        returned = 0.0
        if not costs and self.tokens > 2 * target:
            returned, self.tokens = self.tokens - target, target
        if not costs and now < self.pause_until:
            target = 0.0  # it was short a moment ago
        want = max(0.0, sum(costs) + target - self.tokens)
        unit = max(1.0, min(costs) - self.tokens) if costs else 1.0
        return Line(tenant_id, self.rate_per_s, self.burst, self.tokens, returned, want, unit)

    def borrow(self, line: Line, lent: Lent, sent_at: float, now: float) -> None:
        """Take over the limiter's answer to `line`, which was sent at `sent_at`."""
        if lent.kept < line.held:
            self.tokens = 0.0
        self.tokens += lent.granted
        self.ends_at = sent_at + lent.lease_s
        self.told = lent.kept + lent.granted
        self.refill_per_s = lent.refill_per_s
        if lent.left is not None:
            self.left, self.left_at, self.refused = lent.left, now, 0.0
        short = lent.granted < line.want
        self.known = not short or lent.left is not None
        if line.want > 0:
            self.pause_until = now + PAUSE_S if short and self.known else -math.inf
        self.low = -1.0 if short or not self._is_steady(now) else self._target(now) / 2

    def limits_are(self, limits: Limits) -> None:
        """Take over limits that may have changed."""
        self.rate_per_s, self.burst = limits.rate_per_s, limits.burst

    def _measure(self, now: float) -> None:
        passed_s = now - self.measured_at
        if passed_s < _MEASURED_EVERY_S:
            return
        weight = 1.0 - math.exp(-passed_s / _MEASURED_OVER_S)
        self.demand_per_s += weight * (self.spent / passed_s - self.demand_per_s)
        if self.spent:
            self.used_at = now
        self.spent, self.measured_at = 0.0, now

    def _target(self, now: float) -> float:
        wanted = self.demand_per_s * AHEAD_S if self._is_steady(now) else 0.0
        plenty = now - self.left_at < LEASE_S and self.left + self.tokens >= self.burst / 2
        if plenty and now - self.used_at <= RESERVED_S:
            wanted = max(wanted, self.reserve)
        return float(math.floor(min(wanted, self.burst / FEW)))

    def _is_steady(self, now: float) -> bool:
        return self.demand_per_s >= STEADY_PER_S and now - self.used_at <= IDLE_S
