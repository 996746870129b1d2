"""What a worker knows of its provider's back end: whether it is there, and so how much to ask for.

A back end that is away fails whatever it is given, so the tasks must not pay for it with their
attempts. The provider says so with `ProviderUnavailable`; the worker hands the task back, asks for
none for a while, then for one, the probe, and for as many as it has room for once the back end has
made anything. What waits meanwhile may go to other workers, or, if it never started, expires at its start deadline.

The rules are those of `flik/domain/breaker.py` with its policy PROVIDER: open for 0.5 s, doubled
up to 5 s.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from flik.domain.breaker import PROVIDER, Breaker, Call, Refused, Tally, Verdict
from flik.errors import ProviderError, ProviderUnavailable

_log = logging.getLogger("flik.worker")


class _Use:
    """One use of the back end; a class of its own, because a generator as a context costs four times as much."""

    __slots__ = ("_back_end", "_call")

    def __init__(self, back_end: BackEnd, call: Call) -> None:
        self._back_end = back_end
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._back_end.ended(self._call, error)


class BackEnd:
    """The breaker of one worker's provider. Not thread-safe: it lives on one event loop."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._breaker = Breaker(PROVIDER, chance)
        self._opened = self._refused = 0

    def ask(self) -> Call | Refused:
        """Ask for a call; `flik.domain.breaker.room` says for how many tasks that is."""
        answer = self._breaker.ask(self._clock())
        self._refused += isinstance(answer, Refused)
        return answer

    def tally(self) -> Tally:
        """Return what is told of the breaker."""
        return Tally("provider", int(self._breaker.state(self._clock())), self._opened, self._refused)

    def give_up(self, call: Call) -> None:
        """Say that a call was not made after all: there was no task for it."""
        if call.probe:  # any other call proves nothing by that
            self._end(call, Verdict.UNKNOWN)

    def answered(self, call: Call) -> None:
        """Say that the back end made something; it may be said often."""
        self._end(call, Verdict.ANSWERED)

    def used(self, call: Call) -> _Use:
        """Learn, as a context, from how the provider ends."""
        return _Use(self, call)

    def ended(self, call: Call, error: BaseException | None) -> None:
        """Learn from what a provider raised; a `ProviderError` is the back end's own word, so it is there."""
        if isinstance(error, ProviderUnavailable):
            self._end(call, Verdict.AWAY)
        elif isinstance(error, ProviderError):
            self._end(call, Verdict.ANSWERED)
        else:
            self.give_up(call)

    def _end(self, call: Call, verdict: Verdict) -> None:
        was_closed = self._breaker.closed
        self._breaker.end(call, verdict, self._clock())
        if was_closed != self._breaker.closed:
            self._opened += was_closed
            _log.warning("the provider's back end is %s", "away" if was_closed else "back")
