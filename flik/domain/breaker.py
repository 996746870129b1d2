"""When to stop asking a dependency that is away, and when to ask again.

```
            3 failures in a row, or one after a silence
   CLOSED ───────────────────────────────────────────────► OPEN ◄───────┐
     ▲                                                       │ time     │ the probe fails:
     │ anything is answered                                  ▼ is up    │ open twice as long
     └──────────────────────────────────────────────────  HALF_OPEN ────┘
```

Closed, every call goes through. Open, none does: each is refused with the time until the next
probe. Half-open, exactly one goes through, the probe, and decides.

It opens on failures in a row, not on a rate: a dependency that answers some calls is not away,
and refusing would take those answers away too. A failure counts only if nothing was answered
since its call began, so a slow statement among quick ones opens nothing. One failure is enough
after `silence_s` without any answer: whoever waits for a frozen server has waited long enough.

Any answer closes it, also that of a call from before it opened, and an error that the
dependency itself sends is an answer. Open times are `open_s`, doubled up to `most_open_s` with
each probe that fails, of which chance takes away up to a half, so that processes don't probe
in step: 0.5 s, 1, 2, 4, 5, 5 s become 0.25 to 0.5, 0.5 to 1, ... 2.5 to 5 s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

LEAST_RETRY_AFTER_S = 0.1


class State(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class Verdict(Enum):
    """What the end of a call says about the dependency."""

    ANSWERED = "answered"  # it works: with a result, or with an error of its own
    AWAY = "away"  # refused to connect, or did not answer in time
    UNKNOWN = "unknown"  # called off, or cut before it said anything: proves nothing


class Tally(NamedTuple):
    """What is told of a breaker: its state now; how often it opened and what it refused since its process started."""

    dependency: str
    state: int = State.CLOSED
    opened: int = 0
    refused: int = 0


def worst(states: Iterable[int]) -> int:
    """Return the state that says most about a dependency that several look at: OPEN before HALF_OPEN before CLOSED."""
    return max(states, key=(State.CLOSED, State.HALF_OPEN, State.OPEN).index, default=State.CLOSED)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and for how long; seconds, and failures in a row."""

    failures: int = 3
    silence_s: float = 1.0
    open_s: float = 0.5
    most_open_s: float = 5.0


# A provider says itself that its back end is away, so its word is enough. What it handed back costs a grant each
# time, so a probe comes no oftener than each 2.5 s in the long run.
PROVIDER = BreakerPolicy(failures=1)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call that goes through; its end must be told. A probe is the only one of its time."""

    began_at: float
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that must not be made now; worth another try after `retry_after_s`."""

    retry_after_s: float


class Breaker:
    """One dependency as one process sees it. `chance` returns a number from 0 up to but not including 1."""

    def __init__(self, policy: BreakerPolicy, chance: Callable[[], float]) -> None:
        self._policy = policy
        self._chance = chance
        self._failures = 0
        self._answered_at = -math.inf
        self._open_s = policy.open_s
        self._open_until: float | None = None
        self._probe: Call | None = None  # in flight, whatever became of the state meanwhile

    @property
    def closed(self) -> bool:
        """Whether calls go through."""
        return self._open_until is None

    def state(self, now: float) -> State:
        """Return the state; HALF_OPEN from the moment a probe may go until it has ended."""
        if self._open_until is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probe is not None or now >= self._open_until else State.OPEN

    def ask(self, now: float, *, eager: bool = False) -> Call | Refused:
        """Ask for a call; `eager` (a health check) may be the probe before its time, but never a second one."""
        if self._open_until is None:
            return Call(now)
        if self._probe is None and (eager or now >= self._open_until):
            self._probe = Call(now, probe=True)
            return self._probe
        return self.refusal(now)

    def refusal(self, now: float) -> Refused:
        """Return how a call is refused that must not be the probe; never less than 0.1 s."""
        return Refused(max(LEAST_RETRY_AFTER_S, (self._open_until or now) - now))

    def end(self, call: Call, verdict: Verdict, now: float) -> None:
        """Take note of how a call ended. Of a probe that proves nothing, the next call takes the place."""
        was_probe = call is self._probe
        if was_probe:
            self._probe = None
        if verdict is Verdict.ANSWERED:
            self._close(now)
        elif verdict is Verdict.AWAY and self._answered_at <= call.began_at:
            self._count(call, now, was_probe)

    def _close(self, now: float) -> None:
        self._failures = 0
        self._answered_at = now
        self._open_s = self._policy.open_s
        self._open_until = None

    def _count(self, call: Call, now: float, was_probe: bool) -> None:
        if self._open_until is None:
            self._failures += 1
            if self._failures >= self._policy.failures or now - call.began_at >= self._policy.silence_s:
                self._open(now)
        elif was_probe:
            self._open_s = min(2 * self._open_s, self._policy.most_open_s)
            self._open(now)

    def _open(self, now: float) -> None:
        self._open_until = now + self._open_s * (1 - self._chance() / 2)


def room(answer: Call | Refused, free: int) -> int:
    """Return how many tasks a worker with `free` slots asks for: all, one for a probe, or none."""
    if isinstance(answer, Refused):
        return 0
    return min(free, 1) if answer.probe else free
