"""Films: the layers of a scene, drawn once and moved, encoded as MP4 (H.264) that browsers play.

One encoder thread and no date in the file: the same plan gives the same bytes. H.264 in
yuv420p needs even sides, so odd ones are rounded down. The index comes first (faststart),
so playing can begin before all is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from flik.providers.simulated import scene
from flik.providers.simulated.canvas import Canvas
from flik.providers.simulated.finish import finish
from flik.providers.simulated.plan import Plan

Stopped = Callable[[], bool]  # true once nobody wants the film any more
ENCODER = {"preset": "veryfast", "crf": "21", "tune": "animation"}
MUXER = {"movflags": "+faststart", "fflags": "+bitexact"}


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


def encode(images: Iterator[Image.Image], size: tuple[int, int], fps: int, stopped: Stopped) -> bytes:
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
