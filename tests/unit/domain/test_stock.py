"""A region's tokens: lent by Redis or come in by its share, lent on to gateways."""

from __future__ import annotations

import pytest

from flik.domain.account import SPARE_S
from flik.domain.rate import (
    CALL_S,
    GRACE_S,
    LEASE_S,
    LOCAL_AFTER_S,
    LOCAL_LEASE_S,
    MARGIN_S,
    Ask,
    Block,
    Contact,
    Lent,
    Line,
    Standing,
)
from flik.domain.stock import IDLE_S, Stock

RATE, BURST = 100.0, 60


class Region:
    """A stock, the time, and a Redis that does what the test says."""

    def __init__(self, share: float = 1.0) -> None:
        self.now = 1_000.0
        self.stock = Stock("east", "me", share, self.now)
        self.numbers: dict[str, int] = {}

    def answer(self, *blocks: Block, settles_in_s: float = 0.0) -> Contact:
        """Let Redis answer the next call at once."""
        contact = self.stock.contact(self.now)
        self.stock.answered(contact, Standing(7, settles_in_s, list(blocks)), self.now, self.now)
        return contact

    def ask(self, want: float, held: float = 0, gateway: str = "a", **more: float) -> Ask:
        self.numbers[gateway] = self.numbers.get(gateway, 0) + 1
        return Ask(gateway, self.numbers[gateway], [line(want, held, **more)])

    def lend(self, want: float, held: float = 0, gateway: str = "a", **more: float) -> Lent:
        """A gateway asks and gets what is there."""
        ask = self.ask(want, held, gateway, **more)
        self.stock.hear(ask, self.now)
        return self.stock.lend(ask, self.now).lines[0]

    def fill(self, amount: float, left: float = 0.0) -> None:
        """Let Redis lend `amount` on behalf of gateway b."""
        ask = self.ask(amount, gateway="b")
        self.stock.hear(ask, self.now)
        assert self.stock.lacks(ask, self.now)
        contact = self.stock.contact(self.now)
        blocks = [Block(each.held, amount, left) for each in contact.lines]
        self.stock.answered(contact, Standing(7, 0.0, blocks), self.now, self.now)

    def go_local(self) -> None:
        """Let Redis answer nothing until the region admits by its share."""
        self.now += LOCAL_AFTER_S
        self.stock.contact(self.now)
        self.stock.unanswered(self.now)


def line(want: float, held: float = 0, **more: float) -> Line:
    rate, burst = more.get("rate", RATE), int(more.get("burst", BURST))
    return Line("acme", rate, burst, held, more.get("returned", 0.0), want, more.get("unit", 1.0))


@pytest.fixture
def region() -> Region:
    made = Region()
    made.answer()
    return made


@pytest.fixture
def local() -> Region:
    made = Region()
    made.go_local()
    return made


def test_what_gateways_lack_goes_into_one_call_to_redis(region: Region) -> None:
    for gateway, want in (("a", 3), ("b", 4)):
        ask = region.ask(want, gateway=gateway)
        region.stock.hear(ask, region.now)
        assert region.stock.lacks(ask, region.now)
    assert region.answer(Block(0, 7, 20)).lines == [Line("acme", RATE, BURST, 0, 0, 7, 1)]
    assert region.answer().lines == []


def test_gateway_gets_what_redis_lent_for_as_long_as_redis_lent_it(region: Region) -> None:
    region.fill(10, left=25)
    region.now += 0.3
    lent = region.lend(4)
    assert (lent.kept, lent.granted, lent.refill_per_s) == (0, 4, RATE)
    assert lent.left == 25 + 6
    assert lent.lease_s == pytest.approx(LEASE_S - 0.3)


def test_less_than_is_of_use_is_not_lent(region: Region) -> None:
    region.fill(10)
    assert region.lend(50, unit=11).granted == 0
    assert region.lend(50, unit=10).granted == 10


def test_redis_hears_of_all_that_is_held_gateways_included(region: Region) -> None:
    region.fill(10)
    region.lend(4)
    region.now += 0.35
    region.stock.look(region.now)
    [told] = region.answer(Block(4, 0, 50)).lines
    assert (told.held, told.returned) == (4, 6), "nobody wanted the rest for a while"


def test_what_nobody_wants_is_kept_for_a_moment(region: Region) -> None:
    region.fill(10)
    region.now += SPARE_S / 2
    region.stock.look(region.now)
    assert region.answer().lines == []


def test_gateway_keeps_what_was_lent_to_it_and_no_more(region: Region) -> None:
    region.fill(10)
    region.lend(4)
    assert region.lend(0, held=9).kept == 4
    assert region.lend(0, held=3).kept == 3
    assert region.lend(0, held=4).kept == 3, "what it had spent does not come back"


def test_gateway_of_a_predecessor_keeps_nothing(region: Region) -> None:
    assert region.lend(0, held=9) == Lent(0, 0, 0, None, RATE)


def test_what_a_gateway_returns_is_there_for_another(region: Region) -> None:
    region.fill(10)
    region.lend(10)
    region.lend(0, held=4, returned=6)
    assert region.lend(10, gateway="c").granted == 6


def test_older_call_of_a_gateway_than_its_last_gets_nothing_and_changes_nothing(region: Region) -> None:
    region.fill(10)
    late = region.ask(5)
    region.lend(3)
    assert not region.stock.hear(late, region.now)
    assert region.stock.lend(late, region.now).lines[0].granted == 0
    assert region.lend(0, held=3).kept == 3


