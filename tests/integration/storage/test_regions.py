"""Two regions on one PostgreSQL and one Redis: each queue grants its own tasks, callers may ask at either."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import psycopg
import pytest
from making import new_task, task_id_at, worker
from queue_scene import FeedFake, HotFake, completed, failed

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.event import Kind
from flik.domain.news import News
from flik.domain.task import Grant, NewTask, Ticket
from flik.live.news import NewsReader, NewsWriter, pack, unpack
from flik.pipeline.queue.elsewhere import Tell
from flik.pipeline.queue.refill import SCAN_EVERY_S
from flik.pipeline.schedule import QueuePolicy, TaskQueue
from flik.pipeline.submit import Announcer, Announcers
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.queue import QueueStore
from flik.storage.tasks import TaskStore

EAST, WEST = "us-east", "us-west"
FAST_S = SCAN_EVERY_S / 2  # sooner than a scan would find it
TICKET = Ticket("t1", "acme", "TEXT", 1, 1.5, 2.5)


async def silent(region: str, news: News) -> None:
    """Lose news, as a Redis does to which nobody listens."""


class Region:
    """A queue that runs, and what it stands on."""

    def __init__(self, name: str, database: Database, tell: Tell) -> None:
        self.name = name
        self.store = QueueStore(database, name)
        self.feed = FeedFake()
        policy = QueuePolicy(task_types=("TEXT",), retry_delays_s=(0.0,))
        self.queue = TaskQueue(self.store, HotFake(), self.feed, policy, time.time, tell_others=tell)

    async def lease(self, within_s: float = FAST_S) -> list[Grant]:
        return list((await self.queue.lease(worker(f"of-{self.name}"), 1, within_s)).grants)

    async def lease_one(self, within_s: float = FAST_S) -> Grant:
        (grant,) = await self.lease(within_s)
        return grant

    def told(self, task_id: str) -> list[str]:
        return [event.kind for event in self.feed.of(task_id)]


class World:
    """Both regions; what is submitted is submitted in the east."""

    def __init__(self, database: Database, valkey_url: str) -> None:
        self.news = NewsWriter(valkey_url)
        self.tasks = TaskStore(database, max_attempts=2)
        self.dags = DagStore(database, max_attempts=2)
        self.east, self.west = (Region(name, database, self.news.tell) for name in (EAST, WEST))
        self.readers = [NewsReader(valkey_url, each.name, each.queue.hear) for each in (self.east, self.west)]
        self.announcers = Announcers(
            [Announcer(EAST, self.east.queue.announce), Announcer(WEST, partial(self.news.announce, WEST))]
        )

    async def submit(self, region: str = WEST) -> NewTask:
        task = new_task(round(time.time(), 3), region=region)
        await self.tasks.insert([task])
        self.announcers.announce([task])
        return task

    async def submit_chain(self) -> NewDag:
        """A dag of two steps for the west."""
        now = round(time.time(), 3)
        dag_id = task_id_at(now)
        first, second = (new_task(now, region=WEST, dag_id=dag_id, waits=waits) for waits in (False, True))
        steps = (NewStep("first", first, (), "fail"), NewStep("second", second, (0,), "fail"))
        dag = NewDag(dag_id, "acme", 1, WEST, now, None, None, None, None, steps)
        await self.dags.insert([dag])
        self.announcers.announce([first, second])
        return dag

    async def status(self, task_id: str) -> str:
        view = await self.tasks.get(task_id)
        assert view is not None
        return view.status


@pytest.fixture
async def world(database_url: str, valkey_url: str) -> AsyncIterator[World]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, attempts, artifacts, rounds, dags, dag_steps, dag_rounds, memos")
    database = await Database(database_url, connections=4, pinned_plans=True).open()
    world = World(database, valkey_url)
    runs = [each.queue.run() for each in (world.east, world.west)] + [each.run() for each in world.readers]
    running = [asyncio.create_task(each) for each in runs]
    await asyncio.gather(*(each.queue.rebuilt.wait() for each in (world.east, world.west)))
    await until_heard(world)
    for region in (world.east, world.west):  # what is told must not be found by looking
        await until(lambda region=region: region.queue.reaping._next_look_at)
        region.queue.reaping._next_look_at = math.inf
    yield world
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await world.news.close()
    await database.close()


async def until_heard(world: World) -> None:
    """Return when both queues listen to their channels."""
    for region in (world.east, world.west):
        ticket = TICKET._replace(task_id=task_id_at(time.time()), task_type="NOTHING")

        async def heard(region: Region = region, ticket: Ticket = ticket) -> bool:
            await world.news.announce(region.name, [ticket])
            return bool(region.told(ticket.task_id))

        await until(heard)


async def until(ask: Callable[[], object], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while True:
            found = ask()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.02)


async def test_a_task_for_another_region_is_told_there_and_runs_nowhere_else(world: World) -> None:
    here = asyncio.create_task(world.east.lease(SCAN_EVERY_S * 1.5))
    task = await world.submit()
    grant = await world.west.lease_one()
    assert grant.task_id == task.task_id
    assert await world.west.queue.settle([completed(grant)]) == [True]
    assert await here == []
    assert world.west.told(task.task_id) == [Kind.QUEUED, Kind.PROCESSING, Kind.COMPLETED]
    assert world.east.told(task.task_id) == []


async def test_a_task_of_which_the_news_is_lost_is_found(world: World) -> None:
    world.announcers = Announcers([Announcer(EAST, world.east.queue.announce)])
    task = await world.submit()
    assert (await world.west.lease_one(SCAN_EVERY_S * 4)).task_id == task.task_id


async def test_a_cancel_elsewhere_keeps_a_completion_out_and_is_told_to_the_worker(world: World) -> None:
    task = await world.submit()
    grant = await world.west.lease_one()
    moved = await world.east.queue.cancel(task.task_id)
    assert moved is not None
    assert moved.moved
    assert await world.status(task.task_id) == "CANCELLED"
    await until(lambda: len(world.west.queue.leases) == 0, FAST_S)
    assert await world.west.queue.settle([completed(grant)]) == [False]
    assert await world.status(task.task_id) == "CANCELLED"
    assert world.east.told(task.task_id) == [Kind.CANCELLED]  # once, by who did it
    assert Kind.CANCELLED not in world.west.told(task.task_id)


async def test_a_waiting_task_that_is_cancelled_elsewhere_waits_no_longer(world: World) -> None:
    task = await world.submit()
    waiting = world.west.queue.waiting
    await until(lambda: waiting.depths("TEXT")[1] == 1)
    await world.east.queue.cancel(task.task_id)
    await until(lambda: waiting.depths("TEXT")[1] == 0, FAST_S)


async def test_a_cancel_of_which_the_news_is_lost_is_found(world: World, database_url: str) -> None:
    database = await Database(database_url, connections=1).open()
    mute = Region(EAST, database, silent)
    task = await world.submit()
    grant = await world.west.lease_one()
    other = await world.submit()
    kept = await world.west.lease_one()
    assert kept.task_id == other.task_id
    assert await mute.queue.cancel(task.task_id) is not None
    assert len(world.west.queue.leases) == 2
    world.west.queue.reaping._next_look_at = 0.0  # else 15 s after the last one
    await until(lambda: len(world.west.queue.leases) == 1)
    assert world.west.queue.leases.get(kept.task_id, kept.lease_token) is not None
    assert await world.west.queue.settle([completed(grant), completed(kept)]) == [False, True]
    await database.close()


@pytest.mark.parametrize("way", ["retry", "replay"])
async def test_a_failed_task_that_is_queued_again_elsewhere_runs_in_its_region(world: World, way: str) -> None:
    task = await world.submit()
    grant = await world.west.lease_one()
    await world.west.queue.settle([failed(grant, retryable=False)])
    queue = world.east.queue
    moved = await (queue.retry(task.task_id) if way == "retry" else queue.replay([task.task_id]))
    assert moved
    assert world.east.queue.waiting.depths("TEXT") == [0, 0, 0]
    assert (await world.west.lease_one()).task_id == task.task_id


async def test_a_dag_for_another_region_runs_there_step_by_step(world: World) -> None:
    here = asyncio.create_task(world.east.lease(SCAN_EVERY_S * 1.5))
    dag = await world.submit_chain()
    for step in dag.steps:
        grant = await world.west.lease_one()
        assert grant.task_id == step.task.task_id
        await world.west.queue.settle([completed(grant)])
    view = await world.dags.get(dag.dag_id)
    assert view is not None
    assert view.status == "COMPLETED"
    assert await here == []


async def test_a_step_that_is_cancelled_elsewhere_is_told_to_its_region_and_ends_its_dag(world: World) -> None:
    dag = await world.submit_chain()
    await world.west.lease_one()
    await world.east.queue.cancel(dag.steps[0].task.task_id)
    await until(lambda: len(world.west.queue.leases) == 0, FAST_S)
    view = await world.dags.get(dag.dag_id)
    assert view is not None
    assert [step.task.status for step in view.steps] == ["CANCELLED", "CANCELLED"]


async def test_a_dag_that_is_cancelled_and_one_that_is_resumed_elsewhere(world: World) -> None:
    dag = await world.submit_chain()
    await world.west.lease_one()
    await world.east.queue.cancel_dag(dag.dag_id)
    await until(lambda: len(world.west.queue.leases) == 0, FAST_S)

    dag = await world.submit_chain()
    await world.west.queue.settle([completed(await world.west.lease_one())])
    await world.west.queue.settle([failed(await world.west.lease_one(), retryable=False)])
    await world.east.queue.resume_dag(dag.dag_id)
    again = await world.west.lease_one()
    assert again.task_id not in {step.task.task_id for step in dag.steps}
    assert world.east.queue.waiting.depths("TEXT") == [0, 0, 0]


def test_what_is_packed_is_unpacked_as_it_was_and_what_another_version_tells_is_passed_over() -> None:
    news = News([TICKET], [TICKET._replace(task_id="t2")], ["t3"])
    assert unpack(pack(news)) == news
    for message in (b"", b"{", b"7", b"[7]", b"{}", b'{"announced":[[1]],"waiting":[],"cancelled":[]}'):
        assert unpack(message) == News()
