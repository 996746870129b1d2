"""Who follows a tenant gets every event of each task submitted since, and is told when something may be missing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import EPOCH, stored_file
from queue_scene import W1, Scene, completed, failed, hub_of, pump

from flik.domain.event import Event, Kind, Notice
from flik.domain.task import Completed, NewTask
from flik.errors import Unavailable
from flik.pipeline import follow, follow_tenant
from flik.pipeline.follow import MAILBOX, Hub
from flik.pipeline.follow_tenant import TenantFollowing

SOON_S = 5.0


def acme(scene: Scene, hub: Hub, *, resumes: bool = False) -> TenantFollowing:
    return TenantFollowing(hub, scene.store.find, "acme", resumes=resumes)


async def heard(following: TenantFollowing) -> list[Event]:
    events = []
    while event := await following.next(0):
        events.append(event)
    return events


def told(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.seq, event.kind) for event in events]


async def run_to_end(scene: Scene, task: NewTask) -> None:
    grant = await scene.lease_one()
    assert grant.task_id == task.task_id
    await scene.settle(Completed(grant.task_id, grant.lease_token, "done", {}, (stored_file(0), stored_file(1))))


WHOLE = [(1, "queued"), (2, "processing"), (3, "artifact"), (4, "artifact"), (5, "completed")]


async def test_a_tenant_is_followed_across_its_tasks_and_nobody_elses(scene: Scene, hub: Hub) -> None:
    assert not hub.is_followed()
    async with acme(scene, hub) as following:
        assert hub.is_followed()
        ours, theirs = await scene.submit(), await scene.submit(tenant_id="other")
        await scene.settle(completed(await scene.lease_one()), completed(await scene.lease_one()))
        pump(scene, hub)
        events = await heard(following)
    assert {event.task_id for event in events} == {ours.task_id}
    assert theirs.task_id not in {event.task_id for event in events}
    assert events[2].task == await scene.store.get(ours.task_id)
    assert hub.followers == 0


@pytest.mark.parametrize("hot", [True, False])
async def test_files_are_told_of_and_a_result_is_there_hot_or_not(scene: Scene, hub: Hub, hot: bool) -> None:
    async with acme(scene, hub) as following:
        task = await scene.submit()
        await run_to_end(scene, task)
        if not hot:
            scene.hot.results.clear()
        pump(scene, hub)
        events = await heard(following)
    assert told(events) == WHOLE
    assert [event.artifact for event in events[2:4]] == [stored_file(0), stored_file(1)]
    assert events[4].task is not None
    assert (events[4].task.result or {})["text"] == "done"


@pytest.mark.parametrize("older", [True, False])
async def test_a_result_without_files_comes_from_the_log_if_it_is_not_hot(scene: Scene, hub: Hub, older: bool) -> None:
    task = await scene.submit() if older else None
    scene.clock.forward(1)
    async with acme(scene, hub) as following:
        task = task or await scene.submit()
        await scene.settle(completed(await scene.lease_one()))
        scene.hot.results.clear()
        pump(scene, hub)
        events = [event for event in await heard(following) if event.kind == Kind.COMPLETED]
    assert [(event.seq, event.task) for event in events] == [(3, await scene.store.get(task.task_id))]


async def test_what_was_not_heard_of_a_new_task_comes_from_its_log(scene: Scene, hub: Hub) -> None:
    async with acme(scene, hub) as following:
        task = await scene.submit()
        scene.feed.notices.clear()  # found by a scan, or lost
        grant = await scene.lease_one()
        pump(scene, hub)
        assert told(await heard(following)) == [(1, "queued"), (2, "processing")]
        await scene.settle(failed(grant))
        scene.feed.notices.clear()
        scene.clock.forward(61)
        await run_to_end(scene, task)
        pump(scene, hub)
        assert [seq for seq, _ in told(await heard(following))] == [3, 4, 5, 6, 7]


async def test_what_is_announced_again_is_told_once(scene: Scene, hub: Hub) -> None:
    async with acme(scene, hub) as following:
        task = await scene.submit()
        again = list(scene.feed.notices)
        await run_to_end(scene, task)
        pump(scene, hub)
        hub.hear(again)
        assert told(await heard(following)) == WHOLE


async def test_of_an_older_task_what_is_heard_is_told(scene: Scene, hub: Hub) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.feed.notices.clear()
    scene.clock.forward(1)
    async with acme(scene, hub) as following:
        await scene.beat(W1, grant, progress=0.25)
        await scene.settle(Completed(grant.task_id, grant.lease_token, "done", {}, (stored_file(0),)))
        pump(scene, hub)
        events = await heard(following)
    assert told(events) == [(0, "progress"), (3, "artifact"), (4, "completed")]
    assert {event.task_id for event in events} == {task.task_id}


async def test_progress_of_an_attempt_that_is_over_is_not_told(scene: Scene, hub: Hub) -> None:
    async with acme(scene, hub) as following:
        task = await scene.submit()
        await run_to_end(scene, task)
        pump(scene, hub)
        hub.hear([Notice("acme", Event(task.task_id, 0, Kind.PROGRESS, EPOCH, 1, "w1", "v1", progress=0.5))])
        assert told(await heard(following)) == WHOLE


async def test_what_was_forgotten_is_as_if_it_were_older(
    scene: Scene, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_tenant, "KEPT", 1)
    async with acme(scene, hub) as following:
        first, second = await scene.submit(), await scene.submit()
        pump(scene, hub)
        assert [event.task_id for event in await heard(following)] == [first.task_id, second.task_id]
        await run_to_end(scene, first)
        pump(scene, hub)
        assert [seq for seq, _ in told(await heard(following))] == [2, 3, 4, 5]


async def test_a_slow_follower_is_shown_how_things_stand(scene: Scene, hub: Hub) -> None:
    tasks = [await scene.submit(), await scene.submit(), await scene.submit(tenant_id="other")]
    async with acme(scene, hub) as following:
        hub.hear([Notice("acme", Event("t", 1, Kind.QUEUED, EPOCH))] * (MAILBOX + 1))
        events = await heard(following)
    assert told(events) == [(0, "reset")]
    assert [task.task_id for task in events[0].tasks or ()] == [tasks[1].task_id, tasks[0].task_id]


async def test_when_redis_is_back_the_follower_is_shown_how_things_stand(scene: Scene, hub: Hub) -> None:
    async with acme(scene, hub) as following:
        hub.note_live(False)
        task = await scene.submit()
        await run_to_end(scene, task)
        scene.feed.notices.clear()
        hub.note_live(True)
        events = await heard(following)
    assert told(events) == [(0, "delayed"), (0, "live"), (0, "reset")]
    assert [(task.task_id, task.status) for task in events[2].tasks or ()] == [(task.task_id, "COMPLETED")]


async def test_who_comes_back_is_shown_how_things_stand_first(scene: Scene) -> None:
    await scene.submit()
    scene.feed.notices.clear()
    hub = hub_of(scene, live=False)
    async with acme(scene, hub, resumes=True) as following:
        assert told(await heard(following)) == [(0, "delayed"), (0, "reset")]
    scene.store.fail_before = {"find"}
    with pytest.raises(Unavailable):
        await acme(scene, hub, resumes=True).__aenter__()
    assert hub.followers == 0


async def test_while_postgresql_is_away_a_follower_waits_and_is_told_later(
    scene: Scene, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_S", 0.001)
    async with acme(scene, hub) as following:
        task = await scene.submit()
        pump(scene, hub)
        assert told(await heard(following)) == [(1, "queued")]
        await run_to_end(scene, task)
        scene.hot.results.clear()
        scene.store.fail_before = {"read", "find"}
        scene.feed.notices = scene.feed.notices[-1:]
        pump(scene, hub)
        assert await following.next(0.02) is None
        scene.store.fail_before = set()
        reset = await following.next(SOON_S)
    assert reset is not None
    assert (reset.kind, [task.status for task in reset.tasks or ()]) == ("reset", ["COMPLETED"])


fates = st.lists(st.sampled_from(["told", "told", "lost", "doubled", "held back"]), max_size=30)


@settings(max_examples=300, deadline=None)
@given(fates, st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_whatever_the_feed_does_no_event_is_told_twice_or_out_of_order(fates: list[str], failures: list[int]) -> None:
    asyncio.run(_follow_over(fates, failures))


async def _follow_over(fates: list[str], failures: list[int]) -> None:
    """Run tasks over a feed that treats its messages as `fates` say; the end of each is heard."""
    async with Scene() as scene:
        hub, fate, held = hub_of(scene), iter(fates), []

        def tell() -> None:
            for notice in scene.feed.notices:
                what = "told" if notice.event.ends else next(fate, "told")
                if what == "held back":
                    held.append(notice)
                elif what != "lost":
                    hub.hear([notice] * (2 if what == "doubled" else 1))
            scene.feed.notices.clear()

        async with acme(scene, hub) as following:
            got: list[Event] = []
            tasks = []
            for times in failures:
                tasks.append(await scene.submit())
                for _ in range(times):
                    await scene.settle(failed(await scene.lease_one()))
                    scene.clock.forward(61)
                    tell()
                    got += await heard(following)
                await run_to_end(scene, tasks[-1])
                tell()
            hub.hear(held)
            got += await heard(following)
        for task in tasks:
            seqs = [event.seq for event in got if event.task_id == task.task_id and event.is_durable]
            assert seqs == list(range(1, scene.row(task).seq + 1))
