"""A gateway's side of the rate limit: no call where none is needed, one for all who wait, none while none can help."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import virtual_time

from flik.domain.allowance import RESERVE, RESERVED_S
from flik.domain.identity import Limits
from flik.domain.rate import LEASE_S, Admitted, Ask, Decision, Lent, Limited, Loan, NeverFits
from flik.errors import Unavailable
from flik.pipeline.allowances import ANSWER_S, AWAY_S, MOST_RESERVED, Allowances
from flik.telemetry import Metrics

LIMITS = Limits(rate_per_s=100.0, burst=200)


class Limiter:
    """Lends from one bucket that nothing comes into; answers after 2 ms."""

    def __init__(self, tokens: float = 1e6) -> None:
        self.tokens = tokens
        self.asked: list[Ask] = []
        self.away = False
        self.frozen = False
        self.knows = True

    async def lend(self, ask: Ask) -> Loan:
        self.asked.append(ask)
        await asyncio.sleep(60.0 if self.frozen else 0.002)
        if self.away:
            raise Unavailable("limiter")
        return Loan(False, [self._lend(each.held, each.want, each.unit, each.returned) for each in ask.lines])

    def _lend(self, held: float, want: float, unit: float, returned: float) -> Lent:
        self.tokens += returned
        granted = float(int(min(want, self.tokens))) if self.tokens >= unit else 0.0
        self.tokens -= granted
        return Lent(held, granted, LEASE_S, self.tokens if self.knows else None, 0.5)

    @property
    def calls(self) -> int:
        return len(self.asked)


Story = Callable[[Allowances, Limiter], Awaitable[None]]


def tell(story: Story, tokens: float = 1e6, measured: Metrics | None = None) -> None:
    """Run a story on virtual time."""

    async def told() -> None:
        limiter = Limiter(tokens)
        clock = asyncio.get_running_loop().time
        allowances = Allowances(limiter.lend, clock=clock, measured=measured).open()
        await story(allowances, limiter)
        await allowances.close()

    virtual_time.run(told())


def at_once(allowances: Allowances, cost: int, limits: Limits = LIMITS) -> Decision:
    """What `spend` says without suspending; fails when it suspends."""
    spending = allowances.spend("acme", cost, limits)
    try:
        spending.send(None)
    except StopIteration as said:
        decision: Decision = said.value
        return decision
    spending.close()
    raise AssertionError("it waits")


async def hold(allowances: Allowances, limiter: Limiter, tokens: float) -> None:
    """Let the gateway hold tokens of acme, which sends a lot."""
    await allowances.spend("acme", 1, LIMITS)
    held = allowances._tenants["acme"].allowance
    held.tokens, held.told, held.demand_per_s = tokens, tokens, 10_000
    limiter.asked.clear()


def test_request_whose_tokens_are_held_does_not_wait_and_costs_no_call() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await hold(allowances, limiter, 10)
        assert isinstance(at_once(allowances, 4), Admitted)
        assert isinstance(at_once(allowances, 6), Admitted)
        assert limiter.calls == 0

    tell(story)


def test_requests_that_come_together_share_a_call() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        said = await asyncio.gather(*(allowances.spend(f"tenant-{n % 7}", 1, LIMITS) for n in range(100)))
        assert all(isinstance(each, Admitted) for each in said)
        assert limiter.calls <= 2

    tell(story)


def test_cost_beyond_the_burst_is_never_admitted_and_costs_no_call() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        assert at_once(allowances, 201) == NeverFits(200)
        assert at_once(allowances, 10**30) == NeverFits(200)
        assert limiter.calls == 0
        assert isinstance(await allowances.spend("acme", 200, LIMITS), Admitted)

    tell(story)


def test_smaller_burst_holds_at_once_though_more_is_held() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await hold(allowances, limiter, 100)
        assert at_once(allowances, 60, Limits(rate_per_s=100, burst=50)) == NeverFits(50)

    tell(story)


def test_limits_that_changed_go_with_the_next_call() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await hold(allowances, limiter, 5)
        await allowances.spend("acme", 9, Limits(rate_per_s=7, burst=30))
        assert limiter.asked[-1].lines[0][1:3] == (7, 30)

    tell(story)


def test_tenant_without_tokens_is_refused_without_calls_until_there_may_be_some() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        assert isinstance(await allowances.spend("acme", 5, LIMITS), Limited)
        for _ in range(1_000):
            assert isinstance(at_once(allowances, 1), Limited)
        assert limiter.calls == 1
        limiter.tokens = 50
        await asyncio.sleep(0.1)
        assert isinstance(await allowances.spend("acme", 5, LIMITS), Admitted)

    tell(story, tokens=0)


def test_overloaded_tenant_costs_a_few_calls_a_second_however_much_it_sends() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        for _ in range(5_000):
            await allowances.spend("acme", 1, LIMITS)
            await asyncio.sleep(0.0002)
        assert limiter.calls <= 1.5 / 0.05

    tell(story, tokens=0)


def test_other_tenants_do_not_notice() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        assert isinstance(await allowances.spend("greedy", 150, LIMITS), Admitted)
        limiter.tokens = 20
        assert isinstance(await allowances.spend("greedy", 150, LIMITS), Limited)
        assert isinstance(await allowances.spend("acme", 1, LIMITS), Admitted)

    tell(story)


def test_request_that_waits_is_not_overtaken_by_a_smaller_one() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await hold(allowances, limiter, 5)
        ended: list[int] = []

        async def spend(cost: int) -> None:
            assert isinstance(await allowances.spend("acme", cost, LIMITS), Admitted)
            ended.append(cost)

        await asyncio.gather(spend(100), spend(1), spend(2))
        assert ended == [100, 1, 2]

    tell(story)


def test_batch_that_does_not_fit_is_refused_and_what_comes_behind_it_is_not() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        said = await asyncio.gather(*(allowances.spend("acme", cost, LIMITS) for cost in (100, 1, 2)))
        assert [type(each) for each in said] == [Limited, Admitted, Admitted]

    tell(story, tokens=30)


def test_caller_that_leaves_pays_nothing() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        leaving = asyncio.create_task(allowances.spend("acme", 100, LIMITS))
        await asyncio.sleep(0.001)
        leaving.cancel()
        await asyncio.sleep(RESERVED_S + 1.0)
        assert limiter.tokens == 1e6

    tell(story)


def test_seldom_tenant_leaves_no_tokens_behind() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        for _ in range(5):
            await allowances.spend("acme", 3, LIMITS)
            await asyncio.sleep(0.4)
        await asyncio.sleep(RESERVED_S)
        assert limiter.tokens == 1e6 - 15

    tell(story)


def test_seldom_tenants_wait_for_their_first_request_only_and_share_calls() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        waited, limits = 0, Limits(rate_per_s=10, burst=100)
        for _ in range(10):
            for number in range(20):
                spending = asyncio.ensure_future(allowances.spend(f"tenant-{number}", 1, limits))
                await asyncio.sleep(0)
                waited += not spending.done()
                assert isinstance(await spending, Admitted)
                await asyncio.sleep(0.05)
        assert waited == 20
        assert limiter.calls < 130, "of 200 requests; most of them renew all tenants together"

    tell(story)


def test_few_tenants_have_a_reserve() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await asyncio.gather(*(allowances.spend(f"tenant-{n}", 1, LIMITS) for n in range(MOST_RESERVED + 100)))
        await asyncio.sleep(1.0)
        assert 0 < 1e6 - limiter.tokens - (MOST_RESERVED + 100) <= MOST_RESERVED * RESERVE

    tell(story)


def test_steady_tenant_waits_only_at_the_beginning() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        waited, limits = 0, Limits(rate_per_s=1_000, burst=10_000)
        for number in range(600):
            spending = asyncio.ensure_future(allowances.spend("acme", 1, limits))
            await asyncio.sleep(0)
            waited += not spending.done() and number > 100
            assert isinstance(await spending, Admitted)
            await asyncio.sleep(0.005)
        assert waited == 0
        assert limiter.calls < 60, "and asks seldom"

    tell(story)


def test_limiter_that_is_away_is_no_refusal_and_is_not_called_for_each_request() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        limiter.away = True
        for _ in range(100):
            with pytest.raises(Unavailable):
                await allowances.spend("acme", 1, LIMITS)
        assert limiter.calls == 1
        limiter.away = False
        await asyncio.sleep(AWAY_S)
        assert isinstance(await allowances.spend("acme", 1, LIMITS), Admitted)

    tell(story)


def test_what_is_held_is_spent_while_the_limiter_is_away_and_void_when_its_lease_ends() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await hold(allowances, limiter, 10)
        limiter.away = True
        await asyncio.sleep(LEASE_S / 2)
        assert isinstance(at_once(allowances, 1), Admitted)
        await asyncio.sleep(LEASE_S / 2 + 0.1)
        with pytest.raises(Unavailable):
            await allowances.spend("acme", 1, LIMITS)

    tell(story)


def test_gateway_that_was_frozen_spends_nothing_of_what_it_held_before() -> None:
    async def story() -> None:
        frozen_s = 0.0
        limiter, time = Limiter(), asyncio.get_running_loop().time
        allowances = Allowances(limiter.lend, clock=lambda: time() + frozen_s).open()
        await hold(allowances, limiter, 10)
        frozen_s = LEASE_S
        asking = asyncio.ensure_future(allowances.spend("acme", 1, LIMITS))
        await asyncio.sleep(0)
        assert not asking.done()
        assert isinstance(await asking, Admitted)
        assert limiter.asked[-1].lines[0].held == 0
        await allowances.close()

    virtual_time.run(story())


def test_limiter_that_does_not_answer_is_not_waited_for() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        limiter.frozen = True
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with pytest.raises(Unavailable):
            await allowances.spend("acme", 1, LIMITS)
        assert loop.time() - began_at == pytest.approx(ANSWER_S, abs=0.01)

    tell(story)


def test_limiter_that_does_not_know_is_no_refusal() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        limiter.knows = False
        with pytest.raises(Unavailable):
            await allowances.spend("acme", 1, LIMITS)

    tell(story, tokens=0)


def test_idle_tenants_are_forgotten() -> None:
    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await asyncio.gather(*(allowances.spend(f"tenant-{n}", 1, LIMITS) for n in range(2_500)))
        assert len(allowances) == 2_500
        await asyncio.sleep(3.0)
        assert len(allowances) == MOST_RESERVED
        await asyncio.sleep(RESERVED_S)
        assert len(allowances) == 0
        assert limiter.tokens == 1e6 - 2_500

    tell(story)


def test_tasks_are_counted_by_what_was_said_of_them() -> None:
    measured = Metrics("flik_rate_*")

    async def story(allowances: Allowances, limiter: Limiter) -> None:
        await allowances.spend("acme", 30, LIMITS)
        await allowances.spend("acme", 50, LIMITS)
        await allowances.spend("acme", 500, LIMITS)
        await asyncio.sleep(0.5)

    tell(story, tokens=40, measured=measured)
    counted = {
        word: measured["flik_rate_tasks"].labels(word)._value.get() for word in ("admitted", "limited", "never_fits")
    }
    assert counted == {"admitted": 30, "limited": 50, "never_fits": 500}
