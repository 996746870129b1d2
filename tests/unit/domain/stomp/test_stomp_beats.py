"""Heart-beats: what two sides agree on, when one is due, and when silence means death."""

from __future__ import annotations

import pytest

from flik.domain.stomp import beats
from flik.domain.stomp.beats import NONE, Beats, Pace
from flik.errors import StreamMalformed


@pytest.mark.parametrize(
    ("server", "client", "sends_s", "expects_s"),
    [
        ((10_000, 10_000), (0, 0), None, None),
        ((0, 0), (10_000, 10_000), None, None),
        ((10_000, 10_000), (10_000, 0), None, 10.0),
        ((10_000, 10_000), (0, 10_000), 10.0, None),
        ((10_000, 10_000), (4_000, 20_000), 20.0, 10.0),
        ((10_000, 5_000), (8_000, 1), 10.0, 8.0),
        ((0, 5_000), (5_000, 5_000), None, 5.0),
        ((5_000, 0), (5_000, 5_000), 5.0, None),
    ],
)
def test_each_direction_beats_at_the_slower_of_can_and_wants(
    server: tuple[int, int], client: tuple[int, int], sends_s: float | None, expects_s: float | None
) -> None:
    assert beats.agree(Beats(*server), Beats(*client)) == Pace(sends_s, expects_s)


@pytest.mark.parametrize(
    ("header", "meant"),
    [(None, NONE), ("0,0", NONE), ("10000,5", Beats(10_000, 5)), ("4000, 4000", Beats(4_000, 4_000))],
)
def test_header_is_two_numbers_and_counts_as_none_when_missing(header: str | None, meant: Beats) -> None:
    assert beats.read(header) == meant
    assert beats.read(str(meant)) == meant


@pytest.mark.parametrize(
    "header", ["", "1", "1,", ",1", "1,2,3", "-1,0", "1.5,0", "a,b", "1;2", "\u0661,\u0661", "99999999999,0", "1,\n2"]
)
def test_other_headers_are_malformed(header: str) -> None:
    with pytest.raises(StreamMalformed):
        beats.read(header)


def test_beat_is_sent_before_the_time_is_up() -> None:
    assert Pace(10.0, None).due_at(100.0) == 108.0
    assert Pace(None, 10.0).due_at(100.0) is None


@pytest.mark.parametrize(("expects_s", "dead_after_s"), [(10.0, 20.0), (1.0, 2.0), (0.1, 1.1)])
def test_silence_of_twice_the_time_and_of_a_second_more_at_least_is_death(
    expects_s: float, dead_after_s: float
) -> None:
    assert Pace(None, expects_s).dead_at(0.0) == dead_after_s
    assert Pace(10.0, None).dead_at(0.0) is None
