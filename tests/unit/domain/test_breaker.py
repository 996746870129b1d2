"""When calls to a dependency go through, are refused, or probe: literal cases, then any history against a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flik.domain.breaker import PROVIDER, Breaker, BreakerPolicy, Call, Refused, State, Verdict, room

POLICY = BreakerPolicy(failures=3, silence_s=10.0, open_s=0.5, most_open_s=5.0)
ANSWERED, AWAY, UNKNOWN = Verdict.ANSWERED, Verdict.AWAY, Verdict.UNKNOWN


def breaker_of(policy: BreakerPolicy = POLICY, chance: float = 0.0) -> Breaker:
    return Breaker(policy, lambda: chance)


def let_through(breaker: Breaker, now: float, *, eager: bool = False) -> Call:
    answer = breaker.ask(now, eager=eager)
    assert isinstance(answer, Call)
    return answer


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.end(let_through(breaker, now), AWAY, now)


def test_it_opens_with_the_third_failure_in_a_row_and_refuses_until_the_probe() -> None:
    breaker = breaker_of()
    fail(breaker, 2)
    assert breaker.closed
    fail(breaker, 1)
    assert breaker.ask(0.2) == Refused(0.3)
    assert breaker.ask(0.45) == Refused(0.1)  # never less: a caller that comes back at once gains nothing
    assert breaker.state(0.45) is State.OPEN


def test_an_answer_between_failures_keeps_it_closed() -> None:
    breaker = breaker_of()
    for _ in range(10):
        fail(breaker, 2)
        breaker.end(let_through(breaker, 0.0), ANSWERED, 0.0)
    assert breaker.closed


def test_one_failure_after_a_silence_is_enough() -> None:
    breaker = breaker_of()
    slow = let_through(breaker, 0.0)
    breaker.end(slow, AWAY, 10.0)
    assert not breaker.closed


def test_a_slow_call_among_quick_ones_opens_nothing() -> None:
    breaker = breaker_of()
    slow = [let_through(breaker, 0.0) for _ in range(5)]
    breaker.end(let_through(breaker, 9.0), ANSWERED, 9.1)
    for call in slow:
        breaker.end(call, AWAY, 10.0)
    assert breaker.closed


def test_calls_that_prove_nothing_neither_open_it_nor_reset_the_count() -> None:
    breaker = breaker_of()
    for _ in range(2):
        fail(breaker, 1)
        for _ in range(9):
            breaker.end(let_through(breaker, 0.0), UNKNOWN, 0.0)
    assert breaker.closed
    fail(breaker, 1)
    assert not breaker.closed


def test_half_open_one_probe_goes_through_and_the_others_are_refused() -> None:
    breaker = breaker_of()
    fail(breaker, 3)
    assert breaker.state(0.5) is State.HALF_OPEN
    assert let_through(breaker, 0.5).probe
    assert [breaker.ask(0.5), breaker.ask(99.0), breaker.ask(99.0, eager=True)] == [Refused(0.1)] * 3


def test_the_probe_decides() -> None:
    breaker = breaker_of()
    fail(breaker, 3)
    breaker.end(let_through(breaker, 0.5), AWAY, 0.5)
    assert breaker.state(1.4) is State.OPEN
    breaker.end(let_through(breaker, 1.5), ANSWERED, 1.6)
    assert breaker.state(1.6) is State.CLOSED
    assert not let_through(breaker, 1.6).probe


def test_a_probe_that_proves_nothing_makes_room_for_the_next() -> None:
    breaker = breaker_of()
    fail(breaker, 3)
    breaker.end(let_through(breaker, 0.5), UNKNOWN, 0.6)
    assert let_through(breaker, 0.6).probe


@pytest.mark.parametrize(("chance", "open_s"), [(0.0, [0.5, 1, 2, 4, 5, 5]), (0.5, [0.375, 0.75, 1.5, 3, 3.75, 3.75])])
def test_it_stays_open_twice_as_long_each_time_up_to_the_most(chance: float, open_s: list[float]) -> None:
    breaker = breaker_of(chance=chance)
    fail(breaker, 3)
    now = 0.0
    for expected in open_s:
        assert breaker.ask(now) == Refused(expected)
        now += expected
        breaker.end(let_through(breaker, now), AWAY, now)


def test_after_it_closed_the_open_times_start_over() -> None:
    breaker = breaker_of()
    fail(breaker, 3)
    breaker.end(let_through(breaker, 0.5), AWAY, 0.5)
    breaker.end(let_through(breaker, 2.0), ANSWERED, 2.0)
    fail(breaker, 3, 2.0)
    assert breaker.ask(2.0) == Refused(0.5)


def test_a_health_check_may_probe_before_the_time_is_up() -> None:
    breaker = breaker_of()
    fail(breaker, 3)
    probe = let_through(breaker, 0.1, eager=True)
    assert isinstance(breaker.ask(0.6), Refused)
    breaker.end(probe, ANSWERED, 0.7)
    assert breaker.closed


def test_late_failures_neither_prolong_it_nor_open_it_again() -> None:
    breaker = breaker_of()
    late = [let_through(breaker, 0.0) for _ in range(6)]
    fail(breaker, 3)
    for call in late[:3]:
        breaker.end(call, AWAY, 0.4)
    breaker.end(let_through(breaker, 0.5), ANSWERED, 0.5)
    for call in late[3:]:
        breaker.end(call, AWAY, 20.0)
    assert breaker.closed


def test_an_answer_to_an_earlier_call_closes_it() -> None:
    breaker = breaker_of()
    earlier = let_through(breaker, 0.0)
    fail(breaker, 3)
    breaker.end(earlier, ANSWERED, 0.1)
    assert breaker.closed


@pytest.mark.parametrize(
    ("answer", "asked_for"),
    [(Call(0.0), 5), (Call(0.0, probe=True), 1), (Refused(1.0), 0)],
    ids=["closed", "half-open", "open"],
)
def test_a_worker_asks_for_all_it_has_room_for_for_one_or_for_none(answer: Call | Refused, asked_for: int) -> None:
    assert room(answer, 5) == asked_for
    assert room(answer, 0) == 0


def test_the_word_of_a_provider_is_enough() -> None:
    breaker = breaker_of(PROVIDER)
    fail(breaker, 1)
    assert room(breaker.ask(0.1), 5) == 0
    assert [room(breaker.ask(0.5), 5), room(breaker.ask(0.5), 5)] == [1, 0]


# ---- any history


@dataclass
class Model:
    """The rules again, read off the whole history instead of kept as counters."""

    ended: list[tuple[float, float, Verdict, bool]] = field(default_factory=list)  # began, ended, verdict, probe
    opened: list[float] = field(default_factory=list)  # when, since the last answer; each failed probe opens anew

    def end(self, call: Call, verdict: Verdict, now: float) -> None:
        last_answer = max((at for _, at, was, _ in self.ended if was is ANSWERED), default=float("-inf"))
        self.ended.append((call.began_at, now, verdict, call.probe))
        if verdict is ANSWERED:
            self.opened = []
        elif verdict is AWAY and call.began_at >= last_answer and self._opens(call, now):
            self.opened.append(now)

    def _opens(self, call: Call, now: float) -> bool:
        if self.opened:
            return call.probe
        return self._failures_in_a_row() >= POLICY.failures or now - call.began_at >= POLICY.silence_s

    def _failures_in_a_row(self) -> int:
        answers = [at for at, each in enumerate(self.ended) if each[2] is ANSWERED]
        since = self.ended[answers[-1] + 1 :] if answers else self.ended
        last_answer = self.ended[answers[-1]][1] if answers else float("-inf")
        return sum(verdict is AWAY and began >= last_answer for began, _, verdict, _ in since)

    def open_until(self, chance: float) -> float | None:
        if not self.opened:
            return None
        open_s = min(POLICY.open_s * 2 ** (len(self.opened) - 1), POLICY.most_open_s)
        return self.opened[-1] + open_s * (1 - chance / 2)


class AnyHistory(RuleBasedStateMachine):
    """Calls begin and end in any order, at any time, with any end."""

    @initialize(chance=st.sampled_from([0.0, 0.3, 0.999]))
    def begin(self, chance: float) -> None:
        self.chance = chance
        self.now = 0.0
        self.running: list[Call] = []
        self.model = Model()
        self.breaker = Breaker(POLICY, lambda: chance)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(eager=st.booleans(), times=st.integers(1, 4))
    def ask(self, eager: bool, times: int) -> None:
        for _ in range(times):
            until = self.model.open_until(self.chance)
            probing = any(call.probe for call in self.running)
            before = dict(vars(self.breaker))
            answer = self.breaker.ask(self.now, eager=eager)
            if until is None:
                assert isinstance(answer, Call)
                assert not answer.probe
            elif not probing and (eager or self.now >= until):
                assert isinstance(answer, Call)
                assert answer.probe
            else:
                assert answer == Refused(max(0.1, until - self.now))
                assert 0.1 <= answer.retry_after_s <= POLICY.most_open_s
                assert vars(self.breaker) == before  # a refused call does nothing
            if isinstance(answer, Call):
                self.running.append(answer)

    @rule(data=st.data(), verdict=st.sampled_from(Verdict))
    def end(self, data: st.DataObject, verdict: Verdict) -> None:
        if self.running:
            call = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
            was_open = not self.breaker.closed
            self.breaker.end(call, verdict, self.now)
            self.model.end(call, verdict, self.now)
            if was_open and self.breaker.closed:
                assert verdict is ANSWERED

    @invariant()
    def agrees_with_the_model(self) -> None:
        until = self.model.open_until(self.chance)
        probing = any(call.probe for call in self.running)
        open_or_half = State.HALF_OPEN if probing or self.now >= (until or 0.0) else State.OPEN
        assert self.breaker.state(self.now) is (State.CLOSED if until is None else open_or_half)

    @invariant()
    def never_two_probes(self) -> None:
        assert sum(call.probe for call in self.running) <= 1


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
