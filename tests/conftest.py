"""Real servers for the tests: the embedded ones, or those that FLIK_TEST_DATABASE_URL and FLIK_TEST_REDIS_URL name.

`postgres_url` is a server and its maintenance database; `database_url` is a database of the
module's own at the schema of this Flik, made in a few milliseconds from a template.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from flik.embedded import EmbeddedPostgres, EmbeddedValkey
from flik.storage.migrate import migrate

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def _data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url(_data_dir: Path) -> Iterator[str]:
    """A PostgreSQL server; its user may create databases."""
    if url := os.environ.get("FLIK_TEST_DATABASE_URL"):
        yield url
        return
    server = EmbeddedPostgres(_data_dir)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def valkey_url(_data_dir: Path) -> Iterator[str]:
    """A Redis or Valkey server; tests may empty it."""
    if url := os.environ.get("FLIK_TEST_REDIS_URL"):
        yield url
        return
    server = EmbeddedValkey(_data_dir)
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def _template(postgres_url: str) -> Iterator[str]:
    name = _name("template")
    _execute(postgres_url, f"CREATE DATABASE {name}")
    migrate(_with_database(postgres_url, name))
    yield name
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def database_url(postgres_url: str, _template: str) -> Iterator[str]:
    """A database of the module's own, with Flik's tables and nothing in them."""
    name = _name("test")
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield _with_database(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def _name(purpose: str) -> str:
    return f"flik_{purpose}_{os.getpid()}_{next(_NUMBERS)}"


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _execute(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())
