"""Connections to PostgreSQL, and the one place where its errors become Flik's.

A `Database` is opened where it is used and never crosses Ray; what crosses is the URL. Two
kinds of statements run on it: reads and idempotent writes are tried a second time when the
connection turns out to be dead (PostgreSQL was restarted), everything else is tried once. What
PostgreSQL undoes for a deadlock has changed nothing, and is tried again.

While PostgreSQL is away, statements are refused at once (`flik/guard.py`). Away is: no connection
in time, or no answer in time. An error that PostgreSQL sends is an answer, and a connection that
was cut proves nothing: PostgreSQL may have started again already. After a second without an
answer a statement is suspicious, and PostgreSQL is asked something simple: whether the others
need not wait, or the statement is just slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self, TypeVar

import orjson
import psycopg
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from flik.domain.breaker import BreakerPolicy, Verdict
from flik.errors import Unavailable
from flik.guard import Guard
from flik.telemetry import Metrics

# The statements of the queue join a table to `unnest()`. Without fresh statistics the planner answers that
# with a hash join over a sequential scan, and settling falls from 15,900 to 330 tasks a second (measured
# 2026-11). The rows are always few and found by primary key, so the plan is pinned.
PINNED_PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off"

# Open for at most a second: writes are to go on within 5 s of PostgreSQL's return, of which connecting takes some.
BREAKER = BreakerPolicy(most_open_s=1.0)
LEAST_CONNECTIONS = 2  # at rest; each costs PostgreSQL a process of 11 to 16 MB (measured 2026-11-24)
DEADLOCK_PAUSES_S = (0.02, 0.1)
PING_S = 0.5  # then it is asked on a connection of its own
SPARE_S = 0.1  # how long a probe that got no connection of its own waits for one of the pool
SUSPICIOUS_AFTER_S = 1.0
Query = tuple[str, Mapping[str, Any]]
"""A statement with its parameters."""
Rows = list[tuple[Any, ...]]
Statement = Callable[[str, Mapping[str, Any]], Awaitable[Rows]]
"""Runs a statement, and returns its rows (none for a plain write)."""

# PostgreSQL writes 1e30 as a whole number: Python's json reads an int of it that orjson refuses to write.
set_json_loads(orjson.loads)

_T = TypeVar("_T")
_GONE = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class Transaction:
    """Runs the statements of one transaction."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def __call__(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        """Run a statement, and return its rows (none for a plain write)."""
        return await _fetch(self._connection, sql, parameters)

    async def together(self, *statements: Query) -> list[Rows]:
        """Run statements one after another in one round trip, each seeing what those before it did; return their rows.

        None depends on the rows of another. When one fails, those after it do not run.
        """
        async with self._connection.pipeline():
            cursors = [await self._connection.execute(sql, parameters) for sql, parameters in statements]
        return [await _rows_of(cursor) for cursor in cursors]


class Database:
    """A pool of up to `connections` in autocommit mode; each statement is a transaction.

    A statement waits up to `wait_s` for a connection and up to `within_s` for its answer. A
    server that is frozen answers not even a cancel, so a late statement is left behind, and
    its connection with it.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        pinned_plans: bool = False,
        wait_s: float = 2.0,
        within_s: float = 5.0,
        measured: Metrics | None = None,
    ) -> None:
        self._url = url
        self._within_s = within_s
        self._guard = Guard("postgresql", self._probe, BREAKER, verdict_of=verdict_of, measured=measured)
        self._abandoned: set[asyncio.Future[Any]] = set()
        options = "-c statement_timeout=30000 -c synchronous_commit=on -c timezone=UTC -c jit=off"
        self._pool = AsyncConnectionPool(
            url,
            min_size=min(LEAST_CONNECTIONS, connections),
            max_size=connections,
            open=False,
            timeout=wait_s,
            # The pool doubles its pauses between attempts; giving up early keeps them short, and the
            # next statement starts over.
            reconnect_timeout=2.0,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0,
                "connect_timeout": 3,
                "options": f"{options} {PINNED_PLANS}" if pinned_plans else options,
            },
        )

    async def open(self) -> Self:
        """Start to connect in the background; statements wait up to `wait_s` for a connection."""
        await self._pool.open(wait=False)
        return self

    async def close(self) -> None:
        """Close all connections."""
        self._guard.close()
        await self._pool.close()

    async def once(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        """Run a statement that must not be repeated; return its rows (none for a plain write).

        Raises:
            Unavailable: PostgreSQL is away. Whether the statement took effect is unknown.
        """
        try:
            with self._guard.call(verdict_of):
                return await _past_deadlock(lambda: self._run(sql, parameters, self._within_s))
        except _GONE as error:
            raise Unavailable("postgresql") from error

    async def repeatable(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        """Run a statement that may be repeated; return its rows (none for a plain write).

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return await self._repeatable(sql, parameters, self._within_s)

    async def transaction(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Do `work` in one transaction, within the time of one statement, and return what it returns.

        It is done once, or again if it was undone for a deadlock.

        Raises:
            Unavailable: PostgreSQL is away. Whether the transaction took effect is unknown.
        """
        try:
            with self._guard.call(verdict_of):
                return await _past_deadlock(lambda: self._within(self._transact(work), self._within_s))
        except _GONE as error:
            raise Unavailable("postgresql") from error

    async def ping(self) -> None:
        """Return when PostgreSQL answers, within a second. While statements are refused, this may be the probe.

        Raises:
            Unavailable: it does not, or a probe of it runs already.
        """
        if not self._guard.closed:
            await self._guard.ping()
            return
        try:
            await self._run_twice("SELECT 1", {}, PING_S)  # not judged: connections that are busy are no dead server
        except (*_GONE, Unavailable):
            await self._guard.ping()  # on a connection of its own

    async def _repeatable(self, sql: str, parameters: Mapping[str, Any], within_s: float) -> Rows:
        try:
            with self._guard.call(verdict_of):
                return await self._run_twice(sql, parameters, within_s)
        except _GONE as error:
            raise Unavailable("postgresql") from error

    async def _run_twice(self, sql: str, parameters: Mapping[str, Any], within_s: float) -> Rows:
        try:
            return await self._run(sql, parameters, within_s)
        except PoolTimeout:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return await self._run(sql, parameters, within_s)

    async def _run(self, sql: str, parameters: Mapping[str, Any], within_s: float) -> Rows:
        return await self._within(self._execute(sql, parameters), within_s)

    async def _within(self, work: Awaitable[_T], within_s: float) -> _T:
        statement = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({statement}, timeout=min(SUSPICIOUS_AFTER_S, within_s))
            if not done and within_s > SUSPICIOUS_AFTER_S:
                self._guard.suspect()
                done, _ = await asyncio.wait({statement}, timeout=within_s - SUSPICIOUS_AFTER_S)
        except asyncio.CancelledError:
            self._abandon(statement)
            raise
        if not done:
            self._abandon(statement)
            raise Unavailable("postgresql")
        return statement.result()

    async def _probe(self) -> None:
        """Probe, on a connection of its own: those of the pool may be the ones that hang.

        A PostgreSQL that has no connection to spare refuses one more and still serves those there are, so
        then one of the pool is asked.
        """
        try:
            await self._connect_and_ask()
        except psycopg.OperationalError:
            async with self._pool.connection(timeout=SPARE_S) as connection:
                await connection.execute("SELECT 1")

    async def _connect_and_ask(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=3) as connection:
            await connection.execute("SELECT 1")

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        async with self._pool.connection() as connection:
            return await _fetch(connection, sql, parameters)

    async def _transact(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        async with self._pool.connection() as connection, connection.transaction():
            return await work(Transaction(connection))

    def _abandon(self, statement: asyncio.Future[Any]) -> None:
        """Cancel a statement without waiting for it: the cancel itself needs a server that answers."""
        statement.cancel()
        self._abandoned.add(statement)
        statement.add_done_callback(self._forget)

    def _forget(self, statement: asyncio.Future[Any]) -> None:
        self._abandoned.discard(statement)
        if not statement.cancelled():
            statement.exception()  # looked at, so that asyncio does not complain


async def _fetch(connection: psycopg.AsyncConnection[Any], sql: str, parameters: Mapping[str, Any]) -> Rows:
    return await _rows_of(await connection.execute(sql, parameters))


async def _rows_of(cursor: psycopg.AsyncCursor[Any]) -> Rows:
    return await cursor.fetchall() if cursor.description else []


async def _past_deadlock(run: Callable[[], Awaitable[_T]]) -> _T:
    """Run something that PostgreSQL may undo for the sake of another; what it undid has changed nothing.

    The pause is for the other one: who comes back at once may be in its way again.
    """
    for pause_s in DEADLOCK_PAUSES_S:
        try:
            return await run()
        except psycopg.errors.DeadlockDetected:
            await asyncio.sleep(pause_s)
    return await run()


def array_of(items: Iterable[str]) -> str:
    """Return ids or numbers as PostgreSQL writes an array: psycopg takes five times as long for a list."""
    return f"{{{','.join(items)}}}"


def verdict_of(error: Exception) -> Verdict:
    """Return what a statement's failure says about PostgreSQL."""
    if isinstance(error, Unavailable | PoolTimeout):
        return Verdict.AWAY
    if isinstance(error, psycopg.Error):
        said = error.sqlstate or ""
        # No SQLSTATE comes from the client: the connection broke. 08 and 57P01 to 57P03 are its last words.
        cut = not said or said.startswith(("08", "57P0"))
        return Verdict.UNKNOWN if cut else Verdict.ANSWERED
    return Verdict.UNKNOWN
