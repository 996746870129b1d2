from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.pressure import LONGEST_S, SHORTEST_S, STANDSTILL_S, Level, Pace, TooFull, refusal, room, until_below

BOUNDS = (1_250, 1_100, 1_000)


@pytest.mark.parametrize(
    ("waiting", "refused"),
    [(0, ()), (999, ()), (1_000, (2,)), (1_099, (2,)), (1_100, (2, 1)), (1_249, (2, 1)), (1_250, (2, 1, 0))],
)
def test_background_is_refused_first_then_interactive_then_real_time(waiting: int, refused: tuple[int, ...]) -> None:
    level = Level(waiting, drained_per_s=10.0)

    said = tuple(priority for priority in (2, 1, 0) if refusal(level, priority, 1, BOUNDS) is not None)

    assert said == refused


@pytest.mark.parametrize(
    ("waiting", "priority", "expected"), [(0, 2, 1_000), (999, 2, 1), (1_000, 2, 0), (1_200, 1, 0)]
)
def test_room_is_what_would_not_be_refused(waiting: int, priority: int, expected: int) -> None:
    level = Level(waiting, drained_per_s=10.0)

    assert room(level, priority, BOUNDS) == expected
    assert expected == 0 or refusal(level, priority, expected, BOUNDS) is None
    assert refusal(level, priority, expected + 1, BOUNDS) is not None


def test_batch_is_taken_only_if_all_of_it_fits() -> None:
    assert refusal(Level(900, 10.0), 2, 100, BOUNDS) is None
    assert refusal(Level(900, 10.0), 2, 101, BOUNDS) is not None


@pytest.mark.parametrize(
    ("drained_per_s", "seconds"),
    [
        (0.0, STANDSTILL_S),  # nothing moves: no pace to reckon with
        (3.0, 7.0),  # 1,000 wait, room for one more below 98 % of 1,000: 21 too many
        (100.0, SHORTEST_S),
        (0.1, LONGEST_S),
    ],
)
def test_retry_after_follows_from_how_fast_the_queue_drains(drained_per_s: float, seconds: float) -> None:
    assert refusal(Level(1_000, drained_per_s), 2, 1, BOUNDS) == TooFull(pytest.approx(seconds))


@given(st.integers(0, 3_000), st.floats(0, 1e6), st.integers(1, 1_000), st.integers(0, 2))
def test_whoever_is_refused_is_told_a_time_in_bounds(waiting: int, pace: float, count: int, priority: int) -> None:
    said = refusal(Level(waiting, pace), priority, count, BOUNDS)

    if waiting + count <= BOUNDS[priority]:
        assert said is None
    else:
        assert said is not None
        assert SHORTEST_S <= said.retry_after_s <= LONGEST_S


@given(st.integers(0, 3_000), st.floats(0.01, 1e6), st.integers(1, 1_000))
def test_what_is_taken_of_a_class_is_taken_of_each_more_urgent_one(waiting: int, pace: float, count: int) -> None:
    taken = [refusal(Level(waiting, pace), priority, count, BOUNDS) is None for priority in (2, 1, 0)]

    assert taken == sorted(taken)


def test_a_deeper_queue_takes_longer_to_drain() -> None:
    assert until_below(Level(2_000, 50.0), 1_000) == 20.0
    assert until_below(Level(3_000, 50.0), 1_000) == 40.0


def test_pace_settles_at_the_true_rate_and_falls_off_when_nothing_happens() -> None:
    pace = Pace()
    for tick in range(400):
        pace.note(5, 1_000 + tick * 0.1)

    assert pace.per_s(1_040) == pytest.approx(50, rel=0.02)
    assert pace.per_s(1_045) == pytest.approx(50 * 0.368, rel=0.03)
    assert pace.per_s(1_100) < 0.01


def test_pace_of_nothing_is_nothing_and_a_clock_that_stands_still_does_no_harm() -> None:
    pace = Pace()
    assert pace.per_s(5_000) == 0.0

    pace.note(10, 5_000)
    assert pace.per_s(4_990) == pace.per_s(5_000) == 2.0
