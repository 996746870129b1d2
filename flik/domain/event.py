"""The log of a task: what happened to it, numbered 1, 2, 3 ... without a gap.

Nothing is stored for it that the task's own rows do not hold: `log_of` reads it off them. So the log
cannot miss a change or tell of one that did not commit, and following costs the way of a task nothing.
What makes the numbers last is that each change of the row counts `seq` up by the events it stands for:

    submit          queued, or pending for a step       + 1
    release         queued                              + 1
    grant           processing                          + 1
    settle          artifact for each file, completed   + files + 1
                    failed, or retryScheduled           + 1
    cancel, expire  cancelled, expired                  + 1
    caller's retry  queued                              + 1

A dag has a log of its own, told in the same way (`flik/domain/dag/log.py`).

These are durable. `progress`, `chunk`, `restart`, `reset`, `delayed` and `live` pass by: they have no number (`seq` 0)
and are not told again, except that a `reset` has the number from which the follower goes on, and that chunks have
a number in a stream of their own (`flik/domain/chunk.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from flik.domain.dag.graph import DagView
from flik.domain.task import Status, StoredArtifact, TaskView


class Kind(StrEnum):
    """What an event tells."""

    PENDING = "pending"  # a step waits for its parents
    QUEUED = "queued"
    PROCESSING = "processing"
    ARTIFACT = "artifact"
    RETRY_SCHEDULED = "retryScheduled"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    RUNNING = "running"  # these three are told of dags only
    STEP = "step"
    RESUMED = "resumed"

    PROGRESS = "progress"
    CHUNK = "chunk"
    RESTART = "restart"  # the chunks so far do not hold: what follows is from the start of the text
    RESET = "reset"  # the follower's cursor fits no event: `task`, or a tenant's `tasks`, is what holds now
    DELAYED = "delayed"  # Redis is away: events come up to a second late, progress not at all
    LIVE = "live"  # it is back
    MOVED = "moved"  # never shown: the log of a dag has grown


STATUS_AFTER = {
    Kind.PENDING: Status.PENDING,
    Kind.QUEUED: Status.QUEUED,
    Kind.PROCESSING: Status.PROCESSING,
    Kind.ARTIFACT: Status.PROCESSING,
    Kind.RETRY_SCHEDULED: Status.QUEUED,
    Kind.COMPLETED: Status.COMPLETED,
    Kind.FAILED: Status.FAILED,
    Kind.CANCELLED: Status.CANCELLED,
    Kind.EXPIRED: Status.EXPIRED,
    Kind.PROGRESS: Status.PROCESSING,
    Kind.CHUNK: Status.PROCESSING,
    Kind.RESTART: Status.PROCESSING,
}
OF_TEXT = frozenset({Kind.CHUNK, Kind.RESTART})
DURABLE = frozenset(STATUS_AFTER) - OF_TEXT - {Kind.PROGRESS}
OF_DAGS = frozenset({Kind.RUNNING, Kind.STEP, Kind.RESUMED})
ENDS = frozenset({Kind.COMPLETED, Kind.FAILED, Kind.CANCELLED, Kind.EXPIRED})


class DagNote(NamedTuple):
    """What an event tells of a dag: its status then, of a step its id, its task and how it ended.

    `step_id` is, when a dag has failed, the step that is to blame. `view` is there in a `reset`.
    """

    status: str
    step_id: str | None = None
    task_id: str | None = None
    step_status: str | None = None
    view: DagView | None = None


class Event(NamedTuple):
    """One thing that happened to a task, or to a dag, with whose id as `task_id`; `seq` 0: it passes by.

    `reason` is the outcome of the attempt that is to be tried again. `task` is there in `completed` and `reset`,
    `chunk_index` in chunks and in a `restart` that is one of the stream, `dag` in all that is told of a dag,
    `tasks`, the newest first, in the `reset` of who follows a tenant.
    """

    task_id: str
    seq: int
    kind: str
    at: float
    attempt: int | None = None
    worker_id: str | None = None
    version: str | None = None
    reason: str | None = None
    available_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    progress: float | None = None
    text: str | None = None
    artifact: StoredArtifact | None = None
    task: TaskView | None = None
    chunk_index: int | None = None
    dag: DagNote | None = None
    tasks: Sequence[TaskView] | None = None

    @property
    def is_durable(self) -> bool:
        """Whether it is in the log."""
        return self.kind in DURABLE or self.kind in OF_DAGS

    @property
    def is_of_text(self) -> bool:
        """Whether it is for those only who ask for the text as it is written."""
        return self.kind in OF_TEXT

    @property
    def ends(self) -> bool:
        """Whether the task has ended with it."""
        return self.kind in ENDS


class Notice(NamedTuple):
    """An event on its way to followers, with the tenant whose it is."""

    tenant_id: str
    event: Event


class Story(Protocol):
    """All that happened to a task, or to a dag, until one moment; `seq` is the number of its latest event."""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""

    @property
    def seq(self) -> int:
        """The number of its latest event."""

    def events(self) -> list[Event]:
        """Return the durable events in order: numbers 1 to `seq`."""

    def reset(self, at: float) -> Event:
        """Return the event that says how things stand, for who has a cursor that fits none."""


class EndedAttempt(NamedTuple):
    """One attempt that ended; `seq` is the number of the event that tells so."""

    seq: int
    attempt: int
    worker_id: str
    version: str
    started_at: float
    ended_at: float
    outcome: str
    available_at: float | None
    error_code: str | None
    error_message: str | None


class Round(NamedTuple):
    """A caller's retry; `seq` is the number of the event that tells so."""

    seq: int
    begun_at: float


