"""Whose deliveries a sender gets: no tenant takes the slots of the others, however much of its own is due."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from making import EPOCH

from flik.domain.webhook.attempt import HOLD_FROM
from flik.domain.webhook.record import MAX_LOG, AttemptNote, Claimed, DeliveryState
from flik.storage import queries
from flik.storage.database import Database
from flik.storage.deliveries import DeliveryStore

CLAIM = queries.load("deliveries")["claim_deliveries"]
SLOTS, SHARE = 32, 8
VALUES: dict[str, Any] = {
    "slots": SLOTS, "each": 8, "lease_s": 20.0, "hold_from": HOLD_FROM, "webhooks": 50, "look": 64, "share": SHARE,
    "held": "{}", "now": EPOCH + 100, "most": MAX_LOG, "not_sent": "[]",
}  # fmt: skip
_RECEIVERS = """
WITH made AS (
    INSERT INTO webhooks (webhook_id, tenant_id, url, created_at, updated_at, due_at)
    SELECT gen_random_uuid(), %(tenant)s, 'https://x.example', now(), now(), to_timestamp(%(at)s + n * 0.0001)
    FROM generate_series(1, %(receivers)s) n
    RETURNING webhook_id, due_at
)
INSERT INTO webhook_deliveries (delivery_id, webhook_id, task_id, seq, kind, at, data, created_at, round_at, next_at)
SELECT gen_random_uuid(), webhook_id, gen_random_uuid(), 1, 'completed', now(), '{}', now(), now(),
       due_at + n * interval '0.1 ms'
FROM made, generate_series(1, %(each)s) n
"""


def due(url: str, tenant: str, receivers: int = 1, each: int = 1, at: float = EPOCH) -> None:
    """Make receivers of a tenant, each with deliveries that are due from `at` on, one after another."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_RECEIVERS.encode(), {"tenant": tenant, "receivers": receivers, "each": each, "at": at})


def tenants(claimed: list[Claimed]) -> Counter[str]:
    return Counter(each.message.tenant_id for each in claimed)


@pytest.fixture
def empty_url(database_url: str) -> str:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE webhooks, webhook_outbox, webhook_deliveries")
    return database_url


@pytest.fixture
async def store(empty_url: str) -> AsyncIterator[DeliveryStore]:
    database = await Database(empty_url, connections=4).open()
    yield DeliveryStore(database)
    await database.close()


async def test_a_tenant_has_a_share_of_the_slots_however_many_receivers_wait(
    store: DeliveryStore, empty_url: str
) -> None:
    due(empty_url, "flood", receivers=500)
    assert tenants(await store.claim(SLOTS, EPOCH + 10)) == {"flood": SHARE}
    due(empty_url, "honest", at=EPOCH + 10)
    assert tenants(await store.claim(SLOTS - SHARE, EPOCH + 11, {"flood": SHARE})) == {"honest": 1}
    assert await store.claim(SLOTS - SHARE - 1, EPOCH + 11, {"flood": SHARE, "honest": 1}) == []
    assert tenants(await store.claim(SLOTS - SHARE, EPOCH + 12, {"flood": SHARE - 3, "honest": 1})) == {"flood": 3}


async def test_who_holds_least_comes_first_and_then_who_waited_longest(store: DeliveryStore, empty_url: str) -> None:
    for n, tenant in enumerate("abcde"):
        due(empty_url, tenant, receivers=20, at=EPOCH + n)
    held = {"a": 7, "b": 2, "c": 2}
    for expected in ("d", "e"):
        assert tenants(await store.claim(1, EPOCH + 50, held)) == {expected: 1}
        held[expected] = 7
    assert tenants(await store.claim(1, EPOCH + 50, held)) == {"b": 1}
    assert tenants(await store.claim(4, EPOCH + 50, {})) == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert tenants(await store.claim(SLOTS, EPOCH + 50, dict.fromkeys("abcde", 6))) == dict.fromkeys("abcde", 2)


async def test_all_receivers_of_a_tenant_have_their_turn(store: DeliveryStore, empty_url: str) -> None:
    due(empty_url, "acme", receivers=40, each=3)
    order: list[str] = []
    for n in range(15):
        claimed = await store.claim(SLOTS, EPOCH + 10 + n)
        assert len(claimed) == SHARE
        order += [each.message.webhook_id for each in claimed]
        for each in claimed:
            note = AttemptNote(EPOCH, 200, None, 1)
            assert await store.record(
                each, note, DeliveryState.DELIVERED, next_at=None, held_until=None, gone=False, now=EPOCH + 10 + n
            )
    assert set(Counter(order).values()) == {3}
    assert [len(set(order[start : start + 40])) for start in (0, 40, 80)] == [40, 40, 40]


async def test_each_sender_keeps_room_by_itself(store: DeliveryStore, empty_url: str) -> None:
    due(empty_url, "flood", receivers=100)
    due(empty_url, "honest", receivers=5)
    claims = await asyncio.gather(*(store.claim(SLOTS, EPOCH + 10) for _ in range(4)))
    assert all(tenants(claimed)["flood"] <= SHARE for claimed in claims)
    taken = [each.message.delivery_id for claimed in claims for each in claimed]
    assert len(taken) == len(set(taken)) == sum(sum(tenants(claimed).values()) for claimed in claims)
    assert sum(tenants(claimed)["honest"] for claimed in claims) == 5


# ---- plans


@pytest.fixture(scope="module", params=["never analysed", "analysed"])
def flooded_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """100,000 deliveries of one tenant to as many receivers, 100,000 of another one to one, and a few others."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE webhooks, webhook_outbox, webhook_deliveries")
        for table in (b"webhooks", b"webhook_deliveries"):
            connection.execute(b"ALTER TABLE " + table + b" SET (autovacuum_enabled = false)")
        due(database_url, "flood", receivers=100_000)
        due(database_url, "one", each=100_000)
        for n in range(20):
            due(database_url, f"honest{n}", at=EPOCH + 50)
        if request.param == "analysed":
            connection.execute("ANALYZE webhooks, webhook_deliveries")
    yield database_url
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in (b"webhooks", b"webhook_deliveries"):
            connection.execute(b"ALTER TABLE " + table + b" RESET (autovacuum_enabled)")


@pytest.mark.parametrize("held", ["{}", '{"flood": 8, "one": 8}'], ids=["all free", "held"])
def test_a_claim_reads_a_few_rows_of_200_000(flooded_url: str, held: str) -> None:
    sql = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {CLAIM}"
    with psycopg.connect(flooded_url, options="-c jit=off") as connection:
        plan = "\n".join(row[0] for row in connection.execute(sql.encode(), {**VALUES, "held": held}))
        connection.rollback()
    read = re.search(r"Buffers: shared hit=(\d+)(?: read=(\d+))?", plan)
    assert read is not None
    assert int(read[1]) + int(read[2] or 0) < 2_500, plan  # of 10,000 pages
    assert not re.search(r"Seq Scan on (webhooks|webhook_deliveries)", plan), plan


async def test_a_claim_stays_fast_when_it_is_prepared(flooded_url: str) -> None:
    database = await Database(flooded_url, connections=1).open()
    store = DeliveryStore(database)
    for n in range(10):  # after five PostgreSQL may take a plan for all parameters
        claimed = await asyncio.wait_for(store.claim(SLOTS, EPOCH + 100 + n * 0.01), 1.0)
        assert claimed
    await database.close()
