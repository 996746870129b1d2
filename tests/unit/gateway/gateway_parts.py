"""What a gateway works with, in memory: tasks in a dict, a queue that does what it is told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from fastapi import FastAPI
from memory_answers import MemoryAnswers
from memory_chunks import MemoryChunks
from memory_identity import MemoryAudit, MemoryIdentity, MemoryKeys, MemoryTenants
from memory_names import MemoryNames
from memory_store import MemoryStore
from memory_webhooks import MemoryWebhooks

from flik.artifacts.store import open_store
from flik.domain.dag.progress import DagStatus
from flik.domain.event import History
from flik.domain.identity import Caller, Limits
from flik.domain.pressure import Load
from flik.domain.rate import Admitted, Decision, Limited
from flik.domain.task import TERMINAL, DeadLetter, NewTask, Status, TaskFilter, TaskView, Ticket
from flik.errors import Unavailable
from flik.gateway.app import create_app
from flik.gateway.issuer import Issuer
from flik.gateway.parts import Parts
from flik.outbound.lookups import Lookups
from flik.pipeline.admit import Admission
from flik.pipeline.directory import Directory
from flik.pipeline.follow import Hub
from flik.pipeline.followers import Followers
from flik.pipeline.levels import QueueLevels
from flik.pipeline.ports import Moved
from flik.pipeline.streams import Streams
from flik.pipeline.submit import Announcer, GroupCommit
from flik.telemetry import Metrics

SIGNING_KEY = b"a key for tests"
BOUNDS = (1_250, 1_100, 1_000)
ALL_WELL = {"ready": True, "types": {"TEXT": {"workers": 1}, "IMAGE": {"workers": 2}}}


@dataclass
class Tasks:
    """Stands in for the table of tasks. `away` makes every call fail."""

    rows: dict[str, TaskView] = field(default_factory=dict)
    stored: list[NewTask] = field(default_factory=list)
    asked: list[TaskFilter] = field(default_factory=list)
    dead_asked: list[TaskFilter] = field(default_factory=list)
    away: bool = False
    fault: Exception | None = None
    histories: dict[str, History] = field(default_factory=dict)
    read_dag: Any = None

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        await self.ping()
        self.stored += tasks
        self.rows |= {task.task_id: view(task) for task in tasks}

    async def get(self, task_id: str) -> TaskView | None:
        await self.ping()
        return self.rows.get(task_id)

    async def find(self, wanted: TaskFilter) -> list[TaskView]:
        await self.ping()
        self.asked.append(wanted)
        newest_first = sorted(self.rows.values(), key=lambda row: row.task_id, reverse=True)
        return [row for row in newest_first if not wanted.before_id or row.task_id < wanted.before_id][: wanted.limit]

    async def read(self, task_id: str) -> History | None:
        row = await self.get(task_id)
        if row is None:
            return None
        given = History(row, 1)
        return self.histories.get(task_id, given)._replace(task=row)

    async def positions(self, task_ids: Sequence[str]) -> dict[str, int]:
        return {task_id: self.histories[task_id].seq for task_id in task_ids if task_id in self.histories}

    async def dead_letters(self, wanted: TaskFilter) -> list[DeadLetter]:
        await self.ping()
        self.dead_asked.append(wanted)
        dead = sorted((row for row in self.rows.values() if row.status == "FAILED"), key=lambda row: row.task_id)
        mine = [row for row in dead if wanted.tenant_id in (None, row.tenant_id)][: wanted.limit]
        return [DeadLetter(row.task_id, row.tenant_id, row.task_type, row.priority) for row in mine]

    async def ping(self) -> None:
        if self.fault is not None:
            raise self.fault
        if self.away:
            raise Unavailable("postgresql")


@dataclass
class Hot:
    """Stands in for Redis."""

    rows: dict[str, TaskView] = field(default_factory=dict)
    fractions: dict[str, float] = field(default_factory=dict)
    answers: bool = True

    async def get(self, task_id: str) -> TaskView | None:
        return self.rows.get(task_id)

    async def progress(self, task_id: str) -> float | None:
        return self.fractions.get(task_id)

    async def ping(self) -> bool:
        return self.answers


@dataclass
class TicketsFake:
    """Stands in for the tickets in Redis."""

    held: dict[str, Caller] = field(default_factory=dict)
    away: bool = False

    async def issue(self, caller: Caller) -> str:
        if self.away:
            raise Unavailable("redis")
        ticket = f"flik_ticket_{len(self.held)}"
        self.held[ticket] = caller
        return ticket

    async def redeem(self, ticket: str) -> Caller | None:
        if self.away:
            raise Unavailable("redis")
        return self.held.pop(ticket, None)


@dataclass
class Queue:
    """Stands in for the queue; it moves the rows of `tasks`, and the dags of `store`."""

    tasks: Tasks
    store: MemoryStore
    announced: list[Ticket] = field(default_factory=list)
    replays: list[list[str]] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=lambda: dict(ALL_WELL))
    away: bool = False
    full: Load = field(default_factory=lambda: Load({}))

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("queue", 2.5)

    async def announce(self, tickets: list[Ticket]) -> None:
        self._answer()
        self.announced += tickets

    async def cancel(self, task_id: str) -> Moved | None:
        return self._move(task_id, lambda row: row.status not in TERMINAL, Status.CANCELLED)

    async def retry(self, task_id: str) -> Moved | None:
        return self._move(task_id, lambda row: row.status == Status.FAILED, Status.QUEUED)

    def _move(self, task_id: str, may: Any, to: Status) -> Moved | None:
        self._answer()
        row = self.tasks.rows.get(task_id)
        if row is None:
            return None
        if may(row):
            self.tasks.rows[task_id] = row._replace(status=to.value)
        return Moved(row.status, may(row))

    async def replay(self, task_ids: Sequence[str]) -> int:
        self._answer()
        self.replays.append(list(task_ids))
        moved = [self._move(each, lambda row: row.status == Status.FAILED, Status.QUEUED) for each in task_ids]
        return sum(each is not None and each.moved for each in moved)

    async def cancel_dag(self, dag_id: str) -> Moved | None:
        self._answer()
        found = await self.store.cancel_dag(dag_id, time.time())
        return found and Moved(found[0].value, found[1] is not None)

    async def resume_dag(self, dag_id: str) -> Moved | None:
        self._answer()
        found = await self.store.resume_dag(dag_id, time.time())
        return found and Moved(found[0].value, found[0] is DagStatus.FAILED)

    async def metrics(self) -> str:
        self._answer()
        return "flik_queue_depth 7.0\n"

    async def stats(self) -> dict[str, Any]:
        self._answer()
        return self.state

    async def load(self, tenants: Sequence[str]) -> Load:
        self._answer()
        return self.full


@dataclass
class Rate:
    """Stands in for the tenants' tokens; says the same to everybody."""

    says: Decision = field(default_factory=lambda: Admitted(999))
    away: bool = False
    purses: dict[str, int] = field(default_factory=dict)  # tenants that have so many tokens, and no more
    spent: list[tuple[str, int]] = field(default_factory=list)

    async def spend(self, tenant_id: str, cost: int, limits: Limits) -> Decision:
        if self.away:
            raise Unavailable("limiter")
        left = self.purses.get(tenant_id, cost)
        if left < cost:
            return Limited((cost - left) / limits.rate_per_s, left)
        if tenant_id in self.purses:
            self.purses[tenant_id] -= cost
        self.spent.append((tenant_id, cost))
        return self.says


