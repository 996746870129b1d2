"""Webhooks that tasks bring with them, on PostgreSQL: what they are told, and that nothing else is told there."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
from making import EPOCH, keyed, new_task, task_id_at, ticket_of, worker

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.task import NewTask, Status
from flik.domain.webhook.attempt import HOLD_FROM
from flik.domain.webhook.message import body_of
from flik.domain.webhook.own import OWN_KEPT_S, OwnWebhook, receiver_id
from flik.domain.webhook.record import (
    DISABLED_AFTER_S,
    KEPT_S,
    NOT_SENT,
    AttemptNote,
    Claimed,
    DeliveryState,
    Webhook,
    WebhookStatus,
)
from flik.storage.audit import By
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.deliveries import DeliveryStore
from flik.storage.idempotency import AnswerStore
from flik.storage.queue import GrantedRow, QueueStore, Settlement
from flik.storage.streams import StreamStore
from flik.storage.tasks import TaskStore
from flik.storage.webhooks import WebhookStore

SECRET, TENANTS_SECRET = "whsec_" + "A" * 32, "whsec_" + "B" * 32
EVERY = ("queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired")
WAITING, DELIVERED, GIVEN_UP = DeliveryState
BY = By("k1", "r-1")
_TABLES = (
    "tasks, attempts, artifacts, rounds, webhooks, webhook_outbox, webhook_deliveries, task_webhooks, streams, "
    "idempotency_keys, audit_log, dags, dag_steps, dag_rounds"
)


class World:
    """Tasks, and what becomes of their webhooks."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tasks = TaskStore(database, max_attempts=4)
        self.answers = AnswerStore(database, max_attempts=4, ttl_s=60)
        self.streams = StreamStore(database, max_attempts=4, ttl_s=60)
        self.queue = QueueStore(database, "us-east")
        self.webhooks = WebhookStore(database)
        self.store = DeliveryStore(database, each=4)

    async def submit(self, **changes: Any) -> NewTask:
        task = hooked(**changes)
        await self.tasks.insert([task])
        return task

    async def grant(self, task: NewTask, now: float = EPOCH + 1) -> GrantedRow:
        (row,) = await self.queue.grant([(ticket_of(task), str(uuid.uuid4()), worker())], now)
        return row

    async def fail(self, task: NewTask, now: float = EPOCH + 2) -> None:
        row = await self.grant(task, now)
        end = Settlement(row.task_id, row.lease_token, Status.FAILED, "FAILED", error_code="x", error_message="y")
        assert await self.queue.settle([end], now)

    async def outbox(self) -> list[str]:
        rows = await self.database.repeatable("SELECT kind FROM webhook_outbox ORDER BY task_id, seq", {})
        return [kind for (kind,) in rows]

    async def sent(self, now: float, slots: int = 50) -> list[Claimed]:
        await self.store.expand(now)
        return await self.store.claim(slots, now)

    async def count(self, table: str) -> int:
        return int((await self.database.repeatable(f"SELECT count(*) FROM {table}", {}))[0][0])

    async def end(self, claimed: Claimed, now: float, state: DeliveryState = DELIVERED, **fields: Any) -> None:
        note = AttemptNote(now, 200, None if state is DELIVERED else "the receiver answered 500", 1)
        told = {"next_at": now + 5 if state is WAITING else None, "held_until": None, "gone": False, **fields}
        assert await self.store.record(claimed, note, state, now=now, **told)


def hooked(url: str = "https://a.example/x", kinds: tuple[str, ...] = EVERY, **changes: Any) -> NewTask:
    task = new_task(**changes)
    origin = "/".join(url.split("/")[:3])
    return task._replace(webhook=OwnWebhook(receiver_id(task.tenant_id, origin), url, kinds, SECRET))


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {_TABLES}".encode())
    database = await Database(database_url, connections=4, pinned_plans=True).open()
    yield World(database)
    await database.close()


