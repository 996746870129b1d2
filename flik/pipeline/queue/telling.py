"""What the queue tells followers: each change it made, as the event that stands for it in the task's log.

Told after the change has committed, and at most once: whoever misses it finds it in the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from flik.domain.event import Event, Kind, Notice
from flik.domain.lease import Lease
from flik.domain.task import Requeued, Status, Ticket, Worker
from flik.storage.dags import Stopped
from flik.storage.queue import Ended, GrantedRow, Settled, Settlement


class Feed(Protocol):
    """Where followers hear of events; it may lose some."""

    def tell(self, notices: Iterable[Notice]) -> None:
        """Send events on their way; returns at once."""


def announced(tickets: Sequence[Ticket]) -> Iterable[Notice]:
    """Yield that tasks were submitted."""
    for ticket in tickets:
        yield Notice(ticket.tenant_id, Event(ticket.task_id, 1, Kind.QUEUED, ticket.queued_at))


def requeued(tasks: Sequence[Requeued]) -> Iterable[Notice]:
    """Yield that tasks wait for a worker: failed ones that callers had tried again, and steps that were released."""
    for seq, ticket, _ in tasks:
        yield Notice(ticket.tenant_id, Event(ticket.task_id, seq, Kind.QUEUED, ticket.available_at))


def moved(dag_id: str, tenant_id: str, now: float) -> Notice:
    """Return that the log of a dag has grown; it is left to be read."""
    return Notice(tenant_id, Event(dag_id, 0, Kind.MOVED, now))


def stopped(step: Stopped, now: float) -> Notice:
    """Return that a step never runs."""
    event = Event(step.task_id, step.seq, Kind.CANCELLED, now, None, None, None)
    return Notice(step.tenant_id, event._replace(error_code=step.error_code, error_message=step.error_message))


def granted(row: GrantedRow, worker: Worker, now: float) -> Notice:
    """Return that an attempt began."""
    event = Event(row.task_id, row.seq, Kind.PROCESSING, now, row.attempt, worker.worker_id, worker.version)
    return Notice(row.tenant_id, event)


def settled(settlement: Settlement, row: Settled, lease: Lease | None, now: float) -> Notice:
    """Return that an attempt ended. A completed task is left to be read: its files have events of their own."""
    worker_id = lease.worker_id if lease else None
    attempt = row.attempt + settlement.uncounted
    event = Event(row.task_id, row.seq, Kind.COMPLETED, now, attempt, worker_id, row.version)
    if row.status != Status.COMPLETED:
        why = event._replace(error_code=settlement.error_code, error_message=settlement.error_message)
        event = why._replace(kind=Kind.FAILED)
        if row.ticket is not None:
            again_at = row.ticket.available_at
            event = why._replace(kind=Kind.RETRY_SCHEDULED, reason=settlement.outcome, available_at=again_at)
    return Notice(row.tenant_id, event)


def ended(task: Ended, kind: Kind, now: float) -> Notice:
    """Return that a task was cancelled or expired."""
    task_id, tenant_id, seq, attempt, worker_id, version, _ = task
    return Notice(tenant_id, Event(task_id, seq, kind, now, attempt, worker_id, version))


def progressed(lease: Lease, fraction: float, version: str, now: float) -> Notice:
    """Return how far an attempt is."""
    event = Event(lease.task_id, 0, Kind.PROGRESS, now, lease.attempt, lease.worker_id, version, progress=fraction)
    return Notice(lease.tenant_id, event)
