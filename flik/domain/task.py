"""What a task is: its states, how it may move between them, and what travels inside Flik.

                          start deadline passed before the first start
            ┌──────────────────────────────────────────► EXPIRED
            │                 cancel
            ├──────────────────────────────────────────► CANCELLED ◄─┐
            │                                                        │ cancel
  submit ─► QUEUED ── grant ─► PROCESSING ── settle ─► COMPLETED     │
            ▲  ▲                 │   │  └────────────────────────────┘
            │  └── retry at ─────┘   └── gave up ──► FAILED
            └──────────────── retry by the caller ─────┘

PENDING stands before QUEUED for a step of a dag that waits for its parents (`flik/domain/dag/progress.py`). A task that
waits for a retry is QUEUED with `attempt` > 0 and `available_at` in the future.

Only the queue moves a task after it was submitted, and each move names the state it
expects, so two moves that race cannot both take effect. Leaving PROCESSING also needs the
lease token of the grant: see `flik.pipeline.schedule`.

What there is by the thousand is a named tuple: it is made several times faster than a frozen
dataclass, and packed for Ray as the tuple it is (`flik/actors/packing.py`).

Times inside Flik are seconds since the epoch (UTC); they become timestamps at the rim.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from flik.domain.webhook.own import OwnWebhook


class Status(StrEnum):
    """Where a task is on its way."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.PROCESSING, Status.CANCELLED, Status.EXPIRED}),
    Status.PROCESSING: frozenset({Status.QUEUED, Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.COMPLETED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}


class Priority(IntEnum):
    """How urgent a task is; the smaller number goes first."""

    REAL_TIME = 0
    INTERACTIVE = 1
    BACKGROUND = 2


class NewTask(NamedTuple):
    """A validated task that is not stored yet. `payload` is JSON text; `max_attempts` None: as the service has it.

    Of a step of a dag, `waits` says that it has parents, so that it begins as PENDING.
    """

    task_id: str
    tenant_id: str
    task_type: str
    priority: int
    region: str
    payload: str
    created_at: float
    start_deadline_at: float | None = None
    request_id: str | None = None
    trace_id: str | None = None
    webhook: OwnWebhook | None = None
    dag_id: str | None = None
    waits: bool = False
    max_attempts: int | None = None


class Ticket(NamedTuple):
    """What the queue holds of a waiting task: enough to order it, nothing to run it.

    `queued_at` orders a tenant's tasks and feeds ageing; it is the submit time and is kept
    through retries. `available_at` is when it may be granted; equal to `queued_at` for a
    new task, later for a retry.
    """

    task_id: str
    tenant_id: str
    task_type: str
    priority: int
    queued_at: float
    available_at: float


def compact_ticket(fields: Sequence[Any]) -> Ticket:
    """Return the ticket that `Ticket._make` returns; its names, and its times if they are equal, are shared objects."""
    task_id, tenant_id, task_type, priority, queued_at, available_at = fields
    if available_at == queued_at:
        available_at = queued_at
    return Ticket(task_id, sys.intern(tenant_id), sys.intern(task_type), priority, queued_at, available_at)


class Requeued(NamedTuple):
    """A task that waits for a worker again, or, as a step of a dag, at last; `seq` is the number of that event.

    `elsewhere` is its region when that is another one than that of the queue that moved it.
    """

    seq: int
    ticket: Ticket
    elsewhere: str | None = None


class Worker(NamedTuple):
    """Who asks for work: one model replica."""

    worker_id: str
    task_type: str
    version: str


class Grant(NamedTuple):
    """One task given to one worker. Whoever writes its outcome must show `lease_token`.

    `outputs` is what the parents of a step made, in their order: JSON text that `flik/domain/dag/references.py` reads.
    """

    task_id: str
    lease_token: str
    tenant_id: str
    task_type: str
    priority: int
    attempt: int
    payload: str
    soft_timeout_s: float
    hard_timeout_s: float
    request_id: str | None = None
    trace_id: str | None = None
    outputs: str | None = None


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact that lies in the object store; the bytes behind `key` hash to `sha256` (hex).

    `upload_attempts` is how often it was sent until it lay there.
    """

    index: int
    key: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    upload_attempts: int = 1


class UploadStatus(StrEnum):
    """How an upload ended; ABANDONED: with its attempt, before the object store had taken it or been given up."""

    STORED = "STORED"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True)
class Upload:
    """How one file of an attempt went to the object store. `error` is what its last failure was, also of a stored one.

    `started_at` is when the provider brought it forth; `attempts` is 0 when it was never sent.
    """

    index: int
    status: UploadStatus
    attempts: int
    size_bytes: int
    started_at: float
    ended_at: float
    error: str | None = None


class Completed(NamedTuple):
    """The attempt produced a result; `made_by` is the lease token of an earlier one whose generation it took up."""

    task_id: str
    lease_token: str
    text: str | None = None
    metadata: Mapping[str, Any] = {}
    artifacts: tuple[StoredArtifact, ...] = ()
    uploads: tuple[Upload, ...] = ()
    made_by: str | None = None


class Failed(NamedTuple):
    """The attempt failed; `retryable` says whether another could succeed."""

    task_id: str
    lease_token: str
    error_code: str
    message: str
    retryable: bool
    uploads: tuple[Upload, ...] = ()


class HandedBack(NamedTuple):
    """The worker is shutting down and gives the task back unfinished; the attempt does not count."""

    task_id: str
    lease_token: str
    uploads: tuple[Upload, ...] = ()


Outcome = Completed | Failed | HandedBack


class TaskView(NamedTuple):
    """All that is shown of one task. `result` is {"text", "metadata"} of a completed one; `dag_id` that of a step."""

    task_id: str
    tenant_id: str
    task_type: str
    priority: int
    region: str
    status: str
    attempt: int
    max_attempts: int
    created_at: float
    available_at: float
    start_deadline_at: float | None
    started_at: float | None
    completed_at: float | None
    worker_id: str | None
    version: str | None
    error_code: str | None
    error_message: str | None
    request_id: str | None
    dag_id: str | None = None
    result: Mapping[str, Any] | None = None
    artifacts: tuple[StoredArtifact, ...] = ()
    progress: float | None = None


class DeadLetter(NamedTuple):
    """What has to be known of a task that failed for good to let it in again."""

    task_id: str
    tenant_id: str
    task_type: str
    priority: int


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None means any. `before_id` is where the last page ended."""

    tenant_id: str | None = None
    status: str | None = None
    task_type: str | None = None
    priority: int | None = None
    error_code: str | None = None
    created_from: float | None = None
    created_until: float | None = None
    before_id: str | None = None
    limit: int = 50
