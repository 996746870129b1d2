"""Whether a failed attempt is tried again, and when."""

from __future__ import annotations

import pytest

from flik.domain.retry import GiveUp, RetryAt, decide, decide_lost, max_attempts

DELAYS = (5.0, 15.0, 60.0)
NOW = 1000.0


@pytest.mark.parametrize(
    ("attempt", "allowed", "retryable", "expected"),
    [
        (1, 4, True, RetryAt(1005.0)),
        (2, 4, True, RetryAt(1015.0)),
        (3, 4, True, RetryAt(1060.0)),
        (4, 4, True, GiveUp()),
        (5, 4, True, GiveUp()),
        (1, 4, False, GiveUp()),
        (3, 4, False, GiveUp()),
        # a caller retried after attempt 4: a whole new round
        (5, 8, True, RetryAt(1005.0)),
        (6, 8, True, RetryAt(1015.0)),
        (7, 8, True, RetryAt(1060.0)),
        (8, 8, True, GiveUp()),
        # a caller retried after a permanent error in attempt 1
        (2, 5, True, RetryAt(1005.0)),
        # more attempts left than delays
        (1, 8, True, RetryAt(1005.0)),
        # fewer attempts than delays
        (1, 2, True, RetryAt(1005.0)),
        (1, 3, True, RetryAt(1005.0)),
        (2, 3, True, RetryAt(1015.0)),
        (2, 2, True, GiveUp()),
    ],
)
def test_a_failure_is_tried_again_after_5_15_and_60_s(
    attempt: int, allowed: int, retryable: bool, expected: object
) -> None:
    decision = decide(attempt=attempt, allowed=allowed, retryable=retryable, delays_s=DELAYS, now=NOW)
    assert decision == expected


def test_without_delays_what_is_left_is_tried_at_once() -> None:
    assert decide(attempt=1, allowed=2, retryable=True, delays_s=(), now=NOW) == RetryAt(NOW)
    assert decide(attempt=1, allowed=1, retryable=True, delays_s=(), now=NOW) == GiveUp()


@pytest.mark.parametrize(("delays", "attempts"), [((), 1), ((5.0,), 2), (DELAYS, 4)])
def test_a_round_is_the_first_attempt_and_one_after_each_delay(delays: tuple[float, ...], attempts: int) -> None:
    assert max_attempts(delays) == attempts


@pytest.mark.parametrize(
    ("attempt", "allowed", "expected"), [(1, 4, RetryAt(NOW)), (3, 4, RetryAt(NOW)), (4, 4, GiveUp()), (1, 1, GiveUp())]
)
def test_what_a_lost_worker_had_is_tried_again_at_once(attempt: int, allowed: int, expected: object) -> None:
    assert decide_lost(attempt=attempt, allowed=allowed, now=NOW) == expected
