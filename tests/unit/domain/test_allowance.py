"""How many tokens a gateway asks for, and how it refuses without asking."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flik.domain.allowance import AHEAD_S, FEW, IDLE_S, PAUSE_S, RESERVE, RESERVED_S, Allowance
from flik.domain.rate import LEASE_S, LONGEST_WAIT_S, Lent, Line

RATE, BURST = 300.0, 1_000


class Gateway:
    def __init__(self, rate: float = RATE, burst: int = BURST, reserve: int = 0) -> None:
        self.now = 1_000.0
        self.allowance = Allowance(rate, burst, self.now, self.now, reserve)

    def line(self, *costs: float) -> Line:
        return self.allowance.line("acme", costs, self.now)

    def borrow(
        self, *costs: float, granted: float | None = None, left: float | None = 500.0, kept: float | None = None
    ) -> Line:
        """Ask, and be lent what was asked for unless `granted` says otherwise."""
        line = self.line(*costs)
        lent = Lent(
            line.held if kept is None else kept, line.want if granted is None else granted, LEASE_S, left,
            self.allowance.rate_per_s,
        )  # fmt: skip
        self.allowance.borrow(line, lent, self.now, self.now)
        return line

    def send(self, per_s: float, seconds: float, costs: Sequence[float] = (1.0,)) -> None:
        """Spend what is sent, asking ten times a second."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.borrow(*costs)
            self.allowance.tokens = max(0.0, self.allowance.tokens - per_s / 10)
            self.allowance.spent += per_s / 10


def test_first_request_asks_for_what_it_costs() -> None:
    assert Gateway().line(7) == Line("acme", RATE, BURST, 0, 0, 7, 7)


def test_requests_that_wait_ask_together_and_can_use_what_is_enough_for_the_smallest() -> None:
    line = Gateway().line(7, 2, 30)
    assert (line.want, line.unit) == (39, 2)


def test_steady_tenant_is_provided_for_a_moment_ahead() -> None:
    gateway = Gateway()
    gateway.send(per_s=200, seconds=4)
    line = gateway.line()
    assert line.held + line.want == pytest.approx(200 * AHEAD_S, rel=0.05)
    assert 0 < gateway.allowance.low < 200 * AHEAD_S


def test_gateway_holds_a_small_part_of_the_burst_only() -> None:
    gateway = Gateway(burst=160)
    gateway.send(per_s=200, seconds=4)
    line = gateway.line()
    assert line.held + line.want <= 160 / FEW


def test_seldom_tenant_gets_exactly_what_it_needs() -> None:
    gateway = Gateway()
    gateway.send(per_s=9, seconds=4)
    gateway.allowance.tokens = 0
    assert gateway.line().want == 0
    assert gateway.line(1).want == 1


def test_of_a_seldom_tenant_that_is_far_from_its_limit_a_reserve_is_held() -> None:
    gateway = Gateway(reserve=RESERVE)
    assert gateway.borrow(1, left=BURST / 2).want == 1, "nobody knows yet how far it is"
    gateway.allowance.take(1)
    assert gateway.allowance.has_news(gateway.now)
    assert gateway.borrow(left=BURST / 2).want == RESERVE
    assert not gateway.allowance.has_news(gateway.now)
    gateway.allowance.take(RESERVE / 2)
    assert gateway.allowance.has_news(gateway.now)


def test_tenant_near_its_limit_has_no_reserve() -> None:
    gateway = Gateway(reserve=RESERVE)
    gateway.borrow(1, left=BURST / 2 - 2)
    gateway.allowance.take(1)
    assert gateway.borrow(left=BURST / 2 - 2).want == 0


def test_reserve_is_a_small_part_of_the_burst() -> None:
    gateway = Gateway(burst=2 * FEW, reserve=RESERVE)
    gateway.borrow(1, left=FEW * 1.5)
    gateway.allowance.take(1)
    assert gateway.line().want == 2


def test_reserve_goes_back_when_nothing_was_sent_for_a_while() -> None:
    gateway = Gateway(reserve=RESERVE)
    gateway.borrow(1)
    gateway.allowance.take(1)
    gateway.borrow()
    for _ in range(round(RESERVED_S / 0.3)):
        gateway.now += 0.3
        assert gateway.borrow().held == RESERVE
    gateway.now += 0.6
    assert gateway.borrow().returned == RESERVE
    assert gateway.allowance.is_idle(gateway.now)


