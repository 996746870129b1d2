"""What a prompt adds to any place: balloons, birds, a cat, weather."""

from __future__ import annotations

from flik.providers.simulated.canvas import Canvas, Layer
from flik.providers.simulated.layers import figures, weather
from flik.providers.simulated.plan import Plan


def added(plan: Plan, canvas: Canvas) -> list[Layer]:
    """Return the layers that stand in front of the place, back to front."""
    layers = _things(plan, canvas)
    if "fireflies" in plan.extras:
        layers += weather.fireflies(plan, canvas)
    return layers if plan.place in ("space", "silk") else layers + _weather(plan, canvas)


def _things(plan: Plan, canvas: Canvas) -> list[Layer]:
    rng = plan.chance("extras")
    layers: list[Layer] = []
    if "balloon" in plan.extras:
        for share, size in ((0.24, 24.0), (0.52, 13.0), (0.78, 17.0)):
            x, foot = canvas.width * (share + rng.uniform(-0.05, 0.05)), canvas.height * rng.uniform(0.3, 0.5)
            layers.append(figures.balloon(plan, canvas, x, foot, size=canvas.unit * size))
    outdoors = plan.place not in ("space", "silk")
    if outdoors and ("birds" in plan.extras or (not plan.light.dark and rng.random() < 0.4)):
        count = 14 if "birds" in plan.extras else 6
        layers.append(figures.birds(plan, canvas, canvas.width * rng.uniform(0.25, 0.75), canvas.height * 0.4, count))
    if "cat" in plan.extras:
        layers.append(figures.cat(plan, canvas, canvas.width * rng.choice([0.3, 0.68]), canvas.height))
    return layers


def _weather(plan: Plan, canvas: Canvas) -> list[Layer]:
    layers: list[Layer] = []
    if "snowfall" in plan.extras:
        layers += weather.snowfall(plan, canvas)
    if "rain" in plan.extras:
        layers.append(weather.rain(plan, canvas))
    if "mist" in plan.extras:
        middle, thick = canvas.height * 0.62, canvas.height * 0.3
        layers.append(weather.mist(plan, canvas, "veil", middle=middle, thick=thick, strength=0.6))
    return layers
