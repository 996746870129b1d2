"""Timeouts of many attempts, with few timers."""

from __future__ import annotations

import asyncio

import pytest

from flik.pipeline import timeouts
from flik.pipeline.timeouts import Timeouts


class Told:
    """What fell due, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, float]] = []
        self.changed = asyncio.Event()
        self.timeouts: Timeouts[str] = Timeouts(
            lambda run: self._note("soft", run), lambda run: self._note("hard", run)
        )

    def _note(self, what: str, run: str) -> None:
        self.calls.append((what, run, asyncio.get_running_loop().time()))
        self.changed.set()

    async def until(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(5.0):
            while len(self.calls) < count:
                self.changed.clear()
                await self.changed.wait()
        return [(what, run) for what, run, _ in self.calls]


@pytest.fixture
async def told() -> Told:
    return Told()


def timers() -> int:
    loop = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]


async def test_each_attempt_falls_due_softly_and_then_hard(told: Told) -> None:
    told.timeouts.begin("a", 0.01, 0.03)
    told.timeouts.begin("b", 0.01, 0.03)
    calls = await told.until(4)
    assert sorted(calls[:2]) == [("soft", "a"), ("soft", "b")]
    assert sorted(calls[2:]) == [("hard", "a"), ("hard", "b")]


async def test_a_timeout_never_comes_early(told: Told) -> None:
    began_at = {}
    for number in range(20):
        began_at[f"{number}"] = asyncio.get_running_loop().time()
        told.timeouts.begin(f"{number}", 0.02, 60.0)
        await asyncio.sleep(0.001)
    await told.until(20)
    for _, run, at in told.calls:
        assert at >= began_at[run] + 0.02 - 0.001  # what the clock of a loop resolves
    for number in range(20):
        told.timeouts.end(f"{number}")


async def test_what_ended_does_not_fall_due(told: Told) -> None:
    told.timeouts.begin("a", 0.01, 0.02)
    told.timeouts.begin("b", 0.01, 0.02)
    told.timeouts.end("a")
    told.timeouts.end("a")
    assert await told.until(2) == [("soft", "b"), ("hard", "b")]


async def test_those_that_begin_together_share_their_timers_and_leave_none(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "GRAIN_S", 60.0)
    before = timers()
    for number in range(100):
        told.timeouts.begin(f"{number}", 60.0, 120.0)
    told.timeouts.begin("longer", 60.0, 240.0)
    assert timers() == before + 4
    for run in [*map(str, range(100)), "longer"]:
        told.timeouts.end(run)
    assert timers() == before
    assert len(told.timeouts) == 0


async def test_those_that_begin_later_have_timers_of_their_own(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "GRAIN_S", 0.0)
    before = timers()
    told.timeouts.begin("a", 60.0, 120.0)
    told.timeouts.begin("b", 60.0, 120.0)
    assert timers() == before + 4
    told.timeouts.end("b")
    assert timers() == before + 2
    told.timeouts.end("a")
    assert timers() == before
