"""What every store of streams' names does: the table, and the one in memory that the gateway is tested with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import psycopg
import pytest
from making import EPOCH, new_task
from memory_names import TTL_S, MemoryNames
from memory_store import MemoryStore

from flik.storage.database import Database
from flik.storage.streams import StreamStore
from flik.storage.tasks import TaskStore

PLACE = ("acme", "support:chat-1")


@dataclass
class Stores:
    names: StreamStore | MemoryNames
    tasks: TaskStore | MemoryStore
    end: Callable[[str, float], Awaitable[None]]  # have a task end at a time


@pytest.fixture(params=["memory", "postgresql"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        tasks = MemoryStore()
        names = MemoryNames(tasks.insert)

        async def end_in_memory(task_id: str, at: float) -> None:
            names.ended_at[task_id] = at

        yield Stores(names, tasks, end_in_memory)
        return
    url = request.getfixturevalue("database_url")
    database = await Database(url, connections=2).open()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, streams")

        async def end(task_id: str, at: float) -> None:
            connection.execute(
                "UPDATE tasks SET status = 'CANCELLED', completed_at = to_timestamp(%s) WHERE task_id = %s",
                (at, task_id),
            )

        names_table = StreamStore(database, max_attempts=4, ttl_s=TTL_S)
        yield Stores(names_table, TaskStore(database, max_attempts=4), end)
    await database.close()


async def test_a_name_stands_for_the_task_that_was_stored_with_it(stores: Stores) -> None:
    task = new_task(payload='{"prompt": "x"}')
    assert await stores.names.find(PLACE, EPOCH) is None
    assert await stores.names.start(PLACE, task, EPOCH)
    assert await stores.names.find(PLACE, EPOCH) == task.task_id
    assert await stores.tasks.get(task.task_id) is not None


async def test_a_name_that_is_taken_stores_nothing(stores: Stores) -> None:
    first, second = new_task(), new_task()
    assert await stores.names.start(PLACE, first, EPOCH)
    assert not await stores.names.start(PLACE, second, EPOCH + 1_000_000)  # it runs for long
    assert await stores.names.find(PLACE, EPOCH + 1_000_000) == first.task_id
    assert await stores.tasks.get(second.task_id) is None


async def test_a_start_that_is_repeated_is_stored_once(stores: Stores) -> None:
    task = new_task()
    assert [await stores.names.start(PLACE, task, EPOCH) for _ in range(2)] == [True, True]


@pytest.mark.parametrize(("later_s", "is_free"), [(TTL_S - 0.01, False), (TTL_S, True)])
async def test_a_name_is_free_a_while_after_its_stream_is_over(stores: Stores, later_s: float, is_free: bool) -> None:
    first, second = new_task(), new_task()
    await stores.names.start(PLACE, first, EPOCH)
    await stores.end(first.task_id, EPOCH)
    assert (await stores.names.find(PLACE, EPOCH + later_s) is None) == is_free
    assert await stores.names.start(PLACE, second, EPOCH + later_s) == is_free
    assert await stores.names.find(PLACE, EPOCH + later_s) == (second if is_free else first).task_id


@pytest.mark.parametrize("other", [("acme", "support:chat-2"), ("zebra", "support:chat-1"), ("acme", "é" * 500)])
async def test_names_and_tenants_do_not_meet(stores: Stores, other: tuple[str, str]) -> None:
    first, second = new_task(), new_task(tenant_id=other[0])
    assert await stores.names.start(PLACE, first, EPOCH)
    assert await stores.names.start(other, second, EPOCH)
    assert await stores.names.find(PLACE, EPOCH) == first.task_id
    assert await stores.names.find(other, EPOCH) == second.task_id
