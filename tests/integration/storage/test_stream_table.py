"""Names of streams on a real PostgreSQL: races between gateways, what is swept, plans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from making import EPOCH, new_task

from flik.domain.task import NewTask, Ticket
from flik.pipeline.streams import Streams
from flik.pipeline.submit import Announcer
from flik.storage.database import Database
from flik.storage.streams import StreamStore, forget_streams

TTL_S = 60.0
DAY_S = 86_400.0
PLACE = ("acme", "support:chat-1")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of the test's own, on empty tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, streams")
        yield connection


@pytest.fixture
async def databases(database_url: str, connection: psycopg.Connection) -> AsyncIterator[list[Database]]:
    """Connections of two gateways."""
    opened = [await Database(database_url, connections=4).open() for _ in range(2)]
    yield opened
    for database in opened:
        await database.close()


def store(database: Database) -> StreamStore:
    return StreamStore(database, max_attempts=4, ttl_s=TTL_S)


def count(connection: psycopg.Connection, table: str) -> int:
    rows = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert rows is not None
    return int(rows[0])


def end(connection: psycopg.Connection, task_id: str, at: float) -> None:
    connection.execute(
        "UPDATE tasks SET status = 'CANCELLED', completed_at = to_timestamp(%s) WHERE task_id = %s", (at, task_id)
    )


async def test_callers_on_two_gateways_at_one_moment_make_one_task(
    databases: list[Database], connection: psycopg.Connection
) -> None:
    announced: list[Ticket] = []

    async def tell(tickets: list[Ticket]) -> None:
        announced.extend(tickets)

    async def make() -> NewTask:
        made.append(new_task())
        return made[-1]

    for name in range(20):
        made: list[NewTask] = []
        gateways = [Streams(store(each), Announcer("us-east", tell), lambda: EPOCH) for each in databases]
        asked = [gateway.start_or_join("acme", f"s{name}", make) for gateway in gateways for _ in range(25)]
        joined = await asyncio.gather(*asked)
        assert len({each.task_id for each in joined}) == 1
        assert sum(each.is_new for each in joined) == 1
        assert len(made) <= 2  # one a gateway
    assert count(connection, "tasks") == count(connection, "streams") == 20
    assert len(announced) == 20


async def test_a_name_that_is_over_is_taken_by_one_of_two_gateways(
    databases: list[Database], connection: psycopg.Connection
) -> None:
    first, *others = new_task(), new_task(), new_task()
    await store(databases[0]).start(PLACE, first, EPOCH)
    end(connection, first.task_id, EPOCH)
    later = EPOCH + TTL_S
    starting = [store(each).start(PLACE, task, later) for each, task in zip(databases, others, strict=True)]
    assert sorted(await asyncio.gather(*starting)) == [False, True]
    assert count(connection, "tasks") == 2


async def test_a_task_that_another_gateway_is_storing_is_not_taken_for_one_that_is_over(
    database_url: str, databases: list[Database], connection: psycopg.Connection
) -> None:
    task = new_task()
    with psycopg.connect(database_url) as other:  # the row is there, its transaction has not committed
        other.execute(
            "INSERT INTO streams (tenant_id, key, task_id, started_at) VALUES (%s, %s, %s, now())",
            (*PLACE, task.task_id),
        )
        starting = asyncio.create_task(store(databases[0]).start(PLACE, new_task(), EPOCH))
        async with asyncio.timeout(10):
            while not connection.execute(  # noqa: ASYNC110  # until it waits for the other transaction
                "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall():
                await asyncio.sleep(0.01)
        other.commit()
        assert not await starting


async def test_what_has_been_over_for_a_day_is_swept(databases: list[Database], connection: psycopg.Connection) -> None:
    over, running, fresh, gone = new_task(), new_task(), new_task(), new_task()
    names = store(databases[0])
    for number, (task, at) in enumerate(
        [(over, EPOCH - DAY_S), (running, EPOCH - DAY_S), (fresh, EPOCH), (gone, EPOCH - DAY_S)]
    ):
        await names.start(("acme", str(number)), task, at)
    end(connection, over.task_id, EPOCH - DAY_S)
    end(connection, fresh.task_id, EPOCH)
    connection.execute("DELETE FROM tasks WHERE task_id = %s", (gone.task_id,))
    assert await forget_streams(databases[0], EPOCH, 1) == 1
    assert await forget_streams(databases[0], EPOCH, 10) == 1
    assert await forget_streams(databases[0], EPOCH, 10) == 0
    left = connection.execute("SELECT key FROM streams ORDER BY key").fetchall()
    assert left == [("1",), ("2",)]
