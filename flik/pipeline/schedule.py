"""The queue of one region: orders what waits, grants it, hears of outcomes, and puts right what went wrong.

It is the only writer of its region's tasks after admission, except for what callers ask for at a gateway
of another region (cancel, retry, replay, resume): the queue there moves those and tells this one (`hear`).
And it is a cache with a mailbox: all it knows can be rebuilt from PostgreSQL, so it may be killed at any
moment. What keeps a task from being done twice is not in here but in the lease token of its row.

This is its face, and where its parts (`flik/pipeline/queue`) are put together. It runs four loops, each
of which has one statement in flight and takes whatever gathered meanwhile:

grant    matches waiting tickets with workers that wait for work
settle   ends attempts, by outcomes of workers or by the reaper
reap     requeues attempts whose worker fell silent, fails those that run too long, expires tasks
refill   reads on in backlogs that are only partly in memory, and finds tasks that nobody announced

Metrics: flik_tasks_*, flik_attempts, flik_queue_*, flik_workers, flik_run_seconds, flik_upload*,
flik_grant_seconds, flik_settle_seconds, flik_stale_settlements, and flik_breaker_* of the queue and of the workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from flik.domain import retry
from flik.domain.dag.progress import DagStatus
from flik.domain.event import Kind
from flik.domain.lease import Lease, Leases
from flik.domain.news import News
from flik.domain.pressure import Load
from flik.domain.task import Outcome, Requeued, Ticket, Worker
from flik.pipeline.ports import Beat, BeatReply, LeaseReply, Moved
from flik.pipeline.queue import telling
from flik.pipeline.queue.dags import Dags
from flik.pipeline.queue.elsewhere import Elsewhere, Tell
from flik.pipeline.queue.grant import Granting
from flik.pipeline.queue.loops import until_available
from flik.pipeline.queue.measures import Measures
from flik.pipeline.queue.memo import Reuse
from flik.pipeline.queue.policy import QueuePolicy
from flik.pipeline.queue.reap import Reaping
from flik.pipeline.queue.refill import Refilling
from flik.pipeline.queue.revoking import Revoking
from flik.pipeline.queue.roster import Roster
from flik.pipeline.queue.settle import HotResults, Settling
from flik.pipeline.queue.telling import Feed
from flik.pipeline.queue.waiting import Waiting
from flik.storage.queue import Ended, QueueStore, RunningRow

__all__ = ["Feed", "HotResults", "QueuePolicy", "TaskQueue"]
_FIRST_LEASES = 1.5  # how many leases a running attempt is given at first by a queue that just started
_log = logging.getLogger("flik.queue")


class TaskQueue:
    """The queue. Not thread-safe: it lives on one event loop. `run` must run while it is used."""

    def __init__(
        self,
        store: QueueStore,
        hot: HotResults,
        feed: Feed,
        policy: QueuePolicy,
        now: Callable[[], float],
        *,
        measures: Measures | None = None,
        tell_others: Tell | None = None,
    ) -> None:
        self._store = store
        self._hot = hot
        self._feed = feed
        self._policy = policy
        self._now = now
        self._round = retry.max_attempts(policy.retry_delays_s)
        self._reuse = reuse = Reuse(store)
        self._draining = False
        self.rebuilt = asyncio.Event()

        self._grant_wanted = grant_wanted = asyncio.Event()
        refill_wanted = asyncio.Event()
        uncertain: dict[str, str] = {}
        self._measures = measures = measures or Measures()
        self.leases = leases = Leases(policy.lease_s)
        self.waiting = waiting = Waiting(policy, leases, now, grant_wanted)
        self.roster = roster = Roster(policy.lease_s, now, grant_wanted)
        self.revoking = Revoking()
        self._elsewhere = Elsewhere(tell_others)
        self._dags = dags = Dags(feed, waiting=waiting, measures=measures)
        self.settling = Settling(
            store, hot, feed, policy.retry_delays_s, waiting=waiting, leases=leases, measures=measures, dags=dags,
            reuse=reuse, now=now, grant_wanted=grant_wanted,
        )  # fmt: skip
        self.granting = Granting(
            store, feed, policy, waiting=waiting, leases=leases, roster=roster, uncertain=uncertain, measures=measures,
            now=now, wanted=grant_wanted, refill_wanted=refill_wanted, settling=self.settling, reuse=reuse,
        )  # fmt: skip
        self.reaping = Reaping(
            store, feed, policy, self.settling, waiting=waiting, leases=leases, roster=roster, uncertain=uncertain,
            measures=measures, dags=dags, now=now,
        )  # fmt: skip
        self.refilling = Refilling(store, waiting, now, refill_wanted)

    # ---- what gateways ask

    async def announce(self, tickets: Sequence[Ticket]) -> None:
        """Take in committed tasks; those that are known already change nothing."""
        self._measures.note_announced(tickets)
        self.waiting.offer(tickets)
        self._feed.tell(telling.announced(tickets))

    async def cancel(self, task_id: str) -> Moved | None:
        """Cancel a task that is not finished. Once this returns, no completion of it can take effect.

        Raises:
            Unavailable: PostgreSQL is away; whether the task was cancelled is unknown.
        """
        now = round(self._now(), 6)  # as PostgreSQL keeps it
        dag_ids = await self._store.dags_of([task_id])
        if dag_ids:
            found, advanced = await self._store.cancel_step(task_id, now, dag_ids)
            self._dags.take_in(advanced, now)
        else:
            found = await self._store.cancel(task_id, now)
        if found is None:
            return None
        before, ended = found
        if ended is not None:
            self._note_cancelled([ended], now)
        return Moved(before.value, ended is not None)

    def _note_cancelled(self, ended: Sequence[Ended], now: float) -> None:
        for each in ended:
            if each.elsewhere is None:
                self._forget_cancelled(each.task_id)
        self._feed.tell(telling.ended(each, Kind.CANCELLED, now) for each in ended)
        self._elsewhere.note_cancelled(ended)

    def _forget_cancelled(self, task_id: str) -> None:
        self.granting.note_cancelled(task_id)
        ticket, lease = self.waiting.forget(task_id), self.leases.release(task_id)
        if lease is not None:
            self.revoking.tell(lease)
        task_type = next((each.task_type for each in (ticket, lease) if each is not None), "")
        self._measures["flik_tasks_cancelled"].labels(task_type).inc()
        self._grant_wanted.set()  # its tenant may have been at its cap

    async def cancel_dag(self, dag_id: str) -> Moved | None:
        """Cancel all steps of a dag that have not ended. Once this returns, no completion of them can take effect.

        Raises:
            Unavailable: PostgreSQL is away; whether the dag was cancelled is unknown.
        """
        now = round(self._now(), 6)  # as PostgreSQL keeps it
        found = await self._store.cancel_dag(dag_id, now)
        if found is None:
            return None
        before, cancelled = found
        if cancelled is not None:
            self._note_cancelled(cancelled.ended, now)
            self._dags.take_in(cancelled.advanced, now)
        return Moved(before.value, cancelled is not None)

    async def resume_dag(self, dag_id: str) -> Moved | None:
        """Have the steps of a failed dag run again that did not complete.

        Raises:
            Unavailable: PostgreSQL is away; whether the dag was resumed is unknown.
        """
        now = round(self._now(), 6)  # as PostgreSQL keeps it
        found = await self._store.resume_dag(dag_id, now)
        if found is None:
            return None
        before, requeued = found
        self._measures.note_announced([each.ticket for each in requeued])
        self._take_in(requeued)
        if requeued:
            self._feed.tell([telling.moved(dag_id, requeued[0].ticket.tenant_id, now)])
        return Moved(before.value, before is DagStatus.FAILED)

    async def retry(self, task_id: str) -> Moved | None:
        """Queue a failed task for another round of attempts.

        Raises:
            Unavailable: PostgreSQL is away; whether the task was queued is unknown.
        """
        found = await self._store.retry(task_id, self._round, self._now())
        if found is None:
            return None
        before, requeued = found
        if requeued is not None:
            self._take_in([requeued])
        return Moved(before.value, requeued is not None)

    async def replay(self, task_ids: Sequence[str]) -> int:
        """Queue those of the tasks that have failed for another round of attempts; return how many.

        Raises:
            Unavailable: PostgreSQL is away; how many were queued is unknown.
        """
        requeued = await self._store.replay(task_ids, self._round, self._now())
        self._take_in(requeued)
        return len(requeued)

    def _take_in(self, requeued: Sequence[Requeued]) -> None:
        self.waiting.offer(self._elsewhere.take_out(requeued))
        self._feed.tell(telling.requeued(requeued))

    def hear(self, news: News) -> None:
        """Take in what other regions committed or moved of this one's tasks; what is known already changes nothing."""
        self._measures.note_announced(news.announced)
        self.waiting.offer([*news.announced, *news.waiting])
        self._feed.tell(telling.announced(news.announced))
        for task_id in news.cancelled:
            self._forget_cancelled(task_id)

    async def load(self, tenant_ids: Sequence[str]) -> Load:
        """Return how full the queue is, and how many tasks of each of these tenants wait."""
        await self.rebuilt.wait()  # before that, a full queue would look empty
        return self.waiting.load(tenant_ids)

    # ---- what workers ask

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for work; grant at most `slots` tasks of the worker's type."""
        if self._draining:
            return LeaseReply([], draining=True)
        return await self.roster.wait(worker, slots, wait_s)

    async def beat(self, beat: Beat) -> BeatReply:
        """Renew the leases a worker holds; tell it which ones it lost, by a cancel or because they lapsed."""
        await self.rebuilt.wait()  # before that, every lease would look lost
        self.roster.hear(beat.worker, beat.slots)
        self._measures.note_breakers(beat.worker.worker_id, beat.breakers, self.roster)
        revoked = self.leases.renew(((task_id, token) for task_id, token, _ in beat.held), self._now())
        await self._note_progress(beat)
        return BeatReply(revoked=revoked, draining=self._draining)

    async def revoked(self, worker: Worker, wait_s: float) -> list[tuple[str, str]]:
        """Wait up to `wait_s` for (task, lease token) pairs that the worker must stop working on: cancelled ones."""
        return await self.revoking.listen(worker.worker_id, wait_s)

    async def _note_progress(self, beat: Beat) -> None:
        held = [(lease, done) for task_id, token, done in beat.held if (lease := self.leases.get(task_id, token))]
        moved = [(lease, done) for lease, done in held if done > lease.progress]
        for lease, done in moved:
            lease.progress = done
        version, now = beat.worker.version, self._now()
        self._feed.tell(telling.progressed(lease, done, version, now) for lease, done in moved)
        await self._hot.put_progress({lease.task_id: done for lease, done in held})

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """End attempts; return, for each outcome, whether it took effect.

        False means that the lease token was not current: the task was cancelled, was given to
        somebody else, or this very outcome had been settled before.

        Raises:
            Unavailable: PostgreSQL is away; the worker asks again, which is harmless.
        """
        await self.rebuilt.wait()
        return await self.settling.settle(outcomes)

    async def leave(self, worker: Worker) -> None:
        """Note that a worker is gone; what it still holds lapses by itself."""
        self.roster.leave(worker)

    # ---- what operators ask

    async def drain(self) -> int:
        """Grant nothing more and tell all workers to finish or hand back; return how many tasks still run."""
        self._draining = True
        self.roster.send_home()
        return len(self.leases)

    async def metrics(self) -> str:
        """Return this queue's metrics as Prometheus text."""
        self._measures.note_levels(self.waiting, self.leases, self.roster)
        return self._measures.text()

    async def stats(self) -> dict[str, Any]:
        """Return what is held, by type: waiting by priority, running, workers, slots."""
        present = self.roster.present()
        return {
            "ready": self.rebuilt.is_set(),
            "types": {
                name: {
                    "waiting": self.waiting.depths(name),
                    "inMemory": len(lane),
                    "running": self.leases.running(name),
                    "workers": sum(each.worker.task_type == name for each in present),
                    "slots": sum(each.slots for each in present if each.worker.task_type == name),
                }
                for name, lane in self.waiting.lanes.items()
            },
        }

    # ---- its life

    async def run(self) -> None:
        """Rebuild, then run the loops until cancelled. A loop that fails takes the queue down with it."""
        await until_available(self.rebuild)
        async with asyncio.TaskGroup() as group:
            for part in (self.granting, self.settling, self.reaping, self.refilling):
                group.create_task(part.run(), name=type(part).__name__)

    async def rebuild(self) -> None:
        """Learn from PostgreSQL what waits and what runs; running attempts get a fresh lease.

        Raises:
            Unavailable: PostgreSQL is away; it may be called again.
        """
        running = await self._store.running()
        reused = await self._reuse.of_running() if any(row.dag_id for row in running) else {}
        expires_at = self._now() + self._policy.lease_s * _FIRST_LEASES
        for row in running:
            if row.task_type in self.waiting.lanes and row.task_id not in self.leases:
                lease = self._lease_of(row, expires_at)
                self.leases.hold(lease)
                if row.task_id in reused:
                    self.settling.end_reused(lease, reused[row.task_id])
        for task_type, priority, tenant_id, rows in await self._store.backlogs():
            if task_type in self.waiting.windows:
                self.waiting.windows[task_type].start_reading((priority, tenant_id), rows)
        await self.refilling.read_pages()
        self.rebuilt.set()
        _log.info("queue rebuilt", extra={"count": len(self.waiting) + len(self.leases)})

    def _lease_of(self, row: RunningRow, expires_at: float) -> Lease:
        return Lease(
            row.task_id, row.lease_token, row.worker_id, row.task_type, row.priority, row.tenant_id, row.queued_at,
            row.attempt, row.max_attempts, expires_at, row.started_at + self._policy.timeouts_s(row.task_type)[1],
            dag_id=row.dag_id,
        )  # fmt: skip
