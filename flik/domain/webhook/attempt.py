"""What one attempt at a delivery came to, what that means, and when the next one is made.

| answer | means |
|---|---|
| 200 to 299 | delivered |
| 410 | the receiver is gone: given up, and the webhook is disabled; a task's own gets nothing more of it (`own.py`) |
| 300 to 399 | a redirect, which is not followed: tried again, as the receiver may be mended |
| all others, none in 5 s, no connection, an address that is refused | tried again |

Pauses, each made 0 to 20 % longer by chance, so that what failed together does not come back together:

| after attempt | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 |
|---|---|---|---|---|---|---|---|---|---|---|
| pause | 5 s | 30 s | 2 min | 10 min | 30 min | 2 h | 5 h | 8 h | 8 h | given up |
| since the first | 5 s | 35 s | 2.6 min | 12.6 min | 42.6 min | 2.7 h | 7.7 h | 15.7 h | 23.7 h | |

`Retry-After` makes a pause longer, up to an hour.

A webhook whose deliveries fail one after another is held as a whole: after its 4th failure in a row it gets one
attempt at a time, and pauses of 1, 2, 4 ... 60 s between them, until one gets through. So a dead receiver costs a
sender almost nothing, however much waits for it. Pauses of deliveries run on meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1_800.0, 7_200.0, 18_000.0, 28_800.0, 28_800.0)
MAX_ATTEMPTS = len(DELAYS_S) + 1
JITTER = 0.2
MOST_RETRY_AFTER_S = 3_600.0
HOLD_FROM = 4
_FIRST_HOLD_S, _LONGEST_HOLD_S = 1.0, 60.0
_GONE = 410


@dataclass(frozen=True, slots=True)
class Answered:
    """The receiver answered."""

    status: int
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unreached:
    """There was no answer; `reason` is a short sentence without anything that the other side sent."""

    reason: str


Outcome = Answered | Unreached


@dataclass(frozen=True, slots=True)
class Delivered:
    """It is done."""


@dataclass(frozen=True, slots=True)
class AgainAt:
    """Try again, not before `at` (seconds since the epoch)."""

    at: float


@dataclass(frozen=True, slots=True)
class GivenUp:
    """It is over without success; `gone`: the receiver wants nothing any more from this webhook."""

    gone: bool = False


Verdict = Delivered | AgainAt | GivenUp


def delay_s(attempt: int, chance: float) -> float | None:
    """Return the pause after attempt number `attempt` (from 1); None after the last.

    `chance` is from 0 to 1. With 0 the pauses are those of the table above, with 1 they are a fifth longer.
    """
    return None if attempt >= MAX_ATTEMPTS else DELAYS_S[attempt - 1] * (1 + JITTER * chance)


def judge(outcome: Outcome, attempt: int, now: float, chance: float) -> Verdict:
    """Decide about attempt number `attempt` (from 1), which ended at `now`."""
    if isinstance(outcome, Answered):
        if 200 <= outcome.status < 300:
            return Delivered()
        if outcome.status == _GONE:
            return GivenUp(gone=True)
    pause_s = delay_s(attempt, chance)
    if pause_s is None:
        return GivenUp()
    wished_s = outcome.retry_after_s if isinstance(outcome, Answered) else None
    return AgainAt(now + max(pause_s, min(wished_s or 0.0, MOST_RETRY_AFTER_S)))


def says(outcome: Outcome) -> str | None:
    """Return what is wrong with an outcome, for people; None when nothing is."""
    if isinstance(outcome, Unreached):
        return outcome.reason
    if 300 <= outcome.status < 400:
        return "a redirect, which is not followed"
    return None if 200 <= outcome.status < 300 else f"the receiver answered {outcome.status}"


def hold_s(failures: int) -> float:
    """Return how long a webhook is held after so many failures in a row: 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60 ..."""
    if failures < HOLD_FROM:
        return 0.0
    return min(_FIRST_HOLD_S * 2.0 ** min(failures - HOLD_FROM, 16), _LONGEST_HOLD_S)
