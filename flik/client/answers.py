"""What Flik answers, as values. Read leniently, so that an older client survives a newer server.

Unknown fields stay in `raw`; a known optional field of the wrong type reads as absent.
Only what an answer is nothing without (a task's id and status) must be there: else
`read_*` raises `ValueError`, which the transport turns into `UnreadableAnswer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from flik.domain.dag.plan import STEP_ID
from flik.domain.task import TERMINAL, Status

Raw = Mapping[str, Any]
T = TypeVar("T")

# Ids become parts of paths, in URLs and of files: nothing that could steer one passes, whoever sent it.
TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file a task made. `url` may be a path on the gateway; it is signed and needs no key.

    `upload_attempts` is how often it was sent to the object store until it lay there.
    """

    url: str
    content_type: str = "application/octet-stream"
    size_bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    status: str | None = None
    upload_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """Why a task failed, or why its last attempt did."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the gateway shows it. Times are aware UTC, `progress` runs from 0 to 1."""

    task_id: str
    status: str
    task_type: str = ""
    tenant_id: str = ""
    priority: int | None = None
    region: str | None = None
    attempt: int = 0
    progress: float | None = None
    version: str | None = None
    worker_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    available_at: datetime | None = None
    error: TaskFailure | None = None
    text: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    metadata: Raw = field(default_factory=dict)
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended: completed, failed, cancelled or expired."""
        return self.status in TERMINAL

    @property
    def is_completed(self) -> bool:
        """Whether the task has a result."""
        return self.status == Status.COMPLETED


@dataclass(frozen=True, slots=True)
class Submitted:
    """A task was accepted: it is safe with Flik. The URLs are as the gateway gave them."""

    task_id: str
    status: str
    created_at: datetime | None = None
    status_url: str | None = None
    result_url: str | None = None
    cancel_url: str | None = None
    events_url: str | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class DagStep:
    """One step of a dag, and the task that it became. `depends_on` are ids of steps; `on_failure`: fail or skip."""

    step_id: str
    task: Task
    depends_on: tuple[str, ...] = ()
    on_failure: str = "fail"


class StepCounts(NamedTuple):
    """How many steps a dag has, how many of them completed, and how many have not ended."""

    total: int
    completed: int
    open: int


NO_STEPS = StepCounts(0, 0, 0)


@dataclass(frozen=True, slots=True)
class DagFailure:
    """Why a dag failed, and by which step; None: by none alone."""

    code: str
    message: str = ""
    step_id: str | None = None


@dataclass(frozen=True, slots=True)
class Dag:
    """A dag as the gateway shows it; in lists without its steps. The URLs come with the answer to a submit."""

    dag_id: str
    status: str
    steps: tuple[DagStep, ...] = ()
    counts: StepCounts = NO_STEPS
    tenant_id: str = ""
    priority: int | None = None
    region: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    deadline_at: datetime | None = None
    error: DagFailure | None = None
    metadata: Raw = field(default_factory=dict)
    status_url: str | None = None
    cancel_url: str | None = None
    resume_url: str | None = None
    events_url: str | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the dag has ended: completed, failed or cancelled."""
        return self.status in TERMINAL

    @property
    def is_completed(self) -> bool:
        """Whether the dag completed; steps that may be skipped may be missing."""
        return self.status == Status.COMPLETED

    def task(self, step_id: str) -> Task:
        """Return the task of a step.

        Raises:
            KeyError: the dag has no such step, or was shown without its steps.
        """
        return {step.step_id: step.task for step in self.steps}[step_id]


@dataclass(frozen=True, slots=True)
class PageOf(Generic[T]):
    """Some of a list, and the cursor of the page after them (None: this was the last)."""

    items: tuple[T, ...]
    next_cursor: str | None = None


Page = PageOf[Task]


class Replayed(NamedTuple):
    """How many dead letters are queued again, and whether more match: the tenant's rate may have ended it."""

    replayed: int
    more: bool


