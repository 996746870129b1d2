"""Films: the layers of a scene, drawn once and moved, or shots of the inputs, as MP4 (H.264) that browsers play.

One encoder thread, no date in the file and no short cut that depends on the CPU: the same frames
give the same bytes. H.264 in yuv420p needs even sides, so odd ones are rounded down. The index
comes first (faststart), so playing can begin before all is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from PIL import Image, ImageOps

from flik.catalog import MAX_FILM_PIXELS
from flik.providers.base import Input
from flik.providers.simulated import actions, footage, scene, shots, sources
from flik.providers.simulated.canvas import Canvas
from flik.providers.simulated.finish import finish
from flik.providers.simulated.plan import Plan

Stopped = Callable[[], bool]  # true once nobody wants the film any more
ENCODER = {
    "preset": "veryfast",
    "crf": "21",
    "tune": "animation",
    "x264-params": "cpu-independent=1",  # or frames that stand still differ now and then (measured 2026-11)
}
MUXER = {"movflags": "+faststart", "fflags": "+bitexact"}


class Film(NamedTuple):
    """A finished film; its size in pixels."""

    data: bytes
    width: int
    height: int
    duration_s: float


def make(
    payload: Mapping[str, Any], plans: Iterator[Plan], inputs: Sequence[Input], stopped: Stopped
) -> Iterator[Film]:
    """Yield the films that are asked for: one for each plan; if an action is all that is done to films, each of these.

    Raises:
        InputError: an input cannot be decoded.
    """
    action = payload.get("action")
    if action and inputs and all(sources.type_of(each) == sources.FILM for each in inputs):
        yield from (_acted_on(each, action, stopped) for each in inputs)
        return
    size = even(payload["width"]), even(payload["height"])
    fps, length_s = payload["fps"], payload["length_s"]
    for plan in plans:
        if inputs:
            images = shots.frames(inputs, plan, size, fps, frame_count(fps, length_s))
        else:
            images = frames(plan, *size, fps, length_s)
        yield _finished(images, size, Fraction(fps), action, stopped)


def _acted_on(each: Input, action: str, stopped: Stopped) -> Film:
    """Return a film with an action on each frame; it keeps its rate and length."""
    width, height, rate = footage.facts_of(each)
    return _finished(_bounded(each, actions.size_of(action, width, height)), (width, height), rate, action, stopped)


def _bounded(each: Input, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield the frames of a film while those of its successor, of a size, may be as many."""
    for count, frame in enumerate(footage.frames_of(each), 1):
        if count * size[0] * size[1] > MAX_FILM_PIXELS:
            raise sources.refusal(each, f"takes more than {MAX_FILM_PIXELS:,} pixels, all frames together")
        yield frame.to_image()


def _finished(
    images: Iterator[Image.Image], size: tuple[int, int], rate: Fraction, action: str | None, stopped: Stopped
) -> Film:
    """Return the film of these frames after an action."""
    width, height = map(even, actions.size_of(action, *size))
    count = 0

    def acted_on() -> Iterator[Image.Image]:
        nonlocal count
        for image in images:
            count += 1
            frame = actions.act(action, image)
            yield frame if frame.size == (width, height) else ImageOps.fit(frame, (width, height))

    data = encode(acted_on(), (width, height), rate, stopped)
    return Film(data, width, height, float(count / rate))


def even(pixels: int) -> int:
    """Return the side a film really has: the largest even number up to `pixels`, at least 2."""
    return max(2, pixels - pixels % 2)


def frame_count(fps: int, length_s: float) -> int:
    """Return how many frames a film of this length has, at least one."""
    return max(1, round(fps * length_s))


def frames(plan: Plan, width: int, height: int, fps: int, length_s: float) -> Iterator[Image.Image]:
    """Yield the frames of the film, RGB."""
    canvas = Canvas(even(width), even(height), length_s)
    layers, last_touch = scene.compose(plan, canvas), finish(plan, canvas, still=False)
    for index in range(frame_count(fps, length_s)):
        yield last_touch.apply(scene.paint(layers, canvas, index / fps))


def encode(images: Iterator[Image.Image], size: tuple[int, int], fps: int | Fraction, stopped: Stopped) -> bytes:
    """Return the frames as an MP4 file; if `stopped` turns true, an unfinished one that nobody wants."""
    with tempfile.TemporaryDirectory(prefix="flik-film-") as folder:
        path = Path(folder, "film.mp4")  # a real file: the muxer opens it a second time to move the index
        with av.open(str(path), "w", options=MUXER) as file:
            stream = file.add_stream("libx264", rate=Fraction(fps), options=ENCODER)
            stream.pix_fmt = "yuv420p"
            stream.width, stream.height = size
            stream.codec_context.thread_count = 1
            for image in images:
                if stopped():
                    break
                file.mux(stream.encode(av.VideoFrame.from_image(image)))
            file.mux(stream.encode())
        return path.read_bytes()
