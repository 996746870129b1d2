"""The simulated provider: bytes that a seed decides, durations and failures that a script decides."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest

from flik import catalog
from flik.errors import ProviderError, ProviderUnavailable
from flik.providers.base import Artifact, Context, Output, Progress, Request, Result, TextChunk
from flik.providers.simulated import SimulatedProvider
from flik.providers.simulated import provider as provider_module
from flik.providers.simulated.provider import duration_s, make, seed_of

SMALL: Mapping[str, Mapping[str, Any]] = {
    "TEXT": {"prompt": "the durable queue", "maxWords": 60},
    "IMAGE": {"prompt": "a lake at dusk", "width": 64, "height": 64, "numOutputs": 2},
    "VIDEO": {"prompt": "a lake at dusk", "width": 65, "height": 64, "lengthS": 0.5, "fps": 8},
}


def request(task_type: str = "TEXT", task_id: str = "task-1", attempt: int = 1, **payload: Any) -> Request:
    return Request(task_id, task_type, catalog.read_payload(task_type, {**SMALL[task_type], **payload}), attempt)


async def outputs(asked: Request, speed: float = 1000.0, context: Context | None = None) -> list[Output]:
    context = context or Context("v1.0.0", "worker-1")
    return [output async for output in SimulatedProvider(speed).generate(asked, context)]


def kinds(found: list[Output], kind: type) -> list[Any]:
    return [output for output in found if isinstance(output, kind)]


@pytest.mark.parametrize("task_type", ["TEXT", "IMAGE", "VIDEO"])
async def test_progress_rises_to_one_and_the_result_ends_the_stream(task_type: str) -> None:
    found = await outputs(request(task_type))
    fractions = [progress.fraction for progress in kinds(found, Progress)]
    assert fractions == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert isinstance(found[-1], Result)
    assert len(kinds(found, Result)) == 1


async def test_a_text_is_streamed_in_pieces_kept_as_a_file_and_given_as_the_result() -> None:
    found = await outputs(request("TEXT"))
    [artifact] = kinds(found, Artifact)
    written = "".join(chunk.text for chunk in kinds(found, TextChunk))
    assert len(kinds(found, TextChunk)) > 3
    assert written == artifact.data.decode() == found[-1].text
    assert artifact.content_type == "text/plain; charset=utf-8"


async def test_a_chat_is_streamed_message_by_message() -> None:
    chat = {"feature_id": "support", "chat_id": "chat-1", "messages": 20}
    found = await outputs(request(prompt="feature support, chat chat-1", chat=chat))
    pieces = [chunk.text for chunk in kinds(found, TextChunk)]
    assert [piece.rstrip("\n") for piece in pieces] == [
        f"Message {number} from feature support, chat chat-1" for number in range(20)
    ]
    assert found[-1].text == "".join(pieces)  # type: ignore[union-attr]


async def test_each_picture_asked_for_is_another_one_and_the_first_does_not_depend_on_their_number() -> None:
    two = kinds(await outputs(request("IMAGE", seed=4)), Artifact)
    one = kinds(await outputs(request("IMAGE", seed=4, numOutputs=1)), Artifact)
    assert [artifact.index for artifact in two] == [0, 1]
    assert two[0].data == one[0].data != two[1].data
    assert (two[0].content_type, two[0].width, two[0].height) == ("image/png", 64, 64)


async def test_a_film_tells_its_real_size_and_length() -> None:
    [artifact] = kinds(await outputs(request("VIDEO")), Artifact)
    assert (artifact.content_type, artifact.width, artifact.height) == ("video/mp4", 64, 64)
    assert artifact.duration_s == 0.5


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_simulated_provider as t; from hashlib import sha256\n"
        "for kind in t.SMALL: print(sha256(t.make(t.request(kind), 7)[0].data).hexdigest())"
    )
    folder = __file__.rpartition("/")[0]
    there = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    ).stdout.split()
    assert there == [sha256(make(request(kind), 7)[0].data).hexdigest() for kind in SMALL]


async def test_without_a_seed_a_retry_makes_the_same_bytes_and_another_task_others() -> None:
    first = kinds(await outputs(request("IMAGE")), Artifact)
    retry = kinds(await outputs(request("IMAGE", attempt=2)), Artifact)
    other = kinds(await outputs(request("IMAGE", task_id="task-2")), Artifact)
    assert first == retry
    assert first[0].data != other[0].data


async def test_scripted_failures_come_in_their_order_and_then_the_task_succeeds() -> None:
    script = {"failures": [{"code": "oom", "message": "no memory"}, {"code": "banned", "retryable": False}]}
    with pytest.raises(ProviderError) as first:
        await outputs(request(script=script, attempt=1))
    with pytest.raises(ProviderError) as second:
        await outputs(request(script=script, attempt=2))
    assert (first.value.error_code, first.value.message, first.value.retryable) == ("oom", "no memory", True)
    assert (second.value.error_code, second.value.retryable) == ("banned", False)
    assert isinstance((await outputs(request(script=script, attempt=3)))[-1], Result)


async def test_scripted_back_end_is_away_for_so_many_calls_of_an_attempt_and_then_works() -> None:
    script = {"failures": [{"code": "provider_unavailable", "message": "no route", "calls": 2}]}
    provider, context = SimulatedProvider(1000), Context("v1", "w")
    for task_id in ("task-1", "task-2"):
        asked = request(task_id=task_id, script=script)
        for _ in range(2):
            with pytest.raises(ProviderUnavailable, match="no route"):
                await anext(provider.generate(asked, context))
        assert isinstance([output async for output in provider.generate(asked, context)][-1], Result)


async def test_calls_that_found_the_back_end_away_are_remembered_for_the_latest_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provider_module, "MAX_REMEMBERED", 3)
    provider, context = SimulatedProvider(1000), Context("v1", "w")
    for number in range(9):
        asked = request(task_id=f"task-{number}", script={"failures": [{"code": "provider_unavailable"}]})
        with pytest.raises(ProviderUnavailable):
            await anext(provider.generate(asked, context))
    assert [task_id for task_id, _ in provider._found_away] == ["task-6", "task-7", "task-8"]


@pytest.mark.parametrize(("fail_at", "steps"), [(0.0, 0), (0.5, 2), (0.75, 3), (1.0, 4)])
async def test_an_attempt_fails_as_far_on_as_the_script_says(fail_at: float, steps: int) -> None:
    seen = []
    script = {"failures": [{}], "failAt": fail_at, "progressSteps": 4}
    with pytest.raises(ProviderError):
        async for output in SimulatedProvider(1000).generate(request("VIDEO", script=script), Context("v1", "w")):
            seen.append(output)
    assert [type(output) for output in seen] == [Progress] * steps


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
async def test_the_script_says_how_many_progress_events_there_are(steps: int) -> None:
    found = kinds(await outputs(request(script={"progressSteps": steps})), Progress)
    assert len(found) == steps
    assert sorted(found, key=lambda progress: progress.fraction) == found


async def test_the_scripted_duration_is_kept_and_divided_by_the_speed() -> None:
    began = time.monotonic()
    await outputs(request(script={"durationS": 3.0}), speed=10)
    assert 0.3 <= time.monotonic() - began < 0.6


@pytest.mark.parametrize(("task_type", "low", "high"), [("TEXT", 0.5, 2), ("IMAGE", 2, 8), ("VIDEO", 5, 20)])
def test_unscripted_durations_are_those_of_real_models_and_the_seed_decides_them(
    task_type: str, low: float, high: float
) -> None:
    drawn = [duration_s(request(task_type), seed) for seed in range(50)]
    assert drawn == [duration_s(request(task_type), seed) for seed in range(50)]
    assert low <= min(drawn) < max(drawn) <= high
    assert max(drawn) - min(drawn) > (high - low) / 2


async def seconds_to_cancel(asked: Request, speed: float) -> float:
    """Start a generation, cancel it after its first output, and return how long the cancelling took."""
    started = asyncio.Event()

    async def consume() -> None:
        async for _ in SimulatedProvider(speed).generate(asked, Context("v1", "w")):
            started.set()

    running = asyncio.create_task(consume())
    await started.wait()
    began = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return time.monotonic() - began


async def test_cancelling_ends_the_waiting_at_once() -> None:
    waiting = request(script={"durationS": 6, "progressSteps": 100})
    assert await seconds_to_cancel(waiting, speed=1) < 0.2


async def test_cancelling_stops_a_film_that_is_being_made() -> None:
    assert await seconds_to_cancel(request("VIDEO", width=640, height=360, lengthS=30, fps=60), speed=1e6) < 0.2
    began = time.monotonic()
    await asyncio.get_running_loop().shutdown_default_executor()  # returns when the encoder's thread has ended
    assert time.monotonic() - began < 2


async def test_winding_down_ends_the_waiting_but_not_the_work() -> None:
    context = Context("v1", "w")
    began = time.monotonic()
    asyncio.get_running_loop().call_later(0.05, context.wind_down.set)  # in the middle of the first wait
    found = await outputs(request(script={"durationS": 50}), speed=1, context=context)
    assert isinstance(found[-1], Result)
    assert len(kinds(found, Progress)) == 5
    assert time.monotonic() - began < 2


async def test_the_result_tells_provider_version_and_seed() -> None:
    asked = request("TEXT")
    result = (await outputs(asked))[-1]
    assert result.metadata["provider"] == "simulated"
    assert result.metadata["version"] == "v1.0.0"
    assert result.metadata["seed"] == seed_of(asked)
    assert seed_of(request("TEXT", seed=12)) == 12
    assert seed_of(request("TEXT", seed=0)) == 0


async def test_a_type_it_cannot_make_is_refused_for_good() -> None:
    with pytest.raises(ProviderError) as refused:
        await outputs(Request("task-1", "MUSIC", {"prompt": "x"}))
    assert not refused.value.retryable
