"""How a dag goes on: what follows from the states of its steps.

A step waits until all its parents have ended. Are all of them COMPLETED, it is released: QUEUED, like any task. Is
one of them not, it never runs: it is CANCELLED, with the error `parent_failed` or, when the failure that is behind it
was to be skipped, `parent_skipped`; its own children end the same way, with the same reason. So every dag ends.

The states are the whole truth: nothing is counted, and looking twice gives the same. Places are those of the steps in
the caller's list, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from flik.domain.task import TERMINAL, Status
from flik.errors import InputGone

PARENT_FAILED = "parent_failed"
PARENT_SKIPPED = "parent_skipped"
STEP_FAILED = "step_failed"
_STOPPED = frozenset({PARENT_FAILED, PARENT_SKIPPED})


class DagStatus(StrEnum):
    """Where a dag is on its way."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class OnFailure(StrEnum):
    """What it means when a step does not complete."""

    FAIL = "fail"  # the dag fails
    SKIP = "skip"  # the dag may still complete; what depends on the step is left out


class StepState(NamedTuple):
    """One step as it is now."""

    step_id: str
    status: str
    parents: Sequence[int]
    on_failure: str
    error_code: str | None = None
    error_message: str | None = None


class Stop(NamedTuple):
    """Why a step never runs."""

    error_code: str
    error_message: str


class DagEnd(NamedTuple):
    """How a dag ended; of one that failed, the step that is to blame and why."""

    status: DagStatus
    step_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Moves(NamedTuple):
    """What follows: the places of steps that are released, of steps that never run, and the end if all has ended."""

    released: Sequence[int]
    stopped: Mapping[int, Stop]
    end: DagEnd | None


def advance(steps: Sequence[StepState], *, cancelled: bool = False) -> Moves:
    """Return what follows from the states of a dag's steps; `cancelled`: whether somebody cancelled it."""
    states = list(steps)
    released: list[int] = []
    stopped: dict[int, Stop] = {}
    pending = [place for place, step in enumerate(states) if step.status == Status.PENDING]
    moving = True
    while moving:  # what stops may stop others
        moving = False
        left = []
        for place in pending:
            parents = [states[parent] for parent in states[place].parents]
            if not all(parent.status in TERMINAL for parent in parents):
                left.append(place)
                continue
            stop = _stop(parents)
            if stop is None:
                released.append(place)
                states[place] = states[place]._replace(status=Status.QUEUED)
            else:
                moving = True
                stopped[place] = stop
                states[place] = states[place]._replace(
                    status=Status.CANCELLED, error_code=stop.error_code, error_message=stop.error_message
                )
        pending = left
    return Moves(released, stopped, _end(states, cancelled=cancelled))


def ready_again(steps: Sequence[StepState]) -> Mapping[int, Status]:
    """Return the steps of a dag that are to run when it is resumed, by place: QUEUED, or PENDING for a parent.

    What completed is kept, but for the parents of a step that found a file of theirs gone.
    """
    again = {place for place, step in enumerate(steps) if step.status != Status.COMPLETED}
    for step in steps:
        if step.status == Status.FAILED and step.error_code == InputGone.code:
            again.update(step.parents)
    return {
        place: Status.PENDING if again.intersection(steps[place].parents) else Status.QUEUED for place in sorted(again)
    }


def _stop(parents: Sequence[StepState]) -> Stop | None:
    """Return why a step whose parents have all ended never runs; a failure that counts comes before others."""
    stops = [_because_of(parent) for parent in parents if parent.status != Status.COMPLETED]
    return min(stops, key=lambda stop: stop.error_code != PARENT_FAILED, default=None)


def _because_of(parent: StepState) -> Stop:
    if parent.error_code in _STOPPED and parent.status == Status.CANCELLED:
        return Stop(parent.error_code, parent.error_message or "")
    code = PARENT_SKIPPED if parent.on_failure == OnFailure.SKIP else PARENT_FAILED
    return Stop(code, _blame(parent))


def _blame(step: StepState) -> str:
    why = f" ({step.error_code})" if step.error_code else ""
    return f"step {step.step_id} is {step.status}{why}"


def _end(steps: Sequence[StepState], *, cancelled: bool) -> DagEnd | None:
    if any(step.status not in TERMINAL for step in steps):
        return None
    if cancelled:
        return DagEnd(DagStatus.CANCELLED)
    guilty = next((step for step in steps if _counts(step)), None)
    if guilty is None:
        return DagEnd(DagStatus.COMPLETED)
    return DagEnd(DagStatus.FAILED, guilty.step_id, STEP_FAILED, _blame(guilty))


def _counts(step: StepState) -> bool:
    """Return whether a step makes its dag fail: those that were stopped only follow from another."""
    stopped = step.status == Status.CANCELLED and step.error_code in _STOPPED
    return step.status != Status.COMPLETED and step.on_failure != OnFailure.SKIP and not stopped