async def tenants(world: World, kinds: tuple[str, ...] = ("completed",), tenant: str = "acme") -> Webhook:
    new = Webhook(str(uuid.uuid4()), tenant, "https://b.example/", kinds, WebhookStatus.ACTIVE, None, EPOCH, EPOCH)
    made = await world.webhooks.create(new, TENANTS_SECRET, BY)
    assert made is not None
    return made


def seen(claims: list[Claimed]) -> list[tuple[str | None, str, str]]:
    return sorted((each.message.task_id, each.message.kind, each.url) for each in claims)  # type: ignore[type-var]


# ---- what is told


async def test_every_move_of_a_task_is_told_to_its_own_webhook(world: World) -> None:
    task = await world.submit()
    await world.fail(task)
    await world.queue.retry(task.task_id, 4, EPOCH + 3)
    await world.fail(task, EPOCH + 4)
    await world.queue.replay([task.task_id], 4, EPOCH + 5)
    row = await world.grant(task, EPOCH + 6)
    again = Settlement(row.task_id, row.lease_token, Status.QUEUED, "FAILED", available_at=EPOCH + 7, error_code="x",
                       error_message="y")  # fmt: skip
    await world.queue.settle([again], EPOCH + 6)
    await world.queue.cancel(task.task_id, EPOCH + 8)
    failed = ["processing", "failed", "queued"]
    assert await world.outbox() == ["queued", *failed, *failed, "processing", "retryScheduled", "cancelled"]


async def test_expiry_is_told_to_its_own_webhook(world: World) -> None:
    await world.submit(start_deadline_at=EPOCH + 1, kinds=("expired",))
    await world.queue.expire(10, EPOCH + 2)
    assert await world.outbox() == ["expired"]


async def test_only_the_kinds_it_wants_reach_it_and_only_of_its_task(world: World) -> None:
    task = await world.submit(kinds=("failed",))
    other = new_task()
    await world.tasks.insert([other])
    await tenants(world, kinds=("queued", "failed"))
    for each in (task, other):
        await world.fail(each)
    assert await world.outbox() == ["failed", "failed"]
    claims = await world.sent(EPOCH + 3)
    assert seen(claims) == sorted(
        [
            (task.task_id, "failed", "https://a.example/x"),
            (task.task_id, "failed", "https://b.example/"),
            (other.task_id, "failed", "https://b.example/"),
        ]
    )
    assert {each.url: each.secrets for each in claims} == {
        "https://a.example/x": (SECRET,), "https://b.example/": (TENANTS_SECRET,),
    }  # fmt: skip
    assert {each.message.tenant_id for each in claims} == {"acme"}


async def test_what_only_the_tenant_wants_does_not_go_to_the_tasks_own(world: World) -> None:
    await tenants(world, kinds=("queued",))
    task = await world.submit(kinds=("failed",))
    assert seen(await world.sent(EPOCH)) == [(task.task_id, "queued", "https://b.example/")]
    assert await world.count("webhooks") == 1  # nothing is known yet of where the other leads


async def test_it_comes_with_its_task_or_not_at_all(world: World) -> None:
    submission = keyed(hooked(), hooked(url="https://c.example/"))
    for _ in range(2):  # as when the first reply was lost
        await world.answers.insert([submission])
    await world.answers.insert([keyed(hooked())])
    assert await world.count("task_webhooks") == 2
    stream, late = hooked(), hooked()
    assert await world.streams.start(("acme", "s"), stream, EPOCH)
    assert not await world.streams.start(("acme", "s"), late, EPOCH)
    plain = hooked()
    for _ in range(2):
        await world.tasks.insert([plain, new_task()])
    assert await world.count("task_webhooks") == 4
    claims = await world.sent(EPOCH)
    stored = [*submission.tasks, stream, plain]
    assert {each.message.task_id for each in claims} == {task.task_id for task in stored}


# ---- receivers