@dataclass(frozen=True, slots=True)
class Health:
    """What the gateway says of itself and the parts it needs."""

    status: str
    components: Mapping[str, str] = field(default_factory=dict)
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_up(self) -> bool:
        """Whether the gateway takes work."""
        return self.status == "UP"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a task. `kind` is the server's word; `seq` None: it passes by and is not kept.

    `status` is the task's after it. `artifacts` are there in `artifact` and `completed`, `text` in `chunk` and
    `completed`. `index` is the number of a chunk; after a `restart` the chunks before it do not hold.
    """

    kind: str
    task_id: str = ""
    seq: int | None = None
    status: str | None = None
    at: datetime | None = None
    attempt: int | None = None
    progress: float | None = None
    text: str | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: TaskFailure | None = None
    available_at: datetime | None = None
    index: int | None = None
    raw: Raw = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended with it."""
        return self.status in TERMINAL and self.kind not in ("reset", "delayed", "live")


def read_event(raw: Any) -> Event:
    """Read one event."""
    document = _object(raw)
    result = _child(document, "result")
    artifact = _child(document, "artifact")
    return Event(
        kind=_needed(document, "event"),
        task_id=_text(document, "taskId") or "",
        seq=_integer(document, "seq"),
        status=_text(document, "status"),
        at=_time(document, "timestamp"),
        attempt=_integer(document, "attempt"),
        progress=_fraction(document, "progress"),
        text=_text(document, "text") or _text(result, "text"),
        artifacts=_read_artifacts([artifact] if artifact else result.get("artifacts")),
        error=_read_failure(_child(document, "error")),
        available_at=_time(document, "availableAt"),
        index=_integer(document, "index"),
        raw=document,
    )


def read_replayed(raw: Any) -> Replayed:
    """Read the answer to a replay of many."""
    document = _object(raw)
    count = document.get("replayed")
    if not isinstance(count, int) or isinstance(count, bool):
        raise ValueError("`replayed` is not a number")
    return Replayed(count, document.get("more") is True)


def read_submitted(raw: Any) -> Submitted:
    """Read the answer to a submit."""
    document = _object(raw)
    return Submitted(
        task_id=_id(document, "taskId"),
        status=_needed(document, "status"),
        created_at=_time(document, "createdAt"),
        status_url=_text(document, "statusUrl"),
        result_url=_text(document, "resultUrl"),
        cancel_url=_text(document, "cancelUrl"),
        events_url=_text(document, "eventsUrl"),
        raw=document,
    )


def read_task(raw: Any) -> Task:
    """Read one task."""
    document = _object(raw)
    result = _child(document, "result")
    return Task(
        task_id=_id(document, "taskId"),
        status=_needed(document, "status"),
        task_type=_text(document, "taskType") or "",
        tenant_id=_text(document, "tenantId") or "",
        priority=_integer(document, "priority"),
        region=_text(document, "region"),
        attempt=_integer(document, "attempt") or 0,
        progress=_fraction(document, "progress"),
        version=_text(document, "version"),
        worker_id=_text(document, "workerId"),
        created_at=_time(document, "createdAt"),
        started_at=_time(document, "startedAt"),
        completed_at=_time(document, "completedAt"),
        available_at=_time(document, "availableAt"),
        error=_read_failure(_child(document, "error")),
        text=_text(result, "text"),
        artifacts=_read_artifacts(result.get("artifacts")),
        metadata=_child(result, "metadata"),
        raw=document,
    )


def read_page(raw: Any) -> Page:
    """Read one page of a list of tasks."""
    return _read_page(raw, read_task)


def read_dag(raw: Any) -> Dag:
    """Read one dag, with its steps if it is shown with them."""
    document = _object(raw)
    tasks = document.get("tasks")
    steps = tuple(map(_read_step, tasks)) if isinstance(tasks, list) else ()
    return Dag(
        dag_id=_id(document, "dagId"),
        status=_needed(document, "status"),
        steps=steps,
        counts=_read_counts(_child(document, "steps"), steps),
        tenant_id=_text(document, "tenantId") or "",
        priority=_integer(document, "priority"),
        region=_text(document, "region"),
        created_at=_time(document, "createdAt"),
        completed_at=_time(document, "completedAt"),
        deadline_at=_time(document, "deadlineAt"),
        error=_read_dag_failure(_child(document, "error")),
        metadata=_child(document, "metadata"),
        status_url=_text(document, "statusUrl"),
        cancel_url=_text(document, "cancelUrl"),
        resume_url=_text(document, "resumeUrl"),
        events_url=_text(document, "eventsUrl"),
        raw=document,
    )


