"""Dags as JSON: what a caller sees of one and of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flik.domain.dag.graph import DagView, NewDag, StepView
from flik.domain.dag.progress import DagStatus
from flik.domain.task import Status
from flik.gateway.answers import Answers, dag_summary, iso

_NOT_OF_A_STEP = ("tenantId", "region", "dagId", "requestId")  # said by the dag


def started(dag: NewDag, base: str) -> dict[str, Any]:
    """Return the answer to a submit."""
    url = f"{base}/api/v1/dags/{dag.dag_id}"
    steps = [(step.step_id, step.task.task_id, step.parents) for step in dag.steps]
    return {
        "dagId": dag.dag_id,
        "status": DagStatus.RUNNING.value,
        "createdAt": iso(dag.created_at),
        "tasks": [
            {
                "taskId": step.task.task_id,
                "stepId": step.step_id,
                "taskType": step.task.task_type,
                "status": (Status.PENDING if step.task.waits else Status.QUEUED).value,
                **_parents(step.parents, steps),
            }
            for step in dag.steps
        ],
        "statusUrl": url,
        "cancelUrl": f"{url}/cancel",
        "resumeUrl": f"{url}/resume",
        "eventsUrl": f"{url}/events",
    }


def whole(view: DagView, answers: Answers) -> dict[str, Any]:
    """Return a dag with its steps in the caller's order."""
    steps = [(step.step_id, step.task.task_id, step.parents) for step in view.steps]
    return {**dag_summary(view), "tasks": [_step(step, steps, answers) for step in view.steps]}


_Ids = Sequence[tuple[str, str, tuple[int, ...]]]
"""Of each step its id, its task's id and the places of its parents."""


def _step(step: StepView, steps: _Ids, answers: Answers) -> dict[str, Any]:
    shown = answers.task(step.task)
    for name in _NOT_OF_A_STEP:
        shown.pop(name, None)
    return {**shown, "stepId": step.step_id, "onFailure": step.on_failure, **_parents(step.parents, steps)}


def _parents(parents: tuple[int, ...], steps: _Ids) -> dict[str, Any]:
    answer: dict[str, Any] = {"dependsOn": [steps[place][0] for place in parents]}
    if parents:
        task_ids = [steps[place][1] for place in parents]
        answer |= {"parentTaskId": task_ids[0], "parentTaskIds": task_ids}
    return answer
