"""How fast a tenant may send: the decisions, the times, and what the levels of the limiter tell one another.

A tenant has one bucket: it holds at most `burst` tokens, `rate_per_s` come in each second, a task takes
one. The bucket is in Redis. The region's limiter takes tokens out of it in blocks, gateways take theirs
from the limiter, and a request takes them from its gateway without a call.

What holds, and why (I12): over any window W at most rate_per_s * W + burst tasks of a tenant are admitted.
Call all tokens that somebody could still spend the potential: those in the bucket and those held anywhere.
It never exceeds `burst`, it grows by `rate_per_s` a second and no faster, and each task takes one of it. So
what is held counts against the bucket's room, and tokens may be lost, but never be there twice:

- Who lends counts a holder's tokens until it has said that it has fewer (it says what it holds with every
  call), or until they are surely void. They are void for the holder `LEASE_S` after it *sent* the call
  that renewed them, and for who lends `MARGIN_S` later than that, counted from when it answered.
- What a holder says it holds is believed up to what was lent to it. A limiter that was restarted has lent
  nothing, and has a new name, so Redis goes on counting what its predecessor lent.
- Calls are numbered by their holder; one that comes late, after a later one, changes nothing.

When Redis does not answer, a region admits its share: `rate_per_s * share`, `burst * share`, the shares of
all regions being 1 together. It starts with no tokens, `LOCAL_AFTER_S` after the last call that Redis
answered; all that Redis had lent, to any region, is void by then. It ends where an epoch of Redis begins:

- Redis lost its data, or is another server: all buckets are empty, and fill from `GRACE_S` after the first
  call. By then every region has heard of it and stopped to admit by its share.
- Redis was silent (for `SILENT_S` there was no call whose answer was heard): buckets go on after `GRACE_S`
  as well. Nothing comes in during the silence, and there is room left for what regions may have admitted
  meanwhile, rate_per_s * (silence - QUIET_S). When all of them have said that they did not admit by their
  share, as after the restart of a limiter, the epoch begins with the last one's word; what a predecessor
  may have lent by its share keeps its room until it is void.

Where it ends: Redis cannot tell a region that is cut off from one that is gone. If it answers some regions
while others have no contact for more than `CONTACT_S` + `CALL_S`, the bound is that of the shared bucket
and the shares of those cut off: (1 + their shares) * (rate_per_s * W + burst). Clocks must run at the same
speed, within `MARGIN_S` a second; a jump of Redis's clock begins an epoch. Limits that change hold from the
next call on; what was lent under the old ones may be spent for `LEASE_S` more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CONTACT_S = 0.25  # a limiter calls Redis at least this often
CALL_S = 0.4  # an answer that takes longer is not heard
LEASE_S = 0.8  # how long lent tokens may be spent; void everywhere before a region admits by its share
MARGIN_S = 0.2
LOCAL_AFTER_S = 1.5
QUIET_S = LOCAL_AFTER_S - CALL_S - CONTACT_S  # so long after the last answer heard nobody admits by its share
SILENT_S = 1.0  # less than LOCAL_AFTER_S - CALL_S: who admits by its share has been silent for longer
GRACE_S = 1.0  # more than CONTACT_S + CALL_S, and more than LEASE_S
LOCAL_LEASE_S = GRACE_S - CALL_S  # what was lent by a region's share is void when the epoch settles

LONGEST_WAIT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """The tasks may be stored. `remaining`: about how many more could be admitted now."""

    remaining: int


@dataclass(frozen=True, slots=True)
class Limited:
    """The tenant sends too fast. After `retry_after_s` as many tokens may be there, if nobody else takes them."""

    retry_after_s: float
    remaining: int


@dataclass(frozen=True, slots=True)
class NeverFits:
    """More tasks at once than the tenant's `burst`: this will never be admitted."""

    burst: int


Decision = Admitted | Limited | NeverFits


class Line(NamedTuple):
    """What a holder tells whom it lends from, about one tenant. All amounts are tokens.

    `held` is what it has and keeps, `returned` what it had and gives back, `want` what it asks for; fewer
    than `unit` are of no use to it.
    """

    tenant_id: str
    rate_per_s: float
    burst: int
    held: float
    returned: float
    want: float
    unit: float


class Ask(NamedTuple):
    """A gateway's call: `holder` is the gateway, `number` grows with each call."""

    holder: str
    number: int
    lines: list[Line]


class Lent(NamedTuple):
    """The limiter's answer to one line of an `Ask`.

    `kept` less than was held: what was held is void. `left`: what there would be for others at this moment;
    None: not known, ask again soon. `refill_per_s`: how fast it grows.
    """

    kept: float
    granted: float
    lease_s: float
    left: float | None
    refill_per_s: float


class Loan(NamedTuple):
    """The answer to an `Ask`, line by line; `local`: the region admits by its share."""

    local: bool
    lines: list[Lent]


class Contact(NamedTuple):
    """A limiter's call to Redis.

    `heard` is the number of the last call whose answer was heard, `epoch` the one it named; `local`: the
    region admits by its share.
    """

    region: str
    holder: str
    number: int
    heard: int
    epoch: int
    local: bool
    lines: list[Line]


class Block(NamedTuple):
    """Redis's answer to one line of a `Contact`; `left` is in the bucket now."""

    kept: float
    granted: float
    left: float


class Standing(NamedTuple):
    """Redis's answer to a `Contact`. While the epoch is not settled (`settles_in_s` > 0) nothing is lent."""

    epoch: int
    settles_in_s: float
    blocks: list[Block]


def wait_s(missing: float, refill_per_s: float) -> float:
    """Return in how many seconds `missing` tokens come in; at most an hour, which also stands for never."""
    if missing <= 0:
        return 0.0
    return min(LONGEST_WAIT_S, missing / refill_per_s) if refill_per_s > 0 else LONGEST_WAIT_S