class History(NamedTuple):
    """All the rows of one task at one moment; `seq` is the number of its latest event.

    `waited`: it began as PENDING, and was released, if it was, at `released_at`.
    """

    task: TaskView
    seq: int
    attempts: Sequence[EndedAttempt] = ()
    rounds: Sequence[Round] = ()
    waited: bool = False
    released_at: float | None = None

    @property
    def tenant_id(self) -> str:
        """Whose task it is."""
        return self.task.tenant_id

    def events(self) -> list[Event]:
        """Return the log."""
        return log_of(self)

    def reset(self, at: float) -> Event:
        """Return the event that says how the task stands."""
        return Event(self.task.task_id, self.seq, Kind.RESET, at, task=self.task)


def log_of(history: History) -> list[Event]:
    """Return the durable events of a task, in order: numbers 1 to `history.seq`."""
    task = history.task
    events = [Event(task.task_id, 1, Kind.PENDING if history.waited else Kind.QUEUED, task.created_at)]
    if history.released_at is not None:
        events.append(Event(task.task_id, 2, Kind.QUEUED, history.released_at))
    events += [Event(task.task_id, each.seq, Kind.QUEUED, each.begun_at) for each in history.rounds]
    for ended in history.attempts:
        events += _of_attempt(task, ended)
    if task.status == Status.PROCESSING:
        events.append(
            Event(
                task.task_id, history.seq, Kind.PROCESSING, task.started_at or 0.0, task.attempt, task.worker_id,
                task.version,
            )
        )  # fmt: skip
    if all(event.seq != history.seq for event in events):  # it ended while it waited
        kind = Kind.EXPIRED if task.status == Status.EXPIRED else Kind.CANCELLED
        end = Event(task.task_id, history.seq, kind, task.completed_at or 0.0)
        never_ran = history.waited and history.released_at is None
        if never_ran:  # because of a parent; what else ended while it waited keeps the error of its latest attempt
            end = end._replace(error_code=task.error_code, error_message=task.error_message)
        events.append(end)
    return sorted(events, key=lambda event: event.seq)


def completion(task: TaskView, seq: int) -> list[Event]:
    """Return the events of a completed task's last settlement: its artifacts, then its end with the number `seq`."""
    at = task.completed_at or 0.0
    common = Event(task.task_id, 0, Kind.ARTIFACT, at, task.attempt, task.worker_id, task.version)
    first = seq - len(task.artifacts)
    files = [common._replace(seq=first + place, artifact=each) for place, each in enumerate(task.artifacts)]
    return [*files, common._replace(seq=seq, kind=Kind.COMPLETED, task=task)]


def _of_attempt(task: TaskView, ended: EndedAttempt) -> Iterator[Event]:
    last = completion(task, ended.seq) if ended.outcome == "COMPLETED" else [_end_of(task.task_id, ended)]
    yield Event(
        task.task_id, ended.seq - len(last), Kind.PROCESSING, ended.started_at, ended.attempt, ended.worker_id,
        ended.version,
    )  # fmt: skip
    yield from last


def _end_of(task_id: str, ended: EndedAttempt) -> Event:
    common = Event(task_id, ended.seq, Kind.FAILED, ended.ended_at, ended.attempt, ended.worker_id, ended.version)
    if ended.outcome == "CANCELLED":
        return common._replace(kind=Kind.CANCELLED)
    why = common._replace(error_code=ended.error_code, error_message=ended.error_message)
    if ended.available_at is None:
        return why
    return why._replace(kind=Kind.RETRY_SCHEDULED, reason=ended.outcome, available_at=ended.available_at)
