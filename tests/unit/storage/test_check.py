"""The verdicts that no server here can give: old versions and replicas."""

from __future__ import annotations

from typing import Any

import pytest

from flik.live import check as redis_check
from flik.storage import check as database_check

GOOD = database_check.DatabaseFacts(18, "on", "on", "on", "UTF8", read_only=False)


@pytest.mark.parametrize(("version", "refused"), [(14, True), (15, False), (18, False)])
def test_postgresql_older_than_15_is_refused(version: int, refused: bool) -> None:
    facts = database_check.DatabaseFacts(version, "on", "on", "on", "UTF8", read_only=False)
    assert (database_check._fault(facts) == f"it is version {version}, Flik needs 15 or newer") is refused


@pytest.mark.parametrize("synchronous_commit", ["on", "local", "remote_write", "remote_apply"])
def test_every_kind_of_waiting_commit_is_accepted(synchronous_commit: str) -> None:
    facts = database_check.DatabaseFacts(18, "on", synchronous_commit, "on", "UTF8", read_only=False)
    assert database_check._fault(facts) is None


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"redis_version": "6.2.14"}, "it is version 6.2.14, Flik needs Redis 7 or Valkey"),
        ({"redis_version": "7.0.0", "role": "master"}, None),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0"}, None),
        ({"redis_version": "7.2.4", "role": "slave"}, "it is a read-only replica: give the URL of the primary"),
        ({}, "it is version 0, Flik needs Redis 7 or Valkey"),
    ],
)
def test_redis_is_judged_by_version_and_role(facts: dict[str, Any], fault: str | None) -> None:
    assert redis_check._fault(facts) == fault


def test_a_redis_that_refuses_writes_when_full_is_warned_about() -> None:
    full_stop = {"maxmemory": 1024, "maxmemory_policy": "noeviction"}
    assert len(redis_check._warnings(full_stop, "here")) == 1
    assert redis_check._warnings({**full_stop, "maxmemory": 0}, "here") == []
