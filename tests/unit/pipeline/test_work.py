"""A worker, with a queue and a provider of the test's own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, cast

import pytest
import virtual_time
from making import stored_file
from worker_scene import W1, Stage, draw, fail_with, fail_with_first, grant, hang, pictures, say, until, wait_for

from flik import catalog
from flik.domain.breaker import BreakerPolicy, Call, Tally
from flik.domain.dag.references import Output as Made
from flik.domain.task import Completed, Failed, Grant, HandedBack
from flik.errors import ProviderError, ProviderUnavailable
from flik.pipeline import back_end, work
from flik.pipeline.ports import Beat
from flik.providers.base import Context, Output, Progress, Request, Result, TextChunk


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_PAUSE_S", 0.0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


# ---- outcomes


async def test_a_text_is_the_chunks_when_the_result_has_none(stage: Stage) -> None:
    stage.provider.script = say("hel", "lo")
    stage.queue.give(grant())
    assert await stage.outcome() == Completed("t1", "token", "hello", {}, ())
    assert stage.provider.requests == [Request("t1", "TEXT", {"prompt": "x"}, 1)]


async def test_a_text_is_sent_on_as_it_is_written_and_is_whole_before_the_task_is(stage: Stage) -> None:
    stage.provider.script = say("one ", "two")
    stage.chunks.gate = asyncio.Event()
    stage.queue.give(grant())
    await until(lambda: len(stage.chunks.written) == 3)
    assert stage.chunks.written == ["begin t1 x", "one ", "two"]
    assert not stage.queue.settled
    stage.chunks.gate.set()
    await stage.outcome()
    assert stage.chunks.written[3:] == ["end", "close"]


@pytest.mark.parametrize("error", [ProviderError("boom", "", True), ProviderUnavailable("away"), ValueError("broken")])
async def test_a_text_that_breaks_off_has_no_end(stage: Stage, error: Exception) -> None:
    stage.provider.script = fail_with(error)
    stage.queue.give(grant())
    await stage.outcome()
    assert stage.chunks.written == ["begin t1 x", "close"]


async def test_a_provider_may_go_on_with_the_task_s_trace_and_each_attempt_has_a_span_of_its_own(stage: Stage) -> None:
    seen: list[str | None] = []

    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        seen.append(context.traceparent)
        yield Result("done")

    stage.provider.script = script
    for number, trace_id in enumerate(("ab" * 16, "ab" * 16, None), start=1):
        stage.queue.give(grant(number)._replace(trace_id=trace_id))
        await stage.outcomes(number)

    assert [each and each.split("-")[1] for each in seen] == ["ab" * 16, "ab" * 16, None]
    assert seen[0] != seen[1]


async def test_the_result_s_own_text_and_metadata_go_first(stage: Stage) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        yield TextChunk("draft")
        yield Result("final", {"tokens": 3})

    stage.provider.script = script
    stage.queue.give(grant())
    assert await stage.outcome() == Completed("t1", "token", "final", {"tokens": 3}, ())


async def test_artifacts_are_stored_before_the_task_is_completed(stage: Stage) -> None:
    stage.provider.script = draw(*pictures(2))
    stage.artifacts.gate = asyncio.Event()
    stage.queue.give(grant())
    await until(lambda: stage.artifacts.at_once == 2)
    assert (stage.provider.running, stage.queue.settled) == (0, [])
    stage.artifacts.gate.set()
    outcome = await stage.outcome()
    assert outcome._replace(uploads=()) == Completed("t1", "token", None, {}, (stored_file(0), stored_file(1)))
    assert sorted(stage.artifacts.stored) == [("t1", 1, 0), ("t1", 1, 1)]


@pytest.mark.parametrize(
    ("error", "code", "message", "retryable"),
    [
        (ProviderError("overloaded", "too much", True), "overloaded", "too much", True),
        (ProviderError("refused", "not this", False), "refused", "not this", False),
        (ProviderError("long", "x" * 9000, False), "long", "x" * 2000, False),
        (RuntimeError("boom"), "provider_fault", "RuntimeError: boom", True),
        (TimeoutError("read timed out"), "provider_fault", "TimeoutError: read timed out", True),
        (RuntimeError("y" * 9000), "provider_fault", ("RuntimeError: " + "y" * 9000)[:2000], True),
    ],
)
async def test_what_a_provider_raises_fails_the_attempt(
    stage: Stage, error: Exception, code: str, message: str, retryable: bool
) -> None:
    stage.provider.script = fail_with(error)
    stage.queue.give(grant())
    assert await stage.outcome() == Failed("t1", "token", code, message, retryable)


async def test_a_provider_that_ends_without_a_result_has_failed(stage: Stage) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        yield TextChunk("half")

    stage.provider.script = script
    stage.queue.give(grant())
    outcome = await stage.outcome()
    assert isinstance(outcome, Failed)
    assert (outcome.error_code, outcome.retryable) == ("no_result", True)


async def test_metadata_that_no_json_can_hold_fails_its_task_alone(stage: Stage) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Result("done", {"made_by": lambda: None} if request.task_id == "t1" else {"seed": 7})

    stage.provider.script = script
    stage.queue.give(grant(1), grant(2))
    outcomes = {outcome.task_id: outcome for outcome in await stage.outcomes(2)}

    assert isinstance(outcomes["t1"], Failed)
    assert (outcomes["t1"].error_code, outcomes["t1"].retryable) == ("result_not_storable", False)
    assert outcomes["t2"] == Completed("t2", "token", "done", {"seed": 7}, ())


async def test_a_broken_provider_does_not_break_the_worker(stage: Stage) -> None:
    stage.provider.script = fail_with(RuntimeError("boom"))
    stage.queue.give(grant(1))
    await stage.outcomes(1)
    stage.provider.script = say("fine")
    stage.queue.give(grant(2))
    assert (await stage.outcomes(2))[1] == Completed("t2", "token", "fine", {}, ())


# ---- steps of chains


def step(number: int = 1, *outputs: Made, payload: str = '{"style": "bold"}') -> Grant:
    rows = [{**each._asdict(), "artifacts": [asdict(file) for file in each.artifacts]} for each in outputs]
    return grant(number)._replace(payload=payload, outputs=json.dumps(rows))


async def test_a_step_starts_from_what_its_parents_made(stage: Stage) -> None:
    stage.artifacts.files = {"key/0": b"zero", "key/1": b"one"}
    stage.queue.give(step(1, Made("a", "a night", {}, ()), Made("b", None, {}, (stored_file(0), stored_file(1)))))
    await stage.outcome()
    [asked] = stage.provider.requests
    assert asked.payload == {"style": "bold", "prompt": "a night"}
    assert [(each.data, each.width) for each in asked.inputs] == [(b"zero", 8), (b"one", 8)]


async def test_a_path_that_leads_nowhere_or_a_file_that_is_gone_fails_a_step_for_good(stage: Stage) -> None:
    lost = step(1, Made("a", None, {}, (stored_file(0),)))
    astray = step(2, Made("a", None, {}, ()), payload='{"prompt": {"$from": "a"}}')
    stage.queue.give(lost, astray)
    outcomes = {each.task_id: each for each in await stage.outcomes(2)}
    gone = "the input 000000000000 (image/png): the artifact is not there (any more)"
    said = f"{gone}; resume the dag, and what made it runs again"
    assert outcomes["t1"] == Failed("t1", "token", "input_gone", said, retryable=False)
    assert outcomes["t2"] == Failed("t2", "token", "input_unusable", "the step a has no text", retryable=False)
    assert not stage.provider.requests


async def test_an_object_store_that_does_not_give_a_file_is_worth_a_retry(stage: Stage) -> None:
    stage.artifacts.fails = True
    stage.queue.give(step(1, Made("a", None, {}, (stored_file(0),))))
    outcome = await stage.outcome()
    assert isinstance(outcome, Failed)
    assert (outcome.error_code, outcome.retryable) == ("artifacts_unavailable", True)


async def test_what_references_give_is_checked_before_the_provider_starts() -> None:
    async with Stage(read_payload=catalog.read_payload) as stage:
        payload = '{"maxWords": {"$from": "a", "path": "metadata.n"}}'
        stage.queue.give(step(1, Made("a", "x", {"n": 7}, ()), payload=payload))
        stage.queue.give(step(2, Made("a", "x", {"n": "7"}, ()), payload=payload))
        outcomes = {each.task_id: each for each in await stage.outcomes(2)}
        assert stage.provider.requests[0].payload["max_words"] == 7
        said = "the payload breaks a rule: /maxWords: Input should be a valid integer"
        assert outcomes["t2"] == Failed("t2", "token", "input_unusable", said, retryable=False)


# ---- timeouts


async def test_at_the_hard_timeout_the_provider_is_cancelled_and_the_task_fails_for_good(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(hard_timeout_s=0.02))
    outcome = await stage.outcome()
    assert isinstance(outcome, Failed)
    assert (outcome.error_code, outcome.retryable) == ("run_timeout", False)
    assert stage.provider.cancelled == ["t1"]


async def test_at_the_soft_timeout_the_provider_is_told_to_wind_down(stage: Stage) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        await context.wind_down.wait()
        yield Result("what I had")

    stage.provider.script = script
    stage.queue.give(grant(soft_timeout_s=0.01))
    assert await stage.outcome() == Completed("t1", "token", "what I had", {}, ())


# ---- slots


async def test_no_more_is_leased_than_there_are_free_slots(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.provider.script = wait_for(gate)
    stage.queue.give(*(grant(n) for n in range(7)))
    await until(lambda: stage.provider.running == 2)
    await asyncio.sleep(0.01)
    assert stage.provider.running == 2
    assert len(stage.queue.pending) == 5
    gate.set()
    await stage.outcomes(7)
    assert stage.provider.most_running == 2
    assert max(stage.queue.asked) == 2


async def test_a_worker_asks_for_what_is_free_while_the_rest_works(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1))
    await until(lambda: stage.queue.asked == [2, 1])


async def test_a_worker_goes_on_asking_while_the_queue_is_away(stage: Stage) -> None:
    stage.queue.lease_failures = 3
    stage.queue.give(grant())
    assert isinstance(await stage.outcome(), Completed)


@pytest.mark.parametrize(
    ("outcome", "took_s", "level"),
    [
        (Completed("t", "x", "text"), 0.01, logging.DEBUG),
        (Completed("t", "x", "text"), 0.2, logging.INFO),
        (Failed("t", "x", "boom", "", True), 0.01, logging.INFO),
        (HandedBack("t", "x"), 0.01, logging.INFO),
    ],
)
def test_an_attempt_that_was_short_and_went_well_is_told_to_those_only_who_debug(
    caplog: pytest.LogCaptureFixture, outcome: Completed | Failed | HandedBack, took_s: float, level: int
) -> None:
    caplog.set_level(logging.DEBUG, "flik.worker")
    work._note_end(outcome, took_s)
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["durationMs"]) == (level, round(took_s * 1000))


# ---- beats


async def test_beats_tell_what_is_held_and_how_far_it_is(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1), grant(2))
    await until(lambda: stage.provider.running == 2)
    await until(lambda: len(stage.queue.beats[-1].held) == 2 if stage.queue.beats else False)
    assert stage.queue.beats[-1] == Beat(W1, 2, [("t1", "token", 0.25), ("t2", "token", 0.25)])


def test_progress_is_told_within_a_quarter_of_a_heartbeat_and_nothing_is_told_oftener() -> None:
    assert virtual_time.run(_beats_of_a_task_that_gets_on()) == [(0.25, 0.2), (0.9, 0.6), (1.9, 0.6)]


async def _beats_of_a_task_that_gets_on() -> list[tuple[float, float]]:
    """Return when beats came and how far they told that the task was; it got on after 0.1, 0.2 and 0.9 s."""

    async def get_on(request: Request, context: Context) -> AsyncIterator[Output]:
        for pause_s, fraction in ((0.1, 0.1), (0.1, 0.2), (0.7, 0.6), (0.3, 0.6)):
            await asyncio.sleep(pause_s)
            yield Progress(fraction)
        await asyncio.Event().wait()

    time, beats = asyncio.get_running_loop().time, []
    began = time()
    async with Stage(heartbeat_s=1.0) as stage:
        stage.provider.script = get_on
        stage.queue.give(grant())
        while len(beats) < 3:
            await asyncio.sleep(0.001)
            beats += [(round(time() - began, 2), beat.held[0][2]) for beat in stage.queue.beats[len(beats) :]]
    return beats


async def test_beats_tell_of_the_breakers_that_ever_had_something_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_end, "PROVIDER", BreakerPolicy(failures=1, open_s=60.0, most_open_s=60.0))
    async with Stage() as stage:
        stage.worker._breakers = lambda: (Tally("artifacts", 0, 2, 7), Tally("nothing"))
        stage.provider.script = fail_with_first(ProviderUnavailable("no route"))
        stage.queue.give(grant(1))
        await stage.outcomes(1)
        seen = len(stage.queue.beats)
        await until(lambda: len(stage.queue.beats) > seen + 1)
        artifacts, provider = stage.queue.beats[-1].breakers
        assert artifacts == Tally("artifacts", 0, 2, 7)
        assert (provider.dependency, provider.state, provider.opened) == ("provider", 1, 1)


async def test_progress_never_goes_back_nor_beyond_one(stage: Stage) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        for fraction in (0.5, 0.2, 7.0):
            yield Progress(fraction)
            seen.append(stage.worker._runs["t1"].progress)
        yield Result()

    seen: list[float] = []
    stage.provider.script = script
    stage.queue.give(grant())
    await stage.outcome()
    assert seen == [0.5, 0.5, 1.0]


async def test_a_revoked_task_is_cancelled_and_nothing_is_reported(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1))
    await until(lambda: stage.provider.running == 1)
    stage.queue.lost = ["t1"]
    await until(lambda: stage.provider.cancelled == ["t1"])
    stage.queue.lost = []
    stage.provider.script = say("next")
    stage.queue.give(grant(2))
    assert await stage.outcomes(1) == [Completed("t2", "token", "next", {}, ())]


async def test_a_cancel_is_heard_between_beats() -> None:
    async with Stage(heartbeat_s=60.0) as stage:
        stage.queue.listen_failures = 1
        stage.provider.script = hang
        stage.queue.give(grant(1), grant(2))
        await until(lambda: stage.provider.running == 2)
        stage.queue.cancelled = [("t1", "token"), ("t2", "an older token")]
        stage.queue.changed.set()
        await until(lambda: stage.provider.cancelled == ["t1"])
        assert (stage.provider.running, stage.queue.settled) == (1, [])


async def test_a_task_granted_anew_is_not_stopped_by_the_answer_to_an_older_beat(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.provider.script = wait_for(gate)
    stage.queue.give(grant(1, "old"))
    await until(lambda: stage.provider.running == 1)
    stage.queue.beat_gate = asyncio.Event()
    before = len(stage.queue.beats)
    await until(lambda: len(stage.queue.beats) > before)
    stage.queue.give(grant(1, "new"))  # the lease had lapsed, and this worker was free
    await until(lambda: len(stage.provider.requests) == 2)
    stage.queue.revoked_at_gate = ["t1"]
    stage.queue.beat_gate.set()
    await until(lambda: len(stage.queue.beats) > before + 2)
    gate.set()
    assert await stage.outcomes(1) == [Completed("t1", "new", "late", {}, ())]


async def test_an_attempt_whose_task_is_granted_anew_to_the_same_worker_is_stopped(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1, "old"))
    await until(lambda: stage.provider.running == 1)
    stage.provider.script = say("again")
    stage.queue.give(grant(1, "new"))
    assert await stage.outcomes(1) == [Completed("t1", "new", "again", {}, ())]
    assert stage.provider.cancelled == ["t1"]


async def test_beats_go_on_while_the_queue_is_away(stage: Stage) -> None:
    stage.queue.beat_failures = 3
    await until(lambda: len(stage.queue.beats) > 4)


async def test_silent_s_tells_for_how_long_the_heartbeat_loop_stood_still(stage: Stage) -> None:
    stage.worker._beat_at -= 7.0
    assert stage.worker.silent_s >= 7.0
    await until(lambda: len(stage.queue.beats) > 1)
    assert stage.worker.silent_s < 5.0


# ---- settling


async def test_an_outcome_is_offered_until_it_is_taken(stage: Stage) -> None:
    stage.queue.settle_failures = 5
    stage.queue.give(grant())
    assert await stage.outcomes(1) == [Completed("t1", "token", "hello", {}, ())]
    await until(lambda: not stage.worker._reporting)


async def test_a_refused_outcome_is_not_offered_again(stage: Stage) -> None:
    stage.queue.refuses = True
    stage.queue.give(grant())
    await stage.outcome()
    await until(lambda: not stage.worker._reporting)
    stage.queue.give(grant(2))
    await stage.outcomes(2)
    assert [outcome.task_id for outcome in stage.queue.settled] == ["t1", "t2"]


async def test_the_lease_is_kept_until_the_outcome_is_taken(stage: Stage) -> None:
    stage.queue.settle_failures = 10**9
    stage.queue.give(grant())
    await until(lambda: stage.worker._reporting)
    before = len(stage.queue.beats)
    await until(lambda: len(stage.queue.beats) > before + 1)
    assert stage.queue.beats[-1].held == [("t1", "token", 1.0)]
    stage.queue.settle_failures = 0
    await stage.outcome()


# ---- draining


async def test_a_draining_worker_finishes_what_it_can_and_asks_for_nothing_more(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.provider.script = wait_for(gate)
    stage.queue.give(grant())
    await until(lambda: stage.provider.running == 1)
    draining = asyncio.create_task(stage.worker.drain(5.0))
    await asyncio.sleep(0)
    gate.set()
    await draining
    assert stage.queue.settled == [Completed("t1", "token", "late", {}, ())]
    assert stage.run is not None
    await asyncio.wait_for(stage.run, 2.0)


async def test_a_draining_worker_hands_back_what_takes_too_long(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1), grant(2))
    await until(lambda: stage.provider.running == 2)
    await stage.worker.drain(0.01)
    assert stage.queue.settled == [HandedBack("t1", "token"), HandedBack("t2", "token")]
    assert sorted(stage.provider.cancelled) == ["t1", "t2"]


async def test_what_was_granted_a_moment_before_the_drain_is_handed_back(stage: Stage) -> None:
    stage.provider.script = hang
    stage.worker._start_all([grant()], Call(0.0))  # its first step is still to come
    await stage.worker.drain(0.0)
    assert stage.queue.settled == [HandedBack("t1", "token")]


async def test_a_poll_that_brings_work_after_the_drain_began_hands_it_back(stage: Stage) -> None:
    stage.provider.script = hang
    stage.queue.give(grant(1))
    await until(lambda: stage.queue.asked == [2, 1])  # one runs, a poll is open
    draining = asyncio.create_task(stage.worker.drain(0.05))
    await asyncio.sleep(0.01)
    stage.queue.give(grant(2))
    await draining
    assert set(stage.queue.settled) == {HandedBack("t1", "token"), HandedBack("t2", "token")}


async def test_a_queue_that_drains_stops_the_worker_s_asking(stage: Stage) -> None:
    stage.queue.draining = True
    assert stage.run is not None
    await asyncio.wait_for(stage.run, 2.0)
    asked = len(stage.queue.asked)
    stage.queue.give(grant())
    await asyncio.sleep(0.01)
    assert len(stage.queue.asked) == asked


async def test_draining_waits_until_postgresql_took_the_outcomes(stage: Stage) -> None:
    stage.queue.settle_failures = 10**9
    stage.queue.give(grant())
    await until(lambda: stage.worker._reporting)
    draining = asyncio.create_task(stage.worker.drain(5.0))
    await asyncio.sleep(0.03)
    assert not draining.done()
    stage.queue.settle_failures = 0
    await draining
    assert stage.queue.settled == [Completed("t1", "token", "hello", {}, ())]


# ---- a back end that is away


@pytest.fixture
async def cautious(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A worker with three slots that asks again a tenth of a second after it found the back end away."""
    monkeypatch.setattr(back_end, "PROVIDER", BreakerPolicy(failures=1, open_s=0.1, most_open_s=0.1))
    async with Stage(slots=3) as stage:
        yield stage


