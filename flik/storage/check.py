"""Whether a PostgreSQL can carry Flik's promises, asked once before the start.

"Accepted is safe" needs a server that flushes a commit before it acknowledges it. One that is
set up otherwise is refused, not warned about: the loss would show only after a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import class_row

from flik.errors import StartupRefused

OLDEST_VERSION = 15
CONNECT_WITHIN_S = 5

# One connection, one answer: what a session of this user gets from this server.
_FACTS = """
SELECT current_setting('server_version_num')::int / 10000 AS version,
       current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('full_page_writes') AS full_page_writes,
       current_setting('server_encoding') AS encoding,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only
"""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What the server says about itself; settings are spelled as PostgreSQL spells them."""

    version: int
    fsync: str
    synchronous_commit: str
    full_page_writes: str
    encoding: str
    read_only: bool


def check_database(url: str) -> list[str]:
    """Ask the server at `url` (5 s at most) whether Flik can use it.

    Returns:
        Warnings, one sentence each; Flik can start with them.

    Raises:
        StartupRefused: unreachable (names host, port and database, never the password), not
            version 15 or newer, read-only, not UTF-8, `fsync` off or `synchronous_commit` off.
    """
    place = describe(url)
    try:
        with psycopg.connect(url, connect_timeout=CONNECT_WITHIN_S) as connection:
            facts = connection.cursor(row_factory=class_row(DatabaseFacts)).execute(_FACTS).fetchone()
    except psycopg.Error as error:
        raise StartupRefused(f"PostgreSQL at {place} cannot be used: {_reason(error, url)}") from None
    assert facts is not None  # noqa: S101 - a SELECT without FROM has one row
    fault = _fault(facts)
    if fault:
        raise StartupRefused(f"PostgreSQL at {place} cannot be used: {fault}")
    return _warnings(facts, place)


def describe(url: str) -> str:
    """`host:port/dbname` of a database URL, for messages; never the user's password.

    Raises:
        StartupRefused: it is not a URL that PostgreSQL's client library understands.
    """
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:  # its message quotes the URL, password and all
        raise StartupRefused(
            "DATABASE_URL is not a PostgreSQL URL: write postgresql://user:password@host:5432/name"
        ) from None
    database = parts.get("dbname") or parts.get("user") or ""
    return f"{parts.get('host') or 'localhost'}:{parts.get('port') or 5432}/{database}"


def _fault(facts: DatabaseFacts) -> str | None:
    if facts.version < OLDEST_VERSION:
        return f"it is version {facts.version}, Flik needs {OLDEST_VERSION} or newer"
    if facts.fsync != "on":
        return "fsync is off, an accepted task could be lost: set fsync = on"
    if facts.synchronous_commit == "off":
        return "synchronous_commit is off, an accepted task could be lost: set it to on"
    if facts.encoding != "UTF8":
        return f"its encoding is {facts.encoding}: create the database with ENCODING 'UTF8'"
    if facts.read_only:
        return "it is read-only: give the URL of the primary"
    return None


def _warnings(facts: DatabaseFacts, place: str) -> list[str]:
    if facts.full_page_writes == "on":
        return []
    return [
        f"PostgreSQL at {place} has full_page_writes off: a power cut can tear its pages, unless its disk never does"
    ]


def _reason(error: psycopg.Error, url: str) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    password = conninfo_to_dict(url).get("password")
    return lines[0].replace(str(password), "***") if password else lines[0]
