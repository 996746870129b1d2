"""Which PostgreSQL and Redis Flik starts with, asked of real servers."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from flik.embedded import EmbeddedPostgres, EmbeddedValkey
from flik.embedded import postgres as postgres_module
from flik.errors import StartupRefused
from flik.live.check import check_redis
from flik.storage.check import check_database


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="flik-test-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def database_url(folder: Path) -> Iterator[str]:
    server = EmbeddedPostgres(folder / "good")
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def redis_url(folder: Path) -> Iterator[str]:
    server = EmbeddedValkey(folder / "good")
    yield server.start()
    server.stop()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_the_embedded_database_is_good_without_a_warning(database_url: str) -> None:
    assert check_database(database_url) == []


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("-csynchronous_commit%3Doff", "synchronous_commit is off, an accepted task could be lost"),
        ("-cdefault_transaction_read_only%3Don", "it is read-only: give the URL of the primary"),
    ],
)
def test_a_session_that_cannot_keep_the_promise_is_refused(database_url: str, option: str, reason: str) -> None:
    with pytest.raises(StartupRefused, match=reason):
        check_database(f"{database_url}&options={option}")


def test_local_commit_is_accepted(database_url: str) -> None:
    assert check_database(f"{database_url}&options=-csynchronous_commit%3Dlocal") == []


def test_a_database_that_is_not_utf8_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
    with pytest.raises(StartupRefused, match="its encoding is LATIN1: create the database with ENCODING 'UTF8'"):
        check_database(database_url.replace("/flik?", "/latin?"))


def test_fsync_off_is_refused_and_torn_pages_are_warned_about(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedPostgres(folder / "bad")
    monkeypatch.setitem(postgres_module.SETTINGS, "full_page_writes", "off")
    try:
        (warning,) = check_database(server.start())
        assert "full_page_writes off" in warning
        server.stop()
        monkeypatch.setitem(postgres_module.SETTINGS, "fsync", "off")
        with pytest.raises(StartupRefused, match="fsync is off, an accepted task could be lost"):
            check_database(server.start())
    finally:
        server.stop()


def test_an_unreachable_database_is_named_without_its_password(closed_port: int) -> None:
    with pytest.raises(StartupRefused) as refused:
        check_database(f"postgresql://me:s3cret@127.0.0.1:{closed_port}/tasks")
    assert f"PostgreSQL at 127.0.0.1:{closed_port}/tasks cannot be used" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["mysql://me:s3cret@host/db", "nonsense", "postgresql://me:s3cret%zz@host/db", "a\0b"])
def test_what_is_no_database_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(StartupRefused, match="DATABASE_URL is not a PostgreSQL URL") as refused:
        check_database(url)
    assert "s3cret" not in str(refused.value)


def test_the_embedded_valkey_is_good_without_a_warning(redis_url: str) -> None:
    assert check_redis(redis_url) == []


def test_an_unreachable_redis_is_named_without_its_password(closed_port: int) -> None:
    with pytest.raises(StartupRefused) as refused:
        check_redis(f"redis://:s3cret@127.0.0.1:{closed_port}/2")
    assert f"Redis at 127.0.0.1:{closed_port}/2 cannot be used" in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://me:s3cret@host/0", "nonsense", "redis://:s3cret@host:port/0"])
def test_what_is_no_redis_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(StartupRefused, match="REDIS_URL is not a Redis URL") as refused:
        check_redis(url)
    assert "s3cret" not in str(refused.value)


def test_a_server_that_wants_a_password_is_named(folder: Path) -> None:
    class Locked(EmbeddedValkey):
        def _command(self) -> list[str]:
            return [*super()._command(), "--requirepass", "s3cret"]

        def _ready(self, pid: int) -> bool:
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(str(self._socket)) == 0

    server = Locked(folder / "locked")
    try:
        with pytest.raises(StartupRefused, match=r"Redis at .* cannot be used: .*authenticated"):
            check_redis(server.start())
    finally:
        server.stop()
