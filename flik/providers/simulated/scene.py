"""The composition: which layers a plan asks for and where they stand, one function a place.

Everything is measured from the horizon and in `canvas.unit`, so a thumbnail and a poster of
the same plan show the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from flik.providers.simulated import extras
from flik.providers.simulated.canvas import Canvas, Layer
from flik.providers.simulated.layers import city, figures, land, sky, space, trees, water, weather
from flik.providers.simulated.layers import silk as silken
from flik.providers.simulated.plan import Plan

Layers = list[Layer]


def _heaven(plan: Plan, canvas: Canvas, horizon: int) -> tuple[Layers, sky.Sun]:
    """Return everything above the horizon, and where the sun stands."""
    sun = sky.place_sun(plan, canvas, horizon)
    layers = [sky.backdrop(plan, canvas, horizon, sun)]
    if plan.light.dark or plan.light_name == "twilight":
        layers.append(sky.stars(plan, canvas, horizon))
    if "aurora" in plan.extras or plan.light_name == "polar":
        layers.append(sky.aurora(plan, canvas, horizon))
    if plan.light_name not in ("storm", "mist") and "aurora" not in plan.extras:
        layers.append(sky.disc(plan, canvas, sun))
    if plan.style != "minimal" and plan.light_name not in ("neon", "polar"):
        layers.append(sky.clouds(plan, canvas, horizon, sun))
    return layers, sun


@dataclass(frozen=True, slots=True)
class Range:
    """Several ridges, from `first` below the horizon to `last`, rising by `rise`: shares of the frame's height."""

    relief: land.Relief
    horizon: int
    first: float
    last: float
    rise: float
    count: int


def _ridges(plan: Plan, canvas: Canvas, span: Range, bottom: int, sun_x: float) -> Layers:
    layers: Layers = []
    for index in range(span.count):
        near = index / max(1, span.count - 1)
        top = span.horizon + canvas.height * (span.first + (span.last - span.first) * near)
        rise = canvas.height * span.rise * (1 - 0.55 * near)
        depth = 0.92 * (1 - near) ** 0.8
        layers.append(
            land.ridge(plan, canvas, land.Ridge(f"ridge {index}", span.relief, depth, top, rise, bottom, sun_x))
        )
    return layers


def _mountains(plan: Plan, canvas: Canvas) -> Layers:
    horizon = int(canvas.height * 0.62)
    layers, sun = _heaven(plan, canvas, horizon)
    count = 3 if plan.style == "minimal" else 5
    span = Range(land.ALPINE, horizon, first=0.0, last=0.3, rise=0.31, count=count)
    ridges = _ridges(plan, canvas, span, canvas.height, sun.x)
    if "volcano" in plan.extras:
        ridges.insert(2, figures.volcano(plan, canvas, canvas.width * 0.5, canvas.height * 0.86))
    layers += ridges
    layers.insert(-2, weather.mist(plan, canvas, "valley", middle=canvas.height * 0.74, thick=canvas.unit * 13))
    if plan.ground_name in ("rock", "pine", "snow", "autumn"):
        layers.append(
            trees.row(
                plan,
                canvas,
                "firs",
                depth=0.06,
                foot=int(canvas.height * 0.985),
                height=canvas.unit * 15,
                spacing=canvas.unit * 6,
            )
        )
    return layers


def _lake(plan: Plan, canvas: Canvas) -> Layers:
    shore = int(canvas.height * 0.6)
    layers, sun = _heaven(plan, canvas, int(canvas.height * 0.52))
    span = Range(land.ALPINE, int(canvas.height * 0.5), first=0.0, last=0.09, rise=0.29, count=3)
    layers += _ridges(plan, canvas, span, shore, sun.x)
    layers.append(
        trees.row(
            plan, canvas, "far bank", depth=0.45, foot=shore - 1, height=canvas.unit * 4.5, spacing=canvas.unit * 2.2
        )
    )
    layers.append(
        weather.mist(plan, canvas, "bank", middle=shore - canvas.unit * 2, thick=canvas.unit * 7, strength=0.6)
    )
    layers.append(water.water(plan, canvas, shore, sun, 0.25))
    return layers


def _sea(plan: Plan, canvas: Canvas) -> Layers:
    shore = int(canvas.height * 0.56)
    layers, sun = _heaven(plan, canvas, shore)
    rng = plan.chance("coast")
    island = land.ridge(
        plan, canvas, land.Ridge("island", land.HILLS, 0.72, shore + canvas.unit * 2, canvas.unit * 9, shore + 1, sun.x)
    )
    if plan.style != "minimal" and rng.random() < 0.75:
        layers.append(island)
    if "lighthouse" in plan.extras:
        layers.append(figures.lighthouse(plan, canvas, canvas.width * rng.uniform(0.15, 0.3), shore + 1))
    layers.append(water.water(plan, canvas, shore, sun, 0.9 if plan.light_name == "storm" else 0.6))
    if "boat" in plan.extras or rng.random() < 0.3:
        side = 0.28 if sun.x > canvas.width / 2 else 0.7
        layers.append(figures.boat(plan, canvas, canvas.width * side, shore + canvas.unit * 7))
    return layers


