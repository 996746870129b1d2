"""The region's actors as gateways, workers and operators call them.

Apart from the actors themselves, so that who calls them does not load what they are made of:
redis, psycopg and the queue cost a model replica 15 MB (measured 2026-11).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flik.actors import LIMITER, QUEUE, packing
from flik.actors.detached import Remote
from flik.domain.pressure import Load
from flik.domain.rate import Ask, Loan
from flik.domain.task import Outcome, Ticket, Worker
from flik.pipeline.ports import Beat, BeatReply, LeaseReply, Moved

_CALL_S = 10.0


class RemoteQueue(Remote):
    """The queue of this region, from any process of its Ray cluster.

    Every call raises `Unavailable` when the queue is away or does not answer in time; whether
    the call took effect is unknown then.
    """

    def __init__(self) -> None:
        super().__init__(QUEUE)

    async def announce(self, tickets: list[Ticket]) -> None:
        """Tell of committed tasks."""
        await self.call("announce", packing.pack_tickets(tickets), within_s=_CALL_S)

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for up to `slots` tasks."""
        grants, draining = await self.call("lease", worker, slots, wait_s, within_s=wait_s + _CALL_S)
        return LeaseReply(packing.unpack_grants(grants), draining)

    async def beat(self, beat: Beat) -> BeatReply:
        """Renew leases."""
        reply: BeatReply = await self.call("beat", beat, within_s=_CALL_S)
        return reply

    async def revoked(self, worker: Worker, wait_s: float) -> list[tuple[str, str]]:
        """Wait up to `wait_s` for (task, lease token) pairs to stop working on."""
        revoked: list[tuple[str, str]] = await self.call("revoked", worker, wait_s, within_s=wait_s + _CALL_S)
        return revoked

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Report outcomes; False for each whose lease token was not current."""
        accepted: list[bool] = await self.call("settle", packing.pack_outcomes(outcomes), within_s=40.0)
        return accepted

    async def leave(self, worker: Worker) -> None:
        """Say that a worker is gone."""
        await self.call("leave", worker, within_s=_CALL_S)

    async def cancel(self, task_id: str) -> Moved | None:
        """Cancel a task that is not finished; None when it is unknown."""
        moved: Moved | None = await self.call("cancel", task_id, within_s=_CALL_S)
        return moved

    async def retry(self, task_id: str) -> Moved | None:
        """Queue a failed task again; None when it is unknown."""
        moved: Moved | None = await self.call("retry", task_id, within_s=_CALL_S)
        return moved

    async def replay(self, task_ids: Sequence[str]) -> int:
        """Queue those of the tasks that have failed again; return how many."""
        replayed: int = await self.call("replay", list(task_ids), within_s=40.0)
        return replayed

    async def cancel_dag(self, dag_id: str) -> Moved | None:
        """Cancel a dag that has not ended; None when it is unknown."""
        moved: Moved | None = await self.call("cancel_dag", dag_id, within_s=40.0)
        return moved

    async def resume_dag(self, dag_id: str) -> Moved | None:
        """Have a failed dag go on; None when it is unknown."""
        moved: Moved | None = await self.call("resume_dag", dag_id, within_s=40.0)
        return moved

    async def load(self, tenants: Sequence[str]) -> Load:
        """Return how full the queue is, and how many tasks of each of these tenants wait."""
        load: Load = await self.call("load", list(tenants), within_s=_CALL_S)
        return load

    async def drain(self) -> int:
        """Stop granting; return how many tasks still run."""
        running: int = await self.call("drain", within_s=_CALL_S)
        return running

    async def metrics(self) -> str:
        """Return the queue's metrics as Prometheus text."""
        text: str = await self.call("metrics", within_s=_CALL_S)
        return text

    async def stats(self) -> dict[str, Any]:
        """Return what the queue holds."""
        stats: dict[str, Any] = await self.call("stats", within_s=_CALL_S)
        return stats


class RemoteLimiter(Remote):
    """The limiter of this region, from any process of its Ray cluster. `Allowances` ends calls that take too long."""

    def __init__(self) -> None:
        super().__init__(LIMITER)

    async def lend(self, ask: Ask) -> Loan:
        """Return what the limiter lends.

        Raises:
            Unavailable: it is away; whether the call took effect is unknown.
        """
        loan: Loan = await self.call("lend", ask, within_s=None)
        return loan
