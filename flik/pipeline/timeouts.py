"""The soft and hard timeouts of running attempts, with few timers.

Two timers for each attempt cost a worker of short tasks a tenth of its CPU. What begins in the
same `GRAIN_S` and may take equally long falls due together, so it shares them. A timeout
comes up to `GRAIN_S` late, never early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

GRAIN_S = 0.01
_Run = TypeVar("_Run", bound=Hashable)


class _Group(Generic[_Run]):
    """Attempts that fall due together."""

    __slots__ = ("began_at", "running", "timers")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.running: set[_Run] = set()
        self.timers: tuple[asyncio.TimerHandle, ...] = ()


class Timeouts(Generic[_Run]):
    """Calls `on_soft` and `on_hard`, each after its seconds, with the attempts that have not ended by then."""

    def __init__(self, on_soft: Callable[[_Run], None], on_hard: Callable[[_Run], None]) -> None:
        self._on_soft = on_soft
        self._on_hard = on_hard
        self._group_of: dict[_Run, _Group[_Run]] = {}
        self._latest: dict[tuple[float, float], _Group[_Run]] = {}  # by the two timeouts

    def __len__(self) -> int:
        return len(self._group_of)

    def begin(self, run: _Run, soft_s: float, hard_s: float) -> None:
        """Let the timeouts of an attempt begin now."""
        now = asyncio.get_running_loop().time()
        group = self._latest.get((soft_s, hard_s))
        if group is None or now >= group.began_at + GRAIN_S:
            group = self._latest[soft_s, hard_s] = self._open(now, soft_s, hard_s)
        group.running.add(run)
        self._group_of[run] = group

    def end(self, run: _Run) -> None:
        """Note that an attempt ended; it may be said more than once."""
        group = self._group_of.pop(run, None)
        if group is None:
            return
        group.running.discard(run)
        if not group.running:
            self._close(group)

    def _open(self, now: float, soft_s: float, hard_s: float) -> _Group[_Run]:
        group: _Group[_Run] = _Group(now)
        loop = asyncio.get_running_loop()
        group.timers = (
            loop.call_at(now + soft_s + GRAIN_S, _call, self._on_soft, group),
            loop.call_at(now + hard_s + GRAIN_S, _call, self._on_hard, group),
        )
        return group

    def _close(self, group: _Group[_Run]) -> None:
        for timer in group.timers:
            timer.cancel()
        self._latest = {lengths: latest for lengths, latest in self._latest.items() if latest is not group}


def _call(on_timeout: Callable[[_Run], None], group: _Group[_Run]) -> None:
    for run in list(group.running):
        on_timeout(run)