def _city(plan: Plan, canvas: Canvas) -> Layers:
    shore = int(canvas.height * 0.74)
    layers, sun = _heaven(plan, canvas, shore)
    for depth, tall in ((0.85, 0.5), (0.5, 0.44), (0.12, 0.34)):
        layers.append(city.towers(plan, canvas, depth=depth, foot=shore, tallest=canvas.height * tall))
    layers.append(water.water(plan, canvas, shore, sun, 0.4))
    return layers


def _forest(plan: Plan, canvas: Canvas) -> Layers:
    layers, _ = _heaven(plan, canvas, int(canvas.height * 0.7))
    for index in range(5):
        near = index / 4
        foot = int(canvas.height * (0.66 + 0.31 * near))
        height = canvas.height * (0.2 + 0.42 * near**1.4)
        layers.append(
            trees.row(
                plan,
                canvas,
                f"row {index}",
                depth=0.9 * (1 - near) ** 0.75,
                foot=foot,
                height=height,
                spacing=height * (0.2 + 0.22 * near),
            )
        )
        if index < 4:
            layers.append(
                weather.mist(
                    plan, canvas, f"mist {index}", middle=foot, thick=canvas.unit * 12, strength=0.6 * (1 - near * 0.6)
                )
            )
    return layers


def _desert(plan: Plan, canvas: Canvas) -> Layers:
    horizon = int(canvas.height * 0.52)
    layers, sun = _heaven(plan, canvas, horizon)
    layers.append(
        land.ridge(
            plan,
            canvas,
            land.Ridge("mesa", land.ALPINE, 0.8, horizon + canvas.unit * 3, canvas.unit * 9, canvas.height, sun.x),
        )
    )
    if "pyramids" in plan.extras:
        for share, size, haze in ((0.3, 34, 0.45), (0.62, 48, 0.25)):
            layers.append(
                figures.pyramid(
                    plan, canvas, canvas.width * share, horizon + canvas.unit * 6, size=canvas.unit * size, haze=haze
                )
            )
    span = Range(land.DUNES, horizon, first=0.06, last=0.4, rise=0.17, count=4)
    layers += _ridges(plan, canvas, span, canvas.height, sun.x)
    return layers


def _meadow(plan: Plan, canvas: Canvas) -> Layers:
    horizon = int(canvas.height * 0.54)
    layers, sun = _heaven(plan, canvas, horizon)
    layers.append(
        land.ridge(
            plan,
            canvas,
            land.Ridge("far", land.ALPINE, 0.85, horizon + canvas.unit * 2, canvas.unit * 14, canvas.height, sun.x),
        )
    )
    span = Range(land.HILLS, horizon, first=0.05, last=0.36, rise=0.12, count=4)
    hills = _ridges(plan, canvas, span, canvas.height, sun.x)
    grove = trees.row(
        plan,
        canvas,
        "grove",
        depth=0.5,
        foot=int(canvas.height * 0.68),
        height=canvas.unit * 8,
        spacing=canvas.unit * 7,
    )
    return [*layers, *hills[:1], grove, *hills[1:]]


def _space(plan: Plan, canvas: Canvas) -> Layers:
    rng = plan.chance("orbits")
    side = rng.choice([0.36, 0.62])
    layers = [space.nebula(plan, canvas), sky.stars(plan, canvas, canvas.height, 2.2)]
    moon = space.Orbit(
        canvas.width * (1 - side) + canvas.unit * 8,
        canvas.height * rng.uniform(0.2, 0.3),
        canvas.unit * rng.uniform(5, 8),
    )
    ringed = "rings" in plan.extras or bool(rng.random() < 0.5)
    radius = canvas.unit * (22 if ringed else rng.uniform(26, 34))
    large = space.Orbit(canvas.width * side, canvas.height * rng.uniform(0.52, 0.62), radius)
    layers.append(space.planet(plan, "moon", moon, ringed=False))
    layers.append(space.planet(plan, "planet", large, ringed=ringed))
    return layers


def _silk(plan: Plan, canvas: Canvas) -> Layers:
    return [silken.silk(plan, canvas)]


COMPOSERS: Mapping[str, Callable[[Plan, Canvas], Layers]] = {
    "mountains": _mountains,
    "lake": _lake,
    "sea": _sea,
    "city": _city,
    "forest": _forest,
    "desert": _desert,
    "meadow": _meadow,
    "space": _space,
    "silk": _silk,
}


def compose(plan: Plan, canvas: Canvas) -> Layers:
    """Return the layers of the picture, back to front."""
    return COMPOSERS[plan.place](plan, canvas) + extras.added(plan, canvas)


def paint(layers: Layers, canvas: Canvas, at_s: float) -> Image.Image:
    """Return the frame at `at_s` seconds."""
    frame = Image.new("RGB", (canvas.width, canvas.height))
    for layer in layers:
        layer.paint(frame, at_s)
    return frame
