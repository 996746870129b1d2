"""A courier with the real PostgreSQL and a real receiver that breaks in every way: nothing is lost, all in order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from making import EPOCH, task_id_at
from receiver import CUT, SILENT, Receiver, Request, Says, listening
from uuid_utils import uuid7

from flik.domain.webhook.record import GONE, DeliveryState, Webhook, WebhookStatus
from flik.domain.webhook.signature import verify
from flik.domain.webhook.target import read_allowed
from flik.outbound.sender import GuardedSender
from flik.pipeline.deliver import Courier
from flik.storage.audit import By
from flik.storage.database import Database
from flik.storage.deliveries import DeliveryStore
from flik.storage.webhooks import WebhookStore

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KINDS = ("queued", "processing", "completed")


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE webhooks, webhook_outbox, webhook_deliveries, audit_log")
    database = await Database(database_url, connections=4).open()
    yield database
    await database.close()


@asynccontextmanager
async def courier(database: Database, clock: Clock) -> AsyncIterator[Courier]:
    sender = GuardedSender(read_allowed(["127.0.0.0/8"], plain_http=True), timeout_s=1.0)
    made = Courier(DeliveryStore(database, lease_s=300), sender, now=clock, chance=lambda: 0.0)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await sender.close()


async def webhook_at(database: Database, receiver: Receiver) -> Webhook:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    new = Webhook(str(uuid7()), "acme", url, KINDS, WebhookStatus.ACTIVE, None, EPOCH, EPOCH)
    made = await WebhookStore(database).create(new, SECRET, By("k1"))
    assert made is not None
    return made


async def happened(database: Database, task: str, *kinds: str) -> None:
    for seq, kind in enumerate(kinds, 1):
        await database.once(
            "INSERT INTO webhook_outbox VALUES (%(task)s::uuid, %(seq)s, 'acme', %(kind)s, to_timestamp(%(at)s), '{}')",
            {"task": task, "seq": seq, "kind": kind, "at": EPOCH},
        )


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await check():
            pass  # each look asks PostgreSQL


async def test_receiver_that_breaks_in_every_way_gets_all_in_order_at_the_right_times(database: Database) -> None:
    clock, task = Clock(), task_id_at(EPOCH)
    answers: list[Says] = [CUT, 500, 301, SILENT, 200, 200, b"nonsense\r\n\r\n", 200]
    told = iter(answers)
    async with listening(lambda _: next(told)) as receiver, courier(database, clock) as mine:
        webhook = await webhook_at(database, receiver)
        await happened(database, task, *KINDS)
        store = WebhookStore(database)

        async def attempts() -> list[tuple[int, int]]:
            found = await store.deliveries(webhook.webhook_id, before_id=None, limit=10)
            return sorted((each.seq, each.attempts) for each in found)

        for made, pause_s in ((1, 5), (2, 30), (3, 120), (4, 600)):  # of the first event; nothing else is sent
            await until(lambda made=made: _is(attempts, [(1, made), (2, 0), (3, 0)]))
            assert len(receiver.got) == made
            clock.now += pause_s - 1
            mine.wake()
            await asyncio.sleep(0.15)  # long enough for a courier to err
            assert len(receiver.got) == made
            clock.now += 1
            mine.wake()
        await until(lambda: _is(attempts, [(1, 5), (2, 1), (3, 1)]))
        clock.now += 5
        mine.wake()
        await until(lambda: _is(attempts, [(1, 5), (2, 1), (3, 2)]))
        found = await store.deliveries(webhook.webhook_id, before_id=None, limit=10)

    first = next(each for each in found if each.seq == 1)
    assert {each.state for each in found} == {DeliveryState.DELIVERED}
    assert [(entry["at"] - EPOCH, entry["status"], entry["error"]) for entry in first.log] == [
        (0, None, "the connection broke before an answer"),
        (5, 500, "the receiver answered 500"),
        (35, 301, "a redirect, which is not followed"),
        (155, None, "no answer within 5 s"),
        (755, 200, None),
    ]
    check(receiver.got, clock)
    assert [json.loads(each.body)["data"]["seq"] for each in receiver.got] == [1, 1, 1, 1, 1, 2, 3, 3]
    assert len({(each.headers["webhook-id"], each.body) for each in receiver.got}) == 3  # repeats are the same


async def _is(ask: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await ask() == expected


def check(got: list[Request], clock: Clock) -> None:
    for each in got:
        assert verify(each.headers, each.body, [SECRET], int(each.headers["webhook-timestamp"])) is None
        assert verify(each.headers, each.body + b" ", [SECRET], int(each.headers["webhook-timestamp"])) is not None
        assert EPOCH <= int(each.headers["webhook-timestamp"]) <= clock.now
        assert each.headers["ce-type"] == f"flik.{json.loads(each.body)['type']}"


async def test_receiver_that_says_gone_is_left_alone(database: Database) -> None:
    clock = Clock()
    async with listening(lambda _: 410) as receiver, courier(database, clock) as mine:
        webhook = await webhook_at(database, receiver)
        await happened(database, task_id_at(EPOCH), *KINDS)
        store = WebhookStore(database)

        async def disabled() -> bool:
            found = await store.get(webhook.webhook_id)
            return found is not None and found.status is WebhookStatus.DISABLED and found.reason == GONE

        await until(disabled)
        await happened(database, task_id_at(EPOCH), *KINDS)
        clock.now += 5_000
        mine.wake()
        await until(lambda: _is(lambda: database.repeatable("SELECT FROM webhook_outbox", {}), []))
        assert len(receiver.got) == 1
        found = await store.deliveries(webhook.webhook_id, before_id=None, limit=10)
        assert [each.seq for each in found if each.state is DeliveryState.GIVEN_UP] == [1]
        assert len(found) == 3


async def test_courier_that_is_killed_loses_nothing(database: Database) -> None:
    clock = Clock()
    answers = iter([SILENT])
    async with listening(lambda _: next(answers, 200)) as receiver:
        webhook = await webhook_at(database, receiver)
        await happened(database, task_id_at(EPOCH), "completed")
        async with courier(database, clock):
            await receiver.wait_for(1)  # and it dies with the answer under way
        clock.now += 301
        async with courier(database, clock):
            await receiver.wait_for(2)

            async def delivered() -> bool:
                (found,) = await WebhookStore(database).deliveries(webhook.webhook_id, before_id=None, limit=5)
                return found.state is DeliveryState.DELIVERED

            await until(delivered)
    assert len({each.headers["webhook-id"] for each in receiver.got}) == 1
