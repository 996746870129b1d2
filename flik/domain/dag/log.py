"""The log of a dag: what happened to it, numbered 1, 2, 3 ... without a gap, as that of a task is.

It is read off the rows of the dag as well, and each move of it counts `seq` up by the events that it stands for:

    submit      running                                        + 1
    advance     step for each step that has ended              + steps
                completed, failed or cancelled if all have     + 1
    resume      resumed                                        + 1

What happens to a step before its end is in the log of its task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flik.domain.dag.graph import DagView
from flik.domain.dag.progress import DagStatus
from flik.domain.event import DagNote, Event, Kind

_END_OF = {
    DagStatus.COMPLETED: Kind.COMPLETED,
    DagStatus.FAILED: Kind.FAILED,
    DagStatus.CANCELLED: Kind.CANCELLED,
}


WEBHOOK_KINDS = {
    Kind.STEP: "dagStep",
    Kind.COMPLETED: "dagCompleted",
    Kind.FAILED: "dagFailed",
    Kind.CANCELLED: "dagCancelled",
}
"""What webhooks call these events: theirs are among those of tasks."""


class EndedStep(NamedTuple):
    """One task of a step that ended; `seq` is the number of the event that tells so."""

    seq: int
    step_id: str
    task_id: str
    status: str
    ended_at: float
    error_code: str | None
    error_message: str | None


class EndedRound(NamedTuple):
    """A failure after which the dag was resumed; `seq` is the number of the event that tells of the failure."""

    seq: int
    ended_at: float
    error_code: str
    error_message: str
    error_step: str
    resumed_at: float


class DagHistory(NamedTuple):
    """All the rows of one dag at one moment; `seq` is the number of its latest event."""

    dag: DagView
    seq: int
    steps: Sequence[EndedStep] = ()
    rounds: Sequence[EndedRound] = ()

    @property
    def tenant_id(self) -> str:
        """Whose dag it is."""
        return self.dag.tenant_id

    def events(self) -> list[Event]:
        """Return the log."""
        dag_id, running = self.dag.dag_id, DagNote(DagStatus.RUNNING)
        told = [Event(dag_id, 1, Kind.RUNNING, self.dag.created_at, dag=running)]
        told += (self._of_step(step) for step in self.steps)
        for seq, ended_at, code, message, step_id, resumed_at in self.rounds:
            note = DagNote(DagStatus.FAILED, step_id)
            told += (
                Event(dag_id, seq, Kind.FAILED, ended_at, error_code=code, error_message=message, dag=note),
                Event(dag_id, seq + 1, Kind.RESUMED, resumed_at, dag=running),
            )
        if self.dag.status != DagStatus.RUNNING:
            told.append(self._end())
        return sorted(told, key=lambda event: event.seq)

    def reset(self, at: float) -> Event:
        """Return the event that says how the dag stands."""
        return Event(self.dag.dag_id, self.seq, Kind.RESET, at, dag=DagNote(self.dag.status, view=self.dag))

    def _of_step(self, step: EndedStep) -> Event:
        note = DagNote(DagStatus.RUNNING, step.step_id, step.task_id, step.status)
        return Event(
            self.dag.dag_id, step.seq, Kind.STEP, step.ended_at, error_code=step.error_code,
            error_message=step.error_message, dag=note,
        )  # fmt: skip

    def _end(self) -> Event:
        dag = self.dag
        return Event(
            dag.dag_id, self.seq, _END_OF[DagStatus(dag.status)], dag.completed_at or 0.0, error_code=dag.error_code,
            error_message=dag.error_message, dag=DagNote(dag.status, dag.error_step),
        )  # fmt: skip