@dataclass
class Alone:
    """Stands in for the metrics of all replicas: there is this one, and those that a test adds."""

    read: Callable[[], Sequence[str]]
    replica: str = "r1"
    others: dict[str, Sequence[str]] = field(default_factory=dict)
    away: bool = False

    async def exchange(self) -> dict[str, Sequence[str]]:
        if self.away:
            raise Unavailable("redis")
        return {**self.others, self.replica: self.read()}


@dataclass
class Resolver:
    """Stands in for name servers: `known` names lead somewhere, `silent` ones are never answered, others lead nowhere.

    Whoever asks waits for half a second at most.
    """

    known: dict[str, list[str]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.silent:
            await asyncio.Event().wait()
        if host not in self.known:
            raise socket.gaierror(-2, "unknown")
        return self.known[host]


@dataclass
class Fakes:
    """All of it, and the application over it."""

    tasks: Tasks
    kept: MemoryAnswers
    hot: Hot
    queue: Queue
    parts: Parts
    app: FastAPI
    identity: MemoryIdentity
    rate: Rate
    levels: QueueLevels
    hub: Hub
    webhooks: MemoryWebhooks
    woken: list[str]
    texts: MemoryChunks
    names: MemoryNames
    store: MemoryStore  # of dags
    resolver: Resolver


def build(
    *,
    public_url: str | None = None,
    echo_request_id: bool = True,
    cors_origins: tuple[str, ...] = (),
    is_open: bool = True,
    issuer: Issuer | None = None,
) -> Fakes:
    """`is_open`: any bearer token will do, as most tests are not about who calls."""
    tasks, hot, identity, webhooks = Tasks(), Hot(), MemoryIdentity(), MemoryWebhooks()
    woken: list[str] = []
    keys, tenants = MemoryKeys(identity), MemoryTenants(identity)
    store = MemoryStore()
    kept = MemoryAnswers(tasks.insert, put_dag=store.dags.put)
    queue, rate = Queue(tasks, store), Rate()
    levels = QueueLevels(queue.load)
    by_tenant = Metrics("flik_tasks_refused")
    tasks.read_dag = store.read_dag
    hub = Hub(tasks, hot)
    texts, names = MemoryChunks(), MemoryNames(tasks.insert)
    resolver = Resolver()
    announcer = Announcer("us-east", queue.announce)
    hub.note_live(True)
    measured = Metrics("flik_submit_*", "flik_http_errors", "flik_result_reads", process="gateway")
    parts = Parts(
        region="us-east",
        regions=frozenset({"us-east"}),
        public_url=public_url,
        tasks=cast(Any, tasks),
        dags=cast(Any, store.dags),
        hot=cast(Any, hot),
        queue=queue,
        commit=GroupCommit(tasks, kept, announcer, dags=store.dags),
        artifacts=open_store("memory:///"),
        signing_key=SIGNING_KEY,
        artifact_url_ttl_s=60,
        admission=Admission(rate, levels, BOUNDS, by_tenant),
        measured=measured,
        snapshots=cast(Any, Alone(lambda: (measured.text(), by_tenant.text()))),
        directory=Directory(keys, tenants, Limits(), gather_s=0),
        tenants=cast(Any, tenants),
        keys=cast(Any, keys),
        audit=cast(Any, MemoryAudit(identity)),
        hub=hub,
        followers=Followers(keys, most=20, most_of_key=10),
        tickets=cast(Any, TicketsFake()),
        texts=texts,
        streams=Streams(names, announcer),
        webhooks=cast(Any, webhooks),
        lookups=Lookups(resolver, within_s=0.5),
        wake_courier=lambda: woken.append("courier"),
        issuer=issuer,
        is_open=is_open,
    )

    @asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        yield parts

    app = create_app(open_parts, echo_request_id=echo_request_id, public_url=public_url, cors_origins=cors_origins)
    return Fakes(
        tasks, kept, hot, queue, parts, app, identity, rate, levels, hub, webhooks, woken, texts, names, store,
        resolver,
    )  # fmt: skip


def view(task: NewTask | None = None, **fields: Any) -> TaskView:
    """A task as it is read; QUEUED unless `fields` say otherwise."""
    given = task or NewTask("0199a1b2-0000-7000-8000-000000000001", "acme", "TEXT", 1, "us-east", "{}", time.time())
    row = TaskView(
        task_id=given.task_id, tenant_id=given.tenant_id, task_type=given.task_type, priority=given.priority,
        region=given.region, status="QUEUED", attempt=0, max_attempts=4, created_at=given.created_at,
        available_at=given.created_at, start_deadline_at=given.start_deadline_at, started_at=None, completed_at=None,
        worker_id=None, version=None, error_code=None, error_message=None, request_id=given.request_id,
    )  # fmt: skip
    return row._replace(**fields)


def task_id(number: int) -> str:
    return f"0199a1b2-0000-7000-8000-{number:012d}"


def body(**fields: Any) -> dict[str, Any]:
    return {"tenantId": "acme", "taskType": "TEXT", "priority": 1, "payload": {"prompt": "rain"}, **fields}
