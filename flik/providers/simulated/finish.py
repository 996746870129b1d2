"""The last touch, by style: grain and vignette, paper, brush strokes, large pixels, black and white.

A finish is a veil that is multiplied into the frame and a retouch of the frame. A film gets
the same finish on every frame, without what would flicker or cost too much: its `still` is
False.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, to_bytes
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats
from flik.providers.simulated.plan import Plan

Retouch = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class Finish:
    """What is done to a frame after it was painted."""

    retouch: Retouch
    veil: Image.Image | None

    def apply(self, frame: Image.Image) -> Image.Image:
        """Return the finished frame."""
        touched = self.retouch(frame)
        return ImageChops.multiply(touched, self.veil) if self.veil else touched


def _vignette(canvas: Canvas, strength: float) -> Floats:
    down = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None]
    shade: Floats = 1 - strength * np.clip((across**2 + down**2) * 0.62 - 0.12, 0, 1) ** 1.3
    return shade


def _grained(frame: Image.Image, rng: Rng, strength: float) -> Image.Image:
    grain = rng.normal(0, strength * 255, (frame.height, frame.width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(frame, np.float32) + grain, 0, 255).astype(np.uint8))


def _photo(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    rng = plan.chance("grain")

    def retouch(frame: Image.Image) -> Image.Image:
        if not still:
            return frame
        glow = frame.filter(ImageFilter.GaussianBlur(canvas.unit * 2.2))
        bright = glow.point([int(max(0, value - 150) * 0.32) for value in range(256)] * 3)
        return _grained(ImageChops.screen(frame, bright), rng, 0.006)

    return Finish(retouch, _veil(_vignette(canvas, 0.26)))


def _veil(shade: Floats) -> Image.Image:
    return Image.fromarray(to_bytes(np.repeat(np.clip(shade, 0, 1)[..., None], 3, -1)))


def _watercolor(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    rng = plan.chance("paper")
    fine = 1.2 * canvas.unit
    threads = (canvas.width / fine, canvas.height / fine)
    fibres = noise.field(rng, canvas.width, canvas.height, threads, octaves=2)
    wash = noise.field(rng, canvas.width, canvas.height, (5, 5), octaves=5, gain=0.55)
    paper = 0.9 + 0.1 * fibres

    def retouch(frame: Image.Image) -> Image.Image:
        size = max(3, int(canvas.unit * (1.2 if still else 0.6)) | 1)
        soft = frame.filter(ImageFilter.MedianFilter(min(size, 9))) if still else frame
        pale = np.asarray(ImageEnhance.Color(soft).enhance(1.2), np.float32)
        pale = 255 - (255 - pale) * (0.82 + 0.34 * wash[..., None])
        edges = np.asarray(
            soft.convert("L").filter(ImageFilter.FIND_EDGES).filter(ImageFilter.GaussianBlur(1)), np.float32
        )
        painted = pale - np.clip(edges[..., None] * 0.5, 0, 45)
        return _bordered(Image.fromarray(np.clip(painted, 0, 255).astype(np.uint8)), wash, canvas)

    return Finish(retouch, _veil(paper))


def _bordered(frame: Image.Image, wash: Floats, canvas: Canvas) -> Image.Image:
    """Leave the rim of the paper bare, with a ragged edge of dried paint."""
    down = np.minimum(np.arange(canvas.height), np.arange(canvas.height)[::-1])[:, None].astype(np.float32)
    across = np.minimum(np.arange(canvas.width), np.arange(canvas.width)[::-1])[None].astype(np.float32)
    inside = np.minimum(down, across) / canvas.unit - 2.2 - wash * 3.2
    mask = np.clip(inside * 2 + 0.5, 0, 1)[..., None]
    ring = 1 - 0.22 * np.exp(-np.abs(inside - 0.35) * 2.5)[..., None]
    sheet = np.array([252, 249, 241], np.float32)
    picture = np.asarray(frame, np.float32) * ring * mask + sheet * (1 - mask)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _pixel(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    size = max(2, round(canvas.unit * 0.85))
    grid = (max(8, canvas.width // size), max(8, canvas.height // size))
    chosen: list[Image.Image] = []

    def retouch(frame: Image.Image) -> Image.Image:
        small = ImageEnhance.Color(frame.resize(grid, Image.Resampling.BOX)).enhance(1.25)
        if not chosen:  # the first frame chooses the colours, or they would flicker
            chosen.append(small.quantize(28, Image.Quantize.MEDIANCUT))
        few = small.quantize(palette=chosen[0], dither=Image.Dither.NONE).convert("RGB")
        return few.resize(frame.size, Image.Resampling.NEAREST)

    return Finish(retouch, None)


def _noir(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    rng = plan.chance("grain")
    curve = [int(255 * (0.5 + 0.5 * np.tanh((value / 255 - 0.47) * 3.1) / np.tanh(1.6))) for value in range(256)]
    curve = [min(255, max(0, value)) for value in curve]

    def retouch(frame: Image.Image) -> Image.Image:
        grey = ImageOps.autocontrast(frame.convert("L"), cutoff=1) if still else frame.convert("L")
        toned = grey.point(curve).convert("RGB")
        return _grained(toned, rng, 0.04) if still else toned

    return Finish(retouch, _veil(_vignette(canvas, 0.75)))


def _minimal(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    def retouch(frame: Image.Image) -> Image.Image:
        if not still:
            return frame
        flat = frame.quantize(14, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
        return flat.filter(ImageFilter.ModeFilter(5)).filter(ImageFilter.SMOOTH)

    return Finish(retouch, None)


def _neon(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    def retouch(frame: Image.Image) -> Image.Image:
        vivid = ImageEnhance.Color(frame).enhance(1.35)
        if not still:
            return vivid
        glow = vivid.filter(ImageFilter.GaussianBlur(canvas.unit * 1.6))
        bright = glow.point([int(max(0, value - 70) * 0.6) for value in range(256)] * 3)
        return ImageChops.screen(vivid, bright)

    return Finish(retouch, _veil(_vignette(canvas, 0.5)))


def _oil(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    rng = plan.chance("brush")

    def retouch(frame: Image.Image) -> Image.Image:
        return _brushed(frame, canvas, rng) if still else frame

    return Finish(retouch, _veil(_vignette(canvas, 0.25)))


def _brushed(frame: Image.Image, canvas: Canvas, rng: Rng) -> Image.Image:
    """Paint the frame again with strokes along its edges, broad ones first."""
    source = np.asarray(ImageEnhance.Color(frame).enhance(1.3), np.float32)
    grey = np.asarray(frame.convert("L").filter(ImageFilter.GaussianBlur(canvas.unit * 1.5)), np.float32)
    slope_y, slope_x = np.gradient(grey)
    swirl = noise.field(rng, canvas.width, canvas.height, (4, 4), octaves=2)
    angle = np.where(np.hypot(slope_x, slope_y) > 0.35, np.arctan2(slope_y, slope_x) + np.pi / 2, swirl * 5)
    painted = frame.filter(ImageFilter.GaussianBlur(canvas.unit))
    draw = ImageDraw.Draw(painted)
    for length, width, count in ((6.0, 2.4, 2600), (3.6, 1.3, 5200), (2.2, 0.7, 7000)):
        xs, ys = rng.integers(0, canvas.width, count), rng.integers(0, canvas.height, count)
        tones = np.clip(source[ys, xs] + rng.normal(0, 11, (count, 1)), 0, 255).astype(int)
        dx = np.cos(angle[ys, xs]) * canvas.unit * length / 2
        dy = np.sin(angle[ys, xs]) * canvas.unit * length / 2
        for x, y, ox, oy, tone in zip(xs, ys, dx, dy, tones, strict=True):
            draw.line([(x - ox, y - oy), (x + ox, y + oy)], tuple(tone), max(1, round(canvas.unit * width)))
    return Image.blend(painted, painted.filter(ImageFilter.EMBOSS), 0.07).filter(ImageFilter.SMOOTH)


def _vintage(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    rng = plan.chance("grain")

    def retouch(frame: Image.Image) -> Image.Image:
        sepia = ImageOps.colorize(frame.convert("L"), (38, 24, 18), (255, 244, 218), (172, 128, 92))
        toned = Image.blend(frame, sepia, 0.68)
        return _grained(toned, rng, 0.025) if still else toned

    return Finish(retouch, _veil(_vignette(canvas, 0.6)))


FINISHES: dict[str, Callable[[Plan, Canvas, bool], Finish]] = {
    "photo": _photo,
    "watercolor": _watercolor,
    "pixel": _pixel,
    "noir": _noir,
    "minimal": _minimal,
    "neon": _neon,
    "oil": _oil,
    "vintage": _vintage,
}


def finish(plan: Plan, canvas: Canvas, still: bool) -> Finish:
    """Return the finish of the plan's style."""
    return FINISHES[plan.style](plan, canvas, still)
