"""Short ways to the values that tests of the pipeline need again and again."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from dataclasses import replace
from typing import Any

from flik.domain.idempotency import Answer, Keyed, KeyedRequest
from flik.domain.task import NewTask, StoredArtifact, Ticket, Worker

EPOCH = 1_700_000_000.0  # where the tests' clocks start
_NUMBERS = itertools.count(1)


def task_id_at(at: float, number: int | None = None) -> str:
    """A UUIDv7 of the time `at`; ids of one millisecond are in the order in which they were made."""
    number = next(_NUMBERS) if number is None else number
    return str(uuid.UUID(int=(int(at * 1000) << 80) | (7 << 76) | (2 << 62) | number))


def new_task(at: float = EPOCH, **changes: Any) -> NewTask:
    """A task of tenant `acme`, type TEXT, priority 1."""
    task = NewTask(task_id_at(at), "acme", "TEXT", 1, "us-east", '{"prompt": "hello"}', at)
    return task._replace(**changes)


def keyed(*tasks: NewTask, key: str = "k", body: str = "a", at: float = EPOCH, tenant: str = "acme") -> Keyed:
    """A submission under a key; `body` stands for all of what it asks for. Without tasks it gets one."""
    tasks = tasks or (new_task(at, tenant_id=tenant),)
    asked = KeyedRequest(tenant, key, hashlib.sha256(body.encode()).hexdigest(), at)
    return Keyed(asked, Answer(202, {"Location": f"/{tasks[0].task_id}"}, f'{{"taskId":"{tasks[0].task_id}"}}'), tasks)


def ticket_of(task: NewTask) -> Ticket:
    """The ticket with which a task is announced."""
    return Ticket(task.task_id, task.tenant_id, task.task_type, task.priority, task.created_at, task.created_at)


def ticket(
    number: int = 1, *, tenant: str = "acme", priority: int = 1, at: float = 0.0, due: float | None = None
) -> Ticket:
    """A ticket with a readable id: `t000001`."""
    return Ticket(f"t{number:06}", tenant, "TEXT", priority, at, at if due is None else due)


def worker(name: str = "w1", task_type: str = "TEXT") -> Worker:
    """A worker of version v1."""
    return Worker(name, task_type, "v1")


def stored_file(index: int = 0, **changes: Any) -> StoredArtifact:
    """A small picture in the object store."""
    return replace(StoredArtifact(index, f"key/{index}", "image/png", 10, f"{index:064x}", 8, 4), **changes)


class Clock:
    """A clock that stands still until it is told the time."""

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds
