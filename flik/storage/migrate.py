"""Brings a database to the schema of this Flik, by numbered SQL files.

`migrations/NNNN_name.sql` are applied in order, without a gap, each once and never changed
afterwards (a checksum sees to it). Any number of processes may call `migrate` at the same
time on the same database: one works, the others wait and find nothing left to do.

A file is one transaction, and takes its locks with a short `lock_timeout`: rather than
standing in the queue for a lock and stopping all who come after it, it gives up and tries
again after 0.5, 1, 2, 4, then every 5 s. A file whose first line is `-- flik: no transaction`
runs statement by statement (for CREATE INDEX CONCURRENTLY). Its statements end with `;` at the
end of a line, it holds no dollar-quoted text, and it must bear being run again, because a
crash can leave it half done:

    -- flik: no transaction
    DROP INDEX CONCURRENTLY IF EXISTS tasks_by_tenant;
    CREATE INDEX CONCURRENTLY tasks_by_tenant ON tasks (tenant_id);

The statements below stand here and not in `sql/`: they must work on an empty database.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import errors

from flik.errors import MigrationError, Unavailable

MIGRATIONS = Path(__file__).with_name("migrations")
NO_TRANSACTION = "-- flik: no transaction"
LOCK_TIMEOUT_S = 2.0
LOCK_TRIES = 12  # about a minute with the pauses below
ADVISORY_LOCK = 0x666C696B  # "flik"; any constant does, the same for all

_log = logging.getLogger("flik.storage")
_NAME = re.compile(r"(?P<version>\d{4})_[a-z0-9_]+\.sql")
_STATEMENT_END = re.compile(r";[ \t]*(?:--.*)?$", re.MULTILINE)

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS flik_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL
)"""
_HAS_TABLE = "SELECT to_regclass('flik_migrations') IS NOT NULL"
_APPLIED = "SELECT version, name, checksum FROM flik_migrations ORDER BY version"
_RECORD = "INSERT INTO flik_migrations (version, name, checksum, applied_at) VALUES (%s, %s, %s, %s)"
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s)"
_INVALID_INDEXES = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND pg_table_is_visible(indrelid) ORDER BY relname"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `checksum` is of its text with Unix line ends, so that a checkout cannot change it."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """False when the first line asks for statement by statement."""
        return self.sql.split("\n", 1)[0].strip() != NO_TRANSACTION

    def statements(self) -> list[str]:
        """The statements of a file without a transaction.

        Raises:
            MigrationError: it holds a dollar quote, which this splitting would cut in two.
        """
        if "$$" in self.sql:
            raise MigrationError(self.name, "a file without a transaction cannot hold dollar-quoted text")
        return [part.strip() for part in _STATEMENT_END.split(self.sql) if _has_code(part)]


def load(directory: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in `directory`, in order.

    Raises:
        MigrationError: a name that is not `NNNN_lower_case.sql`, a number twice, or a gap.
    """
    found = [_read(path) for path in sorted(directory.glob("*.sql"))]
    for expected, migration in enumerate(found, start=1):
        if migration.version < expected:
            raise MigrationError(migration.name, f"the number {migration.version:04} is used twice")
        if migration.version > expected:
            raise MigrationError(migration.name, f"there is a gap before it: {expected:04} is missing")
    return found


def migrate(
    url: str,
    *,
    directory: Path = MIGRATIONS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    pause: Callable[[float], None] = time.sleep,
) -> list[Migration]:
    """Apply what is missing, and return it; an empty list when the database was up to date.

    `now` dates the entries in `flik_migrations`; `pause` waits between tries for a lock. The
    connection must be direct: the lock is lost behind a pooler that changes servers between
    transactions.

    Raises:
        MigrationError: files and database do not fit, or a file failed (it then left nothing
            behind, unless it runs without a transaction).
        Unavailable: the database cannot be reached, or went away.
    """
    migrations = load(directory)
    with _connect(url) as connection:
        _wait_for_turn(connection, pause)
        connection.execute(_CREATE_TABLE)
        missing = _missing(connection, migrations)
        for migration in missing:
            _apply(connection, migration, now, lock_timeout_s, pause)
        return missing


def pending(url: str, *, directory: Path = MIGRATIONS) -> list[Migration]:
    """What `migrate` would apply; changes nothing. Raises as `migrate` does."""
    migrations = load(directory)
    with _connect(url) as connection:
        return _missing(connection, migrations) if _value(connection, _HAS_TABLE) else migrations


@contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection]:
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute("SET statement_timeout = 0")
            connection.execute("SET client_min_messages = warning")
            yield connection
    except psycopg.OperationalError as error:
        raise Unavailable("postgresql") from error


def _wait_for_turn(connection: psycopg.Connection, pause: Callable[[float], None]) -> None:
    """Take the lock by asking again and again, never by waiting inside PostgreSQL.

    A session that waits inside a statement holds a snapshot, and CREATE INDEX CONCURRENTLY in
    the session that works would wait for it: a deadlock. The lock ends with the session.
    """
    waited = False
    while not _value(connection, _TRY_LOCK, ADVISORY_LOCK):
        if not waited:
            _log.info("another process is migrating: waiting for it")
        waited = True
        pause(0.1)


def _missing(connection: psycopg.Connection, migrations: list[Migration]) -> list[Migration]:
    applied = connection.execute(_APPLIED).fetchall()
    for position, (version, name, checksum) in enumerate(applied):
        if position >= len(migrations):
            raise MigrationError(name, "the database is newer than this Flik, which does not know it: upgrade Flik")
        if version != migrations[position].version:
            raise MigrationError(migrations[position].name, "the database has later ones but not this one")
        if checksum != migrations[position].checksum:
            raise MigrationError(name, "its file was changed after it was applied: restore it, and add a new one")
    return migrations[len(applied) :]


def _apply(
    connection: psycopg.Connection,
    migration: Migration,
    now: Callable[[], datetime],
    lock_timeout_s: float,
    pause: Callable[[float], None],
) -> None:
    run = _run_in_transaction if migration.in_transaction else _run_statements
    # CONCURRENTLY waits for others without stopping them; a timeout would only leave an invalid index
    timeout_ms = round(lock_timeout_s * 1000) if migration.in_transaction else 0
    connection.execute(f"SET lock_timeout = {timeout_ms:d}".encode())
    for attempt in range(1, LOCK_TRIES + 1):
        try:
            run(connection, migration, now())
            _log.info("migration was applied", extra={"migration": migration.name})
            return
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if attempt == LOCK_TRIES:
                raise MigrationError(migration.name, f"a table stayed locked: {_first_line(error)}") from error
            pause(min(0.5 * 2 ** (attempt - 1), 5.0))
        except psycopg.Error as error:
            if connection.broken:
                raise
            raise MigrationError(migration.name, _first_line(error)) from error


def _run_in_transaction(connection: psycopg.Connection, migration: Migration, now: datetime) -> None:
    with connection.transaction():
        connection.execute(migration.sql.encode())
        _record(connection, migration, now)


def _run_statements(connection: psycopg.Connection, migration: Migration, now: datetime) -> None:
    for statement in migration.statements():
        connection.execute(statement.encode())
    for (index,) in connection.execute(_INVALID_INDEXES).fetchall():
        if index in migration.sql:
            raise MigrationError(migration.name, f"index {index} is invalid: drop it first in the file, then create it")
    _record(connection, migration, now)


def _record(connection: psycopg.Connection, migration: Migration, now: datetime) -> None:
    connection.execute(_RECORD, (migration.version, migration.name, migration.checksum, now))


def _read(path: Path) -> Migration:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise MigrationError(path.stem, f"{path.name} is not named like 0001_lower_case.sql")
    return Migration(int(match["version"]), path.stem, path.read_text(encoding="utf-8"))


def _value(connection: psycopg.Connection, query: str, *arguments: object) -> bool:
    row = connection.execute(query.encode(), arguments).fetchone()
    return bool(row and row[0])


def _has_code(part: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in part.splitlines())


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
