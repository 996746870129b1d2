"""Who works on what, and until when Flik believes it.

A lease is renewed by its worker's heartbeat and lapses without one. What decides whether an
outcome counts is the lease token in PostgreSQL, never this table: it may be lost at any
moment and is rebuilt, with every lease starting afresh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """One running attempt. `allowed` is the last attempt number the task may use."""

    task_id: str
    token: str
    worker_id: str
    task_type: str
    priority: int
    tenant_id: str
    queued_at: float
    attempt: int
    allowed: int
    expires_at: float
    hard_deadline_at: float


class Leases:
    """The leases that are held now, by task."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._by_task: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._by_task)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._by_task

    def hold(self, lease: Lease) -> None:
        """Start to hold a lease; one that was held for the same task before is superseded."""
        self._by_task[lease.task_id] = lease

    def get(self, task_id: str, token: str) -> Lease | None:
        """Return the lease if `token` is its current one."""
        lease = self._by_task.get(task_id)
        return lease if lease is not None and lease.token == token else None

    def renew(self, held: Iterable[tuple[str, str]], now: float) -> list[str]:
        """Renew (task, token) pairs to `now` + lease; return the tasks whose token is not current (any more)."""
        revoked = []
        for task_id, token in held:
            lease = self.get(task_id, token)
            if lease is None:
                revoked.append(task_id)
            else:
                lease.expires_at = now + self._lease_s
        return revoked

    def release(self, task_id: str, token: str | None = None) -> Lease | None:
        """Stop holding a lease (with `token`: only if it is the current one); None when there is none."""
        if token is not None and self.get(task_id, token) is None:
            return None
        return self._by_task.pop(task_id, None)

    def lapsed(self, now: float) -> list[Lease]:
        """Return the leases whose worker was not heard of in time."""
        return [lease for lease in self._by_task.values() if lease.expires_at <= now]

    def overdue(self, now: float) -> list[Lease]:
        """Return the leases that run longer than the hard timeout allows."""
        return [lease for lease in self._by_task.values() if lease.hard_deadline_at <= now]

    def extend(self, seconds: float) -> None:
        """Push every expiry out, for time in which heartbeats could not be heard."""
        for lease in self._by_task.values():
            lease.expires_at += seconds

    def running(self, task_type: str) -> int:
        """Return how many leases of this type are held."""
        return sum(lease.task_type == task_type for lease in self._by_task.values())
