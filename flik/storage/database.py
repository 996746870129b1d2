"""Connections to PostgreSQL, and the one place where its errors become Flik's.

A `Database` is opened where it is used and never crosses Ray; what crosses is the URL. Two
kinds of statements run on it: reads and idempotent writes are tried a second time when the
connection turns out to be dead (PostgreSQL was restarted), everything else is tried once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from flik.errors import Unavailable

# The statements of the queue join a table to `unnest()`. Without fresh statistics the planner answers that
# with a hash join over a sequential scan, and settling falls from 15,900 to 330 tasks a second (measured
# 2026-11). The rows are always few and found by primary key, so the plan is pinned.
PINNED_PLANS = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c enable_bitmapscan=off"

_GONE = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)


class Database:
    """A pool of connections in autocommit mode; each statement is a transaction.

    A statement waits up to `wait_s` for a connection and up to `within_s` for its answer. A
    server that is frozen answers not even a cancel, so a late statement is left behind, and
    its connection with it.
    """

    def __init__(
        self, url: str, *, connections: int, pinned_plans: bool = False, wait_s: float = 2.0, within_s: float = 5.0
    ) -> None:
        self._within_s = within_s
        self._abandoned: set[asyncio.Future[Any]] = set()
        options = "-c statement_timeout=30000 -c synchronous_commit=on -c timezone=UTC -c jit=off"
        self._pool = AsyncConnectionPool(
            url,
            min_size=connections,
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
        await self._pool.close()

    async def once(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement that must not be repeated; return its rows (none for a plain write).

        Raises:
            Unavailable: PostgreSQL is away. Whether the statement took effect is unknown.
        """
        try:
            return await self._run(sql, parameters)
        except _GONE as error:
            raise Unavailable("postgresql") from error

    async def repeatable(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement that may be repeated; return its rows (none for a plain write).

        Raises:
            Unavailable: PostgreSQL is away.
        """
        try:
            return await self._run(sql, parameters)
        except PoolTimeout as error:
            raise Unavailable("postgresql") from error
        except (psycopg.OperationalError, psycopg.InterfaceError):
            return await self.once(sql, parameters)

    async def _run(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        statement = asyncio.ensure_future(self._execute(sql, parameters))
        try:
            done, _ = await asyncio.wait({statement}, timeout=self._within_s)
        except asyncio.CancelledError:
            self._abandon(statement)
            raise
        if not done:
            self._abandon(statement)
            raise Unavailable("postgresql")
        return statement.result()

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(sql, parameters)
            return await cursor.fetchall() if cursor.description else []

    def _abandon(self, statement: asyncio.Future[Any]) -> None:
        """Cancel a statement without waiting for it: the cancel itself needs a server that answers."""
        statement.cancel()
        self._abandoned.add(statement)
        statement.add_done_callback(self._forget)

    def _forget(self, statement: asyncio.Future[Any]) -> None:
        self._abandoned.discard(statement)
        if not statement.cancelled():
            statement.exception()  # looked at, so that asyncio does not complain