def read_dag_page(raw: Any) -> PageOf[Dag]:
    """Read one page of a list of dags."""
    return _read_page(raw, read_dag)


def read_health(raw: Any) -> Health:
    """Read the health answer; a component's state may be a word or an object with `status`."""
    document = _object(raw)
    components = {
        name: state if isinstance(state, str) else _text(state, "status") or "UNKNOWN"
        for name, state in _child(document, "components").items()
        if isinstance(state, str | Mapping)
    }
    return Health(_needed(document, "status"), components, document)


def _read_page(raw: Any, read: Callable[[Any], T]) -> PageOf[T]:
    document = _object(raw)
    items = document.get("items")
    if not isinstance(items, list):
        raise ValueError("`items` is not a list")
    return PageOf(tuple(map(read, items)), _text(document, "nextCursor") or None)


def _read_step(raw: Any) -> DagStep:
    document = _object(raw)
    step_id = _needed(document, "stepId")
    if not STEP_ID.fullmatch(step_id):
        raise ValueError("`stepId` is not an id")
    parents = document.get("dependsOn")
    named = tuple(each for each in parents if isinstance(each, str)) if isinstance(parents, list) else ()
    return DagStep(step_id, read_task(document), named, _text(document, "onFailure") or "fail")


def _read_counts(raw: Raw, steps: tuple[DagStep, ...]) -> StepCounts:
    completed = sum(step.task.is_completed for step in steps)
    still_open = sum(not step.task.is_terminal for step in steps)
    counted = _integer(raw, "total"), _integer(raw, "completed"), _integer(raw, "open")
    return StepCounts(counted[0] or len(steps), counted[1] or completed, counted[2] or still_open)


def _read_dag_failure(raw: Raw) -> DagFailure | None:
    failure = _read_failure(raw)
    return DagFailure(failure.code, failure.message, _text(raw, "stepId")) if failure else None


def _read_failure(raw: Raw) -> TaskFailure | None:
    return TaskFailure(_text(raw, "code") or "unknown", _text(raw, "message") or "") if raw else None


def _read_artifacts(raw: Any) -> tuple[Artifact, ...]:
    items = raw if isinstance(raw, list) else []
    return tuple(_read_artifact(item) for item in items if isinstance(item, Mapping) and _text(item, "url"))


def _read_artifact(raw: Raw) -> Artifact:
    return Artifact(
        url=_needed(raw, "url"),
        content_type=_text(raw, "contentType") or "application/octet-stream",
        size_bytes=_integer(raw, "sizeBytes"),
        sha256=_text(raw, "sha256"),
        width=_integer(raw, "width"),
        height=_integer(raw, "height"),
        duration_s=_number(raw, "durationS"),
        status=_text(raw, "status"),
        upload_attempts=_integer(raw, "uploadAttempts"),
    )


def _object(raw: Any) -> Raw:
    if not isinstance(raw, Mapping):
        raise ValueError("not a JSON object")
    return raw


def _needed(document: Raw, name: str) -> str:
    value = _text(document, name)
    if not value:
        raise ValueError(f"`{name}` is missing")
    return value


def _id(document: Raw, name: str) -> str:
    found = _needed(document, name)
    if not TASK_ID.fullmatch(found):
        raise ValueError(f"`{name}` is not an id")
    return found


def _child(document: Raw, name: str) -> Raw:
    value = document.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(document: Raw, name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None


def _number(document: Raw, name: str) -> float | None:
    value = document.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(document: Raw, name: str) -> int | None:
    value = document.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _fraction(document: Raw, name: str) -> float | None:
    value = _number(document, name)
    return None if value is None else min(1.0, max(0.0, value))


def _time(document: Raw, name: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(_text(document, name) or "")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