async def test_tasks_that_lead_to_one_receiver_share_what_is_on_its_way_and_are_held_together(world: World) -> None:
    for number in range(8):
        await world.submit(url=f"https://a.example/{number}", kinds=("queued",))
    well = await world.submit(url="https://a.example:8443/", kinds=("queued",))
    foreign = await world.submit(tenant_id="other", kinds=("queued",))
    claims = await world.sent(EPOCH)
    apart = {well.task_id, foreign.task_id}
    failing = [each for each in claims if each.message.task_id not in apart]
    assert (len(failing), len(claims)) == (4, 6)
    for each in claims:
        await world.end(each, EPOCH + 1, **({"state": WAITING, "held_until": EPOCH + 60} if each in failing else {}))
    assert await world.store.claim(50, EPOCH + 59) == []
    await world.submit(url="https://a.example/late", kinds=("queued",))
    assert await world.sent(EPOCH + 59) == []  # what is new does not lift the hold
    (probe,) = await world.store.claim(50, EPOCH + 60)
    assert probe.failures == HOLD_FROM
    await world.end(probe, EPOCH + 61)
    assert len(await world.store.claim(50, EPOCH + 61)) == 4


async def test_events_of_one_task_go_one_after_another(world: World) -> None:
    task = await world.submit(kinds=("queued", "failed"))
    await world.fail(task)
    for kind in ("queued", "failed"):
        (one,) = await world.sent(EPOCH + 3)
        assert one.message.kind == kind
        await world.end(one, EPOCH + 3)


async def test_receiver_is_never_disabled(world: World) -> None:
    # Other tasks lead there too, and nobody could set it to ACTIVE: a 410 is the end of one task's webhook, not of it.
    first, second, third = [await world.submit(kinds=("queued", "failed")) for _ in range(3)]
    claims = await world.sent(EPOCH)
    await world.end(claims[0], EPOCH + 1, GIVEN_UP, gone=True)
    for each in claims[1:]:
        await world.end(each, EPOCH + 2 + DISABLED_AFTER_S, WAITING)
    for task in (first, second, third):
        await world.fail(task, EPOCH + 3)
    again = await world.sent(EPOCH + DISABLED_AFTER_S + 20)
    assert {each.message.task_id for each in again} == {each.message.task_id for each in claims[1:]}


async def test_who_says_gone_hears_nothing_more_of_the_task(world: World) -> None:
    task = await world.submit(kinds=("queued", "processing", "failed"))
    other = await world.submit(kinds=("queued", "failed"), url="https://a.example/other")
    hook = await tenants(world, ("failed",))
    for each in (task, other):
        await world.fail(each)
    claims = {each.url: each for each in await world.sent(EPOCH + 3)}
    await world.end(claims["https://a.example/x"], EPOCH + 4, GIVEN_UP, gone=True)
    assert await told(world, task) == {
        "queued": (GIVEN_UP, ["the receiver answered 500"]),
        "processing": (GIVEN_UP, [NOT_SENT]),
        "failed": (GIVEN_UP, [NOT_SENT]),
    }
    await world.queue.retry(task.task_id, 4, EPOCH + 5)  # and what happens later
    await world.fail(task, EPOCH + 6)
    await world.end(claims["https://a.example/other"], EPOCH + 7)
    rest = await world.sent(EPOCH + 60)
    assert seen(rest) == sorted(
        [
            (task.task_id, "failed", "https://b.example/"),  # that it failed again waits behind
            (other.task_id, "failed", "https://a.example/other"),
            (other.task_id, "failed", "https://b.example/"),
        ]
    )
    assert len(await world.webhooks.own_deliveries(task.task_id, before_id=None, limit=50)) == 3
    assert await world.outbox() == []
    found = await world.webhooks.get(hook.webhook_id)
    assert found is not None
    assert found.status is WebhookStatus.ACTIVE


