"""Who may follow: each connection that waits for a task counts, for its credential and for this gateway.

Counted are event streams, long polls and `Prefer: wait`: all that hold a connection open without work of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flik.domain.identity import Caller
from flik.errors import TooManyFollowers


@dataclass(slots=True)
class Followers:
    """How many there are. `most`: of one gateway; `most_of_key`: of one credential on it."""

    most: int = 10_000
    most_of_key: int = 1_000
    _of_key: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """Count one more in here.

        Raises:
            TooManyFollowers: there are as many as there may be.
        """
        key = caller.actor
        if self._of_key[key] >= self.most_of_key:
            raise TooManyFollowers("this credential", self.most_of_key)
        if self._of_key.total() >= self.most:
            raise TooManyFollowers("this gateway", self.most)
        self._of_key[key] += 1
        try:
            yield
        finally:
            self._of_key[key] -= 1
            if not self._of_key[key]:
                del self._of_key[key]
