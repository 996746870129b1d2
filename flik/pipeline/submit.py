"""From a validated task to the 202: group commit, then the announcement.

All submissions that are waiting at one moment are stored by one INSERT. When nothing is
being stored, a submission is stored at once; so a single caller waits for one fsync, and a
thousand callers share one. A submission is acknowledged after its commit, never before.

The queue is told afterwards, in batches, one call at a time. That may fail or never happen:
the queue finds committed tasks by itself, the announcement only makes it fast.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from flik.domain.task import NewTask, Ticket
from flik.errors import Unavailable

MAX_TASKS_A_COMMIT = 2_000
MAX_UNANNOUNCED = 100_000
_log = logging.getLogger("flik.submit")


class Inserts(Protocol):
    """Where tasks are stored."""

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        """Commit all of the tasks, or raise."""


class GroupCommit:
    """Stores submissions together. Not thread-safe: it lives on one event loop."""

    def __init__(
        self, store: Inserts, announcer: Announcer, on_commit: Callable[[int], None] = lambda tasks: None
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._on_commit = on_commit
        self._waiting: deque[tuple[Sequence[NewTask], asyncio.Future[None]]] = deque()
        self._flusher: asyncio.Task[None] | None = None

    async def commit(self, tasks: Sequence[NewTask]) -> None:
        """Return when all `tasks` are on disk; they are stored in one transaction.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tasks, done))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._store_together(self._next_batch())
        finally:
            self._flusher = None

    def _next_batch(self) -> list[tuple[Sequence[NewTask], asyncio.Future[None]]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= MAX_TASKS_A_COMMIT:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        return batch

    async def _store_together(self, batch: list[tuple[Sequence[NewTask], asyncio.Future[None]]]) -> None:
        tasks = [task for submission, _ in batch for task in submission]
        try:
            await self._store.insert(tasks)
        except Unavailable as error:
            for submission in batch:
                _fail([submission], Unavailable(error.dependency, error.retry_after_s))
        except Exception as error:
            # One submission that PostgreSQL refuses must not take the others down with it.
            if len(batch) == 1:
                _log.exception("a submission could not be stored")
                _fail(batch, error)
                return
            for submission in batch:
                await self._store_together([submission])
        else:
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
            # After the callers were woken: a call to an actor takes longer than an answer.
            self._announcer.announce(tasks)
            self._on_commit(len(tasks))


def _fail(batch: list[tuple[Sequence[NewTask], asyncio.Future[None]]], error: Exception) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)


class Announcer:
    """Tells the queue of committed tasks: one call in flight, what arrives meanwhile goes with the next."""

    def __init__(self, region: str, tell: Callable[[list[Ticket]], Awaitable[None]]) -> None:
        self._region = region
        self._tell = tell
        self._waiting: list[Ticket] = []
        self._teller: asyncio.Task[None] | None = None

    def announce(self, tasks: Sequence[NewTask]) -> None:
        """Tell the queue soon; tasks of another region are found there by scanning."""
        for task in tasks:
            if task.region == self._region and len(self._waiting) < MAX_UNANNOUNCED:
                at = task.created_at
                self._waiting.append(Ticket(task.task_id, task.tenant_id, task.task_type, task.priority, at, at))
        if self._waiting and self._teller is None:
            self._teller = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._waiting:
                tickets, self._waiting = self._waiting, []
                try:
                    await self._tell(tickets)
                except Unavailable:
                    _log.warning("the queue was not told; it will find them", extra={"count": len(tickets)})
        finally:
            self._teller = None
