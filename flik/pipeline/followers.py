"""Who may follow, and how long: each connection that waits counts, and ends when its credential does.

Counted are event streams, WebSockets, long polls and `Prefer: wait`: all that hold a connection open without
work of ours. Every `CHECK_S` the keys of all that are open are looked at with one query, so that a key that is
revoked follows nothing 5 s later. While PostgreSQL is away they stay open; expiry needs no look.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from flik.domain.identity import Caller
from flik.errors import FlikError, TooManyFollowers, Unauthenticated, Unavailable

CHECK_S = 3.0
End = Callable[[FlikError], None]


class Keys(Protocol):
    """Where keys are stored."""

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        """Return those of the keys that open something."""


class Followers:
    """The open connections of one gateway. `most_of_key`: of one credential. `run` must run while it is used."""

    def __init__(
        self, keys: Keys, most: int = 10_000, most_of_key: int = 1_000, now: Callable[[], float] = time.time
    ) -> None:
        self.most = most
        self.most_of_key = most_of_key
        self._keys = keys
        self._now = now
        self._of_key: Counter[str] = Counter()
        self._open: dict[object, tuple[Caller, End]] = {}
        self._stopped: FlikError | None = None

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def counted(self, caller: Caller, end: End) -> Iterator[None]:
        """Count one more in here; `end` is called when its credential does not work any more.

        Raises:
            TooManyFollowers: there are as many as there may be.
            FlikError: what `stop` was given.
        """
        if self._stopped is not None:
            raise self._stopped
        key = caller.actor
        if self._of_key[key] >= self.most_of_key:
            raise TooManyFollowers("this credential", self.most_of_key)
        if len(self._open) >= self.most:
            raise TooManyFollowers("this gateway", self.most)
        self._of_key[key] += 1
        place = object()
        self._open[place] = (caller, end)
        try:
            yield
        finally:
            del self._open[place]
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]

    def stop(self, error: FlikError) -> None:
        """End all that are open, and take no more."""
        self._stopped = error
        for _, end in list(self._open.values()):
            end(error)

    async def run(self) -> None:
        """Look at the credentials until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            await self.check()

    async def check(self) -> None:
        """End the connections whose credential does not work any more."""
        now = self._now()
        gone = await self._gone({key_id for caller, _ in self._open.values() if (key_id := _key_id(caller))}, now)
        for caller, end in list(self._open.values()):
            expired = caller.expires_at is not None and caller.expires_at <= now
            if expired or caller.key_id in gone:
                end(Unauthenticated("the credential is not valid any more", True))

    async def _gone(self, key_ids: set[str], now: float) -> set[str]:
        if not key_ids:
            return set()
        try:
            return key_ids - await self._keys.working(key_ids, now)
        except Unavailable:
            return set()


def _key_id(caller: Caller) -> str | None:
    """Return the id of the caller's key; None for who has none, as with the token of an issuer."""
    return None if caller.is_of_issuer else caller.key_id
