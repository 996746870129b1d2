"""The loader, on a real PostgreSQL, with migrations of the test's own."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from flik.embedded import EmbeddedPostgres
from flik.errors import MigrationError, Unavailable
from flik.storage.migrate import ADVISORY_LOCK, LOCK_TRIES, MIGRATIONS, load, migrate, pending

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    server = EmbeddedPostgres(folder)
    yield server.start()
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def url(server_url: str) -> str:
    """An empty database."""
    name = f"test_{next(NUMBERS)}"
    query(server_url, f"CREATE DATABASE {name}")
    return server_url.replace("/flik?", f"/{name}?")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a migration and return its folder."""

    def write_file(name: str, sql: str) -> Path:
        (tmp_path / f"{name}.sql").write_text(sql)
        return tmp_path

    return write_file


Write = Callable[[str, str], Path]


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def run(url: str, directory: Path) -> list[str]:
    return [migration.name for migration in migrate(url, directory=directory, now=lambda: NOW)]


def test_flik_s_own_migrations_apply_to_an_empty_database_once(url: str) -> None:
    own = [migration.name for migration in load(MIGRATIONS)]
    assert own
    assert run(url, MIGRATIONS) == own
    assert run(url, MIGRATIONS) == []


def test_files_are_applied_in_order_and_dated(url: str, write: Write) -> None:
    write("0002_second", "ALTER TABLE a ADD COLUMN y int;")
    directory = write("0001_first", "CREATE TABLE a (x int);")

    assert run(url, directory) == ["0001_first", "0002_second"]

    assert query(url, "SELECT version, name, applied_at FROM flik_migrations ORDER BY version") == [
        (1, "0001_first", NOW),
        (2, "0002_second", NOW),
    ]


def test_pending_tells_what_is_missing_and_changes_nothing(url: str, write: Write) -> None:
    directory = write("0001_first", "CREATE TABLE a (x int);")
    assert [each.name for each in pending(url, directory=directory)] == ["0001_first"]
    assert query(url, "SELECT to_regclass('flik_migrations')") == [(None,)]

    run(url, directory)
    write("0002_second", "CREATE TABLE b (x int);")
    assert [each.name for each in pending(url, directory=directory)] == ["0002_second"]


def test_a_file_that_fails_leaves_nothing_behind_and_the_ones_before_it_stay(url: str, write: Write) -> None:
    write("0001_first", "CREATE TABLE a (x int);")
    directory = write("0002_second", "CREATE TABLE b (x int); SELECT 1 / 0;")

    with pytest.raises(MigrationError, match="migration 0002_second: division by zero"):
        run(url, directory)

    assert query(url, "SELECT to_regclass('b')") == [(None,)]
    assert query(url, "SELECT name FROM flik_migrations") == [("0001_first",)]


def test_percent_signs_and_dollar_quotes_reach_postgresql_as_written(url: str, write: Write) -> None:
    body = "CREATE FUNCTION rest(n int) RETURNS int LANGUAGE sql AS $$ SELECT n % 7; $$;"
    run(url, write("0001_function", body))
    assert query(url, "SELECT rest(9)") == [(2,)]


