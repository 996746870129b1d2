"""Trees in rows: firs, crowns and birches, the far rows pale in the mist."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, Drifting, Layer, margin, sprite
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix, ramp
from flik.providers.simulated.plan import Plan, land_colours

Point = tuple[float, float]


def _fir(rng: Rng, x: float, foot: float, height: float) -> list[list[Point]]:
    """Return the outline of a fir: tiers of drooping branches, each a little different."""
    tiers = max(6, min(30, int(height / 6)))
    half = height * rng.uniform(0.13, 0.2)
    right: list[Point] = []
    left: list[Point] = []
    for tier in range(1, tiers + 1):
        share = tier / tiers
        y = foot - height * (1 - share * 0.95)
        for side, points in ((1, right), (-1, left)):
            out = half * share**0.9 * rng.uniform(0.6, 1.15)
            points.append((x + side * out, y + height * rng.uniform(0.005, 0.03)))
            points.append((x + side * out * rng.uniform(0.3, 0.55), y - height * 0.008))
    trunk = max(0.6, height * 0.012)
    stem = [(x - trunk, foot - height * 0.1), (x + trunk, foot - height * 0.1), (x + trunk, foot), (x - trunk, foot)]
    return [[(x, foot - height), *right, *reversed(left)], stem]


def _crown(rng: Rng, x: float, foot: float, height: float) -> list[list[Point]]:
    """Return a broad-leaved tree: a trunk and a crown of many small clumps, the upper ones drawn last."""
    trunk = height * 0.028
    shapes: list[list[Point]] = [
        [
            (x - trunk * 0.6, foot - height * 0.6),
            (x + trunk * 0.6, foot - height * 0.6),
            (x + trunk, foot),
            (x - trunk, foot),
        ]
    ]
    count = int(np.clip(height * 0.9, 24, 320))
    angle, far = rng.uniform(0, 2 * np.pi, count), rng.random(count) ** 0.55
    across, up = x + np.cos(angle) * far * height * 0.28, foot - height * 0.64 + np.sin(angle) * far * height * 0.27
    radius = height * rng.uniform(0.5, 1.1, count) / (1.6 * count**0.5 + 2)
    turn = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    for at in np.argsort(-up):
        edge = radius[at] * rng.uniform(0.75, 1.25, len(turn))
        shapes.append([(across[at] + r * np.cos(t), up[at] + r * np.sin(t)) for r, t in zip(edge, turn, strict=True)])
    return shapes


def _painted(rng: Rng, shapes: list[list[Point]], width: int, height: int) -> tuple[Floats, Floats]:
    """Fill the shapes, each in a tone of its own, and return tone and coverage; drawn at twice the size."""
    image = Image.new("LA", (width * 2, height * 2), (200, 0))
    draw = ImageDraw.Draw(image)
    tones = rng.integers(150, 256, len(shapes))
    for shape, tone in zip(shapes, tones, strict=True):
        draw.polygon([(x * 2, y * 2) for x, y in shape], (int(tone), 255))
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    return small[..., 0], small[..., 1]


def row(plan: Plan, canvas: Canvas, name: str, *, depth: float, foot: int, height: float, spacing: float) -> Layer:
    """Draw one row of trees that stand on row `foot`, about `height` pixels high, `spacing` apart."""
    rng = plan.chance(name)
    speed = canvas.unit * 2.8 * (1 - depth) ** 1.5
    width = canvas.width + margin(canvas, speed)
    grow = _crown if plan.ground_name in ("autumn", "meadow") else _fir
    top = max(0, int(foot - height * 1.4))
    shapes: list[list[Point]] = []
    x = -spacing
    while x < width + spacing:
        shapes += grow(rng, x, foot - top + rng.uniform(0, height * 0.05), height * rng.uniform(0.55, 1.3))
        x += spacing * rng.uniform(0.45, 1.5)
    shade, mask = _painted(plan.chance(f"{name} leaves"), shapes, width, canvas.height - top)
    down = np.arange(canvas.height - top, dtype=np.float32)[:, None]
    ground = (
        foot - top - canvas.unit * (1 - depth) * 2.5 * noise.line(rng, width, 5 * width / canvas.width, octaves=4)[None]
    )
    floor = np.clip(down - ground + 0.5, 0, 1)
    colour = _coloured(plan, depth, canvas.height - top, foot - top, grow is _crown)
    soil = mix(*land_colours(plan, depth), 0.75 if plan.ground_name == "snow" else 0.3)
    leaves = colour[:, None] * (0.62 + 0.48 * shade[..., None] if grow is _crown else 1)
    tone = np.clip(np.where((floor > 0.5)[..., None], soil, leaves), 0, 1)
    return Drifting(sprite(tone.astype(np.float32), np.maximum(mask, floor), rng), top, speed)


def _coloured(plan: Plan, depth: float, rows: int, foot: int, leafy: bool) -> Floats:
    """Return the colour of each pixel row: light catches the tops, haze gathers at the feet."""
    shaded, lit = land_colours(plan, depth)
    haze = mix(plan.light.sky[-1], plan.light.sky[-3], 0.7 if plan.light.dark else 0.3)
    if leafy:
        crown = mix(lit, plan.ground[1], 0.55 * (1 - depth) * (1 - plan.light.shade * 0.6))
    else:
        crown = mix(shaded, lit, 0.75 if plan.ground_name == "snow" else 0.3)
    middle, foggy = mix(shaded, crown, 0.7 if leafy else 0.0), mix(shaded, haze, 0.1 + 0.45 * depth)
    colours = ramp([crown, middle, foggy], max(2, foot))
    return np.concatenate([colours, np.broadcast_to(colours[-1], (max(0, rows - len(colours)), 3))])[:rows]
