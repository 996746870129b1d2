"""Who works on what, and until when Flik believes it.

A lease is renewed by its worker's heartbeat and lapses without one. What decides whether an
outcome counts is the lease token in PostgreSQL, never this table: it may be lost at any
moment and is rebuilt, with every lease starting afresh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from flik.domain.task import TaskView


@dataclass(slots=True)
class Lease:
    """One running attempt. `allowed` is the last attempt number the task may use.

    `shown` is how readers are to see the task once this attempt completes, but for time, result
    and artifacts; None after a restart of the queue.
    """

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
    shown: TaskView | None = None
    progress: float = 0.0  # as followers were told
    dag_id: str | None = None  # of a step
    memo_key: str | None = None  # what it is to be remembered by when it completes
    reused: bool = False  # what an earlier run made is its end: no worker knows of it


class Leases:
    """The leases that are held now, by task."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._by_task: dict[str, Lease] = {}
        self._of_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_task)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._by_task

    def hold(self, lease: Lease) -> None:
        """Start to hold a lease; one that was held for the same task before is superseded."""
        if lease.task_id not in self._by_task:  # a task never changes its tenant
            self._of_tenant[lease.tenant_id] += 1
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
        lease = self._by_task.get(task_id)
        if lease is None or token not in (None, lease.token):
            return None
        del self._by_task[task_id]
        self._of_tenant[lease.tenant_id] -= 1
        if not self._of_tenant[lease.tenant_id]:
            del self._of_tenant[lease.tenant_id]
        return lease

    def tokens(self) -> list[tuple[str, str]]:
        """Return (task, token) of each lease that is held."""
        return [(lease.task_id, lease.token) for lease in self._by_task.values()]

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

    def running_of(self, tenant_id: str) -> int:
        """Return how many leases are held on tasks of this tenant."""
        return self._of_tenant[tenant_id]
