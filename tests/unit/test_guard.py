"""A guard lets calls through or refuses them at once, probes by itself, and counts what it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from flik import guard as guard_module
from flik.domain.breaker import BreakerPolicy, Tally, Verdict
from flik.errors import Unavailable
from flik.guard import Guard
from flik.telemetry import Metrics

POLICY = BreakerPolicy(failures=2, silence_s=10.0, open_s=1.0, most_open_s=4.0)


class Dependency:
    """Answers, refuses or hangs, as the test says; time passes only when the guard sleeps."""

    def __init__(self) -> None:
        self.away = False
        self.hangs = False
        self.probes = 0
        self.now = 100.0
        self.slept = asyncio.Event()
        self.may_sleep: asyncio.Semaphore = asyncio.Semaphore(0)
        self.thawed = asyncio.Event()

    async def probe(self) -> None:
        self.probes += 1
        if self.hangs:
            await self.thawed.wait()
        if self.away:
            raise ConnectionRefusedError

    async def sleep(self, seconds: float) -> None:
        self.slept.set()
        await self.may_sleep.acquire()
        self.now += seconds


@pytest.fixture
def dependency() -> Dependency:
    return Dependency()


@pytest.fixture
def measured() -> Metrics:
    return Metrics("flik_breaker_*")


@pytest.fixture
async def guard(dependency: Dependency, measured: Metrics) -> AsyncIterator[Guard]:
    guard = Guard(
        "it", dependency.probe, POLICY, measured=measured, clock=lambda: dependency.now, sleep=dependency.sleep
    )
    yield guard
    guard.close()


def call(guard: Guard, error: Exception | None = None, verdict: Verdict = Verdict.AWAY) -> None:
    with guard.call(lambda raised: verdict):
        if error is not None:
            raise error


def fail(guard: Guard, times: int = POLICY.failures) -> None:
    for _ in range(times):
        with pytest.raises(TimeoutError):
            call(guard, TimeoutError())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)


def value(measured: Metrics, name: str) -> float | None:
    return measured.registry.get_sample_value(name, {"process": "", "dependency": "it"})


async def test_while_it_is_away_calls_are_refused_without_being_made(guard: Guard) -> None:
    fail(guard)
    for _ in range(100):
        with pytest.raises(Unavailable) as refused, guard.call(lambda error: Verdict.AWAY):
            pytest.fail("the call was made")
        assert (refused.value.dependency, refused.value.retry_after_s <= POLICY.open_s) == ("it", True)


async def test_errors_of_its_own_are_answers(guard: Guard) -> None:
    for _ in range(10):
        fail(guard, 1)
        with pytest.raises(ValueError, match="a bad statement"):
            call(guard, ValueError("a bad statement"), Verdict.ANSWERED)
    assert guard.closed


async def test_cancelled_call_proves_nothing(guard: Guard) -> None:
    fail(guard, 1)
    with pytest.raises(asyncio.CancelledError), guard.call(lambda error: Verdict.ANSWERED):
        raise asyncio.CancelledError
    fail(guard, 1)
    assert not guard.closed


async def test_it_probes_by_itself_until_there_is_an_answer_and_then_lets_calls_through(
    guard: Guard, dependency: Dependency
) -> None:
    dependency.away = True
    fail(guard)
    for probes in (1, 2, 3):
        dependency.may_sleep.release()
        await until(lambda probes=probes: dependency.probes == probes)  # type: ignore[misc]
        assert not guard.closed
    dependency.away = False
    dependency.may_sleep.release()
    await until(lambda: guard.closed)
    call(guard)
    assert dependency.probes == 4


async def test_it_is_probed_again_when_it_goes_away_again(guard: Guard, dependency: Dependency) -> None:
    for probes in (1, 2):
        fail(guard)
        dependency.may_sleep.release()
        await until(lambda: guard.closed)
        assert dependency.probes == probes


async def test_no_call_is_the_probe_even_when_its_time_has_come(guard: Guard, dependency: Dependency) -> None:
    fail(guard)
    dependency.now += 99
    with pytest.raises(Unavailable):
        call(guard)
    assert dependency.probes == 0


async def test_ping_probes_before_the_time_is_up(guard: Guard, dependency: Dependency) -> None:
    fail(guard)
    dependency.away = True
    with pytest.raises(Unavailable):
        await guard.ping()
    dependency.away = False
    await guard.ping()
    assert guard.closed
    call(guard)


async def test_pings_open_it_too(guard: Guard, dependency: Dependency) -> None:
    dependency.away = True
    for _ in range(POLICY.failures):
        with pytest.raises(Unavailable):
            await guard.ping()
    assert not guard.closed


async def test_probe_that_hangs_is_left_behind_and_meanwhile_nobody_waits(
    guard: Guard, dependency: Dependency, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(guard)
    dependency.hangs = True
    probing = asyncio.ensure_future(guard.ping())
    await until(lambda: dependency.probes == 1)
    for _ in range(100):
        with pytest.raises(Unavailable):
            await guard.ping()
    assert dependency.probes == 1
    probing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probing
    monkeypatch.setattr(guard_module, "PROBE_S", 0.01)
    with pytest.raises(Unavailable):
        await guard.ping()
    assert not guard.closed


async def test_metrics_tell_the_state_how_often_it_opened_and_what_was_refused(
    guard: Guard, dependency: Dependency, measured: Metrics
) -> None:
    assert value(measured, "flik_breaker_state") == 0
    fail(guard)
    for _ in range(3):
        with pytest.raises(Unavailable):
            call(guard)
    assert value(measured, "flik_breaker_state") == 1
    assert value(measured, "flik_breaker_opened_total") == 1
    assert value(measured, "flik_breaker_refused_total") == 3
    assert guard.tally() == Tally("it", state=1, opened=1, refused=3)
    dependency.now += 99
    assert value(measured, "flik_breaker_state") == 2
    await guard.ping()
    assert value(measured, "flik_breaker_state") == 0


async def test_closed_guard_probes_no_more(dependency: Dependency) -> None:
    guard = Guard("it", dependency.probe, POLICY, clock=lambda: dependency.now, sleep=dependency.sleep)
    fail(guard)
    await until(dependency.slept.is_set)
    guard.close()
    dependency.may_sleep.release()
    await until(lambda: all(task is asyncio.current_task() or task.done() for task in asyncio.all_tasks()))
    assert dependency.probes == 0


async def test_suspicion_asks_one_question_at_a_time_and_opens_it_when_there_is_no_answer(
    guard: Guard, dependency: Dependency
) -> None:
    dependency.away = True
    for questions in range(1, POLICY.failures + 1):
        for _ in range(5):
            guard.suspect()
        await until(lambda: guard._suspicion is not None and guard._suspicion.done())
        assert dependency.probes == questions
    assert not guard.closed
    guard.suspect()
    await asyncio.sleep(0)
    assert dependency.probes == POLICY.failures


async def test_error_that_it_sends_to_a_probe_is_an_answer_too(dependency: Dependency) -> None:
    async def refuse() -> None:
        raise PermissionError("you may not ask that")

    guard = Guard("it", refuse, POLICY, verdict_of=lambda error: Verdict.ANSWERED, clock=lambda: dependency.now,
                  sleep=dependency.sleep)  # fmt: skip
    fail(guard)
    dependency.may_sleep.release()
    await until(lambda: guard.closed)
    guard.close()
