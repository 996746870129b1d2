"""Followers of a text get every chunk once and in order, or are told that what they show does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from making import EPOCH
from memory_chunks import MemoryChunks, MemoryStream
from queue_scene import Scene, pump

from flik.domain.chunk import Draft, event_of
from flik.domain.event import Event, Notice
from flik.domain.task import Completed, Failed, Grant, NewTask
from flik.pipeline.follow import MAILBOX, Hub
from flik.pipeline.follow_tenant import TenantFollowing
from flik.pipeline.follow_text import LOST, SharedTexts, TextFollowing

SOON_S = 5.0


class Writer:
    """Writes the text of a task as a model replica does, and has the hub hear of it unless told otherwise."""

    def __init__(self, hub: Hub, chunks: MemoryChunks, task_id: str, attempt: int = 1) -> None:
        self.stream = chunks.streams.setdefault(task_id, MemoryStream())
        self._hub = hub
        self._task_id = task_id
        self._draft = Draft(attempt, f"run {attempt}", f"w{attempt}", "v1")

    def write(self, *texts: str, heard: bool = True) -> None:
        for text in texts:
            self._draft.add(text, EPOCH)
        while (write := self._draft.next_write(10)) is not None:
            self._draft.heed(self.stream.write(write))
            if heard:
                told = [event_of(self._task_id, write.first + n, chunk) for n, chunk in enumerate(write.chunks)]
                self._hub.hear([Notice("acme", event) for event in told])


@pytest.fixture
def chunks() -> MemoryChunks:
    return MemoryChunks()


@pytest.fixture
async def task(scene: Scene) -> NewTask:
    return await scene.submit()


@pytest.fixture
async def grant(scene: Scene, task: NewTask) -> Grant:
    return await scene.lease_one()


async def complete(scene: Scene, grant: Grant, text: str | None) -> None:
    await scene.settle(Completed(grant.task_id, grant.lease_token, text, {}, ()))


async def some(following: TextFollowing, count: int) -> list[Event]:
    events = []
    for _ in range(count):
        event = await following.next(SOON_S)
        assert event is not None
        events.append(event)
    return events


async def rest(following: TextFollowing) -> list[Event]:
    events = []
    while not following.ended:
        events += await some(following, 1)
    return events


def shown(events: Sequence[Event]) -> list[str]:
    return [event.text or event.kind for event in events]


async def test_chunks_come_as_they_are_written_and_whole_before_the_end(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id) as following:
        writer.write("a", "b")
        assert shown(await some(following, 4)) == ["queued", "processing", "a", "b"]
        writer.write("c", heard=False)  # only the end is heard
        await complete(scene, grant, "abc")
        pump(scene, hub)
        events = await rest(following)
    assert shown(events) == ["c", "completed"]
    assert (events[0].chunk_index, events[0].worker_id, events[0].attempt) == (2, "w1", 1)


async def test_who_comes_late_gets_the_text_from_its_beginning(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    Writer(hub, chunks, grant.task_id).write("a", "b")
    async with TextFollowing(hub, chunks, grant.task_id) as following:
        assert shown(await some(following, 4)) == ["queued", "processing", "a", "b"]
    await complete(scene, grant, "ab")
    async with TextFollowing(hub, chunks, grant.task_id) as following:
        assert shown(await rest(following)) == ["queued", "processing", "a", "b", "completed"]


@pytest.mark.parametrize("cursor", range(4))
async def test_who_comes_back_goes_on_after_its_last_chunk(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant, cursor: int
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    writer.write("a", "b")
    async with TextFollowing(hub, chunks, grant.task_id, 2, cursor) as following:
        writer.write("c")
        await complete(scene, grant, "abc")
        pump(scene, hub)
        assert shown(await rest(following)) == [*"abc"[cursor:], "completed"]


async def test_a_gap_in_what_is_heard_is_read_from_the_stream(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        writer.write("a", "b", heard=False)
        writer.write("c")
        writer.write("d")
        assert shown(await some(following, 4)) == ["a", "b", "c", "d"]


async def test_a_slow_follower_reads_what_its_mailbox_did_not_hold(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    many = [f"{number} " for number in range(2 * MAILBOX)]
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        writer.write(*many)
        assert shown(await some(following, len(many))) == many


async def test_the_chunks_that_came_while_redis_was_away_come_when_it_is_back(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        chunks.away = True
        hub.note_live(False)
        writer.write("a", heard=False)
        chunks.away = False
        hub.note_live(True)
        assert shown(await some(following, 3)) == ["delayed", "live", "a"]


@pytest.mark.parametrize("away", [True, False])
async def test_when_the_stream_is_gone_the_follower_is_told_and_the_result_has_the_text(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant, away: bool
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        writer.write("a")
        writer.stream.lose()
        chunks.away = away
        await complete(scene, grant, "ab")
        pump(scene, hub)
        events = await rest(following)
    assert shown(events) == ["a", "restart", "completed"]
    assert (events[1].reason, events[1].chunk_index) == (LOST, None)
    assert events[2].task is not None
    assert events[2].task.result is not None
    assert events[2].task.result["text"] == "ab"


async def test_another_text_of_a_later_attempt_begins_with_a_restart(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    Writer(hub, chunks, grant.task_id).write("a", "b")
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        Writer(hub, chunks, grant.task_id, attempt=2).write("a", "x")
        await complete(scene, grant, "ax")
        pump(scene, hub)
        assert shown(await rest(following)) == ["a", "b", "restart", "a", "x", "completed"]


async def test_a_failed_task_ends_after_what_there_was(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        writer.write("a", heard=False)
        await scene.settle(Failed(grant.task_id, grant.lease_token, "boom", "", retryable=False))
        pump(scene, hub)
        assert shown(await rest(following)) == ["a", "failed"]


async def test_a_task_that_writes_nothing_ends_as_ever(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    async with TextFollowing(hub, chunks, grant.task_id, 2) as following:
        await complete(scene, grant, None)
        pump(scene, hub)
        assert shown(await rest(following)) == ["completed"]


async def test_a_whole_text_is_not_read_again_at_the_end(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id) as following:
        writer.write("a", "b")
        await complete(scene, grant, "ab")
        pump(scene, hub)
        await rest(following)
    assert chunks.reads == [(grant.task_id, 0)]


async def test_who_does_not_ask_for_chunks_gets_none(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    of_tenant = TenantFollowing(hub, scene.store.find, "acme")
    async with hub.follow(grant.task_id, 2) as following, of_tenant as all_of_tenant:
        pump(scene, hub)
        Writer(hub, chunks, grant.task_id).write("a", "b")
        await complete(scene, grant, "ab")
        pump(scene, hub)
        assert shown(await rest(following)) == ["completed"]  # type: ignore[arg-type]
        heard = [await all_of_tenant.next(0) for _ in range(4)]
    assert [event.kind for event in heard if event] == ["queued", "processing", "completed"]


async def test_a_hundred_who_come_at_one_moment_ask_twice_at_most(hub: Hub, chunks: MemoryChunks, grant: Grant) -> None:
    Writer(hub, chunks, grant.task_id).write("a", "b")
    shared = SharedTexts(chunks)

    async def follow() -> list[str]:
        async with TextFollowing(hub, shared, grant.task_id, 2) as following:
            return shown(await some(following, 2))

    assert await asyncio.gather(*(follow() for _ in range(100))) == [["a", "b"]] * 100
    assert len(chunks.reads) <= 2


async def test_gathered_are_chunks_and_numbered_events(
    scene: Scene, hub: Hub, chunks: MemoryChunks, grant: Grant
) -> None:
    writer = Writer(hub, chunks, grant.task_id)
    async with TextFollowing(hub, chunks, grant.task_id) as following:
        assert shown(await following.gather(0)) == ["queued", "processing"]
        writer.write("a", "b")
        assert shown(await following.gather(SOON_S)) == ["a"]
        assert shown(await following.gather(SOON_S)) == ["b"]
        assert following.next_chunk == 2