async def test_gone_webhook_of_a_tenant_leaves_that_of_the_task_alone(world: World) -> None:
    task = await world.submit(kinds=("queued", "failed"))
    await tenants(world, ("queued",))
    late = await world.submit(kinds=("queued", "failed"))
    claims = await world.sent(EPOCH)
    for each in claims:
        gone = each.url == "https://b.example/"
        await world.end(each, EPOCH + 1, GIVEN_UP if gone else DELIVERED, gone=gone)
    for each in (task, late):
        await world.fail(each)
    assert len(await world.sent(EPOCH + 30)) == 2


async def test_event_that_became_a_delivery_as_its_receiver_went_is_given_up(world: World) -> None:
    task, other = [await world.submit(kinds=("queued", "failed")) for _ in range(2)]
    await world.fail(task)
    await world.store.expand(EPOCH + 3)
    await world.database.once(  # what another courier wrote meanwhile
        "UPDATE task_webhooks SET gone_at = now() WHERE task_id = %(id)s::uuid", {"id": task.task_id}
    )
    (claimed,) = await world.store.claim(5, EPOCH + 3)
    assert claimed.message.task_id == other.task_id
    assert await told(world, task) == {"queued": (GIVEN_UP, [NOT_SENT]), "failed": (GIVEN_UP, [NOT_SENT])}


async def test_what_is_on_its_way_when_its_receiver_goes_ends_as_it_ends(world: World) -> None:
    task = await world.submit(kinds=("queued", "processing", "failed"))
    await world.fail(task)
    (first,) = await world.sent(EPOCH + 3)
    await world.end(first, EPOCH + 3)
    (second,) = await world.sent(EPOCH + 4)
    assert await world.webhooks.redeliver_own(task.task_id, first.message.delivery_id, EPOCH + 4)
    (again,) = await world.sent(EPOCH + 4)
    await world.end(again, EPOCH + 5, GIVEN_UP, gone=True)
    await world.end(second, EPOCH + 6, WAITING)
    assert await world.sent(EPOCH + 60) == []
    states = {kind: state for kind, (state, _) in (await told(world, task)).items()}
    assert states == {"queued": GIVEN_UP, "processing": GIVEN_UP, "failed": GIVEN_UP}


async def test_sending_one_again_by_hand_brings_a_gone_webhook_back(world: World) -> None:
    task = await world.submit(kinds=("queued", "failed", "cancelled"))
    (first,) = await world.sent(EPOCH)
    await world.end(first, EPOCH + 1, GIVEN_UP, gone=True)
    assert await world.webhooks.redeliver_own(task.task_id, first.message.delivery_id, EPOCH + 2)
    await world.queue.cancel(task.task_id, EPOCH + 3)
    for kind in ("queued", "cancelled"):
        (each,) = await world.sent(EPOCH + 4)
        assert each.message.kind == kind
        await world.end(each, EPOCH + 4)


async def told(world: World, task: NewTask | NewDag) -> dict[str, tuple[DeliveryState, list[str | None]]]:
    """Return the state of each delivery to a task's own webhook by its kind, and what its log says."""
    task_id = task.dag_id if isinstance(task, NewDag) else task.task_id
    found = await world.webhooks.own_deliveries(task_id, before_id=None, limit=50)
    return {each.kind: (each.state, [entry["error"] for entry in each.log]) for each in found}


async def test_receiver_is_none_of_the_tenants_webhooks(world: World) -> None:
    task = await world.submit()
    assert task.webhook is not None
    await world.store.expand(EPOCH)
    assert await world.count("webhooks") == 1
    assert await world.webhooks.get(task.webhook.receiver_id) is None
    for tenant in ("acme", None):
        assert await world.webhooks.find(tenant_id=tenant, before_id=None, limit=10) == []
    hooks = [await tenants(world, kinds=("failed",)) for _ in range(10)]
    assert len(await world.webhooks.find(tenant_id="acme", before_id=None, limit=50)) == len(hooks)


