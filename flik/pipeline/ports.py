"""What the three parts of the pipeline say to one another.

The queue lives in an actor, the gateway and the workers elsewhere: everything here is plain
data that pickles, and every call may fail with `Unavailable` while the queue restarts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from flik.domain.breaker import Tally
from flik.domain.pressure import Load
from flik.domain.task import Grant, Outcome, Ticket, Worker


class LeaseReply(NamedTuple):
    """Tasks to work on; `draining` tells the worker to finish or hand back what it has, and to stop asking."""

    grants: list[Grant]
    draining: bool = False


class Beat(NamedTuple):
    """A worker's sign of life: (task, lease token, progress from 0 to 1) for each task it holds.

    `breakers` are those of its breakers that ever had something to tell.
    """

    worker: Worker
    slots: int
    held: list[tuple[str, str, float]]
    breakers: tuple[Tally, ...] = ()


class BeatReply(NamedTuple):
    """Tasks the worker must stop working on: cancelled, or no longer its own."""

    revoked: list[str]
    draining: bool = False


class Moved(NamedTuple):
    """What came of asking to move a task: its status before, and whether it moved."""

    before: str
    moved: bool


class QueueForGateway(Protocol):
    """The queue as the gateway sees it."""

    async def announce(self, tickets: list[Ticket]) -> None:
        """Tell of committed tasks."""

    async def cancel(self, task_id: str) -> Moved | None:
        """Cancel a task that is not finished; None when it is unknown."""

    async def retry(self, task_id: str) -> Moved | None:
        """Queue a failed task again; None when it is unknown."""

    async def replay(self, task_ids: Sequence[str]) -> int:
        """Queue those of the tasks that have failed again; return how many."""

    async def cancel_dag(self, dag_id: str) -> Moved | None:
        """Cancel a dag that has not ended; None when it is unknown."""

    async def resume_dag(self, dag_id: str) -> Moved | None:
        """Have a failed dag go on; None when it is unknown."""

    async def load(self, tenants: Sequence[str]) -> Load:
        """Return how full the queue is, and how many tasks of each of these tenants wait."""

    async def metrics(self) -> str:
        """Return the queue's metrics as Prometheus text."""

    async def stats(self) -> dict[str, Any]:
        """Return what the queue holds, for health checks and people."""


class QueueForWorker(Protocol):
    """The queue as a worker sees it."""

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for up to `slots` tasks."""

    async def beat(self, beat: Beat) -> BeatReply:
        """Renew leases."""

    async def revoked(self, worker: Worker, wait_s: float) -> list[tuple[str, str]]:
        """Wait up to `wait_s` for (task, lease token) pairs to stop working on; some are told by a beat only."""

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes; False for each whose lease token was not current."""
