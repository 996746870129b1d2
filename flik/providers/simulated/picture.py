"""Pictures: a scene painted once, finished and encoded as PNG, JPEG or WebP.

The bytes depend on prompt, style, seed, size and format alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from flik.providers.simulated import plan as planning
from flik.providers.simulated import scene
from flik.providers.simulated.canvas import Canvas
from flik.providers.simulated.finish import finish

CONTENT_TYPES: Mapping[str, str] = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "png": {"format": "PNG", "compress_level": 4},
    "jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    "webp": {"format": "WEBP", "quality": 88, "method": 2},
}


def draw(plan: planning.Plan, width: int, height: int) -> Image.Image:
    """Return the picture of a plan, RGB."""
    canvas = Canvas(width, height)
    return finish(plan, canvas, still=True).apply(scene.paint(scene.compose(plan, canvas), canvas, 0.0))


def encode(image: Image.Image, output_format: str) -> bytes:
    """Return the image as a file of the format: png, jpg or webp."""
    buffer = io.BytesIO()
    image.save(buffer, **ENCODINGS[output_format])
    return buffer.getvalue()
