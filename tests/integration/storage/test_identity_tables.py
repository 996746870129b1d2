"""Tenants, keys and the audit log on PostgreSQL: what a statement does, and that its note is there with it."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from making import EPOCH
from uuid_utils import uuid7

from flik.domain import key as keys
from flik.domain.identity import LIMIT_NAMES, OwnLimits, Scope
from flik.domain.key import ApiKey, Kind
from flik.errors import StartupRefused, Unavailable
from flik.pipeline.bootstrap import ensure_operator
from flik.storage.audit import AuditLog, By
from flik.storage.database import Database
from flik.storage.keys import KeyStore
from flik.storage.tenants import TenantStore

BY = By("k1", "r-1")
ALL_LIMITS = OwnLimits(2.5, 10, 3, 0, 7, 2, 1024)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tenants, api_keys, audit_log")
    database = await Database(database_url, connections=2).open()
    yield database
    await database.close()


@pytest.fixture
def tenants(database: Database) -> TenantStore:
    return TenantStore(database)


@pytest.fixture
def key_store(database: Database) -> KeyStore:
    return KeyStore(database)


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


def new_key(tenant_id: str = "acme", **fields: Any) -> ApiKey:
    key = ApiKey(str(uuid7()), tenant_id, "flik_live_abcdef", "CI", frozenset({Scope.READ, Scope.SUBMIT}), EPOCH)
    return replace(key, **fields)


async def noted(log: AuditLog) -> list[tuple[str, str]]:
    return [(entry.action, entry.subject) for entry in await log.list(before_id=None, limit=100)]


async def test_tenant_comes_back_as_it_was_made(tenants: TenantStore, log: AuditLog) -> None:
    made = await tenants.create("acme", "Acme 🚀", ALL_LIMITS, EPOCH, BY)
    assert made is not None
    assert (made.name, made.created_at, made.updated_at, made.limits) == ("Acme 🚀", EPOCH, EPOCH, ALL_LIMITS)
    assert await tenants.find(["acme", "nobody"]) == {"acme": made}
    assert await tenants.list(after="", limit=10) == [made]
    (entry,) = await log.list(before_id=None, limit=10)
    assert (entry.actor, entry.action, entry.subject, entry.request_id, entry.at) == (
        "k1", "tenant.created", "acme", "r-1", EPOCH,
    )  # fmt: skip
    assert entry.detail == {"name": "Acme 🚀", **asdict(ALL_LIMITS)}


async def test_tenant_is_made_once_also_by_many_at_once(tenants: TenantStore, log: AuditLog) -> None:
    made = await asyncio.gather(*(tenants.create("acme", str(n), OwnLimits(), EPOCH, BY) for n in range(10)))
    assert sum(tenant is not None for tenant in made) == 1
    assert await noted(log) == [("tenant.created", "acme")]


@pytest.mark.parametrize("name", LIMIT_NAMES)
async def test_one_limit_is_changed_and_reset_alone(tenants: TenantStore, name: str) -> None:
    await tenants.create("acme", "Acme", ALL_LIMITS, EPOCH, BY)
    changed = await tenants.change("acme", {name: 1 if name != "max_payload_bytes" else 2}, EPOCH + 1, BY)
    assert changed is not None
    assert changed.updated_at == EPOCH + 1
    assert {**asdict(changed.limits), name: None} == {**asdict(ALL_LIMITS), name: None}
    assert getattr(changed.limits, name) == (1 if name != "max_payload_bytes" else 2)
    reset = await tenants.change("acme", {name: None}, EPOCH + 2, BY)
    assert reset is not None
    assert asdict(reset.limits) == {**asdict(ALL_LIMITS), name: None}
    assert reset.name == "Acme"


async def test_change_of_a_tenant_that_is_not_there_leaves_no_note(tenants: TenantStore, log: AuditLog) -> None:
    assert await tenants.change("nobody", {"name": "x"}, EPOCH, BY) is None
    assert await noted(log) == []


async def test_tenants_are_listed_byte_by_byte_whatever_the_collation(tenants: TenantStore) -> None:
    for tenant in ("b", "B", "a-b", "a:b", "Z", "10", "9"):
        await tenants.create(tenant, "", OwnLimits(), EPOCH, BY)
    first = [tenant.tenant_id for tenant in await tenants.list(after="", limit=4)]
    rest = [tenant.tenant_id for tenant in await tenants.list(after=first[-1], limit=10)]
    assert first + rest == sorted(("b", "B", "a-b", "a:b", "Z", "10", "9"))


async def test_key_comes_back_as_it_was_made_and_is_found_by_its_digest(
    tenants: TenantStore, key_store: KeyStore, log: AuditLog
) -> None:
    await tenants.create("acme", "", OwnLimits(), EPOCH, BY)
    key = new_key(expires_at=EPOCH + 60)
    assert await key_store.create(key, keys.digest("x"), BY) == key
    assert await key_store.find([keys.digest("x"), keys.digest("y")]) == {keys.digest("x"): key}
    assert await key_store.list(tenant_id="acme", before_id=None, limit=10) == [key]
    assert await key_store.list(tenant_id="other", before_id=None, limit=10) == []
    assert (await noted(log))[0] == ("key.created", key.key_id)


async def test_key_of_a_tenant_that_is_not_there_is_not_made(key_store: KeyStore, log: AuditLog) -> None:
    assert await key_store.create(new_key("nobody"), keys.digest("x"), BY) is None
    assert await key_store.find([keys.digest("x")]) == {}
    assert await noted(log) == []


async def test_key_is_revoked_once_also_by_many_at_once(
    tenants: TenantStore, key_store: KeyStore, log: AuditLog
) -> None:
    await tenants.create("acme", "", OwnLimits(), EPOCH, BY)
    key = new_key()
    await key_store.create(key, keys.digest("x"), BY)
    revoked = await asyncio.gather(*(key_store.revoke(key.key_id, EPOCH + n, BY) for n in range(5)))
    assert {each.revoked_at for each in revoked if each} <= {EPOCH + n for n in range(5)}
    assert len({each.revoked_at for each in revoked if each}) == 1
    assert (await noted(log)).count(("key.revoked", key.key_id)) == 1
    assert not (await key_store.find([keys.digest("x")]))[keys.digest("x")].works(EPOCH + 9)
    assert await key_store.revoke(str(uuid7()), EPOCH, BY) is None


async def test_keys_come_in_pages_newest_first(tenants: TenantStore, key_store: KeyStore) -> None:
    await tenants.create("acme", "", OwnLimits(), EPOCH, BY)
    made = [new_key() for _ in range(5)]
    for number, key in enumerate(made):
        await key_store.create(key, keys.digest(str(number)), BY)
    first = await key_store.list(tenant_id=None, before_id=None, limit=3)
    rest = await key_store.list(tenant_id="acme", before_id=first[-1].key_id, limit=3)
    assert first + rest == made[::-1]


async def test_use_is_written_at_most_once_a_minute(tenants: TenantStore, key_store: KeyStore) -> None:
    await tenants.create("acme", "", OwnLimits(), EPOCH, BY)
    key = new_key()
    await key_store.create(key, keys.digest("x"), BY)
    for at, noted_at in ((EPOCH, EPOCH), (EPOCH + 59.9, EPOCH), (EPOCH + 60, EPOCH + 60), (EPOCH + 30, EPOCH + 60)):
        await key_store.touch([key.key_id], at, 60.0)
        assert (await key_store.find([keys.digest("x")]))[keys.digest("x")].last_used_at == noted_at


async def test_log_comes_in_pages_newest_first(tenants: TenantStore, log: AuditLog) -> None:
    for number in range(5):
        await tenants.create(f"t{number}", "", OwnLimits(), EPOCH, BY)
    first = await log.list(before_id=None, limit=3)
    rest = await log.list(before_id=first[-1].entry_id, limit=3)
    assert [entry.subject for entry in first + rest] == ["t4", "t3", "t2", "t1", "t0"]


async def test_refused_note_takes_its_change_with_it(tenants: TenantStore) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        await tenants.create("acme", "", OwnLimits(), EPOCH, By(""))
    assert await tenants.find(["acme"]) == {}


# ---- the first key


def rows(database_url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(sql.encode()).fetchall()


async def test_first_start_makes_a_tenant_and_a_key_that_only_its_owner_can_read(
    database: Database, database_url: str, key_store: KeyStore, log: AuditLog, tmp_path: Path
) -> None:
    made = ensure_operator(database_url, tmp_path / "data")
    path = tmp_path / "data" / "admin_key"
    assert made.is_new
    assert path.read_text() == made.key + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header = path.with_name("admin_key.header")
    assert header.read_text() == f"Authorization: Bearer {made.key}\n"
    assert stat.S_IMODE(header.stat().st_mode) == 0o600
    assert set(path.parent.iterdir()) == {path, header}
    (key,) = (await key_store.find([keys.digest(made.key)])).values()
    assert (key.tenant_id, key.scopes, key.expires_at) == ("demo", frozenset({Scope.ADMIN}), None)
    assert await noted(log) == [("key.created", key.key_id), ("tenant.created", "demo")]


async def test_later_starts_find_the_key_again(database: Database, database_url: str, tmp_path: Path) -> None:
    made = ensure_operator(database_url, tmp_path)
    again = ensure_operator(database_url, tmp_path)
    assert (again.key, again.is_new) == (made.key, False)
    (tmp_path / "admin_key.header").unlink()
    ensure_operator(database_url, tmp_path)
    assert (tmp_path / "admin_key.header").read_text() == f"Authorization: Bearer {made.key}\n"
    assert rows(database_url, "SELECT count(*) FROM api_keys") == [(1,)]


@pytest.mark.parametrize("loss", ["gone", "empty", "garbage", "of another database", "revoked", "no admin", "expired"])
async def test_key_that_opens_nothing_is_replaced(
    database: Database, database_url: str, tmp_path: Path, loss: str
) -> None:
    made, path = ensure_operator(database_url, tmp_path), tmp_path / "admin_key"
    if loss == "gone":
        path.unlink()
    elif loss in ("empty", "garbage"):
        path.write_bytes(b"" if loss == "empty" else os.urandom(100))
    elif loss == "of another database":
        path.write_text(keys.make(Kind.LIVE, bytes(32)))
    else:
        change = {
            "revoked": "revoked_at = now()",
            "no admin": "scopes = '{read}'",
            "expired": "created_at = now() - interval '2 days', expires_at = now() - interval '1 day'",
        }[loss]
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"UPDATE api_keys SET {change}".encode())
    again = ensure_operator(database_url, tmp_path)
    assert again.is_new
    assert again.key != made.key
    assert path.read_text().strip() == again.key
    assert (tmp_path / "admin_key.header").read_text() == f"Authorization: Bearer {again.key}\n"
    assert rows(database_url, "SELECT count(*) FROM tenants") == [(1,)]


async def test_two_starts_at_once_agree(database: Database, database_url: str, tmp_path: Path) -> None:
    threads = [threading.Thread(target=ensure_operator, args=(database_url, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = (tmp_path / "admin_key").read_text().strip()
    digest = keys.digest(kept).hex()
    assert rows(database_url, f"SELECT count(*) FROM api_keys WHERE digest = '\\x{digest}'") == [(1,)]


async def test_key_that_cannot_be_kept_is_not_made(database: Database, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "admin_key").mkdir()
    with pytest.raises(StartupRefused, match="admin_key cannot be read"):
        ensure_operator(database_url, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises((StartupRefused, NotADirectoryError)):
        ensure_operator(database_url, tmp_path / "file")
    assert rows(database_url, "SELECT count(*) FROM api_keys") == [(0,)]


def test_start_without_postgresql_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        ensure_operator("postgresql://localhost:1/x", tmp_path)
