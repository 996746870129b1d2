"""What a caller sees when PostgreSQL is killed or frozen, and how soon it works again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import pytest
from making import EPOCH, new_task, ticket_of, worker

from flik.embedded import EmbeddedPostgres
from flik.errors import Unavailable
from flik.storage.database import Database
from flik.storage.migrate import migrate
from flik.storage.queue import QueueStore
from flik.storage.tasks import TaskStore
from flik.telemetry import Metrics

BACK_WITHIN_S = 5.0


class Server:
    """A PostgreSQL of the test's own, to be killed. It ends with the thread that starts it, so that is the main one."""

    def __init__(self, folder: Path) -> None:
        self._postgres = EmbeddedPostgres(folder)
        self.url = self._postgres.start()
        migrate(self.url)

    def kill(self) -> None:
        assert self._postgres.pid is not None
        os.kill(self._postgres.pid, signal.SIGKILL)
        while self._postgres.poll() is None:
            time.sleep(0.01)

    def start(self) -> None:
        """Start it unless it runs."""
        if self._postgres.poll() is not None:
            assert self._postgres.start() == self.url

    def stop(self) -> None:
        self._postgres.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of its processes, and let them go on afterwards."""
        main = psutil.Process(self._postgres.pid)
        processes = [main, *main.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    server = Server(folder / "data")
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    server.start()
    database = await Database(server.url, connections=4, pinned_plans=True, wait_s=1.0).open()
    await _until_it_works(TaskStore(database, max_attempts=4))
    yield database
    await database.close()


async def test_while_postgresql_is_killed_every_call_is_refused_soon_and_afterwards_all_work_again(
    server: Server, database: Database
) -> None:
    tasks, queue = TaskStore(database, max_attempts=4), QueueStore(database, "us-east")
    stored = new_task()
    await tasks.insert([stored])

    server.kill()
    for call in (
        lambda: tasks.insert([new_task()]),
        lambda: tasks.get(stored.task_id),
        tasks.ping,
        lambda: queue.grant([(ticket_of(stored), str(uuid.uuid4()), worker())], EPOCH),
        lambda: queue.cancel(stored.task_id, EPOCH),
        queue.running,
    ):
        started = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            await call()
        assert refused.value.dependency == "postgresql"
        assert time.monotonic() - started < 4.0

    await asyncio.sleep(3.0)  # longer than the pool tries by itself
    server.start()
    await _until_it_works(tasks)
    assert await tasks.get(stored.task_id) is not None
    (row,) = await queue.grant([(ticket_of(stored), str(uuid.uuid4()), worker())], EPOCH)
    assert row.attempt == 1
    await asyncio.gather(*(tasks.ping() for _ in range(20)))  # on every connection


async def _until_it_works(tasks: TaskStore) -> None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            try:
                await tasks.insert([new_task()])
                return
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_kill_between_two_statements_costs_a_repeatable_one_nothing(server: Server, database: Database) -> None:
    tasks = TaskStore(database, max_attempts=4)
    await tasks.ping()
    server.kill()
    server.start()
    await _until_it_works(tasks)
    await asyncio.gather(*(tasks.ping() for _ in range(20)))


async def test_what_was_acknowledged_before_a_kill_is_there_after_it(server: Server, database: Database) -> None:
    tasks = TaskStore(database, max_attempts=4)
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def submit() -> None:
        while True:
            task = new_task()
            try:
                await tasks.insert([task])
            except Unavailable:
                return
            acknowledged.append(task.task_id)
            if len(acknowledged) >= 50:
                enough.set()

    submitting = asyncio.gather(*(submit() for _ in range(4)))
    async with asyncio.timeout(10):
        await enough.wait()
    server.kill()
    await submitting
    server.start()
    await _until_it_works(tasks)
    for task_id in acknowledged:
        assert await tasks.get(task_id) is not None


async def test_a_server_that_was_never_there_is_unavailable() -> None:
    database = await Database("postgresql://nobody@127.0.0.1:1/nothing", connections=1, wait_s=0.1).open()
    with pytest.raises(Unavailable):
        await database.repeatable("SELECT 1", {})
    await database.close()


async def test_a_connection_that_was_cut_is_replaced_and_a_repeatable_statement_does_not_notice(
    server: Server, database: Database
) -> None:
    await asyncio.gather(*(database.repeatable("SELECT pg_sleep(0.02)", {}) for _ in range(4)))
    with psycopg.connect(server.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    await _until_it_works(TaskStore(database, max_attempts=4))


async def test_sessions_keep_commits_durable_and_pin_the_plans(server: Server, database: Database) -> None:
    names = ("synchronous_commit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin", "statement_timeout")
    rows = await database.repeatable("SELECT " + ", ".join(f"current_setting('{name}')" for name in names), {})
    assert rows == [("on", "off", "off", "off", "30s")]


# ---- frozen, and refused at once


@pytest.fixture
def measured() -> Metrics:
    return Metrics("flik_breaker_*")


@pytest.fixture
async def impatient(server: Server, measured: Metrics) -> AsyncIterator[Database]:
    """A database that leaves a statement behind after a second."""
    server.start()
    database = await Database(server.url, connections=2, wait_s=1.0, within_s=1.0, measured=measured).open()
    await _until_it_works(TaskStore(database, max_attempts=4))
    yield database
    await database.close()


def count(measured: Metrics, name: str) -> float:
    return (
        measured.registry.get_sample_value(f"flik_breaker_{name}", {"process": "", "dependency": "postgresql"}) or 0.0
    )


async def test_frozen_postgresql_costs_the_first_caller_a_second_and_the_others_nothing(
    server: Server, impatient: Database, measured: Metrics
) -> None:
    tasks = TaskStore(impatient, max_attempts=4)
    with server.frozen():
        with pytest.raises(Unavailable):
            await tasks.insert([new_task()])
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(Unavailable) as refused:
                await tasks.insert([new_task()])
            assert refused.value.retry_after_s <= 1.0
        assert count(measured, "refused_total") == 100  # no statement was run
        assert time.monotonic() - started < 1.0
        assert count(measured, "opened_total") == 1
    await _until_it_works(tasks)
    assert count(measured, "state") == 0


async def test_when_postgresql_thaws_statements_go_through_again_without_anybody_asking(
    server: Server, impatient: Database, measured: Metrics
) -> None:
    with server.frozen():
        with pytest.raises(Unavailable):
            await impatient.once("SELECT 1", {})
        assert count(measured, "state") > 0
    async with asyncio.timeout(BACK_WITHIN_S):
        while count(measured, "state"):  # noqa: ASYNC110  # a gauge has no event
            await asyncio.sleep(0.02)
    assert await impatient.once("SELECT 1", {}) == [(1,)]


async def test_a_ping_finds_a_frozen_postgresql_within_a_second_or_two_and_a_thawed_one_at_once(
    server: Server, database: Database
) -> None:
    with server.frozen():
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await database.ping()
        with pytest.raises(Unavailable):
            await database.once("SELECT 1", {})
        assert time.monotonic() - started < 2.0  # without the breaker, five seconds for the statement alone
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            with suppress(Unavailable):  # a probe of the frozen server may still be under way
                await database.ping()
                break
            await asyncio.sleep(0.02)
    assert await database.once("SELECT 1", {}) == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELEKT 1",
        "SELECT 1 / 0",
        "INSERT INTO tasks (task_id) VALUES ('0199a1b2-0000-7000-8000-000000000001')",
    ],
    ids=["bad statement", "bad value", "constraint"],
)
async def test_errors_that_postgresql_sends_refuse_nobody_else(
    impatient: Database, measured: Metrics, sql: str
) -> None:
    for _ in range(5):
        with pytest.raises(psycopg.Error):
            await impatient.once(sql, {})
    assert count(measured, "opened_total") == 0


async def test_connections_that_were_cut_refuse_nobody(server: Server, impatient: Database, measured: Metrics) -> None:
    for _ in range(5):
        with psycopg.connect(server.url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        with suppress(Unavailable):
            await impatient.once("SELECT 1", {})
    assert count(measured, "opened_total") == 0


# ---- no connection to spare


@pytest.fixture
async def cramped(server: Server, measured: Metrics) -> AsyncIterator[Database]:
    """A database whose role may have no more connections than its pool holds."""
    server.start()
    with psycopg.connect(server.url, autocommit=True) as owner:
        owner.execute("CREATE ROLE cramped LOGIN CONNECTION LIMIT 2")
    url = urlunsplit(parts := urlsplit(server.url)).replace(f"//{parts.username}@", "//cramped@")
    database = await Database(url, connections=2, wait_s=1.0, measured=measured).open()
    await database._pool.wait(5.0)
    yield database
    await database.close()
    with psycopg.connect(server.url, autocommit=True) as owner:
        owner.execute("DROP ROLE cramped")


async def test_without_a_connection_to_spare_those_of_the_pool_are_asked_and_the_breaker_closes(
    server: Server, cramped: Database, measured: Metrics
) -> None:
    with pytest.raises(psycopg.OperationalError, match="too many connections"):
        await cramped._connect_and_ask()

    with server.frozen():
        cramped._within_s = 1.0
        with pytest.raises(Unavailable):
            await cramped.once("SELECT 1", {})
        assert count(measured, "state") > 0

    async with asyncio.timeout(BACK_WITHIN_S):
        while count(measured, "state"):  # noqa: ASYNC110  # a gauge has no event
            await asyncio.sleep(0.02)
    assert await cramped.once("SELECT 1", {}) == [(1,)]
