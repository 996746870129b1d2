"""What a region's limiter holds: tokens taken out of Redis in blocks, lent on to gateways.

While Redis answers, it is a stock that Redis fills: what gateways lack is asked for in the next call, what
nobody wants goes back. When Redis has not answered for `LOCAL_AFTER_S`, each tenant has a bucket of its own
here, the region's share. `flik/domain/rate.py` has the rules and why they are exact.

Nothing survives a restart, and nothing has to: a new limiter is nobody's debtor. It waits for Redis like any
other, so it admits by its share only when everything its predecessor lent is void.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from flik.domain.account import Account
from flik.domain.rate import (
    CALL_S,
    LEASE_S,
    LOCAL_AFTER_S,
    LOCAL_LEASE_S,
    Ask,
    Contact,
    Lent,
    Line,
    Loan,
    Standing,
)

MOST_LINES = 1_000  # of one call
IDLE_S = 1.0  # a tenant of which nobody speaks for so long is forgotten
_GATEWAY_FORGOTTEN_S = 60.0


class Stock:
    """All tenants of a region. `share` is the region's part of rate and burst while Redis is away."""

    def __init__(self, region: str, holder: str, share: float, now: float) -> None:
        self._region = region
        self._holder = holder
        self._share = share
        self._accounts: dict[str, Account] = {}
        self._gateways: dict[str, tuple[int, float]] = {}
        self._due: dict[str, None] = {}
        self._number = 0
        self._heard = 0
        self._epoch = 0
        self._contact_at = now
        self._failed_at = -math.inf
        self._settled = False
        self._local_at: float | None = None
        self._local_until = math.inf

    def __len__(self) -> int:
        return len(self._accounts)

    @property
    def settled(self) -> bool:
        """Whether Redis lends, as far as is known."""
        return self._settled

    @property
    def local(self) -> bool:
        """Whether the region admits by its share."""
        return self._local_at is not None

    @property
    def more(self) -> bool:
        """Whether there is more to say than one call could carry."""
        return bool(self._due) and self._settled and not self.local

    # Gateways

    def hear(self, ask: Ask, now: float) -> bool:
        """Take note of what a gateway still has; return False when the call came too late to count."""
        self._turn(now)
        number, _ = self._gateways.get(ask.holder, (0, 0.0))
        if ask.number <= number:
            return False
        self._gateways[ask.holder] = (ask.number, now)
        for line in ask.lines:
            account = self._account(line, now)
            account.hear(ask.holder, line, line.burst * self._share if self.local else line.burst)
            if line.want > 0:
                account.used_at = now
        return True

    def lacks(self, ask: Ask, now: float, *, since: float | None = None) -> bool:
        """Return whether it is worth calling Redis before `ask` is answered; what is lacking goes into that call.

        `since`: when it was lacking before; then it is worth it where others took what came for it, and
        Redis has more.
        """
        if self.local or not self._settled or (since is not None and self._failed_at >= since):
            return False
        lacking = False
        for line in ask.lines:
            account = self._account(line, now)
            if line.want > account.free and (since is None or account.has_more(line, since)):
                account.ask_for(line)
                self._due[line.tenant_id] = None
                lacking = True
        return lacking

    def lend(self, ask: Ask, now: float) -> Loan:
        """Answer a gateway with what is there; an older call than its last one gets nothing."""
        self._turn(now)
        if self._gateways.get(ask.holder, (0, 0.0))[0] != ask.number:
            return Loan(self.local, [Lent(0.0, 0.0, 0.0, None, 0.0) for _ in ask.lines])
        return Loan(self.local, [self._lend(ask.holder, line, now) for line in ask.lines])

    def _lend(self, holder: str, line: Line, now: float) -> Lent:
        account = self._account(line, now)
        ends_at = min(now + LOCAL_LEASE_S, self._local_until) if self.local else min(now + LEASE_S, account.ends_at)
        kept, granted = account.lend(holder, line, ends_at - now, now)
        if self.local:
            left, rate_per_s = account.free, line.rate_per_s * self._share
            return Lent(kept, granted, max(0.0, ends_at - now), left, rate_per_s)
        known = self._settled and now - account.left_at < CALL_S
        left_or_none = account.left + account.free if known else None
        return Lent(kept, granted, max(0.0, ends_at - now), left_or_none, line.rate_per_s)

    # Redis

    def contact(self, now: float) -> Contact:
        """Return the next call to Redis."""
        self._turn(now)
        self._number += 1
        lines = [] if self.local or not self._settled else list(self._lines(now))
        return Contact(self._region, self._holder, self._number, self._heard, self._epoch, self.local, lines)

    def answered(self, contact: Contact, standing: Standing, sent_at: float, now: float) -> None:
        """Take over what Redis answered to a call that was sent at `sent_at`."""
        self._contact_at = sent_at
        self._heard = contact.number
        self._epoch = standing.epoch
        self._settled = standing.settles_in_s <= 0
        if self.local:
            self._local_until = sent_at + max(0.0, standing.settles_in_s)
        self._turn(now)
        for line, block in zip(contact.lines, standing.blocks, strict=False):
            account = self._accounts.get(line.tenant_id)
            if account is not None:
                account.borrow(line, block, sent_at)

    def unanswered(self, now: float) -> None:
        """Redis did not answer in time."""
        self._turn(now)
        self._failed_at = now
        if not self.local and now - self._contact_at >= LOCAL_AFTER_S:
            self._local_at, self._local_until = now, math.inf
            self._settled = False
            self._accounts.clear()
            self._due.clear()

    def look(self, now: float) -> None:
        """Find out, a few times a second, what has to be renewed, returned or forgotten."""
        for tenant_id, account in list(self._accounts.items()):
            self._settle(account, now)
            if not self.local and account.has_news(now):
                self._due[tenant_id] = None
            elif now - account.used_at > IDLE_S and self._is_as_if_new(account, now):
                del self._accounts[tenant_id]
        for gateway, (_, seen_at) in list(self._gateways.items()):
            if now - seen_at > _GATEWAY_FORGOTTEN_S:
                del self._gateways[gateway]

    def _turn(self, now: float) -> None:
        if self.local and now >= self._local_until:
            self._local_at = None
            self._accounts.clear()

    def _account(self, line: Line, now: float) -> Account:
        account = self._accounts.get(line.tenant_id)
        if account is None:
            account = Account(line.rate_per_s, line.burst, now if self._local_at is None else self._local_at, now)
            self._accounts[line.tenant_id] = account
        self._settle(account, now)
        account.rate_per_s, account.burst = line.rate_per_s, line.burst
        return account

    def _settle(self, account: Account, now: float) -> None:
        if self.local:
            account.fill(account.rate_per_s * self._share, account.burst * self._share, now)
        elif now >= account.ends_at:
            account.void()
        else:
            account.lapse(now)

    def _is_as_if_new(self, account: Account, now: float) -> bool:
        if self._local_at is None:
            return account.total <= 0
        room = account.burst * self._share
        come_in = account.rate_per_s * self._share * (now - self._local_at)
        return not account.out and account.free >= min(room, come_in)

    def _lines(self, now: float) -> Iterator[Line]:
        chosen = list(self._due)[:MOST_LINES]
        for tenant_id in chosen:
            del self._due[tenant_id]
            account = self._accounts.get(tenant_id)
            if account is not None:
                self._settle(account, now)
                yield account.line(tenant_id, now)
