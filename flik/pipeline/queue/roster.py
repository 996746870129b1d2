"""Which workers live, and which of them wait for work.

A worker is heard of with each beat and each call for work; not heard of for a lease it gets
nothing new, for ten leases it is forgotten. Lost with the process: whoever lives beats again
within a second and asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flik.domain.task import Grant, Worker
from flik.pipeline.ports import LeaseReply


@dataclass(slots=True)
class Waiter:
    """A worker that waits for work."""

    worker: Worker
    slots: int
    reply: asyncio.Future[LeaseReply]

    def answer(self, grants: list[Grant], *, draining: bool = False) -> None:
        """End the wait."""
        if not self.reply.done():
            self.reply.set_result(LeaseReply(grants, draining))


@dataclass(slots=True)
class Presence:
    """When a worker was last heard of, and how many tasks it can take."""

    worker: Worker
    slots: int
    heard_at: float


class Roster:
    """The workers. `grant_wanted` is set whenever one asks for work."""

    def __init__(self, lease_s: float, now: Callable[[], float], grant_wanted: asyncio.Event) -> None:
        self._lease_s = lease_s
        self._now = now
        self._grant_wanted = grant_wanted
        self._waiters: dict[str, Waiter] = {}  # by worker
        self._present: dict[str, Presence] = {}  # by worker

    def hear(self, worker: Worker, slots: int | None = None) -> None:
        """Note a sign of life."""
        present = self._present.setdefault(worker.worker_id, Presence(worker, slots or 0, 0.0))
        present.heard_at = self._now()
        present.slots = present.slots if slots is None else slots

    async def wait(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        """Wait up to `wait_s` for work; the worker's earlier wait, on which it gave up, ends empty."""
        waiter = Waiter(worker, slots, asyncio.get_running_loop().create_future())
        earlier = self._waiters.get(worker.worker_id)
        if earlier is not None:
            earlier.answer([])
        self._waiters[worker.worker_id] = waiter
        self.hear(worker)
        self._grant_wanted.set()
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(waiter.reply)
        except TimeoutError:
            # A grant may be on its way to this waiter: then wait for it, it would be lost otherwise.
            if self._waiters.get(worker.worker_id) is waiter:
                del self._waiters[worker.worker_id]
                return LeaseReply([])
            return await waiter.reply

    def open_slots(self, task_type: str) -> list[tuple[Worker, int]]:
        """Return who waits for work of a type and how much of it, leaving out workers that fell silent."""
        silent_before = self._now() - self._lease_s
        return [
            (waiter.worker, waiter.slots)
            for waiter in self._waiters.values()
            if waiter.worker.task_type == task_type and self._present[waiter.worker.worker_id].heard_at > silent_before
        ]

    def call(self, worker_id: str) -> Waiter | None:
        """Take a worker off the list of those that wait; whoever does so must answer it."""
        return self._waiters.pop(worker_id, None)

    def leave(self, worker: Worker) -> None:
        """Note that a worker is gone."""
        self._present.pop(worker.worker_id, None)
        waiter = self.call(worker.worker_id)
        if waiter is not None:
            waiter.answer([], draining=True)

    def send_home(self) -> None:
        """Tell all who wait that there will be nothing more."""
        for waiter in self._waiters.values():
            waiter.answer([], draining=True)
        self._waiters.clear()

    def forget_silent(self, now: float) -> None:
        """Forget workers that were not heard of for ten leases."""
        for present in [each for each in self._present.values() if each.heard_at < now - 10 * self._lease_s]:
            del self._present[present.worker.worker_id]
            waiter = self.call(present.worker.worker_id)
            if waiter is not None:
                waiter.answer([])

    def present(self) -> list[Presence]:
        """Return the workers that were heard of within a lease."""
        heard_since = self._now() - self._lease_s
        return [present for present in self._present.values() if present.heard_at > heard_since]


def in_turn(open_slots: list[tuple[Worker, int]]) -> Iterator[Worker]:
    """Yield a worker for each open slot: each once, then each that has more once more, and so on."""
    while open_slots:
        workers = [worker for worker, _ in open_slots]
        rounds = min(slots for _, slots in open_slots)
        for _ in range(rounds):
            yield from workers
        open_slots = [(worker, slots - rounds) for worker, slots in open_slots if slots > rounds]
