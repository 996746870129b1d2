"""Films of what a generation starts from: each input is a shot, in turn, and takes an equal share of the time.

A picture is looked at by a camera that slowly comes nearer; the first frame is the picture. A film is shown from its
beginning at its own speed; where its share is longer, its last frame stands. What the prompt adds to any place, such
as birds, snow or rain, fades in over all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, pi, sin

from PIL import Image, ImageOps

from flik.providers.base import Input
from flik.providers.simulated import extras, footage, sources
from flik.providers.simulated.canvas import Canvas
from flik.providers.simulated.plan import Plan

ZOOM = 1.2  # how much nearer the camera comes in a shot
FADE_S = 1.0
Size = tuple[int, int]


def frames(inputs: Sequence[Input], plan: Plan, size: Size, fps: int, count: int) -> Iterator[Image.Image]:
    """Yield `count` frames, RGB.

    Raises:
        InputError: an input cannot be decoded.
    """
    canvas = Canvas(*size, count / fps)
    layers = extras.added(plan, canvas) if plan.prompt else []
    for index, frame in enumerate(_cut(inputs, plan, size, fps, count)):
        at_s = index / fps
        painted = frame.copy()
        for layer in layers:
            layer.paint(painted, at_s)
        yield Image.blend(frame, painted, min(1.0, at_s / FADE_S))


def _cut(inputs: Sequence[Input], plan: Plan, size: Size, fps: int, count: int) -> Iterator[Image.Image]:
    """Yield the frames of the shots, one after another; more inputs than frames leave some out."""
    shares = [count * (index + 1) // len(inputs) - count * index // len(inputs) for index in range(len(inputs))]
    shown = [(each, share) for each, share in zip(inputs, shares, strict=True) if share]
    pictures = sources.pictures_of([each for each, _ in shown if sources.type_of(each) != sources.FILM])
    for index, (each, share) in enumerate(shown):
        if sources.type_of(each) == sources.FILM:
            yield from _shown(each, size, fps, share)
        else:
            angle = float(plan.chance(f"camera {index}").uniform(0, 2 * pi))
            yield from _neared(next(pictures), size, angle, share)


def _neared(picture: Image.Image, size: Size, angle: float, count: int) -> Iterator[Image.Image]:
    """Yield a picture as a camera sees it that comes nearer to a point off its middle."""
    wide, high = round(size[0] * ZOOM), round(size[1] * ZOOM)
    seen = ImageOps.fit(picture, (wide, high), Image.Resampling.LANCZOS)
    for index in range(count):
        nearer = 1 - (1 - 1 / ZOOM) * index / max(1, count - 1)
        left = (wide - wide * nearer) / 2 * (1 + cos(angle) / 2)
        top = (high - high * nearer) / 2 * (1 + sin(angle) / 2)
        box = (left, top, left + wide * nearer, top + high * nearer)
        yield seen.resize(size, Image.Resampling.BICUBIC, box)


def _shown(film: Input, size: Size, fps: int, count: int) -> Iterator[Image.Image]:
    """Yield a film at another size and rate."""
    rate = footage.facts_of(film).rate
    shown = 0
    for index, frame in enumerate(footage.frames_of(film)):
        until = min(count, -(-(index + 1) * fps // rate))  # the frames that are due before the next one of the film
        if shown < until:
            image = ImageOps.fit(frame.to_image(), size, Image.Resampling.LANCZOS)
            yield from (image for _ in range(until - shown))
            shown = until
        if shown == count:
            return
    yield from (image for _ in range(count - shown))
