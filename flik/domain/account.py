"""One tenant's tokens in a region: those that are free, and those at gateways, each with its end.

They come from Redis in blocks, or in by the region's share of the rate; `flik/domain/stock.py` says when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flik.domain.rate import LEASE_S, MARGIN_S, Block, Line

SPARE_S = 0.3  # what no gateway wanted for so long goes back to Redis
_RENEW_S = 0.5  # a lease with less than this left is renewed


@dataclass(slots=True)
class Account:
    """`free` tokens, and those `out` at gateways: (amount, end) by gateway."""

    rate_per_s: float
    burst: int
    at: float
    used_at: float
    free: float = 0.0
    ends_at: float = 0.0  # of Redis's loan to this region, all of it
    told: float = 0.0  # what Redis believes to be here
    left: float = 0.0  # in Redis's bucket
    left_at: float = -math.inf
    want: float = 0.0
    unit: float = math.inf
    out: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """All that is held here, gateways included."""
        return self.free + sum(amount for amount, _ in self.out.values())

    def has_more(self, line: Line, since: float) -> bool:
        """Return whether Redis was not asked since then, or has more of what `line` asks for, and enough."""
        return self.left_at < since or (self.left >= 1 and self.free + self.left >= line.unit)

    def void(self) -> None:
        """Hold nothing any more."""
        self.free = 0.0
        self.out.clear()

    def lapse(self, now: float) -> None:
        """Drop what gateways no longer have; it is lost."""
        for holder, (_, ends_at) in list(self.out.items()):
            if ends_at <= now:
                del self.out[holder]

    def fill(self, rate_per_s: float, room: float, now: float) -> None:
        """Let tokens come in up to now; what is out counts against the room until it ends."""
        ends = sorted(ends_at for _, ends_at in self.out.values() if self.at < ends_at < now)
        for step in (*ends, now):
            held = sum(amount for amount, ends_at in self.out.values() if ends_at > self.at)
            self.free = max(0.0, min(self.free + rate_per_s * (step - self.at), room - held))
            self.at = step
        self.lapse(now)

    def hear(self, holder: str, line: Line, room: float) -> None:
        """Take note of what a gateway still has; all gateways together keep no more than `room`."""
        mine, ends_at = self.out.pop(holder, (0.0, 0.0))
        others = sum(amount for amount, _ in self.out.values())
        kept = min(line.held, mine, max(0.0, room - others))
        self.free += min(line.returned, max(0.0, mine - line.held))
        if kept > 0:
            self.out[holder] = (kept, ends_at)

    def lend(self, holder: str, line: Line, lease_s: float, now: float) -> tuple[float, float]:
        """Return (kept, granted) of a gateway, for `lease_s` from now."""
        kept, _ = self.out.pop(holder, (0.0, 0.0))
        granted = float(math.floor(min(line.want, self.free))) if self.free >= line.unit else 0.0
        if lease_s <= 0 or kept + granted <= 0:
            return 0.0, 0.0
        self.free -= granted
        self.out[holder] = (kept + granted, now + lease_s + MARGIN_S)
        return kept, granted

    def ask_for(self, line: Line) -> None:
        """Note what is to be asked of Redis for a gateway."""
        self.want += line.want
        self.unit = min(self.unit, line.unit)

    def has_news(self, now: float) -> bool:
        """Return whether Redis should hear of this tenant, though no gateway lacks anything."""
        total = self.total
        ends_soon = total > 0 and self.ends_at - now < _RENEW_S
        return ends_soon or total != self.told or self._is_spare(now)

    def line(self, tenant_id: str, now: float) -> Line:
        """Return what to tell Redis; what is returned is no longer here."""
        want, unit = max(0.0, self.want - self.free), max(1.0, self.unit - self.free)
        self.want, self.unit = 0.0, math.inf
        returned = self.free if self._is_spare(now) else 0.0
        self.free -= returned
        return Line(tenant_id, self.rate_per_s, self.burst, self.total, returned, want, unit if want else 1.0)

    def borrow(self, line: Line, block: Block, sent_at: float) -> None:
        """Take over Redis's answer to `line`, which was sent at `sent_at`."""
        if block.kept < line.held:
            self.void()
        self.free += block.granted
        self.ends_at = sent_at + LEASE_S
        self.told = block.kept + block.granted
        self.left, self.left_at = block.left, sent_at

    def _is_spare(self, now: float) -> bool:
        return self.free > 0 and now - self.used_at > SPARE_S
