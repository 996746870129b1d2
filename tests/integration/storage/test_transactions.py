"""Work in one transaction: all of it or nothing, and again when PostgreSQL undid it for a deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from flik.errors import Unavailable
from flik.storage.database import Database, Statement, Transaction


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS seats; CREATE TABLE seats (n int PRIMARY KEY, taken int)")
        connection.execute("INSERT INTO seats VALUES (1, 0), (2, 0)")
    database = await Database(database_url, connections=4).open()
    yield database
    await database.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE seats")


async def take(run: Statement, seat: int) -> None:
    await run("UPDATE seats SET taken = taken + 1 WHERE n = %(n)s", {"n": seat})


async def taken(database: Database) -> list[int]:
    return [row[0] for row in await database.repeatable("SELECT taken FROM seats ORDER BY n", {})]


async def test_what_is_done_together_is_there_together(database: Database) -> None:
    async def work(run: Statement) -> int:
        await take(run, 1)
        assert await taken(database) == [0, 0], "nobody else sees it yet"
        await take(run, 2)
        return 7

    assert await database.transaction(work) == 7
    assert await taken(database) == [1, 1]


async def test_what_goes_together_sees_what_went_before(database: Database) -> None:
    async def work(run: Transaction) -> list[list[tuple[object, ...]]]:
        return await run.together(
            ("SELECT taken FROM seats WHERE n = 1 FOR UPDATE", {}),
            ("UPDATE seats SET taken = taken + %(by)s WHERE n = 1", {"by": 3}),
            ("SELECT taken FROM seats WHERE n = 1", {}),
        )

    assert await database.transaction(work) == [[(0,)], [], [(3,)]]
    assert await taken(database) == [3, 0]


async def test_what_fails_together_has_changed_nothing_and_leaves_its_connection_fit(
    database_url: str, database: Database
) -> None:
    single = await Database(database_url, connections=1).open()

    async def work(run: Transaction) -> None:
        await run.together(
            ("UPDATE seats SET taken = 9", {}), ("SELECT 1 / 0", {}), ("UPDATE seats SET taken = 10", {})
        )

    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            await single.transaction(work)
        assert await taken(single) == [0, 0]
    await single.close()


async def test_a_deadlock_of_what_goes_together_is_done_again(database: Database) -> None:
    tries = []
    update = "UPDATE seats SET taken = taken + 1 WHERE n = %(n)s"

    async def work(run: Transaction, first: int, second: int) -> None:
        tries.append(first)
        await run.together((update, {"n": first}), ("SELECT pg_sleep(0.3)", {}), (update, {"n": second}))

    await asyncio.gather(
        database.transaction(lambda run: work(run, 1, 2)), database.transaction(lambda run: work(run, 2, 1))
    )
    assert len(tries) == 3
    assert await taken(database) == [2, 2]


async def test_what_fails_in_the_middle_has_changed_nothing(database: Database) -> None:
    async def work(run: Statement) -> None:
        await take(run, 1)
        await run("SELECT 1 / 0", {})

    with pytest.raises(psycopg.errors.DivisionByZero):
        await database.transaction(work)
    assert await taken(database) == [0, 0]


async def test_what_postgresql_undoes_for_a_deadlock_is_done_again(database: Database) -> None:
    met = asyncio.Barrier(2)
    tries = []

    async def work(run: Statement, first: int, second: int) -> None:
        tries.append(first)
        await take(run, first)
        if len(tries) <= 2:  # each has a row that the other wants
            await met.wait()
        await take(run, second)

    await asyncio.gather(
        database.transaction(lambda run: work(run, 1, 2)), database.transaction(lambda run: work(run, 2, 1))
    )
    assert len(tries) == 3
    assert await taken(database) == [2, 2]


async def test_a_transaction_that_is_given_up_is_undone(database_url: str, database: Database) -> None:
    hasty = await Database(database_url, connections=1, within_s=0.3).open()

    async def work(run: Statement) -> None:
        await take(run, 1)
        await run("SELECT pg_sleep(30)", {})

    with pytest.raises(Unavailable):
        await hasty.transaction(work)
    await hasty.close()
    async with asyncio.timeout(5):
        while await taken(database) != [0, 0] or not await _free(database):  # noqa: ASYNC110  # PostgreSQL tells nobody
            await asyncio.sleep(0.05)


async def _free(database: Database) -> bool:
    """Return whether nobody holds the first seat any more."""
    return bool(await database.repeatable("SELECT 1 FROM seats WHERE n = 1 FOR UPDATE SKIP LOCKED", {}))
