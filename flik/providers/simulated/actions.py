"""What a step does to a finished picture, or to each frame of a film: double its size, or mark a corner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

MAX_SIDE = 4096
MARK = "FLIK"
MARK_SHARE = 0.07  # of the shorter side
MIN_MARK_PIXELS = 10


def size_of(action: str | None, width: int, height: int) -> tuple[int, int]:
    """Return the size that a picture has after an action; what is larger than 4096 a side already keeps its own."""
    if action != "upscale":
        return width, height
    factor = max(1.0, min(2.0, MAX_SIDE / max(width, height)))
    return round(width * factor), round(height * factor)


def act(action: str | None, image: Image.Image) -> Image.Image:
    """Return the picture after an action; None leaves it as it is."""
    return image if action is None else ACTIONS[action](image)


def upscaled(image: Image.Image) -> Image.Image:
    """Return the picture at twice its size, at most 4096 a side."""
    return image.resize(size_of("upscale", *image.size), Image.Resampling.LANCZOS)


def watermarked(image: Image.Image) -> Image.Image:
    """Return the picture with a mark in its lower right corner."""
    mark = _mark(max(MIN_MARK_PIXELS, round(min(image.size) * MARK_SHARE)))
    gap = mark.height // 3
    marked = image.copy()
    marked.paste(mark, (image.width - mark.width - gap, image.height - mark.height - gap), mark)
    return marked


@lru_cache(maxsize=8)
def _mark(pixels: int) -> Image.Image:
    """Return the mark in letters of a size: white on a dark plate, so that it is readable on any picture."""
    font = ImageFont.load_default(pixels)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(MARK))
    rim = max(2, pixels // 3)
    mark = Image.new("RGBA", (right - left + 2 * rim, bottom - top + 2 * rim), (0, 0, 0, 150))
    ImageDraw.Draw(mark).text((rim - left, rim - top), MARK, (255, 255, 255, 255), font)
    return mark


ACTIONS: Mapping[str, Callable[[Image.Image], Image.Image]] = {"upscale": upscaled, "watermark": watermarked}
