"""Who may follow, and how long: each connection that waits counts, and ends when its credential does.

Counted are event streams, WebSockets, long polls and `Prefer: wait`: all that hold a connection open without
work of ours. What is followed over them counts by itself: a stream follows one thing, a WebSocket as many as it
has subscriptions, and a key may follow as many things as it may have connections. A WebSocket whose client has
not said yet who it is is a stranger's; strangers have a bound of their own.

Every `CHECK_S` the keys of all that are open are looked at with one query, so that a key that is revoked follows
nothing 5 s later. While PostgreSQL is away they stay open; expiry needs no look.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

from flik.domain.identity import Caller
from flik.errors import FlikError, TooManyFollowers, TooManyStrangers, Unauthenticated, Unavailable

CHECK_S = 0.9  # with what a directory may still believe (`lookup.TRUST_S`) less than 5 s
MOST_STRANGERS = 256
End = Callable[[FlikError], None]


class Keys(Protocol):
    """Where keys are stored."""

    async def working(self, key_ids: Collection[str], now: float) -> set[str]:
        """Return those of the keys that open something."""


class Followers:
    """The open connections of one gateway. `run` must run while it is used.

    `most_of_key`: so many of one credential, and so many things that it follows with all of them.
    """

    def __init__(
        self,
        keys: Keys,
        most: int = 10_000,
        most_of_key: int = 1_000,
        most_strangers: int = MOST_STRANGERS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.most = most
        self.most_of_key = most_of_key
        self.most_strangers = most_strangers
        self.strangers = 0
        self._keys = keys
        self._now = now
        self._of_key: Counter[str] = Counter()
        self._followed_of_key: Counter[str] = Counter()
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
        place = object()
        self._open[place] = (caller, end)
        try:
            with _one_more(self._of_key, key):
                yield
        finally:
            del self._open[place]

    @contextmanager
    def following(self, caller: Caller) -> Iterator[None]:
        """Count one more thing that a caller follows in here, over whichever of its connections.

        Raises:
            TooManyFollowers: it follows as many as it may.
        """
        if self._followed_of_key[caller.actor] >= self.most_of_key:
            raise TooManyFollowers("this credential", self.most_of_key, "streams and subscriptions")
        with _one_more(self._followed_of_key, caller.actor):
            yield

    @contextmanager
    def stranger(self) -> Iterator[None]:
        """Count one more connection of nobody in here, until its client has said who it is.

        Raises:
            TooManyStrangers: there are as many as there may be.
            FlikError: what `stop` was given.
        """
        if self._stopped is not None:
            raise self._stopped
        if self.strangers >= self.most_strangers:
            raise TooManyStrangers("the gateway", self.most_strangers)
        self.strangers += 1
        try:
            yield
        finally:
            self.strangers -= 1

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


@contextmanager
def _one_more(counted: Counter[str], key: str) -> Iterator[None]:
    """Count one more of `key` in here, and hold no place for who has none."""
    counted[key] += 1
    try:
        yield
    finally:
        counted[key] -= 1
        if not counted[key]:
            del counted[key]


def _key_id(caller: Caller) -> str | None:
    """Return the id of the caller's key; None for who has none, as with the token of an issuer."""
    return None if caller.is_of_issuer else caller.key_id
