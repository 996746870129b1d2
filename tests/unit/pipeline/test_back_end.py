"""How many tasks a worker asks for while its provider's back end is away, and when it is back."""

from __future__ import annotations

import pytest
from making import Clock

from flik.domain.breaker import Call, Refused, room
from flik.errors import ProviderError, ProviderUnavailable
from flik.pipeline.back_end import BackEnd

SLOTS = 5


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def back_end(clock: Clock) -> BackEnd:
    return BackEnd(clock, lambda: 0.0)


def let_through(back_end: BackEnd) -> Call:
    answer = back_end.ask()
    assert isinstance(answer, Call)
    return answer


def run(back_end: BackEnd, error: Exception | None = None, call: Call | None = None) -> None:
    call = call or let_through(back_end)
    with back_end.used(call):
        if error is not None:
            raise error
        back_end.answered(call)


def find_away(back_end: BackEnd) -> None:
    with pytest.raises(ProviderUnavailable):
        run(back_end, ProviderUnavailable("no route"))


def test_after_one_task_found_it_away_none_is_asked_for_and_later_one(back_end: BackEnd, clock: Clock) -> None:
    find_away(back_end)
    assert [room(back_end.ask(), SLOTS) for _ in range(3)] == [0, 0, 0]
    clock.now += 0.5
    assert [room(back_end.ask(), SLOTS) for _ in range(3)] == [1, 0, 0]


def test_once_the_probe_made_something_all_slots_are_filled_though_it_still_runs(
    back_end: BackEnd, clock: Clock
) -> None:
    find_away(back_end)
    clock.now += 0.5
    probe = let_through(back_end)
    with back_end.used(probe):
        assert room(back_end.ask(), SLOTS) == 0
        back_end.answered(probe)
        assert room(back_end.ask(), SLOTS) == SLOTS


def test_probe_without_a_task_makes_room_for_the_next(back_end: BackEnd, clock: Clock) -> None:
    find_away(back_end)
    clock.now += 0.5
    back_end.give_up(let_through(back_end))
    assert room(back_end.ask(), SLOTS) == 1


def test_pauses_double_up_to_five_seconds(back_end: BackEnd, clock: Clock) -> None:
    for pause_s in (0.5, 1.0, 2.0, 4.0, 5.0, 5.0):
        find_away(back_end)
        assert back_end.ask() == Refused(pytest.approx(pause_s))
        clock.now += pause_s + 0.001


def test_failures_of_tasks_say_that_it_is_there(back_end: BackEnd, clock: Clock) -> None:
    for _ in range(20):
        with pytest.raises(ProviderError):
            run(back_end, ProviderError("overloaded", "too much", True))
    assert room(back_end.ask(), SLOTS) == SLOTS
    find_away(back_end)
    clock.now += 0.5
    with pytest.raises(ProviderError):
        run(back_end, ProviderError("banned", "not this", False))
    assert room(back_end.ask(), SLOTS) == SLOTS


def test_probe_that_broke_or_was_cancelled_proves_nothing(back_end: BackEnd, clock: Clock) -> None:
    find_away(back_end)
    clock.now += 0.5
    with pytest.raises(ValueError, match="a fault"):
        run(back_end, ValueError("a fault"))
    assert room(back_end.ask(), SLOTS) == 1


def test_tasks_that_run_on_while_it_is_away_do_not_bring_it_back_by_ending(back_end: BackEnd) -> None:
    earlier = let_through(back_end)
    find_away(back_end)
    with back_end.used(earlier):
        pass
    assert room(back_end.ask(), SLOTS) == 0
