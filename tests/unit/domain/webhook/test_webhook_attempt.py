"""What an answer means, and when the next attempt is made."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.webhook.attempt import (
    DELAYS_S,
    MAX_ATTEMPTS,
    AgainAt,
    Answered,
    Delivered,
    GivenUp,
    Outcome,
    Unreached,
    delay_s,
    hold_s,
    judge,
    says,
)

NOW = 1_000.0
MINUTE, HOUR = 60.0, 3_600.0


def test_pauses_are_those_of_the_table() -> None:
    pauses = [delay_s(attempt, 0.0) for attempt in range(1, 12)]
    assert pauses == [
        5.0, 30.0, 2 * MINUTE, 10 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 8 * HOUR, 8 * HOUR, None, None,
    ]  # fmt: skip
    hours = [round(total / HOUR, 1) for total in accumulate(DELAYS_S)]
    assert hours[-4:] == [2.7, 7.7, 15.7, 23.7]


@given(st.integers(1, MAX_ATTEMPTS - 1), st.floats(0, 1))
def test_chance_makes_a_pause_up_to_a_fifth_longer(attempt: int, chance: float) -> None:
    pause = delay_s(attempt, chance)
    assert pause is not None
    assert DELAYS_S[attempt - 1] <= pause <= DELAYS_S[attempt - 1] * 1.2


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success(status: int) -> None:
    assert judge(Answered(status), MAX_ATTEMPTS, NOW, 0.0) == Delivered()
    assert says(Answered(status)) is None


@pytest.mark.parametrize(
    "outcome",
    [Answered(status) for status in (100, 301, 302, 307, 308, 400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 599)]
    + [Unreached("no answer within 5 s")],
)
def test_everything_else_is_tried_again_until_the_last(outcome: Outcome) -> None:
    assert judge(outcome, 1, NOW, 0.0) == AgainAt(NOW + 5)
    assert judge(outcome, MAX_ATTEMPTS - 1, NOW, 0.0) == AgainAt(NOW + 8 * HOUR)
    assert judge(outcome, MAX_ATTEMPTS, NOW, 0.0) == GivenUp()
    assert says(outcome)


@pytest.mark.parametrize("attempt", [1, MAX_ATTEMPTS])
def test_a_receiver_that_is_gone_is_left_alone(attempt: int) -> None:
    assert judge(Answered(410), attempt, NOW, 0.0) == GivenUp(gone=True)


@pytest.mark.parametrize(
    ("asked", "pause"), [(None, 5.0), (0.0, 5.0), (4.0, 5.0), (60.0, 60.0), (HOUR, HOUR), (9 * HOUR, HOUR)]
)
def test_retry_after_makes_a_pause_longer_up_to_an_hour(asked: float | None, pause: float) -> None:
    assert judge(Answered(503, asked), 1, NOW, 0.0) == AgainAt(NOW + pause)


def test_failures_in_a_row_hold_a_webhook() -> None:
    assert [hold_s(failures) for failures in range(13)] == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert hold_s(10**6) == 60
