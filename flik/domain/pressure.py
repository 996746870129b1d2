"""Whether the queue takes more work, and when to ask again if it does not.

Each priority has a bound on how many tasks of the same type may wait, of all priorities
together, when one of its own is added. The bounds rise with urgency (by default 1,250,000 for
P0, 1,100,000 for P1, 1,000,000 for P2), so a queue that fills up refuses background work
first, then interactive work, and real-time work last of all.

A refusal says when there may be room: the excess over `RELIEF` of the bound, divided by how
many tasks left the queue a second lately, from 1 s to 60 s. A queue that stands still says
30 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RELIEF = 0.98  # back when the queue is this full, so that not everybody comes for one free place
SHORTEST_S = 1.0
LONGEST_S = 60.0
STANDSTILL_S = 30.0
PACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Level:
    """How full the queue of one task type is: tasks waiting, and how many leave it a second."""

    waiting: int
    drained_per_s: float


EMPTY = Level(0, 0.0)


@dataclass(frozen=True, slots=True)
class Load:
    """What the queue tells of itself: a level for each task type, and how many tasks wait of tenants asked about."""

    levels: Mapping[str, Level]
    queued: Mapping[str, int] = field(default_factory=dict)


class Pace:
    """How many things happen a second, the last `PACE_S` seconds counting most (an exponential average)."""

    def __init__(self) -> None:
        self._per_s = 0.0
        self._at = 0.0

    def note(self, count: int, now: float) -> None:
        """Note that `count` things happened."""
        self._per_s = self.per_s(now) + count / PACE_S
        self._at = now

    def per_s(self, now: float) -> float:
        """Return the pace at `now`; after `PACE_S` without anything it has fallen to 37 %."""
        return self._per_s * math.exp(-max(0.0, now - self._at) / PACE_S)


@dataclass(frozen=True, slots=True)
class TooFull:
    """The queue takes no more of this priority now."""

    retry_after_s: float


def room(level: Level, priority: int, bounds: Sequence[int]) -> int:
    """Return how many more tasks of `priority` are taken."""
    return max(0, bounds[priority] - level.waiting)


def refusal(level: Level, priority: int, count: int, bounds: Sequence[int]) -> TooFull | None:
    """Return why `count` more tasks of `priority` are not taken; None: they are."""
    if count <= room(level, priority, bounds):
        return None
    return TooFull(until_below(level, RELIEF * bounds[priority] - count))


def until_below(level: Level, target: float) -> float:
    """Return after how many seconds about `target` tasks wait, at the present pace."""
    if level.drained_per_s <= 0:
        return STANDSTILL_S
    return min(LONGEST_S, max(SHORTEST_S, (level.waiting - max(0.0, target)) / level.drained_per_s))
