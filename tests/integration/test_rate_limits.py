"""Rate limits as a whole: 4 gateways in each of 2 regions, 20 tenants, the real script; on a virtual clock.

Every answer is recorded. A bucket that is replayed over what was admitted overdraws if and only if some
window admitted more than rate * W + burst, so one pass over the history proves all windows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator

import pytest
import virtual_time
from rate_scene import Said, Scene, overdraft
from redis import Redis

from flik.domain.identity import Limits

FULL_S = 5.0  # until every bucket is full after the start
RUN_S = 30.0
RECOVERY_S = 2.0
LIMITS = (Limits(rate_per_s=5, burst=15), Limits(rate_per_s=10, burst=30), Limits(rate_per_s=25, burst=75))
FACTORS = (0.5, 0.6, 0.7, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
TENANTS = {f"tenant-{n}": (LIMITS[n % 3], FACTORS[n % 10]) for n in range(20)}
BELOW = {name for name, (_, factor) in TENANTS.items() if factor < 1}
OVER = {name for name, (_, factor) in TENANTS.items() if factor > 1}
EXACT = 1e-6

Disturbance = Callable[[Scene], Awaitable[None]]


@pytest.fixture(scope="module")
def server(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as opened:
        yield opened
        opened.flushall()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="flik")


def play(server: Redis, seed: int, disturb: Disturbance | None = None, run_s: float = RUN_S) -> Scene:
    """Return the scene after everybody sent for `run_s`."""

    async def played() -> Scene:
        scene = await Scene(server, seed).open()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(FULL_S)
        until = loop.time() + run_s
        async with asyncio.TaskGroup() as all_at_once:
            for number, (name, (limits, factor)) in enumerate(TENANTS.items()):
                costs = (1, 1, 1, 6) if number % 4 == 0 else (1,)
                all_at_once.create_task(scene.traffic(name, limits, factor, until, costs))
            if disturb is not None:
                all_at_once.create_task(_disturbing(disturb, scene))
        await scene.close()
        return scene

    return virtual_time.run(played())


async def _disturbing(disturb: Disturbance, scene: Scene) -> None:
    await disturb(scene)


def assert_bounded(scene: Scene) -> None:
    worst = {name: overdraft(said, TENANTS[name][0]) for name, said in scene.by_tenant().items()}
    assert len(worst) == len(TENANTS)
    assert max(worst.values()) <= EXACT, worst


def refused_by_one_bucket(said: list[Said], limits: Limits) -> int:
    """Return how many a single bucket, asked by everybody, would have refused."""
    level, at, refused = float(limits.burst), 0.0, 0
    for each in said:
        level, at = min(limits.burst, level + limits.rate_per_s * (each.at - at)), each.at
        refused += level < each.cost
        level -= each.cost if level >= each.cost else 0
    return refused


def test_no_window_admits_more_than_its_bound_and_who_keeps_to_the_limit_is_not_refused(server: Redis) -> None:
    scene = play(server, seed=1)
    assert_bounded(scene)
    sent = sum(len(scene.of(name)) for name in BELOW)
    refused = sum(not each.admitted for name in BELOW for each in scene.of(name))
    needed = sum(refused_by_one_bucket(scene.of(name), TENANTS[name][0]) for name in BELOW)
    assert (refused - needed) / sent < 0.001
    for name in OVER:  # and nothing is wasted
        limits, _ = TENANTS[name]
        admitted = sum(each.cost for each in scene.of(name) if each.admitted)
        assert admitted > 0.95 * (limits.rate_per_s * RUN_S + limits.burst) - 6


async def everything(scene: Scene) -> None:
    """Kill, empty and freeze at random moments."""
    chance: random.Random = scene.random
    loop = asyncio.get_running_loop()
    until = loop.time() + RUN_S - 2
    while loop.time() < until:
        await asyncio.sleep(chance.uniform(0.5, 3))
        match chance.randrange(5):
            case 0:
                await chance.choice(scene.limiters).kill(away_s=chance.uniform(0.3, 2.5))
            case 1:
                await scene.kill_gateway(chance.randrange(len(scene.gateways)))
            case 2:
                scene.redis.flush()
            case 3:
                await scene.redis.freeze(chance.choice((0.2, 0.9, 1.2, 1.6, 2.5, 4)))
            case 4:
                await scene.redis.restart(chance.choice((0.2, 0.9, 1.6, 4)))


@pytest.mark.parametrize("seed", [11, 12])
def test_bound_holds_whatever_is_killed_emptied_or_frozen(server: Redis, seed: int) -> None:
    scene = play(server, seed, everything)
    assert_bounded(scene)
    assert all(any(each.admitted for each in said) for said in scene.by_tenant().values())


async def kill_limiters(scene: Scene) -> None:
    await asyncio.gather(*(limiter.kill(away_s=1.0) for limiter in scene.limiters))


async def kill_redis(scene: Scene) -> None:
    await scene.redis.restart(0.6)


async def lose_redis(scene: Scene) -> None:
    await scene.redis.restart(4.0)


async def empty_redis(scene: Scene) -> None:
    scene.redis.flush()


async def freeze_redis(scene: Scene) -> None:
    await scene.redis.freeze(4.0)


async def kill_all_gateways(scene: Scene) -> None:
    for number in range(len(scene.gateways)):
        await scene.kill_gateway(number)


@pytest.mark.parametrize("fault", [kill_limiters, kill_redis, lose_redis, empty_redis, freeze_redis, kill_all_gateways])
def test_tasks_are_admitted_again_within_two_seconds_and_the_bound_holds(server: Redis, fault: Disturbance) -> None:
    happened_at: list[float] = []

    async def later(scene: Scene) -> None:
        await asyncio.sleep(3.0)
        happened_at.append(asyncio.get_running_loop().time())
        await fault(scene)

    scene = play(server, 22, later, run_s=8.0)
    assert_bounded(scene)
    [began_at] = happened_at
    after = [each for each in scene.history if each.admitted and each.at > began_at + 0.3]
    back = {name: min(each.at for each in after if each.tenant_id == name) - began_at for name in TENANTS}
    busy = [name for name in TENANTS if TENANTS[name][1] * TENANTS[name][0].rate_per_s >= 20]
    assert busy and max(back[name] for name in busy) < RECOVERY_S + 0.2, back


def test_whole_burst_is_admitted_once_however_many_gateways_are_asked(server: Redis) -> None:
    limits = Limits(rate_per_s=10, burst=30)

    async def story() -> Scene:
        scene = await Scene(server, 31).open()
        await asyncio.sleep(FULL_S)
        for _ in range(3):
            await asyncio.gather(*(scene.send("acme", 1, limits, gateway=n % 8) for n in range(200)))
            await asyncio.sleep(FULL_S)
        await asyncio.gather(*(scene.send("acme", 30, limits, gateway=n) for n in range(8)))
        await scene.close()
        return scene

    scene = virtual_time.run(story())
    assert overdraft(scene.of("acme"), limits) <= EXACT
    assert sum(each.cost for each in scene.of("acme") if each.admitted) >= 4 * 30


def test_limits_that_change_hold_from_the_next_call_on(server: Redis) -> None:
    wide, narrow = Limits(rate_per_s=100, burst=300), Limits(rate_per_s=5, burst=10)

    async def story() -> tuple[Scene, float]:
        scene = await Scene(server, 41).open()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(FULL_S)
        await scene.traffic("acme", wide, 2.0, loop.time() + 3)
        await asyncio.sleep(FULL_S)
        changed_at = loop.time()
        await scene.traffic("acme", narrow, 10.0, changed_at + 10)
        await scene.close()
        return scene, changed_at

    scene, changed_at = virtual_time.run(story())
    said = scene.of("acme")
    assert overdraft([each for each in said if each.at < changed_at], wide) <= EXACT
    assert overdraft([each for each in said if each.at >= changed_at], narrow) <= EXACT
