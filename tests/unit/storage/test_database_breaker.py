"""Which ends of statements mean that PostgreSQL is away, and that refused statements are not run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from flik import guard as guard_module
from flik.domain.breaker import BreakerPolicy, Verdict
from flik.errors import Unavailable
from flik.storage import database as database_module
from flik.storage.database import Database, verdict_of


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (PoolTimeout("no connection in time"), Verdict.AWAY),
        (Unavailable("postgresql"), Verdict.AWAY),  # no answer in time
        (psycopg.OperationalError("server closed the connection unexpectedly"), Verdict.UNKNOWN),
        (psycopg.InterfaceError("the connection is closed"), Verdict.UNKNOWN),
        (errors.AdminShutdown(), Verdict.UNKNOWN),
        (errors.CannotConnectNow(), Verdict.UNKNOWN),
        (errors.ConnectionFailure(), Verdict.UNKNOWN),
        (errors.UniqueViolation(), Verdict.ANSWERED),
        (errors.SyntaxError(), Verdict.ANSWERED),
        (errors.QueryCanceled(), Verdict.ANSWERED),
        (errors.DeadlockDetected(), Verdict.ANSWERED),
        (errors.DiskFull(), Verdict.ANSWERED),
        (ZeroDivisionError(), Verdict.UNKNOWN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_failed_statement_says_about_postgresql(error: Exception, verdict: Verdict) -> None:
    assert verdict_of(error) is verdict


class Scripted(Database):
    """A database whose statements and probes do what the test says."""

    def __init__(self) -> None:
        super().__init__("postgresql:///nowhere", connections=1, within_s=0.01)
        self.answer: Exception | None = None
        self.hangs = False
        self.probes_answer = False
        self.run = 0
        self.probed = 0

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.run += 1
        await self._answer()
        return [(1,)]

    async def _connect_and_ask(self) -> None:
        self.probed += 1
        if not self.probes_answer:
            await self._answer()

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer


@pytest.fixture
async def database() -> AsyncIterator[Scripted]:
    database = Scripted()
    yield database
    await database.close()


async def fail(database: Database, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable):
            await database.once("SELECT 1", {})


async def test_three_statements_without_a_connection_and_no_more_are_run(database: Scripted) -> None:
    database.answer = PoolTimeout("no connection in time")
    await fail(database, 100)
    assert database.run == 3


async def test_three_statements_without_an_answer_and_no_more_are_run(database: Scripted) -> None:
    database.hangs = True
    await fail(database, 100)
    assert database.run == 3


async def test_repeated_statement_counts_once_and_by_its_second_end(database: Scripted) -> None:
    database.answer = psycopg.OperationalError("server closed the connection unexpectedly")
    for _ in range(20):
        with pytest.raises(Unavailable):
            await database.repeatable("SELECT 1", {})
    assert database.run == 40


async def test_errors_of_statements_refuse_nobody(database: Scripted) -> None:
    database.answer = errors.UniqueViolation()
    for _ in range(20):
        with pytest.raises(errors.UniqueViolation):
            await database.repeatable("SELECT 1", {})
    assert database.run == 20


async def test_ping_is_a_statement_while_they_go_through_and_else_the_probe(database: Scripted) -> None:
    await database.ping()
    assert (database.run, database.probed) == (1, 0)
    database.answer = PoolTimeout("no connection in time")
    await fail(database, 3)
    database.answer = None
    await database.ping()
    assert (database.run, database.probed) == (4, 1)
    assert await database.once("SELECT 1", {}) == [(1,)]


async def test_ping_waits_no_longer_than_a_probe(database: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "PING_S", 0.01)
    monkeypatch.setattr(guard_module, "PROBE_S", 0.01)
    database._within_s = 60.0
    database.hangs = True
    with pytest.raises(Unavailable):
        await database.ping()
    assert (database.run, database.probed) == (1, 1)


async def test_ping_of_a_server_whose_connections_are_all_busy_refuses_nobody(
    database: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PING_S", 0.01)
    database.hangs = True
    database.probes_answer = True
    await database.ping()
    assert (database.run, database.probed) == (1, 1)
    database.hangs = False
    assert await database.once("SELECT 1", {}) == [(1,)]


async def test_while_one_statement_waits_for_a_frozen_server_the_others_are_refused(
    database: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SUSPICIOUS_AFTER_S", 0.01)
    monkeypatch.setattr(guard_module, "PROBE_S", 0.01)
    monkeypatch.setattr(database._guard._breaker, "_policy", BreakerPolicy(silence_s=0.01))
    database._within_s = 60.0
    database.hangs = True
    waiting = asyncio.ensure_future(database.once("SELECT 1", {}))
    async with asyncio.timeout(5):
        while database._guard.closed:  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.001)
    await fail(database, 100)
    assert (database.run, waiting.done()) == (1, False)
    waiting.cancel()


async def test_slow_statements_of_a_server_that_answers_refuse_nobody(
    database: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SUSPICIOUS_AFTER_S", 0.01)
    database._within_s = 0.03
    database.hangs = database.probes_answer = True
    await fail(database, 20)
    assert (database.run, database.probed) == (20, 20)
