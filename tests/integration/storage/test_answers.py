"""Idempotency keys on a real PostgreSQL: races between gateways, lost replies, cut connections, plans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from making import EPOCH, keyed, new_task

from flik.domain.idempotency import Answer, Keyed
from flik.errors import IdempotencyInFlight, IdempotencyKeyReused
from flik.pipeline.submit import Announcer, GroupCommit
from flik.storage import queries
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.idempotency import AnswerStore
from flik.storage.tasks import TaskStore

TTL_S = 100.0
PLACE = ("acme", "k")
SQL = queries.load("idempotency")


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of the test's own, on empty tables."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, idempotency_keys")
        yield connection


class Unrepeating(Database):
    """Fails where another try would hide a deadlock."""

    async def repeatable(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await self.once(sql, parameters)


@pytest.fixture
async def stores(database_url: str, connection: psycopg.Connection) -> AsyncIterator[list[AnswerStore]]:
    """Two gateways' stores, each on connections of its own."""
    databases = [await Unrepeating(database_url, connections=4).open() for _ in range(2)]
    yield [AnswerStore(database, max_attempts=4, ttl_s=TTL_S) for database in databases]
    for database in databases:
        await database.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Connections as a gateway has them."""
    database = await Database(database_url, connections=2).open()
    yield database
    await database.close()


def count(connection: psycopg.Connection, table: str) -> int:
    rows = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert rows is not None
    return int(rows[0])


async def test_fifty_statements_with_one_key_from_two_gateways_store_one_task(
    stores: list[AnswerStore], connection: psycopg.Connection
) -> None:
    submissions = [keyed() for _ in range(50)]
    stored = await asyncio.gather(*(stores[n % 2].insert([each]) for n, each in enumerate(submissions)))
    (winner,) = [each for each, ids in zip(submissions, stored, strict=True) if ids]
    assert connection.execute("SELECT task_id::text FROM tasks").fetchall() == [(winner.tasks[0].task_id,)]
    assert (await stores[0].find([PLACE]))[PLACE].answer == winner.answer


async def test_batches_that_meet_in_opposite_order_do_not_block_one_another(
    stores: list[AnswerStore], connection: psycopg.Connection, database_url: str
) -> None:
    take(connection, keyed(key="m"))
    forth, back = [keyed(key=key) for key in "amz"], [keyed(key=key) for key in "zma"]
    inserting = [asyncio.create_task(stores[n].insert(each)) for n, each in enumerate((forth, back))]
    await until_it_waits(database_url, statements=2)
    connection.execute("ROLLBACK")
    won = await asyncio.gather(*inserting)  # a deadlock would raise, as these stores repeat nothing
    assert [len(ids) for ids in won] in ([3, 0], [0, 3])
    assert count(connection, "tasks") == count(connection, "idempotency_keys") == 3


async def test_expired_keys_taken_in_opposite_order_are_taken_once(
    stores: list[AnswerStore], connection: psycopg.Connection
) -> None:
    keys = [f"k{n:03}" for n in range(100)]
    await stores[0].insert([keyed(key=key) for key in keys])
    later = EPOCH + TTL_S
    forth, back = [keyed(key=key, at=later) for key in keys], [keyed(key=key, at=later) for key in reversed(keys)]
    forgetting = asyncio.create_task(stores[0].forget(later, 50))
    won = await asyncio.gather(stores[0].insert(forth), stores[1].insert(back))
    await forgetting
    assert len(won[0]) + len(won[1]) == len(keys)
    assert count(connection, "tasks") == 2 * len(keys)
    assert count(connection, "idempotency_keys") == len(keys)


def take(connection: psycopg.Connection, submission: Keyed) -> None:
    """Take a key by hand in a transaction that stays open."""
    asked = submission.asked
    connection.execute("BEGIN")
    connection.execute(
        "INSERT INTO idempotency_keys VALUES (%s, %s, decode(%s, 'hex'), %s, to_timestamp(%s), 202, '{}', %s)",
        (*asked.place, asked.fingerprint, submission.submission_id, EPOCH + TTL_S, submission.answer.body),
    )


async def until_it_waits(url: str, statements: int = 1) -> int:
    """Return the process id of a statement that waits for a lock, once so many do."""
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(5):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as watcher:
            while len(rows := await (await watcher.execute(waiting)).fetchall()) < statements:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            return int(rows[0][0])


@pytest.mark.parametrize("committed", [True, False])
async def test_statement_waits_for_the_other_transaction_and_then_loses_or_wins(
    stores: list[AnswerStore], connection: psycopg.Connection, database_url: str, committed: bool
) -> None:
    other, mine = keyed(), keyed()
    take(connection, other)
    inserting = asyncio.create_task(stores[0].insert([mine]))
    await until_it_waits(database_url)
    connection.execute("COMMIT" if committed else "ROLLBACK")
    assert await inserting == (set() if committed else {mine.submission_id})
    assert (await stores[0].find([PLACE]))[PLACE].answer.body == (other if committed else mine).answer.body
    assert count(connection, "tasks") == (0 if committed else 1)


async def test_statement_whose_connection_is_cut_before_the_commit_is_repeated(
    database: Database, connection: psycopg.Connection, database_url: str
) -> None:
    mine = keyed(new_task(), new_task())
    take(connection, keyed())
    inserting = asyncio.create_task(AnswerStore(database, max_attempts=4, ttl_s=TTL_S).insert([mine]))
    connection_id = await until_it_waits(database_url)
    connection.execute("SELECT pg_terminate_backend(%s)", (connection_id,))
    connection.execute("ROLLBACK")
    assert await inserting == {mine.submission_id}
    assert count(connection, "tasks") == 2


async def test_sweep_leaves_alone_what_is_being_replaced_and_waits_for_nobody(
    stores: list[AnswerStore], connection: psycopg.Connection
) -> None:
    await stores[0].insert([keyed(), keyed(key="old")])
    connection.execute("BEGIN")
    connection.execute("UPDATE idempotency_keys SET expires_at = expires_at + interval '1 day' WHERE key = 'k'")
    async with asyncio.timeout(2):
        assert await stores[0].forget(EPOCH + TTL_S, 10) == 1
    connection.execute("COMMIT")
    assert connection.execute("SELECT key FROM idempotency_keys").fetchall() == [("k",)]


class LossyDatabase(Database):
    """Loses the reply to the first statement, after it was committed."""

    lost = 0

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        rows = await super()._execute(sql, parameters)
        if "idempotency_keys AS kept" in sql and not self.lost:
            self.lost += 1
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return rows


async def test_statement_whose_reply_is_lost_after_the_commit_knows_its_own_record(
    database_url: str, stores: list[AnswerStore], connection: psycopg.Connection
) -> None:
    database = await LossyDatabase(database_url, connections=1).open()
    try:
        await stores[0].insert([keyed(key="taken")])
        mine, loser = keyed(new_task(), new_task()), keyed(key="taken")
        stored = await AnswerStore(database, max_attempts=4, ttl_s=TTL_S).insert([mine, loser])
    finally:
        await database.close()
    assert database.lost == 1
    assert stored == {mine.submission_id}
    assert (count(connection, "tasks"), count(connection, "idempotency_keys")) == (3, 2)


async def test_two_gateways_answer_a_herd_alike(database_url: str, connection: psycopg.Connection) -> None:
    databases = [await Database(database_url, connections=2).open() for _ in range(2)]
    gateways = [
        GroupCommit(
            TaskStore(database, max_attempts=4),
            AnswerStore(database, max_attempts=4, ttl_s=TTL_S),
            Announcer("eu-west", _tell),
            dags=DagStore(database, max_attempts=4),
        )
        for database in databases
    ]

    async def send(number: int) -> Answer:
        submission = keyed(body="other" if number % 10 == 9 else "a")
        while True:
            gateway = gateways[number % 2]
            try:
                kept = await gateway.replay_of(submission.asked)
                return kept or await gateway.commit_once(submission) or submission.answer
            except IdempotencyInFlight:
                await asyncio.sleep(0.005)

    said = await asyncio.gather(*(send(number) for number in range(200)), return_exceptions=True)
    for database in databases:
        await database.close()
    answers = {answer.body for answer in said if isinstance(answer, Answer)}
    refused = [error for error in said if isinstance(error, IdempotencyKeyReused)]
    assert len(answers) == 1
    assert len(refused) in (20, 180)  # whichever body came first
    assert (count(connection, "tasks"), count(connection, "idempotency_keys")) == (1, 1)


async def _tell(tickets: list[Any]) -> None:
    raise AssertionError("no ticket is of this region")


@pytest.mark.parametrize(
    "change",
    ["status = 404", "fingerprint = 'short'", "key = ''", "key = repeat('x', 256)", "tenant_id = ''"],
)
async def test_an_impossible_answer_is_refused(
    stores: list[AnswerStore], connection: psycopg.Connection, change: str
) -> None:
    await stores[0].insert([keyed()])
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE idempotency_keys SET {change}".encode())


def test_answers_are_found_and_swept_by_index_whatever_the_statistics_say(connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE idempotency_keys SET (autovacuum_enabled = false)")
    connection.execute(
        "INSERT INTO idempotency_keys SELECT 'acme', 'k' || n, decode(repeat('ab', 32), 'hex'), gen_random_uuid(),"
        " to_timestamp(n), 202, '{}', '{}' FROM generate_series(1, 5000) AS n"
    )
    places = '[{"tenant_id": "acme", "key": "k7"}, {"tenant_id": "acme", "key": "k8"}]'
    for statistics in (b"SELECT 1", b"ANALYZE idempotency_keys"):
        connection.execute(statistics)
        found = "\n".join(plan_of(connection, SQL["find_kept"], {"places": places}))
        assert "using idempotency_keys_pkey" in found
        assert "Seq Scan" not in found
        swept = "\n".join(plan_of(connection, SQL["forget_expired"], {"now": 20.0, "limit": 10}))
        assert "using idempotency_keys_expiry" in swept
        assert "Seq Scan" not in swept


def plan_of(connection: psycopg.Connection, sql: str, values: dict[str, Any]) -> list[str]:
    return [row[0] for row in connection.execute(f"EXPLAIN {sql}".encode(), values)]
