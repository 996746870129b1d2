"""A memory of rows that others may change: trusted for 4 s, then read again.

What is used all the time is read again in the background when half of its time is over, so that
its users never wait; all that falls due within a quarter of a second goes into one read. What is
not known is asked for at once: one read is in flight, and what is asked meanwhile shares the next.
That there is no such row is remembered for 2 s, in a memory of its own, so that a flood of made-up
keys cannot push out the real ones.

An age counts from the moment at which the read was sent. So an answer is at most 4 s old, or as old
as the read took that it had to wait for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from enum import Enum
from typing import Final, Generic, Literal, TypeVar

from flik.errors import Unavailable

TRUST_S = 4.0
REFRESH_AFTER_S = 2.0
TRUST_ABSENCE_S = 2.0
REFRESH_ABSENCE_AFTER_S = 1.0
GATHER_S = 0.25
CAPACITY = 10_000
MOST_IN_ONE_READ = 1_000
_log = logging.getLogger("flik.gateway")
K = TypeVar("K")
V = TypeVar("V")


class _Unknown(Enum):
    UNKNOWN = 0


UNKNOWN: Final = _Unknown.UNKNOWN
"""What `fresh` returns when it takes a read to know."""


class Lookup(Generic[K, V]):
    """`read` returns those of the rows that there are. Not thread-safe: it lives on one event loop."""

    def __init__(
        self,
        read: Callable[[Collection[K]], Awaitable[Mapping[K, V]]],
        *,
        clock: Callable[[], float] = time.monotonic,
        gather_s: float = GATHER_S,
        capacity: int = CAPACITY,
    ) -> None:
        self._read = read
        self._clock = clock
        self._gather_s = gather_s
        self._capacity = capacity
        self._known: dict[K, tuple[float, V]] = {}  # by the age of the read, the oldest first
        self._absent: dict[K, float] = {}
        self._asked: dict[K, asyncio.Future[V | None]] = {}
        self._due: list[K] = []
        self._timer: asyncio.TimerHandle | None = None
        self._reader: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._known) + len(self._absent)

    def fresh(self, key: K) -> V | Literal[_Unknown.UNKNOWN] | None:
        """Return the row, or None when there is none, if that is known for sure; else UNKNOWN."""
        known = self._known.get(key)
        if known is not None:
            age_s = self._clock() - known[0]
            if age_s < REFRESH_AFTER_S:
                return known[1]
            if age_s < TRUST_S:
                self._refresh(key)
                return known[1]
            return UNKNOWN
        absent_at = self._absent.get(key)
        if absent_at is None:
            return UNKNOWN
        age_s = self._clock() - absent_at
        if age_s >= TRUST_ABSENCE_S:
            return UNKNOWN
        if age_s >= REFRESH_ABSENCE_AFTER_S:
            self._refresh(key)
        return None

    async def get(self, key: K) -> V | None:
        """Return the row, None when there is none.

        Raises:
            Unavailable: it takes a read to know, and that failed.
        """
        found = self.fresh(key)
        return await self.ask(key) if found is UNKNOWN else found

    async def ask(self, key: K) -> V | None:
        """Return the row as a read finds it that has not ended yet."""
        asked = self._expect(key)
        self._start()
        return await asyncio.shield(asked)  # one caller that goes away must not take the others with it

    def forget(self, key: K) -> None:
        """Drop what is remembered of a row that was just changed here; a read in flight may bring it back."""
        self._known.pop(key, None)
        self._absent.pop(key, None)

    async def close(self) -> None:
        """End what runs in the background."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _refresh(self, key: K) -> None:
        if key not in self._asked:
            self._expect(key)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._gather_s, self._start)

    def _expect(self, key: K) -> asyncio.Future[V | None]:
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.get_running_loop().create_future()
            asked.add_done_callback(_look_at)
            self._due.append(key)
        return asked

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_all())

    async def _read_all(self) -> None:
        try:
            while self._due:
                keys, self._due = self._due[:MOST_IN_ONE_READ], self._due[MOST_IN_ONE_READ:]
                await self._read_together(keys)
        finally:
            self._reader = None

    async def _read_together(self, keys: list[K]) -> None:
        sent_at = self._clock()
        try:
            found = await self._read(keys)
        except BaseException as error:
            for key in keys:
                _fail(self._asked.pop(key), error)
            if not isinstance(error, Exception):
                raise
            _log.warning("what callers are allowed could not be read: %s", error)
            return
        for key in keys:
            self._remember(key, found.get(key), sent_at)
            asked = self._asked.pop(key)
            if not asked.done():
                asked.set_result(found.get(key))

    def _remember(self, key: K, value: V | None, sent_at: float) -> None:
        self._known.pop(key, None)
        self._absent.pop(key, None)
        if value is None:
            self._absent[key] = sent_at
            _shorten(self._absent, self._capacity)
        else:
            self._known[key] = (sent_at, value)
            _shorten(self._known, self._capacity)


def _shorten(memory: dict[K, V], capacity: int) -> None:
    if len(memory) > capacity:
        del memory[next(iter(memory))]  # what was read longest ago: nobody has used it since


def _fail(asked: asyncio.Future[V], error: BaseException) -> None:
    if asked.done():
        return
    if isinstance(error, Unavailable):
        asked.set_exception(Unavailable(error.dependency, error.retry_after_s))  # one of its own for each row
    elif isinstance(error, Exception):
        asked.set_exception(error)
    else:
        asked.cancel()


def _look_at(asked: asyncio.Future[V]) -> None:
    """Take note of a failure, so that asyncio does not complain of one that nobody waited for."""
    if not asked.cancelled():
        asked.exception()