def test_many_processes_at_once_apply_each_file_once(url: str, write: Write) -> None:
    write("0001_first", "CREATE TABLE a (x int); SELECT pg_sleep(0.2);")
    directory = write(
        "0002_index",
        "-- flik: no transaction\nDROP INDEX CONCURRENTLY IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON a (x);\n",
    )
    start = threading.Barrier(6)

    def one(_: int) -> list[str]:
        start.wait()
        return run(url, directory)

    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(one, range(6)))

    assert sorted(applied) == [[], [], [], [], [], ["0001_first", "0002_index"]]
    assert query(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


def test_the_lock_is_free_when_its_holder_died(url: str, write: Write) -> None:
    directory = write("0001_first", "CREATE TABLE a (x int);")
    holder = psycopg.connect(url, autocommit=True)
    holder.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    waits: list[float] = []

    def holder_dies(delay_s: float) -> None:
        waits.append(delay_s)
        holder.close()

    assert len(migrate(url, directory=directory, pause=holder_dies)) == 1
    assert waits


def test_a_file_that_was_changed_after_it_was_applied_is_refused(url: str, write: Write) -> None:
    directory = write("0001_first", "CREATE TABLE a (x int);")
    run(url, directory)
    write("0001_first", "CREATE TABLE a (x bigint);")
    for call in (run, lambda url, directory: pending(url, directory=directory)):
        with pytest.raises(MigrationError, match="0001_first: its file was changed after it was applied"):
            call(url, directory)


def test_line_ends_of_a_checkout_are_not_a_change(url: str, write: Write) -> None:
    directory = write("0001_first", "CREATE TABLE a (\n  x int\n);\n")
    run(url, directory)
    (directory / "0001_first.sql").write_bytes(b"CREATE TABLE a (\r\n  x int\r\n);\r\n")
    assert run(url, directory) == []


def test_a_database_that_is_newer_than_the_code_is_refused(url: str, write: Write) -> None:
    write("0001_first", "CREATE TABLE a (x int);")
    directory = write("0002_second", "CREATE TABLE b (x int);")
    run(url, directory)
    (directory / "0002_second.sql").unlink()
    with pytest.raises(MigrationError, match="0002_second: the database is newer than this Flik"):
        run(url, directory)


def test_a_locked_table_is_tried_again_until_it_is_free(url: str, write: Write) -> None:
    run(url, write("0001_first", "CREATE TABLE a (x int);"))
    directory = write("0002_second", "ALTER TABLE a ADD COLUMN y int;")
    reader = psycopg.connect(url)
    reader.execute("SELECT * FROM a")
    pauses: list[float] = []

    def reader_ends(delay_s: float) -> None:
        pauses.append(delay_s)
        if len(pauses) == 2:
            reader.close()

    applied = migrate(url, directory=directory, lock_timeout_s=0.05, pause=reader_ends)

    assert [each.name for each in applied] == ["0002_second"]
    assert pauses == [0.5, 1.0]


def test_a_table_that_stays_locked_is_reported_after_a_bounded_number_of_tries(url: str, write: Write) -> None:
    run(url, write("0001_first", "CREATE TABLE a (x int);"))
    directory = write("0002_second", "ALTER TABLE a ADD COLUMN y int;")
    pauses: list[float] = []
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM a")
        with pytest.raises(MigrationError, match="0002_second: a table stayed locked"):
            migrate(url, directory=directory, lock_timeout_s=0.01, pause=pauses.append)
    assert len(pauses) == LOCK_TRIES - 1
    assert pauses[:5] == [0.5, 1.0, 2.0, 4.0, 5.0]


def test_a_file_without_transaction_can_be_run_again_after_it_failed_halfway(url: str, write: Write) -> None:
    run(url, write("0001_first", "CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1);"))
    index = (
        "-- flik: no transaction\nDROP INDEX CONCURRENTLY IF EXISTS u;\nCREATE UNIQUE INDEX CONCURRENTLY u ON a (x);\n"
    )
    directory = write("0002_unique", index)
    with pytest.raises(MigrationError, match="0002_unique: could not create unique index"):
        run(url, directory)

    query(url, "DELETE FROM a")
    assert run(url, directory) == ["0002_unique"]
    assert query(url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'u'::regclass") == [(True,)]


def test_an_invalid_index_is_never_taken_for_a_finished_one(url: str, write: Write) -> None:
    run(url, write("0001_first", "CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1);"))
    create = "-- flik: no transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS u ON a (x);\n"
    directory = write("0002_unique", create)
    with pytest.raises(MigrationError, match="could not create unique index"):
        run(url, directory)
    query(url, "DELETE FROM a")
    with pytest.raises(MigrationError, match="index u is invalid: drop it first in the file"):
        run(url, directory)


def test_dollar_quotes_in_a_file_without_transaction_are_refused(url: str, write: Write) -> None:
    directory = write("0001_do", "-- flik: no transaction\nDO $$ BEGIN\n  PERFORM 1;\nEND $$;\n")
    with pytest.raises(MigrationError, match="cannot hold dollar-quoted text"):
        run(url, directory)


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        migrate(f"postgresql://flik@/flik?host={tmp_path}", directory=tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["0001_a", "0001_b"], "migration 0001_b: the number 0001 is used twice"),
        (["0001_a", "0003_c"], "migration 0003_c: there is a gap before it: 0002 is missing"),
        (["0002_b"], "migration 0002_b: there is a gap before it: 0001 is missing"),
        (["0000_a"], "migration 0000_a: the number 0000 is used twice"),
        (["1_a"], "migration 1_a: 1_a.sql is not named like 0001_lower_case.sql"),
        (["0001_A"], "migration 0001_A: 0001_A.sql is not named like 0001_lower_case.sql"),
    ],
)
def test_a_folder_with_wrong_numbers_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    with pytest.raises(MigrationError) as refused:
        load(tmp_path)
    assert str(refused.value) == message


def test_statements_end_at_a_line_s_end_only_and_comments_are_not_statements(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text(
        "-- flik: no transaction\n-- why\nSELECT ';' AS a,\n  2; -- done\n\nSELECT 3;\n-- the end\n"
    )
    (migration,) = load(tmp_path)
    assert migration.statements() == [
        "-- flik: no transaction\n-- why\nSELECT ';' AS a,\n  2",
        "SELECT 3",
    ]
