"""What travels inside Flik of a dag: a graph of tasks, its steps; each runs when its parents have completed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flik.domain.dag.progress import StepState
from flik.domain.task import NewTask, TaskView
from flik.domain.webhook.own import OwnWebhook


class NewStep(NamedTuple):
    """One step of a dag that is not stored yet. `parents` are places of steps, in the order that the caller gave."""

    step_id: str
    task: NewTask
    parents: tuple[int, ...]
    on_failure: str
    start_within_s: float | None = None  # of its release
    reuse: bool = False


class NewDag(NamedTuple):
    """A validated dag that is not stored yet. `metadata` is JSON text."""

    dag_id: str
    tenant_id: str
    priority: int
    region: str
    created_at: float
    deadline_at: float | None
    metadata: str | None
    request_id: str | None
    trace_id: str | None
    steps: tuple[NewStep, ...]
    webhook: OwnWebhook | None = None

    @property
    def tasks(self) -> tuple[NewTask, ...]:
        """The tasks of its steps, in order."""
        return tuple(step.task for step in self.steps)


class StepView(NamedTuple):
    """All that is shown of one step: `parents` are places of steps."""

    step_id: str
    parents: tuple[int, ...]
    on_failure: str
    task: TaskView

    @property
    def state(self) -> StepState:
        """The step as what follows is decided by."""
        task = self.task
        return StepState(self.step_id, task.status, self.parents, self.on_failure, task.error_code, task.error_message)


class DagView(NamedTuple):
    """All that is shown of one dag. In lists `steps` is empty, and `counts` says how many there are of each status."""

    dag_id: str
    tenant_id: str
    status: str
    priority: int
    region: str
    created_at: float
    completed_at: float | None
    deadline_at: float | None
    metadata: Mapping[str, Any] | None
    error_code: str | None
    error_message: str | None
    error_step: str | None
    counts: Mapping[str, int]
    steps: tuple[StepView, ...] = ()


@dataclass(frozen=True, slots=True)
class DagFilter:
    """Which dags to list; None means any. `before_id` is where the last page ended."""

    tenant_id: str | None = None
    status: str | None = None
    created_from: float | None = None
    created_until: float | None = None
    before_id: str | None = None
    limit: int = 50
