"""Whichever gateway replica is scraped shows the metrics of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from uuid import uuid4

import pytest

from flik.errors import Unavailable
from flik.live.snapshots import KEPT_S, Snapshots

Opens = Callable[[str], Snapshots]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def open_replica(valkey_url: str, clock: Clock) -> AsyncIterator[Opens]:
    """Opens replicas of one region; each read counts one up."""
    region, opened = f"region-{uuid4().hex}", []

    def open_one(replica: str) -> Snapshots:
        reads = count(1)
        opened.append(Snapshots(valkey_url, region, replica, lambda: (f"{replica} {next(reads)}", "t"), now=clock))
        return opened[-1].open()

    yield open_one
    for each in opened:
        await each.close()


async def test_each_replica_sees_what_the_others_kept_and_itself_anew(open_replica: Opens) -> None:
    first, second = open_replica("r1"), open_replica("r2")
    assert await first.exchange() == {"r1": ["r1 1", "t"]}
    assert await second.exchange() == {"r1": ["r1 1", "t"], "r2": ["r2 1", "t"]}
    assert await first.exchange() == {"r1": ["r1 2", "t"], "r2": ["r2 1", "t"]}


async def test_no_counter_goes_back_however_scrapes_and_snapshots_meet(open_replica: Opens) -> None:
    replicas = [open_replica("r1"), open_replica("r2")]
    shown: list[int] = []

    async def scrape(number: int) -> None:
        shown.append(int((await replicas[number % 2].exchange())["r1"][0].split()[1]))

    await replicas[0].exchange()
    for _ in range(20):
        await asyncio.gather(*(replicas[0].exchange() for _ in range(3)))
        await scrape(0)
        await scrape(1)
    assert shown == sorted(shown)


async def test_replica_that_is_gone_is_shown_for_a_while_and_then_forgotten(open_replica: Opens, clock: Clock) -> None:
    first, second = open_replica("r1"), open_replica("r2")
    await first.exchange()
    clock.now += KEPT_S - 1
    assert set(await second.exchange()) == {"r1", "r2"}
    clock.now += 2
    assert set(await second.exchange()) == {"r2"}
    assert await second._redis.hkeys(second._key) == [b"r2"]  # type: ignore[union-attr,misc]


async def test_regions_that_share_a_redis_do_not_see_one_another(valkey_url: str, open_replica: Opens) -> None:
    await open_replica("r1").exchange()
    elsewhere = Snapshots(valkey_url, f"region-{uuid4().hex}", "r9", lambda: ("x",)).open()
    assert set(await elsewhere.exchange()) == {"r9"}
    await elsewhere.close()


async def test_without_redis_it_says_so() -> None:
    lost = Snapshots("redis://127.0.0.1:1/0", "us-east", "r1", lambda: ("x",)).open()
    with pytest.raises(Unavailable):
        await lost.exchange()
    await lost.close()
