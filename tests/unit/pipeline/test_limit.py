"""The region's limiter: when it calls Redis, and how long a gateway waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import virtual_time

from flik.domain.rate import CALL_S, CONTACT_S, LOCAL_AFTER_S, Ask, Block, Contact, Line, Standing
from flik.errors import Unavailable
from flik.pipeline.limit import ROUND_S, RegionLimiter


class Redis:
    """Lends what is wanted, after 1 ms."""

    def __init__(self) -> None:
        self.contacts: list[tuple[float, Contact]] = []
        self.takes_s = 0.001
        self.away = False
        self.settles_in_s = 0.0

    async def contact(self, contact: Contact) -> Standing:
        self.contacts.append((asyncio.get_running_loop().time(), contact))
        await asyncio.sleep(self.takes_s)
        if self.away:
            raise Unavailable("redis")
        blocks = [Block(line.held, line.want, 500.0) for line in contact.lines]
        return Standing(1, self.settles_in_s, [] if self.settles_in_s > 0 else blocks)


Story = Callable[[RegionLimiter, Redis], Awaitable[None]]


def tell(story: Story) -> None:
    async def told() -> None:
        redis = Redis()
        limiter = RegionLimiter(redis, "east", 0.5, clock=asyncio.get_running_loop().time)
        running = asyncio.create_task(limiter.run())
        await asyncio.sleep(0.01)
        await story(limiter, redis)
        running.cancel()

    virtual_time.run(told())


def ask(number: int, want: float = 3, gateway: str = "a") -> Ask:
    return Ask(gateway, number, [Line("acme", 100.0, 200, 0, 0, want, 1)])


def test_redis_is_called_four_times_a_second_though_nobody_asks() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        await asyncio.sleep(10.0)
        gaps = [later[0] - earlier[0] for earlier, later in zip(redis.contacts, redis.contacts[1:], strict=False)]
        assert max(gaps) <= CONTACT_S + 0.01
        assert len(gaps) <= 10 / CONTACT_S + 1
        numbers = [contact.number for _, contact in redis.contacts]
        assert [contact.heard for _, contact in redis.contacts] == [number - 1 for number in numbers]

    tell(story)


def test_gateways_that_lack_something_together_share_a_call() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        before = len(redis.contacts)
        loans = await asyncio.gather(*(limiter.lend(ask(1, gateway=f"gateway-{n}")) for n in range(20)))
        assert [loan.lines[0].granted for loan in loans] == [3] * 20
        assert len(redis.contacts) - before == 1

    tell(story)


def test_gateway_waits_half_a_second_for_redis_and_then_gets_what_is_there() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        redis.takes_s = 30.0
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        loan = await limiter.lend(ask(1))
        assert loan.lines[0].granted == 0
        assert loan.lines[0].left is None
        assert loop.time() - began_at <= ROUND_S + 0.001

    tell(story)


def test_redis_that_is_away_is_called_again_soon_but_not_all_the_time() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        redis.away = True
        before = len(redis.contacts)
        for number in range(20):
            await limiter.lend(ask(number + 1))
        await asyncio.sleep(1.0)
        assert 10 <= len(redis.contacts) - before <= 45

    tell(story)


@pytest.mark.parametrize("fault", ["away", "frozen"])
def test_region_admits_by_its_share_when_redis_does_not_answer_and_stops_when_it_does(fault: str) -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        redis.away, redis.takes_s = fault == "away", 30.0 if fault == "frozen" else 0.001
        await asyncio.sleep(LOCAL_AFTER_S - 0.3)
        assert not limiter.local
        await asyncio.sleep(0.3 + CALL_S + 0.2)
        assert limiter.local
        await asyncio.sleep(1.0)
        assert (await limiter.lend(ask(1, want=1_000))).lines[0].granted >= 50
        redis.away, redis.takes_s, redis.settles_in_s = False, 0.001, 0.5
        await asyncio.sleep(CALL_S + 0.1)
        assert limiter.local, "the epoch is not settled"
        redis.settles_in_s = 0.0
        await asyncio.sleep(CONTACT_S + 0.1)
        assert not limiter.local

    tell(story)


def test_epoch_that_waits_for_this_region_is_confirmed_at_once() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        redis.settles_in_s = 1.0
        await asyncio.sleep(CONTACT_S + 0.01)
        began_at, last = asyncio.get_running_loop().time(), len(redis.contacts)
        await asyncio.sleep(0.05)
        assert len(redis.contacts) > last
        assert redis.contacts[last][0] - began_at <= 0.03
        assert (redis.contacts[last][1].epoch, redis.contacts[last][1].local) == (1, False)

    tell(story)


def test_idle_tenants_are_forgotten() -> None:
    async def story(limiter: RegionLimiter, redis: Redis) -> None:
        lines = [Line(f"tenant-{n}", 100.0, 200, 0, 0, 1, 1) for n in range(500)]
        await limiter.lend(Ask("a", 1, lines))
        assert len(limiter) == 500
        await asyncio.sleep(5.0)
        assert len(limiter) == 0

    tell(story)