def test_what_is_left_is_not_believed_for_long() -> None:
    gateway = Gateway(reserve=RESERVE)
    gateway.borrow(1)
    gateway.allowance.take(1)
    gateway.now += LEASE_S + 0.01
    assert gateway.line(1).want == 1


def test_what_is_left_over_is_returned() -> None:
    gateway = Gateway()
    gateway.borrow(50)
    gateway.allowance.take(20)
    assert gateway.allowance.has_news(gateway.now)
    line = gateway.line()
    assert (line.held, line.returned) == (0, 30)


def test_idle_tenant_returns_all_and_is_forgotten() -> None:
    gateway = Gateway()
    gateway.send(per_s=200, seconds=4)
    gateway.allowance.tokens, gateway.allowance.ends_at = 30, gateway.now + 60
    gateway.allowance.spent = 0
    gateway.now += IDLE_S + 0.1
    assert not gateway.allowance.is_idle(gateway.now)
    assert gateway.borrow().returned == 30
    assert gateway.allowance.is_idle(gateway.now)


def test_lent_tokens_end_a_lease_after_the_call_was_sent() -> None:
    gateway = Gateway()
    line = gateway.line(5)
    gateway.allowance.borrow(line, Lent(0, 5, LEASE_S, 9, RATE), sent_at=999.7, now=1_000.0)
    assert gateway.allowance.ends_at == pytest.approx(999.7 + LEASE_S)
    gateway.now += LEASE_S
    assert gateway.line(5).held == 0


def test_what_was_not_kept_is_void() -> None:
    gateway = Gateway()
    gateway.borrow(50)
    line = gateway.borrow(60, kept=20, granted=10)
    assert line.held == 50
    assert gateway.allowance.tokens == 10


def test_tokens_spent_while_the_call_was_under_way_stay_spent() -> None:
    gateway = Gateway()
    gateway.borrow(50)
    line = gateway.line(60)
    gateway.allowance.take(30)
    gateway.allowance.borrow(line, Lent(50, 10, LEASE_S, 0, RATE), gateway.now, gateway.now)
    assert gateway.allowance.tokens == 30


def test_refused_tenant_is_refused_without_asking_for_a_moment() -> None:
    gateway = Gateway()
    gateway.borrow(5, granted=0, left=0)
    assert gateway.allowance.refusal(1, gateway.now) is not None
    gateway.now += PAUSE_S
    assert gateway.allowance.refusal(1, gateway.now) is None


def test_refusal_of_a_batch_does_not_stop_what_there_is_enough_for() -> None:
    gateway = Gateway()
    gateway.borrow(500, granted=0, left=40)
    assert gateway.allowance.refusal(40, gateway.now) is None
    assert gateway.allowance.refusal(41, gateway.now) is not None


def test_retry_after_is_when_the_tokens_come_in_behind_those_promised_before() -> None:
    gateway = Gateway(rate=10)
    gateway.borrow(8, granted=0, left=2)
    waits = [gateway.allowance.refuse(4, gateway.now).retry_after_s for _ in range(3)]
    assert waits == pytest.approx([0.2, 0.6, 1.0])


def test_retry_after_is_never_longer_than_an_hour() -> None:
    gateway = Gateway(rate=0)
    gateway.borrow(1, granted=0, left=0)
    assert gateway.allowance.refuse(1, gateway.now).retry_after_s == LONGEST_WAIT_S


def test_remaining_counts_what_is_here_and_what_is_left_elsewhere_up_to_the_burst() -> None:
    gateway = Gateway(rate=10, burst=100)
    gateway.borrow(5, left=50)
    assert gateway.allowance.remaining(gateway.now) == 55
    gateway.now += 60
    assert gateway.allowance.remaining(gateway.now) == 100


def test_answer_that_does_not_know_what_is_left_is_no_refusal() -> None:
    gateway = Gateway()
    gateway.borrow(5, granted=0, left=None)
    assert not gateway.allowance.known
    assert gateway.allowance.refusal(1, gateway.now) is None
