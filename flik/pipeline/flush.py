"""Gathers submissions: what waits at one moment is stored together, and nobody waits for company.

While nothing is being stored, a submission is stored at once; what arrives during that flush goes
together into the next. When PostgreSQL is away, all of a flush are told; when it refuses a flush
for its content, each submission is stored alone, so that only the guilty one fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flik.domain.dag.graph import NewDag
from flik.domain.idempotency import Answer, Keyed
from flik.domain.task import NewTask
from flik.errors import Unavailable

MAX_TASKS_A_COMMIT = 2_000
_log = logging.getLogger("flik.submit")


def _future() -> asyncio.Future[Answer | None]:
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False, slots=True)
class Submission:
    """Tasks that are stored together or not at all. `done`: None, or the answer that was kept under its key."""

    tasks: Sequence[NewTask]
    done: asyncio.Future[Answer | None] = field(default_factory=_future)

    def end(self, kept: Answer | None = None) -> None:
        """Wake the caller, unless it left."""
        if not self.done.done():
            self.done.set_result(kept)

    def fail(self, error: Exception) -> None:
        """Raise `error` where the caller waits."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(eq=False, slots=True, kw_only=True)
class KeyedSubmission(Submission):
    """A submission under an idempotency key."""

    keyed: Keyed


@dataclass(eq=False, slots=True, kw_only=True)
class DagSubmission(Submission):
    """The tasks of a dag that comes without a key."""

    dag: NewDag


_Kind = TypeVar("_Kind", bound=Submission)


class Flusher(Generic[_Kind]):
    """One flush at a time. `store` ends each submission it is given, or raises."""

    def __init__(
        self,
        store: Callable[[Sequence[_Kind]], Awaitable[None]],
        left: Callable[[Sequence[_Kind]], None] = lambda submissions: None,
    ) -> None:
        self._store = store
        self._left = left  # told when a flush is over, also of callers that did not wait for it
        self._waiting: deque[_Kind] = deque()
        self._flushing: asyncio.Task[None] | None = None

    def put(self, submission: _Kind) -> asyncio.Future[Answer | None]:
        """Return what to await: it is done when the submission has ended, or raises Unavailable."""
        self._waiting.append(submission)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return submission.done

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._store_together(batch)
                finally:
                    self._left(batch)
        finally:
            self._flushing = None

    def _next_batch(self) -> list[_Kind]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].tasks)
        while self._waiting and size + len(self._waiting[0].tasks) <= MAX_TASKS_A_COMMIT:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].tasks)
        return batch

    async def _store_together(self, batch: Sequence[_Kind]) -> None:
        try:
            await self._store(batch)
        except Unavailable as error:
            for submission in batch:
                submission.fail(Unavailable(error.dependency, error.retry_after_s))
        except Exception as error:
            # One submission that PostgreSQL refuses must not take the others down with it.
            if len(batch) == 1:
                _log.exception("a submission could not be stored")
                batch[0].fail(error)
                return
            for submission in batch:
                await self._store_together([submission])