def test_everything_is_void_when_redis_is_not_heard_of_for_a_lease(region: Region) -> None:
    region.fill(10)
    region.lend(4)
    region.now += LEASE_S
    assert region.lend(4, held=4) == Lent(0, 0, 0, None, RATE)


def test_everything_is_void_when_redis_let_less_be_kept(region: Region) -> None:
    region.fill(10)
    region.lend(4)
    ask = region.ask(20, held=4)
    region.stock.hear(ask, region.now)
    region.stock.lacks(ask, region.now)
    region.answer(Block(3, 2, 0))
    lent = region.stock.lend(ask, region.now).lines[0]
    assert (lent.kept, lent.granted) == (0, 2)


def test_gateway_that_waited_while_others_took_its_tokens_is_asked_for_again(region: Region) -> None:
    started_at = region.now
    ask = region.ask(1)
    region.stock.hear(ask, region.now)
    assert region.stock.lacks(ask, region.now)
    region.answer(Block(0, 1, 30))
    region.lend(1, gateway="b")
    assert region.stock.lacks(ask, region.now, since=started_at)


@pytest.mark.parametrize("left", [0, 4])
def test_gateway_is_not_asked_for_again_when_redis_has_too_little(region: Region, left: float) -> None:
    started_at = region.now
    ask = region.ask(9, unit=5)
    region.stock.hear(ask, region.now)
    assert region.stock.lacks(ask, region.now)
    region.answer(Block(0, 0, left))
    assert not region.stock.lacks(ask, region.now, since=started_at)


def test_what_is_left_is_not_known_while_redis_is_silent_or_its_epoch_not_settled(region: Region) -> None:
    region.fill(10, left=5)
    region.now += CALL_S + 0.1
    assert region.lend(50).left is None
    region.answer(settles_in_s=GRACE_S)
    assert not region.stock.lacks(region.ask(1), region.now)
    assert region.lend(50).left is None


# By the region's share


def test_new_limiter_admits_by_its_share_only_when_all_its_predecessor_lent_is_void() -> None:
    region = Region()
    for _ in range(14):
        region.now += 0.1
        region.stock.contact(region.now)
        region.stock.unanswered(region.now)
        assert not region.stock.local
        assert region.lend(1).granted == 0
    assert region.now - 1_000 > LEASE_S + MARGIN_S


def test_limiter_that_was_frozen_asks_redis_before_it_admits_by_its_share(region: Region) -> None:
    region.now += 60.0
    region.answer()
    assert not region.stock.local


def test_share_starts_empty_and_fills_at_its_part_of_the_rate() -> None:
    region = Region(share=0.25)
    region.go_local()
    assert region.lend(100).granted == 0
    region.now += 0.41
    lent = region.lend(100)
    assert (lent.granted, lent.refill_per_s) == (10, RATE / 4)
    region.now += 60.0
    assert region.lend(100).granted == BURST / 4


def test_share_counts_from_when_redis_was_given_up_also_for_new_tenants(local: Region) -> None:
    local.now += 0.305
    assert local.lend(100).granted == 30


def test_what_gateways_hold_of_the_share_takes_room(local: Region) -> None:
    local.now += 60.0
    assert local.lend(40).granted == 40
    local.now += 0.1
    assert local.lend(40, gateway="b").granted == 20
    local.now += 0.1
    assert local.lend(40, held=40).granted == 0


def test_share_of_a_gateway_that_is_silent_comes_in_again_at_the_rate(local: Region) -> None:
    local.now += 60.0
    local.lend(60)
    local.now += LOCAL_LEASE_S + MARGIN_S + 0.1
    assert local.lend(60, gateway="b").granted == 10


def test_smaller_burst_holds_at_once_for_the_share_too(local: Region) -> None:
    local.now += 60.0
    local.lend(40)
    local.lend(20, gateway="b")
    assert local.lend(0, held=40, burst=30).kept == 10


def test_nothing_of_the_share_outlives_the_settling_of_the_epoch(local: Region) -> None:
    local.now += 60.0
    assert local.lend(10).lease_s == pytest.approx(LOCAL_LEASE_S)
    local.answer(settles_in_s=GRACE_S)
    assert local.stock.local
    local.now += GRACE_S - 0.2
    assert local.lend(10, held=10).lease_s == pytest.approx(0.2)
    local.now += 0.2
    assert local.lend(10, held=20) == Lent(0, 0, 0, None, RATE)
    assert not local.stock.local


def test_calls_say_whether_the_region_admits_by_its_share(local: Region) -> None:
    assert local.stock.contact(local.now).local
    assert not Region().stock.contact(1_000.0).local


# Memory


@pytest.mark.parametrize("by_share", [False, True])
def test_idle_tenants_are_forgotten(by_share: bool) -> None:
    region = Region()
    region.go_local() if by_share else region.answer()
    for number in range(1_000):
        ask = Ask("a", number + 1, [line(1)._replace(tenant_id=f"tenant-{number}")])
        region.stock.hear(ask, region.now)
        region.stock.lend(ask, region.now)
    assert len(region.stock) == 1_000
    region.now += IDLE_S + 0.1
    region.stock.look(region.now)
    assert len(region.stock) == 0


def test_call_carries_a_thousand_tenants_and_the_next_one_the_rest(region: Region) -> None:
    lines = [line(1)._replace(tenant_id=f"tenant-{number}") for number in range(1_500)]
    ask = Ask("a", 1, lines)
    region.stock.hear(ask, region.now)
    region.stock.lacks(ask, region.now)
    assert len(region.stock.contact(region.now).lines) == 1_000
    assert region.stock.more
    assert len(region.stock.contact(region.now).lines) == 500
    assert not region.stock.more
