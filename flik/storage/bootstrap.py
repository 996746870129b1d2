"""The first tenant and the first key of a database, so that a fresh Flik can be used at once.

Asked at every start, before there is a gateway, so it speaks to PostgreSQL on a connection of its
own. The key itself is kept by the caller (`flik/pipeline/bootstrap.py`); here it is a digest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from uuid_utils import uuid7

from flik.domain import key as keys
from flik.domain.identity import OwnLimits, Scope
from flik.domain.key import ApiKey, Kind
from flik.errors import Unavailable
from flik.storage import queries
from flik.storage import tenants as tenant_store
from flik.storage.audit import By
from flik.storage.keys import creation, key_of

DEMO_TENANT = "demo"
_CONNECT_WITHIN_S = 10
_KEYS, _TENANTS = queries.load("keys"), queries.load("tenants")


@dataclass(frozen=True, slots=True)
class AdminKey:
    """The operator's key, and whether this start made it."""

    key: str
    is_new: bool


def ensure_admin_key(database_url: str, kept: str | None, keep: Callable[[str], None], now: float) -> AdminKey:
    """Return `kept` if it is a key with the scope `admin` that works; else make one.

    A new key is handed to `keep` before it is valid, so that a crash leaves no key that opens
    everything and that nobody has. Two callers at the same moment come one after the other. The
    tenant `demo` is made when it is not there.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    try:
        with psycopg.connect(database_url, connect_timeout=_CONNECT_WITHIN_S) as connection:
            connection.execute(_KEYS["lock_bootstrap"].encode())
            _make_tenant(connection, now)
            if kept is not None and _opens_everything(connection, kept, now):
                return AdminKey(kept, is_new=False)
            key = _make_key(connection, now)
            keep(key)
            return AdminKey(key, is_new=True)
    except psycopg.OperationalError as error:
        raise Unavailable("postgresql") from error


def _make_tenant(connection: psycopg.Connection, now: float) -> None:
    parameters = tenant_store.creation(DEMO_TENANT, "the first tenant", OwnLimits(), now, By("flik"))
    connection.execute(_TENANTS["create_tenant"].encode(), parameters)


def _opens_everything(connection: psycopg.Connection, kept: str, now: float) -> bool:
    if keys.parse(kept) is None:
        return False
    rows = connection.execute(_KEYS["find_keys"].encode(), {"digests": [keys.digest(kept)]}).fetchall()
    found = [key_of(row[1:]) for row in rows]
    return any(key.works(now) and Scope.ADMIN in key.scopes for key in found)


def _make_key(connection: psycopg.Connection, now: float) -> str:
    key = keys.make(Kind.LIVE, secrets.token_bytes(keys.RANDOM_BYTES))
    record = ApiKey(
        str(uuid7()), DEMO_TENANT, keys.shown(key), "made by a start of Flik", frozenset({Scope.ADMIN}), now
    )
    connection.execute(_KEYS["create_key"].encode(), creation(record, keys.digest(key), By("flik")))
    return key
