"""Whether a failed attempt is tried again, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again, not before `at` (seconds since the epoch)."""

    at: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The task has failed for good and becomes a dead letter."""


Decision = RetryAt | GiveUp


def max_attempts(delays_s: Sequence[float]) -> int:
    """Return how many attempts a round has: the first, and one after each delay."""
    return 1 + len(delays_s)


def decide(*, attempt: int, allowed: int, retryable: bool, delays_s: Sequence[float], now: float) -> Decision:
    """Decide about attempt number `attempt` (from 1), which failed at `now`.

    `allowed` is the number of the last attempt that may be made. It grows by a whole round
    when a caller retries a failed task, so the delays are counted from the end: with delays
    5, 15, 60 and `allowed` 4, attempts 1, 2 and 3 are followed after 5, 15 and 60 s, and
    after attempt 4 Flik gives up. With more attempts left than delays the first delay holds, and
    a task that may be tried less often than there are delays begins with the first one too.
    """
    left = allowed - attempt
    if not retryable or left <= 0:
        return GiveUp()
    if not delays_s:
        return RetryAt(now)
    return RetryAt(now + delays_s[max(0, min(attempt - 1, len(delays_s) - left))])


def decide_lost(*, attempt: int, allowed: int, now: float) -> Decision:
    """Decide about an attempt whose worker vanished: at once again, while attempts are left."""
    return RetryAt(now) if attempt < allowed else GiveUp()
