"""A city: rows of towers, the far ones in the haze, with windows lit as late as it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from flik.providers.simulated.canvas import Canvas, Drifting, Layer, margin, to_bytes
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix, ramp, rgb
from flik.providers.simulated.plan import Plan

Box = tuple[int, int, int, int]
Code = tuple[int, int, int, int]
LAMPS = ("ffd48a", "ffe7b8", "ffc266", "fff3d6")
NEON_LAMPS = ("ff4fd8", "39e6ff", "ffe45e", "9d6bff", "ff7a5c")
LIT = {"night": 0.5, "neon": 0.55, "twilight": 0.42, "sunset": 0.28, "storm": 0.3, "polar": 0.45, "fire": 0.3}


def _code(colour: Floats) -> Code:
    red, green, blue = (int(value) for value in to_bytes(colour[None, None])[0, 0])
    return red, green, blue, 255


def _outline(rng: Rng, left: int, width: int, top: int, foot: int) -> list[Box]:
    """Return the boxes of one tower: a body, perhaps a setback or two, perhaps a mast."""
    boxes, inset, height = [(left, top, left + width, foot)], 0, foot - top
    for _ in range(int(rng.integers(0, 3))):
        inset += max(1, int(width * rng.uniform(0.1, 0.2)))
        if width - 2 * inset < 3:
            break
        top -= int(height * rng.uniform(0.05, 0.14))
        boxes.append((left + inset, top, left + width - inset, foot))
    if rng.random() < 0.3:
        mast = max(1, width // 24)
        middle = left + width // 2
        boxes.append((middle - mast // 2, top - int(height * rng.uniform(0.08, 0.2)), middle + (mast - 1) // 2, foot))
    return boxes


@dataclass(frozen=True, slots=True)
class Facade:
    """How the walls and windows of one tower look. `pitch` is the grid of its windows in pixels."""

    wall: Code
    side: Code
    pane: Code
    lamps: tuple[Code, ...]
    pitch: float
    lit: float  # the share of windows with a lamp on
    sign: bool


def _windows(draw: ImageDraw.ImageDraw, rng: Rng, box: Box, facade: Facade) -> None:
    """Draw the windows of one box."""
    left, top, right, foot = box
    pitch = facade.pitch
    columns, rows = int((right - left - pitch * 0.4) / pitch), int((foot - top - pitch) / (pitch * 1.35))
    if columns < 1 or rows < 1:
        return
    on = rng.random((rows, columns)) < facade.lit * rng.uniform(0.45, 1.3)
    hue = rng.integers(0, len(facade.lamps), (rows, columns))
    start = left + ((right - left) - columns * pitch) / 2
    for row, column in np.ndindex(rows, columns):
        x, y = start + pitch * (column + 0.22), top + pitch * (0.7 + row * 1.35)
        fill = facade.lamps[hue[row, column]] if on[row, column] else facade.pane
        draw.rectangle((round(x), round(y), round(x + pitch * 0.5), round(y + pitch * 0.75)), fill)


def towers(plan: Plan, canvas: Canvas, *, depth: float, foot: int, tallest: float) -> Layer:
    """Draw one row of towers standing on row `foot`, up to `tallest` pixels high."""
    rng = plan.chance(f"towers {depth}")
    speed = canvas.unit * 2.4 * (1 - depth) ** 1.5
    width = canvas.width + margin(canvas, speed)
    haze = mix(plan.light.sky[-2], plan.light.sky[-1], 0.2 if plan.light.dark else 0.7)
    wall = mix(mix(rgb("39424f"), plan.light.sky[0], min(1, plan.light.shade + 0.1)), haze, depth * 0.85)
    image = Image.new("RGBA", (width, foot), (*_code(wall)[:3], 0))
    draw = ImageDraw.Draw(image)
    centre = width * rng.uniform(0.35, 0.65)
    x = -int(canvas.unit * 3)
    while x < width:
        wide = int(canvas.unit * rng.uniform(4.5, 10) * (1.15 - 0.5 * depth)) + 3
        downtown = np.exp(-(((x + wide / 2 - centre) / (canvas.width * 0.38)) ** 2))
        high = tallest * (0.25 + 0.75 * downtown * rng.uniform(0.35, 1.0) + 0.1 * rng.random())
        boxes = _outline(rng, x, wide, foot - int(high), foot)
        _tower(draw, rng, canvas, _facade(plan, canvas, rng, depth, wall), boxes)
        x += wide + int(rng.uniform(-0.1, 0.25) * wide)
    return Drifting(_hazed(image, haze, depth), 0, speed)


def _facade(plan: Plan, canvas: Canvas, rng: Rng, depth: float, wall: Floats) -> Facade:
    tone = np.clip(wall * rng.uniform(0.82, 1.14), 0, 1).astype(np.float32)
    coloured = plan.light_name == "neon" and bool(rng.random() < 0.6)
    return Facade(
        wall=_code(tone),
        side=_code(mix(tone, plan.light.sun, 0.12)),
        pane=_code(mix(tone, plan.light.sky[-2], 0.1 if plan.light.dark else 0.22)),
        lamps=tuple(_code(mix(rgb(name), tone, 0.15 + 0.55 * depth)) for name in (NEON_LAMPS if coloured else LAMPS)),
        pitch=max(3.0, canvas.unit * rng.uniform(0.95, 1.35) * (1.1 - 0.45 * depth)),
        lit=LIT.get(plan.light_name, 0.08),
        sign=coloured,
    )


def _tower(draw: ImageDraw.ImageDraw, rng: Rng, canvas: Canvas, facade: Facade, boxes: list[Box]) -> None:
    for box in reversed(boxes):
        draw.rectangle(box, facade.wall)
        side = max(1, int((box[2] - box[0]) * 0.16))
        draw.rectangle((box[0], box[1], box[0] + side, box[3]), facade.side)
    for box in boxes[:2]:
        _windows(draw, rng, box, facade)
    if facade.sign:
        _sign(draw, rng, boxes[0], canvas, facade)


def _sign(draw: ImageDraw.ImageDraw, rng: Rng, box: Box, canvas: Canvas, facade: Facade) -> None:
    left, top, right, foot = box
    wide = max(2, int(canvas.unit * 1.1))
    x = int(rng.uniform(left, max(left + 1, right - wide)))
    y = int(top + (foot - top) * rng.uniform(0.1, 0.3))
    end = y + int((foot - top) * rng.uniform(0.15, 0.35))
    draw.rectangle((x, y, x + wide, end), facade.lamps[int(rng.integers(len(facade.lamps)))])


def _hazed(image: Image.Image, haze: Floats, depth: float) -> Image.Image:
    """Let the haze gather between the feet of the towers."""
    share = ramp([np.zeros(3, np.float32), np.ones(3, np.float32)], image.height)[:, 0] ** 2 * (0.12 + 0.6 * depth)
    veil = np.broadcast_to((share * 255).astype(np.uint8)[:, None], (image.height, image.width))
    fog = Image.new("RGB", image.size, _code(haze)[:3])
    fogged = Image.composite(fog, image.convert("RGB"), Image.fromarray(np.ascontiguousarray(veil)))
    fogged.putalpha(image.getchannel("A"))
    return fogged
