"""What a follower does with what it hears: nothing is missed, nothing told twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.event import DURABLE, ENDS, STATUS_AFTER, Event, Kind
from flik.domain.position import Position, Verdict

LOG = [
    Event("t", 1, Kind.QUEUED, 0.0),
    Event("t", 2, Kind.PROCESSING, 1.0, 1),
    Event("t", 3, Kind.RETRY_SCHEDULED, 2.0, 1),
    Event("t", 4, Kind.PROCESSING, 3.0, 2),
    Event("t", 5, Kind.ARTIFACT, 4.0, 2),
    Event("t", 6, Kind.COMPLETED, 4.0, 2),
]


def progress(attempt: int) -> Event:
    return Event("t", 0, Kind.PROGRESS, 1.5, attempt, progress=0.5)


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [(1, Verdict.SKIP), (3, Verdict.SKIP), (4, Verdict.DELIVER), (5, Verdict.READ_LOG), (6, Verdict.READ_LOG)],
)
def test_the_number_decides(heard: int, verdict: Verdict) -> None:
    assert Position(3).judge(LOG[heard - 1]) is verdict


@pytest.mark.parametrize(
    ("seen", "attempt", "verdict"),
    [
        (1, 1, Verdict.SKIP),  # it waits
        (2, 1, Verdict.DELIVER),
        (3, 1, Verdict.SKIP),  # the attempt is over
        (4, 1, Verdict.SKIP),  # of the attempt before
        (4, 2, Verdict.DELIVER),
        (5, 2, Verdict.DELIVER),
        (6, 2, Verdict.SKIP),
    ],
)
def test_progress_is_told_of_the_attempt_that_runs(seen: int, attempt: int, verdict: Verdict) -> None:
    position = Position(0)
    position.pass_over(LOG[:seen])
    assert position.judge(progress(attempt)) is verdict


def test_a_follower_that_comes_back_knows_what_runs() -> None:
    position = Position(4)
    assert position.pass_over(LOG[:4]) == []
    assert position.judge(progress(2)) is Verdict.DELIVER


def test_it_ends_with_the_end_and_goes_on_with_a_retry() -> None:
    position = Position(0)
    position.pass_over([*LOG[:3], Event("t", 4, Kind.FAILED, 4.0, 2)])
    assert position.ended
    position.note(Event("t", 5, Kind.QUEUED, 9.0))
    assert not position.ended


@given(st.integers(0, 6), st.lists(st.integers(1, 6), max_size=20))
def test_whatever_is_heard_in_whatever_order_is_delivered_once_and_in_order(since: int, heard: list[int]) -> None:
    position = Position(since)
    given_to: list[int] = [event.seq for event in position.pass_over(LOG[:1])]
    for number in heard:
        event = LOG[number - 1]
        verdict = position.judge(event)
        if verdict is Verdict.DELIVER:
            position.note(event)
            given_to.append(event.seq)
        elif verdict is Verdict.READ_LOG:
            given_to += [each.seq for each in position.pass_over(LOG[:number])]
    last = max([since, 1, *heard])
    assert given_to == list(range(since + 1, last + 1))


def test_every_durable_kind_leaves_a_status_and_every_end_is_durable() -> None:
    assert ENDS < DURABLE < set(STATUS_AFTER)