async def test_what_finds_the_back_end_away_is_handed_back_and_then_one_task_is_asked_for(cautious: Stage) -> None:
    cautious.provider.script = fail_with_first(ProviderUnavailable("no route"))
    cautious.queue.give(grant(1), grant(2), grant(3))
    assert set(await cautious.outcomes(3)) == {HandedBack(f"t{n}", "token") for n in (1, 2, 3)}
    await until(lambda: len(cautious.queue.asked) == 2)
    assert cautious.queue.asked == [3, 1]


async def test_probe_that_gets_through_opens_all_slots_again(cautious: Stage) -> None:
    gate = asyncio.Event()

    async def progress_and_wait(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Progress(0.1)
        await gate.wait()
        yield Result("fine")

    cautious.provider.script = fail_with_first(ProviderUnavailable("no route"))
    cautious.queue.give(grant(1), grant(2), grant(3))
    await cautious.outcomes(3)
    cautious.provider.script = progress_and_wait
    cautious.queue.give(*(grant(n) for n in range(4, 10)))
    await until(lambda: cautious.provider.running == 3)
    gate.set()
    outcomes = await cautious.outcomes(9)
    assert [type(outcome) for outcome in outcomes[3:]] == [Completed] * 6


async def test_while_the_back_end_stays_away_one_task_at_a_time_pays_nothing_for_it(cautious: Stage) -> None:
    cautious.provider.script = fail_with_first(ProviderUnavailable("no route"))
    cautious.queue.give(*(grant(n) for n in range(6)))
    assert {type(outcome) for outcome in await cautious.outcomes(6)} == {HandedBack}
    assert cautious.queue.asked[:4] == [3, 1, 1, 1]


async def test_what_a_poll_brings_while_the_back_end_is_away_is_handed_back_untried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(back_end, "PROVIDER", BreakerPolicy(failures=1, open_s=60.0, most_open_s=60.0))
    gate = asyncio.Event()

    async def wait_and_fail(request: Request, context: Context) -> AsyncIterator[Output]:
        await gate.wait()
        raise ProviderUnavailable("no route")
        yield Result()

    async with Stage() as stage:
        stage.provider.script = wait_and_fail
        stage.queue.give(grant(1))
        await until(lambda: stage.queue.asked == [2, 1])  # one runs, a poll is open
        gate.set()
        await stage.outcomes(1)
        stage.queue.give(grant(2))
        assert await stage.outcomes(2) == [HandedBack("t1", "token"), HandedBack("t2", "token")]
        assert [request.task_id for request in stage.provider.requests] == ["t1"]


async def test_probe_for_which_there_is_no_task_is_asked_for_again(cautious: Stage) -> None:
    cautious.provider.script = fail_with_first(ProviderUnavailable("no route"))
    cautious.queue.give(grant(1), grant(2), grant(3))
    await until(lambda: cautious.queue.asked)
    cautious.queue.empty_replies, cautious.queue.lease_failures = 2, 2
    await cautious.outcomes(3)
    cautious.provider.script = say("fine")
    cautious.queue.give(grant(4))
    assert (await cautious.outcomes(4))[3] == Completed("t4", "token", "fine", {}, ())
    assert cautious.queue.asked[:6] == [3, 1, 1, 1, 1, 1]


async def test_probe_that_is_taken_away_before_it_began_makes_room_for_the_next(cautious: Stage) -> None:
    cautious.provider.script = fail_with_first(ProviderUnavailable("no route"))
    cautious.queue.give(grant(1))
    await cautious.outcomes(1)
    probe = await probe_of(cautious)
    cautious.worker._start_all([grant(2)], probe)
    cautious.worker._revoke("t2")
    await until(lambda: not cautious.worker._runs)
    assert (await probe_of(cautious)) is not probe


async def probe_of(stage: Stage) -> Call:
    """Take the probe out of the hands of the worker's own loop, which is stopped for it."""
    assert stage.run is not None
    stage.run.cancel()
    answers: list[Any] = []

    def is_probe() -> bool:
        answers.append(stage.worker._back_end.ask())
        return isinstance(answers[-1], Call)

    await until(is_probe)
    return cast(Call, answers[-1])


async def test_worker_that_waits_for_its_back_end_can_be_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(back_end, "PROVIDER", BreakerPolicy(failures=1, open_s=60.0, most_open_s=60.0))
    async with Stage() as stage:
        stage.provider.script = fail_with_first(ProviderUnavailable("no route"))
        stage.queue.give(grant(1), grant(2))
        await stage.outcomes(2)
        await stage.worker.drain(1.0)
        assert stage.run is not None
        await asyncio.wait_for(stage.run, 2.0)
