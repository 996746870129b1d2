"""Webhooks and deliveries on PostgreSQL: what senders take, in which order, and that many of them lose nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import psycopg
import pytest
from making import EPOCH, task_id_at
from uuid_utils import uuid7

from flik.domain.event import ENDS
from flik.domain.webhook.attempt import HOLD_FROM
from flik.domain.webhook.record import (
    DISABLED_AFTER_S,
    GONE,
    KEPT_S,
    MAX_LOG,
    MAX_WEBHOOKS,
    SILENT,
    TOO_OLD_S,
    AttemptNote,
    Claimed,
    DeliveryState,
    Webhook,
    WebhookStatus,
)
from flik.storage import queries
from flik.storage.audit import AuditLog, By
from flik.storage.conditions import first_id_at
from flik.storage.database import Database
from flik.storage.deliveries import EXPANDED, DeliveryStore
from flik.storage.webhooks import WebhookStore

BY = By("k1", "r-1")
LEASE_S = 20.0
WAITING, DELIVERED, GIVEN_UP = DeliveryState
EXPAND, CLAIM = (queries.load("deliveries")[name] for name in ("expand_outbox", "claim_deliveries"))
CLAIMING = {
    "slots": 16, "each": 4, "lease_s": LEASE_S, "hold_from": HOLD_FROM, "webhooks": 50, "look": 64, "share": 8,
    "held": "{}", "most": MAX_LOG, "not_sent": "[]",
}  # fmt: skip
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE webhooks, webhook_outbox, webhook_deliveries, audit_log")
    database = await Database(database_url, connections=8).open()
    yield database
    await database.close()


@pytest.fixture
def webhooks(database: Database) -> WebhookStore:
    return WebhookStore(database)


@pytest.fixture
def store(database: Database) -> DeliveryStore:
    return DeliveryStore(database, each=4, lease_s=LEASE_S)


async def made(webhooks: WebhookStore, tenant: str = "acme", kinds: Sequence[str] = tuple(sorted(ENDS))) -> Webhook:
    url = "https://hooks.example.com/"
    new = Webhook(str(uuid7()), tenant, url, tuple(kinds), WebhookStatus.ACTIVE, None, EPOCH, EPOCH)
    stored = await webhooks.create(new, SECRET, BY)
    assert stored == new
    return stored


async def happened(database: Database, *events: tuple[str, int, str], tenant: str = "acme", at: float = EPOCH) -> None:
    rows = [{"task_id": task, "seq": seq, "kind": kind} for task, seq, kind in events]
    await database.once(
        """INSERT INTO webhook_outbox (task_id, seq, tenant_id, kind, at, data)
           SELECT r.task_id, r.seq, %(tenant)s, r.kind, to_timestamp(%(at)s), '{"attempt": 1}'
           FROM json_to_recordset(%(rows)s) AS r(task_id uuid, seq integer, kind text)
           WHERE EXISTS (SELECT FROM webhooks w WHERE w.tenant_id = %(tenant)s)""",
        {"rows": json.dumps(rows), "tenant": tenant, "at": at},
    )


async def ended(
    store: DeliveryStore,
    claimed: Claimed,
    now: float,
    state: DeliveryState = DELIVERED,
    *,
    next_at: float | None = None,
    held_until: float | None = None,
    gone: bool = False,
) -> bool:
    error = None if state is DELIVERED else "the receiver answered 500"
    note = AttemptNote(now, 200 if error is None else 500, error, 12)
    return await store.record(claimed, note, state, next_at=next_at, held_until=held_until, gone=gone, now=now)


def seen(claimed: list[Claimed]) -> list[tuple[str | None, int]]:
    return sorted((one.message.task_id, one.message.seq) for one in claimed)  # type: ignore[type-var]


async def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    return await database.repeatable(sql, {})


# ---- webhooks


async def test_webhook_comes_back_as_it_was_made_and_is_noted_without_its_secret(
    webhooks: WebhookStore, database: Database
) -> None:
    webhook = await made(webhooks)
    assert await webhooks.get(webhook.webhook_id) == webhook
    assert await webhooks.find(tenant_id="acme", before_id=None, limit=10) == [webhook]
    assert await webhooks.find(tenant_id="other", before_id=None, limit=10) == []
    (entry,) = await AuditLog(database).list(before_id=None, limit=10)
    assert (entry.action, entry.subject) == ("webhook.created", webhook.webhook_id)
    assert SECRET not in repr(entry)


async def test_a_tenant_has_ten_webhooks_at_most_also_when_it_makes_many_at_once(webhooks: WebhookStore) -> None:
    async def make() -> bool:
        new = Webhook(str(uuid7()), "acme", "https://x.example/", ("failed",), WebhookStatus.ACTIVE, None, EPOCH, EPOCH)
        return await webhooks.create(new, SECRET, BY) is not None

    assert sum(await asyncio.gather(*(make() for _ in range(25)))) == MAX_WEBHOOKS
    await made(webhooks, "other")
    first = (await webhooks.find(tenant_id="acme", before_id=None, limit=1))[0]
    assert await webhooks.delete(first.webhook_id, EPOCH, BY)
    assert not await webhooks.delete(first.webhook_id, EPOCH, BY)
    await made(webhooks)


async def test_only_what_is_named_is_changed(webhooks: WebhookStore) -> None:
    webhook = await made(webhooks)
    paused = await webhooks.change(webhook.webhook_id, EPOCH + 1, BY, status=WebhookStatus.PAUSED)
    assert paused is not None
    assert (paused.status, paused.url, paused.kinds, paused.updated_at) == (
        WebhookStatus.PAUSED, webhook.url, webhook.kinds, EPOCH + 1,
    )  # fmt: skip
    moved = await webhooks.change(webhook.webhook_id, EPOCH + 2, BY, url="https://b.example/", kinds=["failed"])
    assert moved is not None
    assert (moved.status, moved.url, moved.kinds) == (WebhookStatus.PAUSED, "https://b.example/", ("failed",))
    assert await webhooks.change(str(uuid7()), EPOCH, BY, kinds=["failed"]) is None


async def test_old_secret_signs_beside_the_new_one_until_its_end(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    new = "whsec_" + "A" * 32
    rotated = await webhooks.rotate(webhook.webhook_id, new, EPOCH + 100, EPOCH, BY)
    assert rotated is not None
    assert rotated.old_secret_until == EPOCH + 100
    for at, secrets in ((EPOCH + 99, (new, SECRET)), (EPOCH + 101, (new,))):
        assert await webhooks.ping(webhook.webhook_id, at)
        (claimed,) = await store.claim(5, at)
        assert claimed.secrets == secrets
        assert SECRET not in repr(claimed)
        await ended(store, claimed, at)
    assert await webhooks.rotate(str(uuid7()), new, EPOCH, EPOCH, BY) is None


# ---- from the outbox


async def test_event_becomes_a_delivery_for_each_webhook_that_wants_it(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    one, two = await made(webhooks), await made(webhooks, kinds=["queued", "completed"])
    disabled, paused = await made(webhooks), await made(webhooks)
    await database.once("UPDATE webhooks SET status = 'DISABLED', reason = 'x' WHERE webhook_id = %(id)s::uuid",
                        {"id": disabled.webhook_id})  # fmt: skip
    await webhooks.change(paused.webhook_id, EPOCH, BY, status=WebhookStatus.PAUSED)
    await made(webhooks, "other")
    task = task_id_at(EPOCH)
    await happened(database, (task, 1, "queued"), (task, 2, "processing"), (task, 3, "completed"))
    assert await store.expand(EPOCH) == 3
    assert await store.expand(EPOCH) == 0
    for webhook, seqs in ((one, [3]), (two, [3, 1]), (disabled, []), (paused, [3])):
        found = await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=10)
        assert sorted((each.seq for each in found), reverse=True) == seqs
    assert await rows(database, "SELECT count(*) FROM webhook_outbox") == [(0,)]


async def test_delivery_has_a_version_7_id_of_its_moment(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "failed") for _ in range(50)))
    await store.expand(EPOCH + 7)
    found = await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=100)
    ids = [each.delivery_id for each in found]
    assert len(set(ids)) == 50
    assert all(each[14] == "7" and each[19] in "89ab" for each in ids)
    assert all(first_id_at(EPOCH + 7) <= each < first_id_at(EPOCH + 7.001) for each in ids)
    page = await webhooks.deliveries(webhook.webhook_id, before_id=ids[9], limit=10)
    assert [each.delivery_id for each in page] == ids[10:20]


async def test_events_that_become_deliveries_together_are_listed_in_their_order(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook, task_id = await made(webhooks), task_id_at(EPOCH)
    await happened(database, *((task_id, seq, "failed") for seq in range(1, 21)))
    await store.expand(EPOCH + 7)
    found = await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=100)
    assert [each.seq for each in found] == list(range(20, 0, -1))


async def test_nothing_is_gathered_for_a_tenant_without_webhooks(store: DeliveryStore, database: Database) -> None:
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    assert await store.expand(EPOCH) == 0


async def test_many_senders_expand_each_event_once(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks, kinds=["queued"])
    count = 3 * EXPANDED
    await happened(database, *((task_id_at(EPOCH), 1, "queued") for _ in range(count)))

    async def expand() -> int:
        return sum([await store.expand(EPOCH) for _ in range(20)])

    assert sum(await asyncio.gather(*(expand() for _ in range(6)))) == count
    found = "SELECT count(*), count(DISTINCT task_id) FROM webhook_deliveries"
    assert await rows(database, found) == [(count, count)]
    assert await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=1)


# ---- claims


async def test_claim_carries_all_that_is_needed_to_send(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    task = task_id_at(EPOCH)
    await happened(database, (task, 3, "completed"), at=EPOCH + 1)
    await store.expand(EPOCH + 2)
    (claimed,) = await store.claim(5, EPOCH + 2)
    message = claimed.message
    assert (message.webhook_id, message.tenant_id, message.task_id, message.seq, message.kind, message.at) == (
        webhook.webhook_id, "acme", task, 3, "completed", EPOCH + 1,
    )  # fmt: skip
    assert message.data == {"attempt": 1}
    assert (claimed.attempt, claimed.url, claimed.secrets, claimed.failures) == (1, webhook.url, (SECRET,), 0)


async def test_events_of_one_task_go_one_after_another(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    await made(webhooks, kinds=["queued", "processing", "completed"])
    first, second = task_id_at(EPOCH), task_id_at(EPOCH)
    await happened(database, *((task, n, kind) for task in (second, first)
                               for n, kind in ((3, "completed"), (1, "queued"), (2, "processing"))))  # fmt: skip
    await store.expand(EPOCH)
    for seq in (1, 2, 3):
        claimed = await store.claim(10, EPOCH + seq)
        assert seen(claimed) == [(first, seq), (second, seq)]
        assert await store.claim(10, EPOCH + seq) == []
        for one in claimed:
            assert await ended(store, one, EPOCH + seq, DELIVERED if one.message.task_id == first else GIVEN_UP)
    assert await store.claim(10, EPOCH + 1_000) == []


async def test_next_event_waits_while_the_one_before_is_to_be_tried_again(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    await made(webhooks, kinds=["queued", "completed"])
    task = task_id_at(EPOCH)
    await happened(database, (task, 1, "queued"), (task, 2, "completed"))
    await store.expand(EPOCH)
    (one,) = await store.claim(10, EPOCH)
    assert await ended(store, one, EPOCH + 1, WAITING, next_at=EPOCH + 500)
    for at in (EPOCH + 1, EPOCH + 30, EPOCH + 200, EPOCH + 499):
        assert await store.claim(10, at) == []
    (one,) = await store.claim(10, EPOCH + 501)
    assert (one.message.seq, one.attempt) == (1, 2)
    await ended(store, one, EPOCH + 502)
    (two,) = await store.claim(10, EPOCH + 502)
    assert (two.message.seq, two.attempt) == (2, 1)


async def test_what_a_killed_sender_had_comes_back_when_its_lease_is_over(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    await made(webhooks)
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    await store.expand(EPOCH)
    (lost,) = await store.claim(10, EPOCH)
    assert await store.claim(10, EPOCH + LEASE_S - 1) == []
    (again,) = await store.claim(10, EPOCH + LEASE_S + 1)
    assert again.message == lost.message
    assert not await ended(store, lost, EPOCH + LEASE_S + 2)  # it was not killed, only slow
    assert await ended(store, again, EPOCH + LEASE_S + 2)
    assert not await ended(store, again, EPOCH + LEASE_S + 3)


async def test_a_webhook_has_four_on_their_way_however_many_claim(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(150)))
    await store.expand(EPOCH)
    claims = await asyncio.gather(*(store.claim(16, EPOCH) for _ in range(8)))
    claimed = [one for claim in claims for one in claim]
    assert len(claimed) == 4
    due = "SELECT extract(epoch FROM due_at)::float8 FROM webhooks"
    assert await rows(database, due) == [(EPOCH + LEASE_S,)]  # not looked at again and again meanwhile
    await ended(store, claimed[0], EPOCH + 1)
    assert len(await store.claim(16, EPOCH + 1)) == 1
    assert await store.claim(16, EPOCH + 1) == []


async def test_claim_that_read_before_another_one_committed_takes_nothing(
    webhooks: WebhookStore, store: DeliveryStore, database: Database, database_url: str
) -> None:
    await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(40)))
    await store.expand(EPOCH)
    # The statement has its snapshot, then waits for the test's lock, as if the machine had stalled there.
    sql = CLAIM.replace("FROM webhooks w JOIN", "FROM (SELECT pg_advisory_xact_lock(42)) AS held, webhooks w JOIN")
    assert sql != CLAIM
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(42)")
        stalled = asyncio.create_task(database.once(sql, {**CLAIMING, "now": EPOCH}))
        while not await rows(database, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            pass
        assert len(await store.claim(2, EPOCH)) == 2
        connection.execute("SELECT pg_advisory_unlock(42)")
        assert await stalled == []
    assert len(await store.claim(16, EPOCH)) == 2


async def test_sender_does_not_wait_for_another_that_expands(
    webhooks: WebhookStore, store: DeliveryStore, database: Database, database_url: str
) -> None:
    await made(webhooks, kinds=["queued", "completed"])
    task = task_id_at(EPOCH)
    await happened(database, (task, 1, "queued"))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(EXPAND.encode(), {"now": EPOCH, "limit": 10})
        await happened(database, (task, 2, "completed"))
        async with asyncio.timeout(2):
            assert await store.expand(EPOCH) == 0
        await connection.commit()
    assert await store.expand(EPOCH) == 1


async def test_slots_are_shared_between_webhooks(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    await made(webhooks, "big")
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(90)), tenant="big")
    await store.expand(EPOCH)
    for tenant in ("b", "c", "d"):
        await made(webhooks, tenant)
        await happened(database, (task_id_at(EPOCH), 1, "completed"), tenant=tenant)
    await store.expand(EPOCH + 1)
    claimed = await store.claim(5, EPOCH + 1)
    assert sorted(one.message.tenant_id for one in claimed) == ["b", "big", "big", "c", "d"]
    assert len(await store.claim(5, EPOCH + 1)) == 2  # what was left of big's four is due at once


async def test_many_senders_deliver_each_event_once_and_in_order(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    for tenant in ("a", "b", "c"):
        await made(webhooks, tenant, kinds=["queued", "processing", "completed"])
        tasks = [task_id_at(EPOCH) for _ in range(20)]
        events = [(task, n, kind) for task in tasks for n, kind in ((1, "queued"), (2, "processing"), (3, "completed"))]
        await happened(database, *events, tenant=tenant)
    sent: list[tuple[str | None, int]] = []
    clock = iter(range(1, 10_000_000))

    async def send() -> None:
        quiet = 0
        while quiet < 40:
            now = EPOCH + next(clock) / 1_000
            await store.expand(now)
            claimed = await store.claim(3, now)
            quiet = 0 if claimed else quiet + 1
            for one in claimed:
                sent.append((one.message.task_id, one.message.seq))
                assert await ended(store, one, EPOCH + next(clock) / 1_000)

    await asyncio.gather(*(send() for _ in range(5)))
    assert len(sent) == len(set(sent)) == 180
    for task in {task for task, _ in sent}:
        assert [seq for each, seq in sent if each == task] == [1, 2, 3]


async def test_paused_webhook_gathers_and_gets_all_when_it_goes_on(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await webhooks.change(webhook.webhook_id, EPOCH, BY, status=WebhookStatus.PAUSED)
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    await store.expand(EPOCH)
    assert await store.claim(5, EPOCH + 1) == []
    assert await webhooks.ping(webhook.webhook_id, EPOCH) is None
    await webhooks.change(webhook.webhook_id, EPOCH + 2, BY, status=WebhookStatus.ACTIVE)
    assert len(await store.claim(5, EPOCH + 2)) == 1


async def test_deleted_webhook_gets_nothing_more(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(6)))
    await store.expand(EPOCH)
    claimed = await store.claim(1, EPOCH)
    await webhooks.delete(webhook.webhook_id, EPOCH, BY)
    assert await store.claim(5, EPOCH) == []
    assert await ended(store, claimed[0], EPOCH + 1)
    assert await store.claim(5, EPOCH + 1) == []


# ---- failures


async def test_failing_webhook_is_held_and_then_probed_with_one(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(20)))
    await store.expand(EPOCH)
    for one in await store.claim(10, EPOCH):
        assert await ended(store, one, EPOCH + 1, WAITING, next_at=EPOCH + 6, held_until=EPOCH + 60)
    assert await store.claim(10, EPOCH + 59) == []
    await happened(database, (task_id_at(EPOCH), 1, "failed"))
    await store.expand(EPOCH + 59)
    assert await store.claim(10, EPOCH + 59) == []
    await webhooks.change(webhook.webhook_id, EPOCH + 59, BY, kinds=["failed", "completed"])
    assert await store.claim(10, EPOCH + 59) == []  # what is new does not lift the hold
    (probe,) = await store.claim(10, EPOCH + 60)
    assert probe.failures == HOLD_FROM
    assert await store.claim(10, EPOCH + 60) == []
    assert await ended(store, probe, EPOCH + 61)
    assert len(await store.claim(10, EPOCH + 61)) == 4
    assert await rows(database, "SELECT failures, failing_since, held_until FROM webhooks") == [(0, None, None)]


async def test_receiver_that_is_gone_disables_its_webhook(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(2)))
    await store.expand(EPOCH)
    (one, two) = await store.claim(2, EPOCH)
    await ended(store, one, EPOCH + 1, GIVEN_UP, gone=True)
    await ended(store, two, EPOCH + 2)  # was on its way
    found = await webhooks.get(webhook.webhook_id)
    assert found is not None
    assert (found.status, found.reason) == (WebhookStatus.DISABLED, GONE)
    assert await webhooks.redeliver(webhook.webhook_id, one.message.delivery_id, EPOCH) is None
    on = await webhooks.change(webhook.webhook_id, EPOCH + 3, BY, status=WebhookStatus.ACTIVE)
    assert on is not None
    assert (on.status, on.reason, on.failing_since) == (WebhookStatus.ACTIVE, None, None)


async def test_webhook_that_fails_for_three_days_is_disabled(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, *((task_id_at(EPOCH), 1, "completed") for _ in range(3)))
    await store.expand(EPOCH)
    one, two, three = await store.claim(3, EPOCH)
    await ended(store, one, EPOCH + 1, WAITING, next_at=EPOCH + 9)
    await ended(store, two, EPOCH + DISABLED_AFTER_S, WAITING, next_at=EPOCH + 9)
    found = await webhooks.get(webhook.webhook_id)
    assert found is not None
    assert (found.status, found.failing_since) == (WebhookStatus.ACTIVE, EPOCH + 1)
    await ended(store, three, EPOCH + 1 + DISABLED_AFTER_S, WAITING, next_at=EPOCH + 9)
    found = await webhooks.get(webhook.webhook_id)
    assert found is not None
    assert (found.status, found.reason) == (WebhookStatus.DISABLED, SILENT)


async def test_log_has_the_latest_attempts(webhooks: WebhookStore, store: DeliveryStore, database: Database) -> None:
    webhook = await made(webhooks)
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    await store.expand(EPOCH)
    for n in range(MAX_LOG + 3):
        (one,) = await store.claim(1, EPOCH + n)
        await ended(store, one, EPOCH + n, WAITING, next_at=EPOCH + n + 1)
    (found,) = await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=5)
    assert found.attempts == MAX_LOG + 3
    assert [entry["at"] for entry in found.log] == [EPOCH + n for n in range(3, MAX_LOG + 3)]
    assert found.log[0] == {"at": EPOCH + 3, "status": 500, "error": "the receiver answered 500", "durationMs": 12}
    assert (found.state, found.next_at, found.ended_at) == (WAITING, EPOCH + MAX_LOG + 3, None)


# ---- by hand


async def test_delivery_can_be_sent_again(webhooks: WebhookStore, store: DeliveryStore, database: Database) -> None:
    webhook = await made(webhooks)
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    await store.expand(EPOCH)
    (one,) = await store.claim(1, EPOCH)
    delivery_id = one.message.delivery_id
    busy = await webhooks.redeliver(webhook.webhook_id, delivery_id, EPOCH)
    assert busy is not None
    assert busy.next_at == EPOCH + LEASE_S  # it is on its way already
    await ended(store, one, EPOCH + 1)
    again = await webhooks.redeliver(webhook.webhook_id, delivery_id, EPOCH + 2)
    assert again is not None
    assert (again.state, again.attempts, again.next_at, len(again.log)) == (WAITING, 0, EPOCH + 2, 1)
    (two,) = await store.claim(1, EPOCH + 2)
    assert (two.message, two.attempt) == (one.message, 1)
    assert await webhooks.has_delivery(webhook.webhook_id, delivery_id)
    other = await made(webhooks)
    assert not await webhooks.has_delivery(other.webhook_id, delivery_id)
    assert await webhooks.redeliver(other.webhook_id, delivery_id, EPOCH) is None


async def test_delivery_that_waits_for_its_retry_can_be_sent_now(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, (task_id_at(EPOCH), 1, "completed"))
    await store.expand(EPOCH)
    (one,) = await store.claim(1, EPOCH)
    await ended(store, one, EPOCH + 1, WAITING, next_at=EPOCH + 5_000)
    assert await store.claim(1, EPOCH + 2) == []
    assert await webhooks.redeliver(webhook.webhook_id, one.message.delivery_id, EPOCH + 3)
    (again,) = await store.claim(1, EPOCH + 3)
    assert again.attempt == 2


# ---- what is old


async def test_what_waits_for_three_days_is_given_up_and_what_is_a_week_old_is_gone(
    webhooks: WebhookStore, store: DeliveryStore, database: Database
) -> None:
    webhook = await made(webhooks)
    await happened(database, (task_id_at(EPOCH), 1, "completed"), (task_id_at(EPOCH), 1, "failed"))
    await store.expand(EPOCH)
    (one,) = await store.claim(1, EPOCH)
    await ended(store, one, EPOCH)
    assert await store.sweep(EPOCH + TOO_OLD_S - 1) == 0
    assert await store.sweep(EPOCH + TOO_OLD_S + 1) == 1
    found = await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=5)
    assert sorted(each.state for each in found) == [DELIVERED, GIVEN_UP]
    again = next(each for each in found if each.state is GIVEN_UP).delivery_id
    assert await webhooks.redeliver(webhook.webhook_id, again, EPOCH + TOO_OLD_S + 2)
    assert await store.sweep(EPOCH + TOO_OLD_S + 3) == 0  # it has a round of its own
    assert await store.sweep(EPOCH + KEPT_S + 1) == 3  # the second is given up again first
    assert await webhooks.deliveries(webhook.webhook_id, before_id=None, limit=5) == []
