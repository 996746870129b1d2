"""Pictures: a scene painted once, over the inputs if there are any, finished and encoded as PNG, JPEG or WebP.

The bytes depend on prompt, style, seed, size, format, action and inputs alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, sqrt
from typing import Any

from PIL import Image, ImageOps

from flik.providers.base import Input
from flik.providers.simulated import actions, scene, sources
from flik.providers.simulated import plan as planning
from flik.providers.simulated.canvas import Canvas
from flik.providers.simulated.finish import finish

CONTENT_TYPES: Mapping[str, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 4},
    "jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 88, "method": 2},
}
PAINT = 0.45  # how much of a picture that starts from another is new


def make(payload: Mapping[str, Any], plans: Iterator[planning.Plan], inputs: Sequence[Input]) -> Iterator[Image.Image]:
    """Yield the pictures that are asked for, RGB: with an action each of the inputs, acted on, else one for each plan.

    Raises:
        InputError: an input cannot be decoded.
    """
    action = payload.get("action")
    if action and inputs:
        yield from (actions.act(action, image) for image in sources.pictures_of(inputs))
        return
    width, height = payload["width"], payload["height"]
    under = collage(inputs, width, height) if inputs else None
    for plan in plans:
        yield actions.act(action, draw(plan, width, height, under))


def collage(inputs: Sequence[Input], width: int, height: int) -> Image.Image:
    """Return all inputs in one picture, in rows of nearly as many; one input fills it. Raises as `make`."""
    sheet = Image.new("RGB", (width, height))
    images = sources.pictures_of(inputs)
    rows = ceil(len(inputs) / ceil(sqrt(len(inputs))))
    for top, bottom, columns in zip(*_edges(height, rows), _shares(len(inputs), rows), strict=True):
        for left, right in zip(*_edges(width, columns), strict=True):
            image, size = next(images), (right - left, bottom - top)
            if all(size):
                sheet.paste(ImageOps.fit(image, size, Image.Resampling.LANCZOS), (left, top))
    return sheet


def _edges(length: int, parts: int) -> tuple[list[int], list[int]]:
    """Return where each of so many nearly equal parts begins, and where it ends."""
    edges = [length * index // parts for index in range(parts + 1)]
    return edges[:-1], edges[1:]


def _shares(total: int, parts: int) -> list[int]:
    return [end - begin for begin, end in zip(*_edges(total, parts), strict=True)]


def draw(plan: planning.Plan, width: int, height: int, under: Image.Image | None = None) -> Image.Image:
    """Return the picture of a plan, RGB, painted over the picture `under`, which shows through."""
    canvas = Canvas(width, height)
    scenery = scene.paint(scene.compose(plan, canvas), canvas, 0.0)
    painted = Image.blend(under, scenery, PAINT) if under else scenery
    return finish(plan, canvas, still=True).apply(painted)


def encode(image: Image.Image, output_format: str) -> bytes:
    """Return the image as a file of the format: png, jpg or webp."""
    buffer = io.BytesIO()
    image.save(buffer, **ENCODINGS[output_format])
    return buffer.getvalue()
