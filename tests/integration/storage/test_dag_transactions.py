"""What follows from the move of a step is written in the transaction that moves it: when it cannot be, nothing is."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psycopg
import pytest
from making import EPOCH, new_task, stored_file, task_id_at, ticket_of, worker

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.task import Status
from flik.errors import Unavailable
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.queue import GrantedRow, QueueStore, Settlement

TABLES = ("tasks", "attempts", "artifacts", "uploads", "dags", "dag_steps", "dag_rounds", "webhook_outbox")
BREAKS = {
    "it fails": "RAISE EXCEPTION 'not today'",
    "its connection is cut": "PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(5)",
}


class World:
    """A chain of three on PostgreSQL; its first step runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        dag_id = task_id_at(EPOCH)
        tasks = [new_task(dag_id=dag_id, waits=place > 0) for place in range(3)]
        steps = tuple(
            NewStep(f"s{place}", task, (place - 1,) if place else (), "fail") for place, task in enumerate(tasks)
        )
        self.dag = NewDag(dag_id, "acme", 1, "us-east", EPOCH, None, None, None, None, steps)

    async def start(self) -> GrantedRow:
        await self.do(lambda database: DagStore(database, max_attempts=4).insert([self.dag]))
        pick = (ticket_of(self.dag.tasks[0]), str(uuid.uuid4()), worker())
        (row,) = await self.do(lambda database: QueueStore(database, "us-east").grant([pick], EPOCH + 1))
        return row

    async def do(self, work: Callable[[Database], Awaitable[Any]]) -> Any:
        database = await Database(self.url, connections=1).open()
        try:
            return await work(database)
        finally:
            await database.close()

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return {table: sorted(self.run(f"SELECT t::text FROM {table} t")) for table in TABLES}

    def break_at(self, table: str, when: str, how: str) -> None:
        """From now on this fails: `INSERT` or `UPDATE` of rows of a table."""
        self.run(f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {how}; RETURN NEW; END $$")
        self.run(f"CREATE TRIGGER broken BEFORE {when} ON {table} FOR EACH ROW EXECUTE FUNCTION broken()")

    def mend(self) -> None:
        self.run("DROP FUNCTION IF EXISTS broken CASCADE")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    world = World(database_url)
    world.run(f"TRUNCATE {', '.join(TABLES)}")
    yield world
    world.mend()


def ending(row: GrantedRow, status: Status) -> Settlement:
    if status is Status.COMPLETED:
        return Settlement(
            row.task_id, row.lease_token, status, "COMPLETED", result='{"text": "x"}', artifacts=(stored_file(),)
        )
    return Settlement(row.task_id, row.lease_token, status, "FAILED", error_code="x", error_message="why")


async def refused_whole(world: World, move: Callable[[QueueStore], Awaitable[Any]]) -> Any:
    """Do what fails at its end, see that nothing of it is there, and return what it tells once nothing fails."""
    before = world.rows()
    with pytest.raises((psycopg.errors.RaiseException, Unavailable)):
        await world.do(lambda database: move(QueueStore(database, "us-east")))
    assert world.rows() == before
    world.mend()
    told = await world.do(lambda database: move(QueueStore(database, "us-east")))
    assert world.rows() != before
    return told


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_a_step_does_not_end_unless_its_children_are_moved(world: World, status: Status, how: str) -> None:
    row = await world.start()
    world.break_at("dag_steps", "UPDATE", BREAKS[how])
    dag_ids = {world.dag.dag_id}
    settled, advanced = await refused_whole(
        world, lambda store: store.settle_steps([ending(row, status)], EPOCH + 2, dag_ids)
    )
    assert [each.status for each in settled] == [status]
    assert (len(advanced.released), len(advanced.stopped)) == ((1, 0) if status is Status.COMPLETED else (0, 2))


@pytest.mark.parametrize("how", BREAKS)
async def test_a_step_is_not_cancelled_unless_its_children_are_moved(world: World, how: str) -> None:
    await world.start()
    dag_ids = {world.dag.dag_id}
    world.break_at("dag_steps", "UPDATE", BREAKS[how])
    middle = world.dag.tasks[1].task_id
    found, advanced = await refused_whole(world, lambda store: store.cancel_step(middle, EPOCH + 2, dag_ids))
    assert (found is not None and found[0], len(advanced.stopped)) == (Status.PENDING, 1)


@pytest.mark.parametrize("how", BREAKS)
async def test_a_step_does_not_expire_unless_its_children_are_moved(world: World, how: str) -> None:
    await world.start()
    waits = "status = 'QUEUED', lease_token = NULL, attempt = 0, started_at = NULL, start_deadline_at = created_at"
    world.run(f"UPDATE tasks SET {waits} WHERE attempt = 1")
    dag_ids = {world.dag.dag_id}
    world.break_at("dag_steps", "UPDATE", BREAKS[how])
    ended, advanced = await refused_whole(world, lambda store: store.expire_steps(9, EPOCH + 2, dag_ids))
    assert ([each.task_id for each in ended], len(advanced.stopped)) == ([world.dag.tasks[0].task_id], 2)


@pytest.mark.parametrize("how", BREAKS)
async def test_a_dag_is_cancelled_with_all_its_steps_or_not_at_all(world: World, how: str) -> None:
    await world.start()
    world.break_at("dags", "UPDATE", BREAKS[how])
    found = await refused_whole(world, lambda store: store.cancel_dag(world.dag.dag_id, EPOCH + 2))
    assert (found[0], len(found[1].ended)) == ("RUNNING", 3)


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize(("table", "when"), [("dag_rounds", "INSERT"), ("dags", "UPDATE"), ("tasks", "INSERT")])
async def test_a_dag_is_resumed_with_all_its_steps_or_not_at_all(world: World, table: str, when: str, how: str) -> None:
    row = await world.start()
    failed = ending(row, Status.FAILED)
    await world.do(lambda db: QueueStore(db, "us-east").settle_steps([failed], EPOCH + 2, {world.dag.dag_id}))
    world.break_at(table, when, BREAKS[how])
    before, requeued = await refused_whole(world, lambda store: store.resume_dag(world.dag.dag_id, EPOCH + 3))
    assert (before, len(requeued)) == ("FAILED", 1)
