"""Start or join: a stream by name is made once, however many callers ask for it at one moment and wherever.

PostgreSQL decides, in the statement that stores the task (`flik/storage/sql/streams.sql`). In one gateway
callers of one name share one try, so that only one task is paid for at the door.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from flik.domain.idempotency import Place
from flik.domain.task import NewTask
from flik.errors import Unavailable
from flik.pipeline.submit import Announces

_MOST_TRIES = 3  # a name may be taken and become free again between two statements


class Names(Protocol):
    """Where names stand for tasks."""

    async def start(self, place: Place, task: NewTask, now: float) -> bool:
        """Commit a task under a name if the name is free; return whether it is stored."""

    async def find(self, place: Place, now: float) -> str | None:
        """Return the id of the task that a name stands for; None when it is free."""


class Joined(NamedTuple):
    """The task of a stream, and whether this call made it."""

    task_id: str
    is_new: bool


class Streams:
    """The streams of one gateway. Not thread-safe: it lives on one event loop."""

    def __init__(self, names: Names, announcer: Announces, now: Callable[[], float] = time.time) -> None:
        self._names = names
        self._announcer = announcer
        self._now = now
        self._starting: dict[Place, asyncio.Task[Joined]] = {}

    async def join(self, tenant_id: str, key: str) -> str | None:
        """Return the id of a stream's task; None when there is none.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return await self._names.find((tenant_id, key), self._now())

    async def start_or_join(self, tenant_id: str, key: str, make: Callable[[], Awaitable[NewTask]]) -> Joined:
        """Return the task of a stream; when there is none, `make` makes it, or raises why it may not be stored.

        Raises:
            FlikError: what `make` raises, also where another caller's `make` was tried.
            Unavailable: PostgreSQL is away; a repeat finds out whether the task was stored.
        """
        place = tenant_id, key
        starting = self._starting.get(place)
        if starting is not None:
            return (await asyncio.shield(starting))._replace(is_new=False)
        starting = asyncio.get_running_loop().create_task(self._start_or_join(place, make))
        self._starting[place] = starting
        starting.add_done_callback(lambda task: self._forget(place, task))
        return await asyncio.shield(starting)  # it goes on for the others when this caller leaves

    async def _start_or_join(self, place: Place, make: Callable[[], Awaitable[NewTask]]) -> Joined:
        task: NewTask | None = None
        for _ in range(_MOST_TRIES):
            found = await self._names.find(place, self._now())
            if found is not None:
                return Joined(found, is_new=False)
            task = task or await make()
            if await self._names.start(place, task, self._now()):
                self._announcer.announce([task])
                return Joined(task.task_id, is_new=True)
        raise Unavailable("postgresql")

    def _forget(self, place: Place, task: asyncio.Task[Joined]) -> None:
        del self._starting[place]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain when every caller has left
