"""The times of the rate limiter fit one another, and waits are told in seconds."""

from __future__ import annotations

import pytest

from flik.domain import rate
from flik.domain.rate import LONGEST_WAIT_S, wait_s


def test_what_redis_lent_is_void_before_any_region_admits_by_its_share() -> None:
    assert rate.LEASE_S < rate.QUIET_S


def test_who_lends_counts_tokens_for_longer_than_they_may_be_spent() -> None:
    assert rate.MARGIN_S > 0


def test_silence_is_noticed_by_the_first_call_of_whoever_admits_by_its_share() -> None:
    assert rate.SILENT_S < rate.LOCAL_AFTER_S - rate.CALL_S


def test_calls_that_are_answered_are_no_silence() -> None:
    assert rate.CONTACT_S + rate.CALL_S < rate.SILENT_S


def test_every_region_hears_of_an_epoch_before_it_settles() -> None:
    assert rate.CONTACT_S + rate.CALL_S < rate.GRACE_S


def test_nothing_that_was_lent_before_an_epoch_outlives_its_settling() -> None:
    assert rate.LEASE_S < rate.GRACE_S
    assert rate.LOCAL_LEASE_S + rate.CALL_S <= rate.GRACE_S


@pytest.mark.parametrize(
    ("missing", "refill_per_s", "seconds"),
    [(0.0, 5.0, 0.0), (-3.0, 5.0, 0.0), (1.0, 5.0, 0.2), (1.0, 0.0, LONGEST_WAIT_S), (1e9, 1.0, LONGEST_WAIT_S)],
)
def test_wait_is_what_is_missing_over_the_rate(missing: float, refill_per_s: float, seconds: float) -> None:
    assert wait_s(missing, refill_per_s) == pytest.approx(seconds)
