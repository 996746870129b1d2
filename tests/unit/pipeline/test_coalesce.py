"""One question answers all who ask at one moment, and none that was sent before."""

from __future__ import annotations

import asyncio

import pytest

from flik.pipeline.coalesce import Coalesced


class Slow:
    """Answers with how often it was asked, when it is let."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent = asyncio.Semaphore(0)
        self.let = asyncio.Semaphore(0)
        self.fails = False

    async def __call__(self, key: str) -> int:
        self.asked.append(key)
        number = len(self.asked)
        self.sent.release()
        await self.let.acquire()
        if self.fails:
            raise OSError(key)
        return number


async def test_who_asks_at_one_moment_shares_a_question() -> None:
    slow = Slow()
    read = Coalesced(slow)
    calls = [asyncio.create_task(read("a")) for _ in range(100)]
    await slow.sent.acquire()
    slow.let.release()
    assert set(await asyncio.gather(*calls)) == {1}


async def test_who_comes_while_one_is_under_way_shares_the_next() -> None:
    slow = Slow()
    read = Coalesced(slow)
    first = asyncio.create_task(read("a"))
    await slow.sent.acquire()
    later = [asyncio.create_task(read("a")) for _ in range(10)]
    await asyncio.sleep(0)
    slow.let.release()
    slow.let.release()
    assert await first == 1
    assert set(await asyncio.gather(*later)) == {2}
    assert slow.asked == ["a", "a"]


async def test_keys_do_not_wait_for_one_another() -> None:
    slow = Slow()
    read = Coalesced(slow)
    calls = [asyncio.create_task(read(key)) for key in "ab"]
    for _ in "ab":
        await slow.sent.acquire()
    slow.let.release()
    slow.let.release()
    assert sorted(await asyncio.gather(*calls)) == [1, 2]


async def test_a_failure_is_told_to_all_and_remembered_by_nobody() -> None:
    slow = Slow()
    read = Coalesced(slow)
    slow.fails = True
    calls = [asyncio.create_task(read("a")) for _ in range(3)]
    await slow.sent.acquire()
    slow.let.release()
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [OSError] * 3
    slow.fails = False
    slow.let.release()
    assert await read("a") == 2


async def test_one_who_leaves_does_not_take_the_others_with_it() -> None:
    slow = Slow()
    read = Coalesced(slow)
    leaving, staying = asyncio.create_task(read("a")), asyncio.create_task(read("a"))
    await slow.sent.acquire()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    slow.let.release()
    assert await staying == 1
