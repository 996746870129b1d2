"""What a task's moves leave in the outbox is the task's log, for tenants that have a webhook."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from making import EPOCH, keyed, new_task, stored_file, ticket_of, worker

from flik.domain.event import DURABLE, log_of
from flik.domain.task import NewTask, Status, Ticket
from flik.gateway.answers import Answers
from flik.storage.database import Database
from flik.storage.events import HistoryStore
from flik.storage.idempotency import AnswerStore
from flik.storage.queue import GrantedRow, QueueStore, Settlement
from flik.storage.tasks import TaskStore

KINDS = sorted(kind.value for kind in DURABLE)
_HOOK = """INSERT INTO webhooks (webhook_id, tenant_id, place, url, kinds, status, reason, created_at, updated_at,
                                 secret)
           VALUES (gen_random_uuid(), %s, 1, 'https://example.com/', %s, %s, 'x', now(), now(), 'whsec_')"""


class World:
    """A tenant's tasks, and what is in the outbox."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tasks = TaskStore(database, max_attempts=4)
        self.answers = AnswerStore(database, max_attempts=4, ttl_s=60)
        self.queue = QueueStore(database, "us-east")
        self.histories = HistoryStore(database)

    async def submit(self, **changes: Any) -> NewTask:
        task = new_task(**changes)
        await self.tasks.insert([task])
        return task

    async def grant(self, task: NewTask, now: float = EPOCH + 1) -> GrantedRow:
        (row,) = await self.queue.grant([(ticket_of(task), str(uuid.uuid4()), worker())], now)
        return row

    async def outbox(self) -> list[tuple[int, str, dict[str, Any]]]:
        return await self.database.repeatable("SELECT seq, kind, data FROM webhook_outbox ORDER BY task_id, seq", {})

    async def log(self, task: NewTask) -> list[tuple[int, str]]:
        history = await self.histories.read(task.task_id)
        assert history is not None
        return [(event.seq, event.kind) for event in log_of(history)]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    database = await Database(database_url, connections=2, pinned_plans=True).open()
    yield World(database)
    await database.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, attempts, artifacts, rounds, webhooks, webhook_outbox, idempotency_keys")


def hook(url: str, tenant: str = "acme", kinds: list[str] = KINDS, status: str = "ACTIVE") -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_HOOK, (tenant, kinds, status))


def done(row: GrantedRow, files: int = 0) -> Settlement:
    artifacts = tuple(stored_file(index) for index in range(files))
    result = json.dumps({"text": "rain", "metadata": {"words": 3}})
    return Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result=result, artifacts=artifacts)


def failed(row: GrantedRow, again_at: float | None = None) -> Settlement:
    status = Status.FAILED if again_at is None else Status.QUEUED
    return Settlement(
        row.task_id,
        row.lease_token,
        status,
        "FAILED",
        available_at=again_at,
        error_code="boom",
        error_message="it broke",
    )


async def test_the_outbox_holds_the_whole_log(world: World, database_url: str) -> None:
    hook(database_url)
    task = await world.submit()
    await world.queue.settle([failed(await world.grant(task), EPOCH + 7)], EPOCH + 2)
    await world.queue.settle([failed(await world.grant(task, EPOCH + 7))], EPOCH + 8)
    await world.queue.retry(task.task_id, 4, EPOCH + 9)
    await world.queue.settle([failed(await world.grant(task, EPOCH + 10))], EPOCH + 11)
    await world.queue.replay([task.task_id], 4, EPOCH + 12)
    await world.queue.settle([done(await world.grant(task, EPOCH + 13), files=2)], EPOCH + 14)
    told = await world.outbox()
    assert [(seq, kind) for seq, kind, _ in told] == await world.log(task)
    data = {seq: data for seq, _, data in told}
    assert data[2] == {"status": "PROCESSING", "attempt": 1, "workerId": "w1", "version": "v1"}
    assert data[3]["reason"] == "FAILED"
    assert data[3]["availableAt"] == "2023-11-14T22:13:27.000Z"
    assert data[3]["error"] == {"code": "boom", "message": "it broke"}
    assert (data[5]["status"], data[5]["error"]["code"]) == ("FAILED", "boom")
    files = [seq for seq, kind, _ in told if kind == "artifact"]
    assert [data[seq]["artifact"]["index"] for seq in files] == [0, 1]
    assert data[files[0]]["artifact"]["sha256"] == stored_file(0).sha256
    last = max(data)
    assert data[last] == {
        "status": "COMPLETED", "attempt": 4, "workerId": "w1", "version": "v1",
        "result": {"text": "rain", "metadata": {"words": 3}},
    }  # fmt: skip