@pytest.mark.parametrize(
    "change", ["kinds = '{queued}'", "secret = 'x'", "place = 1", "status = 'PAUSED'"], ids=lambda text: text.split()[0]
)
async def test_an_impossible_receiver_is_refused(world: World, database_url: str, change: str) -> None:
    await world.submit()
    await world.store.expand(EPOCH)
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation) as refused:
        connection.execute(f"UPDATE webhooks SET {change}".encode())
    assert refused.value.diag.constraint_name == "receiver_is_bare"


# ---- what is seen of it


async def test_deliveries_of_a_task_are_seen_and_sent_again(world: World) -> None:
    task, other = [await world.submit(kinds=("queued", "failed")) for _ in range(2)]
    tenants_own = await tenants(world, kinds=("failed",))
    await world.store.expand(EPOCH)
    await world.fail(task)
    for _ in range(3):
        for each in await world.sent(EPOCH + 3):
            await world.end(each, EPOCH + 3, GIVEN_UP)
    found = await world.webhooks.own_deliveries(task.task_id, before_id=None, limit=10)
    assert [(each.webhook_id, each.kind, each.state) for each in found] == [
        (None, "failed", GIVEN_UP), (None, "queued", GIVEN_UP),
    ]  # fmt: skip
    rest = await world.webhooks.own_deliveries(task.task_id, before_id=found[0].delivery_id, limit=10)
    assert rest == found[1:]
    wanted = found[0].delivery_id
    assert await world.webhooks.redeliver_own(other.task_id, wanted, EPOCH + 90) is None
    assert await world.webhooks.redeliver(tenants_own.webhook_id, wanted, EPOCH + 90) is None
    (theirs,) = await world.webhooks.deliveries(tenants_own.webhook_id, before_id=None, limit=10)
    assert await world.webhooks.redeliver_own(task.task_id, theirs.delivery_id, EPOCH + 90) is None
    again = await world.webhooks.redeliver_own(task.task_id, wanted, EPOCH + 90)
    assert again is not None
    assert (again.state, again.webhook_id, again.attempts) == (WAITING, None, 0)
    (claimed,) = await world.store.claim(5, EPOCH + 90)
    assert (claimed.message.delivery_id, claimed.url, claimed.secrets) == (wanted, "https://a.example/x", (SECRET,))


async def test_it_is_forgotten_a_month_after_the_end_and_its_receiver_when_nothing_is_left(world: World) -> None:
    ended, waits = await world.submit(), await world.submit(url="https://c.example/")
    await world.store.expand(EPOCH)
    await world.queue.cancel(ended.task_id, EPOCH + 10)
    await world.database.once("TRUNCATE webhook_outbox", {})
    await world.store.sweep(EPOCH + KEPT_S + 1)
    assert (await world.count("webhook_deliveries"), await world.count("webhooks")) == (0, 2)
    await world.store.sweep(EPOCH + OWN_KEPT_S + 9)
    assert (await world.count("task_webhooks"), await world.count("webhooks")) == (2, 0)
    assert await world.store.sweep(EPOCH + OWN_KEPT_S + 11) == 1
    assert await world.count("task_webhooks") == 1
    await world.queue.cancel(waits.task_id, EPOCH + OWN_KEPT_S + 12)  # however late it ends, it is told
    (claimed,) = await world.sent(EPOCH + OWN_KEPT_S + 12)
    assert (claimed.message.task_id, claimed.url) == (waits.task_id, "https://c.example/")


# ---- dags


async def submit_dag(world: World, kinds: tuple[str, ...] | None = ("dagStep", "dagFailed"), **key: Any) -> NewDag:
    """A chain of two steps, with a webhook of its own if it is to have one."""
    dag_id = task_id_at(EPOCH)
    hook = (
        None
        if kinds is None
        else OwnWebhook(receiver_id("acme", "https://a.example"), "https://a.example/d", kinds, SECRET)
    )
    steps = tuple(
        NewStep(name, new_task(dag_id=dag_id, waits=bool(of)), of, "fail") for name, of in (("a", ()), ("b", (0,)))
    )
    dag = NewDag(dag_id, "acme", 1, "us-east", EPOCH, None, None, None, None, steps, hook)
    if key:
        mine = keyed(*dag.tasks, **key)
        assert await world.answers.insert([replace(mine, dag=dag)]) == {mine.submission_id}
    else:
        await DagStore(world.database, max_attempts=4).insert([dag])
    return dag


