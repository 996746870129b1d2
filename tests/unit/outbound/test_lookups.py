"""Names that never answer hold up the tenant that named them, and nobody else."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

import pytest
import virtual_time

from flik.errors import Unavailable
from flik.outbound.lookups import EACH, MAX_ASKERS, WITHIN_S, Lookups

SLOW_S = 30.0


@dataclass
class Resolver:
    """Takes as long for a name as the name says; nobody can stop it."""

    asked: list[str] = field(default_factory=list)
    under_way: int = 0

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        self.under_way += 1
        try:
            if host.startswith("unknown"):
                raise socket.gaierror(-2, "unknown")
            await asyncio.sleep(SLOW_S if host.startswith("slow") else 0.02)
            return ["8.8.8.8"]
        finally:
            self.under_way -= 1


async def failing(lookups: Lookups, tenant: str, host: str) -> float:
    """Return after how many seconds nobody could tell."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as told:
        await lookups.find(tenant, host)
    assert (told.value.dependency, told.value.retry_after_s) == ("name server", 5.0)
    return asyncio.get_running_loop().time() - began


def test_slow_names_of_one_tenant_hold_up_nobody_else() -> None:
    async def work() -> None:
        ask = Resolver()
        lookups = Lookups(ask)
        slow = [asyncio.create_task(failing(lookups, "slow", f"slow{n}.example")) for n in range(40)]
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        for n in range(20):
            assert await lookups.find("honest", f"{n}.example") == ["8.8.8.8"]
        assert asyncio.get_running_loop().time() - began < 1
        assert await asyncio.gather(*slow) == [pytest.approx(WITHIN_S)] * 40
        assert ask.under_way == EACH  # the others were never asked for
        assert await failing(lookups, "slow", "its-own.example") == pytest.approx(WITHIN_S)
        await asyncio.sleep(SLOW_S)
        assert await lookups.find("slow", "its-own.example") == ["8.8.8.8"]

    virtual_time.run(work())


def test_who_waits_for_a_place_gets_it_when_one_is_free() -> None:
    async def work() -> None:
        ask = Resolver()
        lookups = Lookups(ask, places=3, each=2)
        for tenants in (["a"] * 9, ["a", "b", "c", "d", "e"]):
            found = await asyncio.gather(*(lookups.find(tenant, f"{n}.example") for n, tenant in enumerate(tenants)))
            assert found == [["8.8.8.8"]] * len(tenants)
        assert len(ask.asked) == 14

    virtual_time.run(work())


def test_no_more_are_under_way_than_there_are_threads() -> None:
    async def work() -> None:
        ask = Resolver()
        lookups = Lookups(ask, places=6, each=4)
        waits = [failing(lookups, tenant, f"slow{n}.example") for tenant in "abc" for n in range(4)]
        await asyncio.gather(*waits)
        assert ask.under_way == 6

    virtual_time.run(work())


def test_a_name_that_is_being_looked_up_is_not_asked_for_again() -> None:
    async def work() -> None:
        ask = Resolver()
        lookups = Lookups(ask)
        assert await asyncio.gather(*(lookups.find("a", "x.example") for _ in range(50))) == [["8.8.8.8"]] * 50
        assert ask.asked == ["x.example"]
        assert await failing(lookups, "a", "slow.example") == WITHIN_S
        await asyncio.sleep(SLOW_S - WITHIN_S - 1)
        assert await lookups.find("a", "slow.example") == ["8.8.8.8"]  # it is the first answer
        await lookups.find("a", "x.example")
        assert ask.asked == ["x.example", "slow.example", "x.example"]

    virtual_time.run(work())


def test_name_that_nobody_knows_is_told_to_all_who_asked() -> None:
    async def work() -> None:
        lookups = Lookups(Resolver())
        asks = (lookups.find("a", "unknown.example") for _ in range(3))
        told = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(each) for each in told] == [socket.gaierror] * 3

    virtual_time.run(work())


def test_a_tenant_has_no_more_waiting_than_it_may() -> None:
    async def work() -> None:
        lookups = Lookups(Resolver())
        waiting = [asyncio.create_task(failing(lookups, "a", "slow.example")) for _ in range(MAX_ASKERS)]
        await asyncio.sleep(1)
        assert await failing(lookups, "a", "x.example") == 0
        assert await lookups.find("b", "x.example") == ["8.8.8.8"]
        await asyncio.gather(*waiting)
        assert await lookups.find("a", "x.example") == ["8.8.8.8"]

    virtual_time.run(work())


def test_who_is_cancelled_leaves_no_trace() -> None:
    async def work() -> None:
        lookups = Lookups(Resolver(), each=1)
        first, second = [asyncio.create_task(lookups.find("a", f"slow{n}.example")) for n in range(2)]
        await asyncio.sleep(1)
        for each in (first, second):
            each.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await asyncio.sleep(SLOW_S)
        assert not vars(lookups)["_shares"]

    virtual_time.run(work())
