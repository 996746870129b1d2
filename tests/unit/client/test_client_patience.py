"""When the client tries again, and how long it waits before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flik.client.patience import Mishap, Patience
from flik.client.transport import retry_after_s

P = Patience()


def test_pauses_double_and_are_bounded() -> None:
    many = Patience(tries=20)

    delays = [many.next_delay_s("GET", Mishap.LOST, made, None, 0.0) for made in range(1, 8)]

    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_chance_adds_up_to_a_quarter() -> None:
    assert P.next_delay_s("GET", Mishap.LOST, 1, None, 1.0) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("method", "mishap", "again"),
    [
        ("GET", Mishap.LOST, True),
        ("GET", Mishap.BAD_GATEWAY, True),
        ("POST", Mishap.REFUSED, True),
        ("POST", Mishap.NEVER_SENT, True),
        ("POST", Mishap.LOST, False),
        ("POST", Mishap.BAD_GATEWAY, False),
        ("DELETE", Mishap.LOST, False),
    ],
)
def test_a_write_under_an_idempotency_key_is_repeated_whatever_became_of_it(
    method: str, mishap: Mishap, again: bool
) -> None:
    assert P.next_delay_s(method, mishap, 1, None, 0.0, once=True) is not None


@pytest.mark.parametrize(
    ("method", "mishap", "again"),
    [
        ("GET", Mishap.LOST, True),
        ("GET", Mishap.UNKNOWN, True),
        ("POST", Mishap.REFUSED, True),
        ("POST", Mishap.NEVER_SENT, True),
        ("POST", Mishap.UNKNOWN, False),
        ("POST", Mishap.LOST, False),
        ("POST", Mishap.BAD_GATEWAY, False),
        ("DELETE", Mishap.LOST, False),
    ],
)
def test_a_write_is_repeated_only_if_it_surely_did_nothing(method: str, mishap: Mishap, again: bool) -> None:
    assert (P.next_delay_s(method, mishap, 1, None, 0.0) is not None) is again


def test_the_fourth_try_is_the_last() -> None:
    assert P.next_delay_s("GET", Mishap.REFUSED, 3, None, 0.0) is not None
    assert P.next_delay_s("GET", Mishap.REFUSED, 4, None, 0.0) is None


def test_the_server_is_given_the_time_it_asks_for_within_reason() -> None:
    assert P.next_delay_s("GET", Mishap.REFUSED, 1, 12.0, 0.0) == 12.0
    assert P.next_delay_s("GET", Mishap.REFUSED, 1, 30.5, 0.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        ("0", 0.0),
        ("Sat, 31 Jan 2026 08:00:10 GMT", 10.0),
        ("Sat, 31 Jan 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, datetime(2026, 1, 31, 8, tzinfo=UTC)) == seconds