async def fail_first(world: World, dag: NewDag) -> None:
    row = await world.grant(dag.tasks[0])
    end = Settlement(row.task_id, row.lease_token, Status.FAILED, "FAILED", error_code="x", error_message="y")
    assert await world.queue.settle_steps([end], EPOCH + 2, {dag.dag_id})


async def test_a_dags_own_webhook_is_told_of_its_steps_and_its_end(world: World) -> None:
    dag = await submit_dag(world)
    await fail_first(world, dag)
    told = []
    for n in range(3):
        (claimed,) = await world.sent(EPOCH + 10 + n)
        assert (claimed.url, claimed.secrets) == ("https://a.example/d", (SECRET,))
        document = json.loads(body_of(claimed.message))
        assert document["data"]["dagId"] == dag.dag_id
        told.append((document["type"], document["data"]["seq"], document["data"]))
        await world.end(claimed, EPOCH + 10 + n)
    assert [(kind, seq) for kind, seq, _ in told] == [("dag.step", 2), ("dag.step", 3), ("dag.failed", 4)]
    assert told[0][2]["step"] == {
        "stepId": "a", "taskId": dag.tasks[0].task_id, "status": "FAILED", "error": {"code": "x", "message": "y"},
    }  # fmt: skip
    assert (told[1][2]["step"]["status"], told[1][2]["step"]["error"]["code"]) == ("CANCELLED", "parent_failed")
    assert told[2][2]["error"] == {"code": "step_failed", "message": "step a is FAILED (x)", "stepId": "a"}
    deliveries = await world.webhooks.own_deliveries(dag.dag_id, before_id=None, limit=10)
    assert sorted((each.seq, each.kind) for each in deliveries) == [(2, "dagStep"), (3, "dagStep"), (4, "dagFailed")]


async def test_gone_webhook_of_a_dag_hears_nothing_more_of_it(world: World) -> None:
    dag = await submit_dag(world)
    await fail_first(world, dag)
    (first,) = await world.sent(EPOCH + 10)
    await world.end(first, EPOCH + 11, GIVEN_UP, gone=True)
    assert await world.sent(EPOCH + 60) == []
    assert await told(world, dag) == {"dagStep": (GIVEN_UP, ANY), "dagFailed": (GIVEN_UP, [NOT_SENT])}


async def test_a_webhook_of_the_tenant_hears_of_dags_if_it_asks_for_it(world: World) -> None:
    await tenants(world, ("dagFailed", "failed"))
    dag = await submit_dag(world, None)
    await fail_first(world, dag)
    claims = await world.sent(EPOCH + 10)
    assert sorted((each.message.task_id, each.message.kind) for each in claims) == sorted(  # type: ignore[type-var]
        [(dag.dag_id, "dagFailed"), (dag.tasks[0].task_id, "failed")]
    )


async def test_a_dag_nobody_asks_about_is_told_to_nobody(world: World) -> None:
    await tenants(world, ("completed",))
    await fail_first(world, await submit_dag(world, None))
    assert await world.outbox() == []


async def test_under_a_key_a_dag_brings_its_webhook_too(world: World) -> None:
    dag = await submit_dag(world, key="k1")
    await fail_first(world, dag)
    assert len(await world.outbox()) == 3
    assert await world.count("task_webhooks") == 1


async def test_a_dags_own_webhook_is_kept_for_a_month_after_its_end(world: World) -> None:
    await submit_dag(world)  # runs for ever
    await fail_first(world, await submit_dag(world))
    await world.sent(EPOCH + 10)
    assert await world.count("task_webhooks") == 2
    await world.store.sweep(EPOCH + OWN_KEPT_S + 100)
    assert await world.count("task_webhooks") == 1
