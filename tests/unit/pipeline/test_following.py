"""Followers get every event once and in order, whatever the feed loses, doubles or holds back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import EPOCH, new_task, stored_file
from queue_scene import W1, Scene, completed, failed, hub_of, pump

from flik.domain.event import Event, Kind, Notice
from flik.domain.task import Completed, NewTask
from flik.errors import TaskNotFound
from flik.pipeline import follow
from flik.pipeline.follow import MAILBOX, Following, Hub

SOON_S = 5.0


async def all_of(following: Following) -> list[Event]:
    events = []
    while not following.ended:
        event = await following.next(SOON_S)
        assert event is not None
        events.append(event)
    return events


def numbers(events: Sequence[Event]) -> list[int]:
    return [event.seq for event in events if event.is_durable]


async def run_to_end(scene: Scene, task: NewTask) -> None:
    grant = await scene.lease_one()
    assert grant.task_id == task.task_id
    files = (stored_file(0), stored_file(1))
    await scene.settle(Completed(grant.task_id, grant.lease_token, "done", {}, files))


async def test_a_follower_hears_of_everything_as_it_happens(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        pump(scene, hub)
        assert await following.next(SOON_S) == Event(task.task_id, 1, "queued", EPOCH)
        grant = await scene.lease_one()
        pump(scene, hub)
        assert await following.next(SOON_S) == Event(task.task_id, 2, "processing", EPOCH, 1, "w1", "v1")
        await scene.beat(W1, grant, progress=0.25)
        pump(scene, hub)
        passing = await following.next(SOON_S)
        assert passing is not None
        assert (passing.kind, passing.progress, passing.worker_id, passing.seq) == ("progress", 0.25, "w1", 0)
        await scene.settle(completed(grant))
        pump(scene, hub)
        last = await following.next(SOON_S)
        assert last is not None
        assert (last.seq, last.kind) == (3, "completed")
        assert last.task == await scene.store.get(task.task_id)
        assert following.ended
    assert hub.followers == 0


async def test_a_follower_who_comes_late_gets_the_log_from_its_cursor_on(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    await run_to_end(scene, task)
    for since in range(6):
        async with hub.follow(task.task_id, since) as following:
            events = await all_of(following)
        assert numbers(events) == list(range(since + 1, 6))


async def test_files_stand_before_the_end_even_when_only_the_end_is_heard(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        await run_to_end(scene, task)
        pump(scene, hub)
        events = await all_of(following)
    assert [event.kind for event in events] == ["queued", "processing", "artifact", "artifact", "completed"]
    assert [event.artifact for event in events[2:4]] == [stored_file(0), stored_file(1)]


async def test_a_completed_task_that_is_hot_costs_no_look_at_postgresql(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        await run_to_end(scene, task)
        pump(scene, hub)
        await all_of(following)
    assert scene.store.calls["read"] == 1


async def test_a_completed_task_that_is_not_hot_is_read_from_the_log(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        await run_to_end(scene, task)
        scene.hot.results.clear()
        pump(scene, hub)
        assert numbers(await all_of(following)) == [1, 2, 3, 4, 5]


async def test_what_the_feed_lost_is_found_by_the_next_look(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        await run_to_end(scene, task)
        scene.feed.notices.clear()
        assert (await following.next(0)) is not None  # queued, which stood in the log
        assert (await following.next(0.001)) is None
        await hub.look()
        assert numbers(await all_of(following)) == [2, 3, 4, 5]


async def test_a_look_leaves_those_alone_who_are_up_to_date(scene: Scene, hub: Hub) -> None:
    tasks = [await scene.submit() for _ in range(3)]
    async with hub.follow(tasks[0].task_id), hub.follow(tasks[1].task_id), hub.follow(tasks[1].task_id):
        reads = scene.store.calls["read"]
        await hub.look()
        assert scene.store.calls["read"] == reads
        assert scene.store.calls["positions"] == 1


async def test_a_retry_is_told_with_its_time_and_a_failure_with_its_reason(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id, since=1) as following:
        await scene.settle(failed(await scene.lease_one()))
        scene.clock.forward(5)
        await scene.settle(failed(await scene.lease_one(), retryable=False))
        pump(scene, hub)
        _, again, _, end = await all_of(following)
    assert (again.kind, again.reason, again.available_at) == ("retryScheduled", "FAILED", EPOCH + 5)
    assert (end.kind, end.error_code, end.error_message) == ("failed", "overloaded", "too much")


async def test_a_cursor_beyond_the_log_is_reset_with_what_holds_now(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id, since=40) as following:
        event = await following.next(SOON_S)
        assert event is not None
        assert (event.kind, event.seq) == ("reset", 1)
        assert event.task == await scene.store.get(task.task_id)
        await run_to_end(scene, task)
        pump(scene, hub)
        assert numbers(await all_of(following)) == [2, 3, 4, 5]


async def test_an_unknown_task_has_no_followers(hub: Hub) -> None:
    with pytest.raises(TaskNotFound):
        async with hub.follow(new_task().task_id):
            pass
    assert hub.followers == 0


async def test_while_redis_is_away_followers_are_told_and_the_log_is_looked_at_often(
    scene: Scene, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_AWAY_S", 0.001)
    task = await scene.submit()
    looking = asyncio.create_task(hub.run())
    async with hub.follow(task.task_id, since=1) as following:
        hub.note_live(False)
        event = await following.next(SOON_S)
        assert event is not None
        assert event.kind == Kind.DELAYED
        await run_to_end(scene, task)
        assert numbers(await all_of(following)) == [2, 3, 4, 5]
    async with hub.follow(task.task_id, since=5) as following:
        event = await following.next(SOON_S)
        assert event is not None
        assert event.kind == Kind.DELAYED
        hub.note_live(True)
        event = await following.next(SOON_S)
        assert event is not None
        assert event.kind == Kind.LIVE
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_a_slow_follower_holds_a_bounded_mailbox_and_still_misses_nothing(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    async with hub.follow(task.task_id) as following:
        grant = await scene.lease_one()
        told = pump(scene, hub)
        hub.hear([Notice("acme", Event(task.task_id, 0, Kind.PROGRESS, EPOCH, 1, progress=0.1))] * (3 * MAILBOX))
        assert len(following._mailbox._events) <= MAILBOX
        await scene.settle(completed(grant))
        hub.hear([*told, *pump(scene, hub)])
        assert numbers(await all_of(following)) == [1, 2, 3]


async def test_while_postgresql_is_away_a_follower_waits_and_is_told_later(
    scene: Scene, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_S", 0.001)
    task = await scene.submit()
    async with hub.follow(task.task_id, since=1) as following:
        await run_to_end(scene, task)
        scene.hot.results.clear()
        scene.store.fail_before = {"read"}
        pump(scene, hub)
        first = await following.next(SOON_S)
        assert first is not None
        assert first.kind == "processing"
        assert await following.next(0.02) is None
        scene.store.fail_before = set()
        assert numbers(await all_of(following)) == [3, 4, 5]


losses = st.lists(st.sampled_from(["told", "told", "lost", "doubled", "held back"]), max_size=30)


@settings(max_examples=300, deadline=None)
@given(losses, st.integers(0, 3), st.booleans())
def test_whatever_the_feed_does_each_follower_gets_the_log(fates: list[str], failures: int, reconnects: bool) -> None:
    asyncio.run(_follow_over(fates, failures, reconnects))


async def _follow_over(fates: list[str], failures: int, reconnects: bool) -> None:
    """Run a task to its end over a feed that treats its messages as `fates` say; follow it, cut off in between."""
    async with Scene() as scene:
        hub, fate, held = hub_of(scene), iter(fates), []

        def tell() -> None:
            for notice in scene.feed.notices:
                what = next(fate, "told")
                if what == "held back":
                    held.append(notice)
                elif what != "lost":
                    hub.hear([notice] * (2 if what == "doubled" else 1))
            scene.feed.notices.clear()

        task = await scene.submit()
        got: list[Event] = []
        following = await hub.follow(task.task_id).__aenter__()
        for _ in range(failures):
            await scene.settle(failed(await scene.lease_one()))
            scene.clock.forward(61)
            tell()
            while event := await following.next(0):
                got.append(event)
            if reconnects:
                seq = max(numbers(got), default=0)
                await following.__aexit__()
                following = await hub.follow(task.task_id, seq).__aenter__()
        await run_to_end(scene, task)
        tell()
        while event := await following.next(0):
            got.append(event)
        hub.hear(held)
        await hub.look()
        got += await all_of(following)
        await following.__aexit__()
        assert numbers(got) == list(range(1, scene.row(task).seq + 1))
