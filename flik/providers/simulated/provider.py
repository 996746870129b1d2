"""The default provider: real texts, pictures and films without weights or network.

It takes as long as a real model would (drawn from the seed, divided by `speed`) or as long
as the payload's script says, and fails when the script says so. A scripted failure with the
code `provider_unavailable` is a back end that is away: such an attempt does not count, so it is
the next call that finds the same number again, and the script says after how many it works. The same payload and seed
give the same bytes in every process; without a seed the task id is the seed, so a retry
makes the same artifact again. The inputs of a step count with its payload: a picture is drawn over them, a film
shows them, a text describes them; an action is done to each of them. A step without a prompt makes what its seed
decides.

Drawing runs in a thread beside the waiting, so an attempt takes the longer of the two.
Cancellation ends the waiting at once and the thread at its next frame. Once
`context.wind_down` is set nothing waits any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from flik.errors import ProviderError, ProviderUnavailable
from flik.providers.base import Artifact, Context, Input, Output, Progress, Request, Result, TextChunk, traced
from flik.providers.simulated import chance, text
from flik.providers.simulated import plan as planning

if TYPE_CHECKING:
    from flik.providers.simulated.film import Stopped

DURATIONS_S: Mapping[str, tuple[float, float]] = {"TEXT": (0.5, 2.0), "IMAGE": (2.0, 8.0), "VIDEO": (5.0, 20.0)}
DOING: Mapping[str, str] = {"TEXT": "writing", "IMAGE": "drawing", "VIDEO": "filming"}
STEPS = 5
AWAY = "provider_unavailable"
MAX_REMEMBERED = 10_000


class SimulatedProvider:
    """Makes artifacts on the CPU. `speed` 10 waits a tenth as long; drawing is as fast as it is."""

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._found_away: dict[tuple[str, int], int] = {}  # (task, attempt) -> calls; the latest only

    async def generate(self, request: Request, context: Context) -> AsyncIterator[Output]:
        """Yield progress, text as it is written, the artifacts and the result.

        Raises:
            ProviderUnavailable: the script says that the back end is away.
            InputError: an input cannot be decoded, or is too large.
            ProviderError: the script asks this attempt to fail, or the type is one this provider cannot make.
        """
        if request.task_type not in DURATIONS_S:
            raise ProviderError("unsupported_type", f"the simulated provider makes no {request.task_type}", False)
        self._be_away(request)
        seed = seed_of(request)
        failure = _failure(request)
        stop = threading.Event()
        work = None if failure else asyncio.create_task(asyncio.to_thread(make, request, seed, stop.is_set))
        try:
            async for output in _paced(request, context, work, duration_s(request, seed) / self._speed):
                yield output
            if failure or work is None:
                raise failure or ProviderError("unknown", "nothing was made", True)
            artifacts = await work
        finally:
            stop.set()
            if work and not work.done():
                work.cancel()
        for artifact in artifacts:
            yield artifact
        yield _result(request, context, seed, artifacts)

    def _be_away(self, request: Request) -> None:
        """Raise as often as the script says so for this attempt."""
        asked = _scripted(request)
        place = (request.task_id, request.attempt)
        found = self._found_away.pop(place, 0)
        if asked is None or asked["code"] != AWAY:
            return
        self._found_away[place] = found + 1
        if len(self._found_away) > MAX_REMEMBERED:
            del self._found_away[next(iter(self._found_away))]
        if found < asked["calls"]:
            raise ProviderUnavailable(asked["message"])


def seed_of(request: Request) -> int:
    """Return the seed asked for, or one that the task id decides."""
    asked = request.payload.get("seed")
    return chance.number("seed", request.task_id) if asked is None else int(asked)


def duration_s(request: Request, seed: int) -> float:
    """Return how long the attempt takes at speed 1: as scripted, or drawn from the seed."""
    scripted = _script(request).get("duration_s")
    if scripted is not None:
        return float(scripted)
    low, high = DURATIONS_S[request.task_type]
    return float(chance.stream(seed, request.task_type, "duration").uniform(low, high))


def _script(request: Request) -> Mapping[str, Any]:
    return request.payload.get("script") or {}


def _scripted(request: Request) -> Mapping[str, Any] | None:
    """Return what the script holds for this attempt, if any."""
    failures = _script(request).get("failures") or []
    found: Mapping[str, Any] | None = failures[request.attempt - 1] if request.attempt <= len(failures) else None
    return found


def _failure(request: Request) -> ProviderError | None:
    """Return the failure that this attempt runs into, if any."""
    asked = _scripted(request)
    if asked is None or asked["code"] == AWAY:
        return None
    return ProviderError(asked["code"], asked["message"], asked["retryable"])


async def _paced(
    request: Request,
    context: Context,
    work: asyncio.Task[list[Artifact]] | None,
    length_s: float,
) -> AsyncIterator[Output]:
    """Yield what can be told along the way, each at its moment; `work` None is an attempt that will fail."""
    script = _script(request)
    until = 1.0 if work else float(script.get("fail_at", 0.5))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for fraction, output in await _timeline(request, work, int(script.get("progress_steps", STEPS))):
        if fraction > until:
            break
        await _wait(context, began + fraction * length_s - loop.time())
        if fraction == 1.0 and work:  # the last word is only said when the work is really done
            await asyncio.shield(work)
        yield output
    await _wait(context, began + until * length_s - loop.time())


async def _timeline(
    request: Request, work: asyncio.Task[list[Artifact]] | None, steps: int
) -> list[tuple[float, Output]]:
    """Return the outputs of an attempt with the fraction of its time at which each is due."""
    doing = DOING[request.task_type]
    due: list[tuple[float, Output]] = [(step / steps, Progress(step / steps, doing)) for step in range(1, steps + 1)]
    if request.task_type == "TEXT" and work:
        pieces = _pieces(request, (await asyncio.shield(work))[0].data.decode())
        due += [((at + 1) / (len(pieces) + 1), TextChunk(piece)) for at, piece in enumerate(pieces)]
    return sorted(due, key=lambda row: row[0])


def _pieces(request: Request, written: str) -> list[str]:
    """Return a text as it is streamed: a chat message by message, any other some words at a time."""
    return written.splitlines(keepends=True) if request.payload.get("chat") else text.chunks(written)


async def _wait(context: Context, seconds: float) -> None:
    """Wait, but not a moment longer once the replica winds down."""
    if seconds > 0 and not context.wind_down.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await context.wind_down.wait()


def make(request: Request, seed: int, stopped: Stopped = lambda: False) -> list[Artifact]:
    """Make all artifacts of a request; takes CPU. Once `stopped` is true what comes back is incomplete.

    Raises:
        InputError: an input cannot be decoded, or is too large.
    """
    if request.task_type == "TEXT":
        return [_text(request.payload, seed, request.inputs)]
    one_of_each = _pictures if request.task_type == "IMAGE" else _films
    return list(takewhile(lambda _: not stopped(), one_of_each(request, seed, stopped)))


def _text(payload: Mapping[str, Any], seed: int, inputs: Sequence[Input]) -> Artifact:
    chat, prompt = payload.get("chat"), payload.get("prompt")
    if chat:
        written = text.messages(prompt or "", chat["messages"])
    elif inputs:
        from flik.providers.simulated.describe import describe  # noqa: PLC0415  # Pillow is for who has inputs

        seen = describe(inputs)
        written = text.write_after(seen.text, prompt or seen.subject, payload.get("style"), payload["max_words"], seed)
    else:
        written = text.write(prompt or "", payload.get("style"), payload["max_words"], seed)
    return Artifact(0, "text/plain; charset=utf-8", written.encode("utf-8", "replace"))


def _pictures(request: Request, seed: int, stopped: Stopped) -> Iterator[Artifact]:
    from flik.providers.simulated import picture  # noqa: PLC0415  # a replica makes one kind, and loads but its tools

    kind = request.payload["output_format"]
    images = picture.make(request.payload, _plans(request.payload, seed, stopped), request.inputs)
    for index, image in enumerate(images):
        yield Artifact(index, picture.CONTENT_TYPES[kind], picture.encode(image, kind), image.width, image.height)


def _films(request: Request, seed: int, stopped: Stopped) -> Iterator[Artifact]:
    from flik.providers.simulated import film  # noqa: PLC0415  # as for pictures

    films = film.make(request.payload, _plans(request.payload, seed, stopped), request.inputs, stopped)
    for index, made in enumerate(films):
        yield Artifact(index, "video/mp4", made.data, made.width, made.height, made.duration_s)


def _plans(payload: Mapping[str, Any], seed: int, stopped: Stopped) -> Iterator[planning.Plan]:
    """Yield the plan of each output that is asked for, until nobody wants them any more."""
    for index in range(payload["num_outputs"]):
        if stopped():
            return
        sub_seed = seed if index == 0 else chance.number(seed, "output", index)
        yield planning.read(payload.get("prompt") or "", payload.get("style"), sub_seed)


def _result(request: Request, context: Context, seed: int, artifacts: list[Artifact]) -> Result:
    facts: dict[str, Any] = {"provider": "simulated", "version": context.version, "seed": seed}
    facts |= traced(request.inputs)
    if request.task_type != "TEXT":
        return Result(None, facts)
    written = artifacts[0].data.decode()
    return Result(written, {**facts, "words": text.words_in(written)})
