"""What is HOT is what PostgreSQL tells: both servers are real, the queue between them too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from making import new_task, stored_file, ticket_of, worker
from queue_scene import FeedFake

from flik.domain.task import Completed, Failed, Grant, NewTask, TaskView
from flik.live.results import LiveResults
from flik.pipeline.schedule import QueuePolicy, TaskQueue
from flik.storage.database import Database
from flik.storage.queue import QueueStore
from flik.storage.tasks import TaskStore


def submitted_at() -> float:
    """A time as task ids hold it: to the millisecond."""
    return round(time.time(), 3)


@dataclass
class Tiers:
    queue: TaskQueue
    tasks: TaskStore
    hot: LiveResults

    async def run(self, task: NewTask) -> Grant:
        """Store a task, have it granted."""
        await self.tasks.insert([task])
        await self.queue.announce([ticket_of(task)])
        (grant,) = (await self.queue.lease(worker(), 1, 5.0)).grants
        return grant

    async def hot_of(self, task: NewTask) -> TaskView:
        async with asyncio.timeout(5.0):
            while (view := await self.hot.get(task.task_id)) is None:  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(0.01)
        return view


@pytest.fixture
async def tiers(database_url: str, valkey_url: str) -> AsyncIterator[Tiers]:
    database = await Database(database_url, connections=3, pinned_plans=True).open()
    hot = LiveResults(valkey_url, ttl_s=60).open()
    policy = QueuePolicy(task_types=("TEXT",), retry_delays_s=(0.0, 0.0, 0.0))
    queue = TaskQueue(QueueStore(database, "us-east"), hot, FeedFake(), policy, time.time)
    running = asyncio.create_task(queue.run())
    yield Tiers(queue, TaskStore(database, max_attempts=4), hot)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await hot.close()
    await database.close()


async def test_a_completed_task_is_the_same_in_both(tiers: Tiers) -> None:
    task = new_task(submitted_at(), request_id="r1", start_deadline_at=submitted_at() + 60, priority=2)
    grant = await tiers.run(task)
    files = (stored_file(0), stored_file(1, duration_s=1.5, width=None, height=None, upload_attempts=2))
    outcome = Completed(grant.task_id, grant.lease_token, 'é "猫"', {"tokens": 3, "deep": [{}]}, files)
    assert await tiers.queue.settle([outcome]) == [True]
    assert await tiers.hot_of(task) == await tiers.tasks.get(task.task_id)


async def test_a_task_that_completed_at_its_second_attempt_is_the_same_in_both(tiers: Tiers) -> None:
    task = new_task(submitted_at())
    first = await tiers.run(task)
    assert await tiers.queue.settle([Failed(first.task_id, first.lease_token, "overloaded", "too much", True)]) == [
        True
    ]
    (second,) = (await tiers.queue.lease(worker(), 1, 5.0)).grants
    assert await tiers.queue.settle([Completed(second.task_id, second.lease_token)]) == [True]
    stored = await tiers.tasks.get(task.task_id)
    assert stored is not None
    assert (stored.attempt, stored.error_code) == (2, None)
    assert await tiers.hot_of(task) == stored
