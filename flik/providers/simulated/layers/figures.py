"""Small things that give a picture its scale: birds, a boat, a balloon, a cat, a lighthouse, pyramids.

Outlines are drawn at four times the size and shrunk, for smooth edges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from flik.providers.simulated.canvas import Canvas, Drifting, Layer
from flik.providers.simulated.colour import Floats, mix, rgb
from flik.providers.simulated.plan import Plan

FINER = 4
Code = tuple[int, int, int, int]
Draw = Callable[[ImageDraw.ImageDraw, float, Callable[[Floats], Code]], None]


def code(colour: Floats) -> Code:
    """Return a colour as Pillow wants it."""
    red, green, blue = (round(float(value) * 255) for value in colour)
    return red, green, blue, 255


def figure(
    canvas: Canvas, draw: Draw, *, size: float, x: float, foot: float, speed: float = 0.0, rise: float = 0.0
) -> Layer:
    """Place a drawing of `size` pixels square with the middle of its lower edge at (x, foot)."""
    side = max(6, int(size))
    image = Image.new("RGBA", (side * FINER, side * FINER), (0, 0, 0, 0))
    draw(ImageDraw.Draw(image), side * FINER / 100, code)
    small = image.resize((side, side), Image.Resampling.BOX)
    return Drifting(small, int(foot - side), speed, x - side / 2, rise)


def ink(plan: Plan) -> Floats:
    """Return the darkest tone of this light, for silhouettes."""
    return mix(plan.light.sky[0], rgb("050508"), 0.6)


def boat(plan: Plan, canvas: Canvas, x: float, foot: float) -> Layer:
    """A small boat under sail."""
    dark, cloth = ink(plan), mix(plan.light.sun, plan.light.sky[0], plan.light.shade * 0.55)

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        pen.polygon([(52 * u, 8 * u), (52 * u, 80 * u), (88 * u, 76 * u)], to(cloth))
        pen.polygon([(48 * u, 16 * u), (48 * u, 78 * u), (20 * u, 76 * u)], to(mix(cloth, dark, 0.25)))
        pen.rectangle([(49.3 * u, 4 * u), (50.7 * u, 86 * u)], to(dark))
        pen.polygon([(14 * u, 84 * u), (90 * u, 84 * u), (78 * u, 97 * u), (26 * u, 97 * u)], to(dark))

    return figure(canvas, draw, size=canvas.unit * 15, x=x, foot=foot, speed=-canvas.unit * 1.6)


def balloon(plan: Plan, canvas: Canvas, x: float, foot: float, *, size: float) -> Layer:
    """A striped hot-air balloon that rises slowly."""
    colours = [
        mix(rgb(name), plan.light.sky[0], plan.light.shade * 0.4) for name in ("e4572e", "f3c969", "f7efe0", "2e86ab")
    ]
    first = int(plan.chance(f"balloon {x:.0f}").integers(4))

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        turn = np.linspace(-1, 1, 60)
        for gore in range(7):
            share = 1 - gore / 7
            half = np.where(
                turn < 0.1, np.sqrt(np.clip(1 - turn**2, 0, 1)), np.cos(np.clip(turn - 0.1, 0, 1) * 1.25) ** 0.8
            )
            edge = [(50 + 36 * share * w, 40 + 38 * t) for t, w in zip(turn, half, strict=True)]
            mirror = [(100 - px, py) for px, py in reversed(edge)]
            tone = mix(colours[(first + gore) % 4], ink(plan), 0.22 * share)
            pen.polygon([(px * u, py * u) for px, py in [*edge, *mirror]], to(tone))
        for px, foot_x in ((40, 46), (60, 54)):
            pen.line([(px * u, 75 * u), (foot_x * u, 90 * u)], to(ink(plan)), max(1, int(0.8 * u)))
        pen.rectangle([(45 * u, 89 * u), (55 * u, 98 * u)], to(mix(rgb("7a4b28"), ink(plan), plan.light.shade * 0.6)))

    return figure(canvas, draw, size=size, x=x, foot=foot, speed=-canvas.unit * 0.7, rise=canvas.unit * 1.2)


def cat(plan: Plan, canvas: Canvas, x: float, foot: float) -> Layer:
    """A cat that sits with its back to us and watches the view."""
    fur = ink(plan)

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        pen.ellipse([(28 * u, 44 * u), (72 * u, 106 * u)], to(fur))
        pen.ellipse([(34 * u, 18 * u), (66 * u, 50 * u)], to(fur))
        pen.polygon([(35 * u, 30 * u), (36 * u, 8 * u), (49 * u, 20 * u)], to(fur))
        pen.polygon([(65 * u, 30 * u), (64 * u, 8 * u), (51 * u, 20 * u)], to(fur))
        tail = [(70, 98), (84, 97), (92, 88), (92, 76), (86, 70)]
        pen.line([(px * u, py * u) for px, py in tail], to(fur), max(1, int(6 * u)), joint="curve")
        pen.ellipse([(83 * u, 66.5 * u), (90 * u, 73.5 * u)], to(fur))

    return figure(canvas, draw, size=canvas.unit * 26, x=x, foot=foot)


def lighthouse(plan: Plan, canvas: Canvas, x: float, foot: float) -> Layer:
    """A lighthouse on its rock."""
    dark, white = ink(plan), mix(rgb("f4efe6"), plan.light.sky[0], plan.light.shade * 0.6)
    red = mix(rgb("c8402f"), plan.light.sky[0], plan.light.shade * 0.6)

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        pen.polygon(
            [(4 * u, 100 * u), (24 * u, 86 * u), (44 * u, 80 * u), (70 * u, 84 * u), (98 * u, 100 * u)], to(dark)
        )
        for band in range(5):
            y0, y1 = 24 + band * 12, 36 + band * 12
            w0, w1 = 6 + band * 0.9, 6.9 + band * 0.9
            pen.polygon(
                [((50 - w0) * u, y0 * u), ((50 + w0) * u, y0 * u), ((50 + w1) * u, y1 * u), ((50 - w1) * u, y1 * u)],
                to(white if band % 2 else red),
            )
        pen.rectangle([(42 * u, 22 * u), (58 * u, 24 * u)], to(dark))
        pen.rectangle([(45.5 * u, 12 * u), (54.5 * u, 22 * u)], to(rgb("fff2b0")))
        pen.polygon([(43 * u, 12 * u), (57 * u, 12 * u), (50 * u, 4 * u)], to(red))

    return figure(canvas, draw, size=canvas.unit * 32, x=x, foot=foot)


def pyramid(plan: Plan, canvas: Canvas, x: float, foot: float, *, size: float, haze: float) -> Layer:
    """A pyramid with a lit and a shaded face."""
    lit = mix(mix(plan.ground[1], plan.light.sky[0], plan.light.shade * 0.5), plan.light.sky[-1], haze)
    dim = mix(mix(plan.ground[0], plan.light.sky[0], plan.light.shade * 0.7), plan.light.sky[-1], haze)

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        pen.polygon([(56 * u, 40 * u), (0, 100 * u), (70 * u, 100 * u)], to(lit))
        pen.polygon([(56 * u, 40 * u), (70 * u, 100 * u), (100 * u, 100 * u)], to(dim))

    return figure(canvas, draw, size=size, x=x, foot=foot)


def _bird(u: float, x: float, y: float, span: float, lift: float) -> list[tuple[float, float]]:
    upper = [(-1.0, -lift), (-0.45, -lift * 0.75 - 0.1), (0.0, 0.05), (0.45, -lift * 0.75 - 0.1), (1.0, -lift)]
    lower = [(0.5, -lift * 0.6 + 0.05), (0.0, 0.22), (-0.5, -lift * 0.6 + 0.05)]
    return [((x + px * span) * u, (y + py * span) * u) for px, py in [*upper, *lower]]


def birds(plan: Plan, canvas: Canvas, x: float, foot: float, count: int) -> Layer:
    """A loose flock, far away."""
    rng = plan.chance("birds")
    places = [
        (
            float(rng.uniform(8, 92)),
            float(rng.uniform(20, 80)),
            float(rng.uniform(2.4, 5.2)),
            float(rng.uniform(0.2, 0.55)),
        )
        for _ in range(count)
    ]

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        for px, py, span, lift in places:
            pen.polygon(_bird(u, px, py, span, lift), to(ink(plan)))

    return figure(canvas, draw, size=canvas.unit * 34, x=x, foot=foot, speed=-canvas.unit * 5, rise=canvas.unit * 0.8)


def volcano(plan: Plan, canvas: Canvas, x: float, foot: float) -> Layer:
    """A cone that glows at its mouth, with lava on its flanks."""
    rock, fire = mix(plan.ground[0], ink(plan), 0.35), rgb("ff7a1f")
    rng = plan.chance("lava")
    flows = [_flow(start + float(rng.uniform(-1, 1)), rng.normal(0, 1.0, 9)) for start in (44.0, 48.5, 52.0, 56.0)]

    def draw(pen: ImageDraw.ImageDraw, u: float, to: Callable[[Floats], Code]) -> None:
        for step in range(18):  # the glow of the plume, faint to bright
            red, green, blue, _ = to(mix(fire, rgb("ffe08a"), step / 18))
            size = 21 - step
            pen.ellipse(
                [((50 - size) * u, (38 - size * 1.3) * u), ((50 + size) * u, (38 + size * 0.6) * u)],
                (red, green, blue, 8 + step * 11),
            )
        left = [(41 - 41 * s**1.7, 36 + 64 * s) for s in np.linspace(0, 1, 24)]
        right = [(100 - px, py) for px, py in reversed(left)]
        pen.polygon([(px * u, py * u) for px, py in [*left, *right]], to(rock))
        for flow in flows:
            for width, tone in ((2.4, "d13a10"), (1.3, "ff8c2a"), (0.5, "ffe08a")):
                pen.line([(px * u, py * u) for px, py in flow], to(rgb(tone)), max(1, int(width * u)), joint="curve")

    return figure(canvas, draw, size=canvas.unit * 70, x=x, foot=foot)


def _flow(start: float, turns: Floats) -> list[tuple[float, float]]:
    side = (start - 50) * 0.3
    return [(start + side * at + float(turns[:at].sum()), 36 + at * 4.6) for at in range(len(turns))]
