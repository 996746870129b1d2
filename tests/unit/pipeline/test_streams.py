"""Callers of one stream share one try in a gateway, and one failure."""

from __future__ import annotations

import asyncio

import pytest
from making import EPOCH, new_task
from memory_names import TTL_S, MemoryNames
from memory_store import MemoryStore

from flik.domain.task import NewTask, Ticket
from flik.errors import RateLimited, Unavailable
from flik.pipeline.streams import Streams
from flik.pipeline.submit import Announcer


class Scene:
    """Streams over names in memory."""

    def __init__(self) -> None:
        self.announced: list[Ticket] = []
        self.made: list[NewTask] = []
        self.refusal: Exception | None = None
        self.now = EPOCH
        self.names = MemoryNames(MemoryStore().insert)
        self.streams = Streams(self.names, Announcer("us-east", self.tell), lambda: self.now)

    async def tell(self, tickets: list[Ticket]) -> None:
        self.announced += tickets

    async def make(self) -> NewTask:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.made.append(new_task())
        return self.made[-1]


async def test_callers_at_one_moment_share_one_task() -> None:
    scene = Scene()
    joined = await asyncio.gather(*(scene.streams.start_or_join("acme", "s", scene.make) for _ in range(50)))
    assert {each.task_id for each in joined} == {scene.made[0].task_id}
    assert [each.is_new for each in joined] == [True] + [False] * 49
    assert len(scene.made) == len(scene.announced) == 1
    assert await scene.streams.join("acme", "s") == scene.made[0].task_id


async def test_a_refusal_is_told_to_all_and_remembered_by_none() -> None:
    scene = Scene()
    scene.refusal = RateLimited("acme", 1.0, 1)
    asked = [scene.streams.start_or_join("acme", "s", scene.make) for _ in range(3)]
    assert [type(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == [RateLimited] * 3
    scene.refusal = None
    assert (await scene.streams.start_or_join("acme", "s", scene.make)).is_new


async def test_a_caller_who_leaves_takes_nobody_along() -> None:
    scene = Scene()
    leaving = asyncio.create_task(scene.streams.start_or_join("acme", "s", scene.make))
    await asyncio.sleep(0)
    staying = asyncio.create_task(scene.streams.start_or_join("acme", "s", scene.make))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).task_id == scene.made[0].task_id


async def test_a_stream_that_is_over_is_started_anew() -> None:
    scene = Scene()
    first = await scene.streams.start_or_join("acme", "s", scene.make)
    scene.names.ended_at[first.task_id] = EPOCH
    assert await scene.streams.start_or_join("acme", "s", scene.make) == first._replace(is_new=False)
    scene.now = EPOCH + TTL_S
    assert await scene.streams.join("acme", "s") is None
    assert (await scene.streams.start_or_join("acme", "s", scene.make)).task_id != first.task_id


async def test_a_name_that_slips_away_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    async def never(*args: object) -> bool:
        return False

    monkeypatch.setattr(scene.names, "start", never)
    with pytest.raises(Unavailable):
        await scene.streams.start_or_join("acme", "s", scene.make)
    assert len(scene.made) == 1