async def test_what_was_reused_is_told_as_answers_have_it(world: World, database_url: str) -> None:
    hook(database_url)
    task = await world.submit()
    saved = {"seconds": 4.0, "usd": "0.001"}
    result = {"text": "rain", "metadata": {"words": 3}, "reused": {"from": "t1", "saved": saved}}
    await world.queue.settle([done(await world.grant(task))._replace(result=json.dumps(result))], EPOCH + 2)
    (data,) = [data for _, kind, data in await world.outbox() if kind == "completed"]
    told = {"text": "rain", "metadata": {"words": 3}, "reusedFrom": "t1", "saved": saved}
    assert data["result"] == told
    view = await world.tasks.get(task.task_id)
    assert view is not None
    answer = Answers("http://flik", b"key", 60, EPOCH).result(view)
    assert {name: answer[name] for name in told} == told


@pytest.mark.parametrize("runs", [False, True])
async def test_a_cancel_is_told(world: World, database_url: str, runs: bool) -> None:
    hook(database_url)
    task = await world.submit()
    if runs:
        await world.grant(task)
    await world.queue.cancel(task.task_id, EPOCH + 2)
    assert [(seq, kind) for seq, kind, _ in await world.outbox()] == await world.log(task)


async def test_an_expiry_is_told(world: World, database_url: str) -> None:
    hook(database_url)
    task = await world.submit(start_deadline_at=EPOCH + 1)
    await world.queue.expire(10, EPOCH + 2)
    assert [(seq, kind) for seq, kind, _ in await world.outbox()] == await world.log(task)


async def test_a_submit_under_a_key_is_told_once(world: World, database_url: str) -> None:
    hook(database_url)
    submission = keyed()
    await world.answers.insert([submission])
    await world.answers.insert([submission])
    await world.answers.insert([replace(submission, tasks=(new_task(),))])
    assert [(seq, kind) for seq, kind, _ in await world.outbox()] == [(1, "queued")]


async def test_a_repeated_statement_is_told_once(world: World, database_url: str) -> None:
    hook(database_url)
    task = await world.submit()
    await world.tasks.insert([task])
    row = await world.grant(task)
    for _ in range(2):
        await world.queue.settle([done(row)], EPOCH + 2)
    assert [kind for _, kind, _ in await world.outbox()] == ["queued", "processing", "completed"]


@pytest.mark.parametrize(
    ("tenant", "kinds", "status", "told"),
    [
        ("acme", KINDS, "PAUSED", ["queued", "processing", "completed"]),
        ("acme", ["completed"], "ACTIVE", ["completed"]),
        ("acme", ["processing", "failed"], "ACTIVE", ["processing"]),
        ("acme", KINDS, "DISABLED", []),
        ("other", KINDS, "ACTIVE", []),
    ],
)
async def test_only_what_somebody_wants_is_told(  # noqa: PLR0917
    world: World, database_url: str, tenant: str, kinds: list[str], status: str, told: list[str]
) -> None:
    hook(database_url, tenant, kinds, status)
    task = await world.submit()
    await world.queue.settle([done(await world.grant(task))], EPOCH + 2)
    assert [kind for _, kind, _ in await world.outbox()] == told


async def test_what_is_refused_is_not_told(world: World, database_url: str) -> None:
    hook(database_url)
    task = await world.submit()
    row = await world.grant(task)
    await world.queue.settle([done(row._replace(lease_token=str(uuid.uuid4())))], EPOCH + 2)
    await world.queue.retry(task.task_id, 4, EPOCH + 2)
    ticket = Ticket(task.task_id, "acme", "TEXT", 1, EPOCH, EPOCH)
    assert await world.queue.grant([(ticket, str(uuid.uuid4()), worker())], EPOCH + 2) == []
    assert [kind for _, kind, _ in await world.outbox()] == ["queued", "processing"]
