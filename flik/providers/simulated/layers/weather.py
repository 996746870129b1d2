"""What falls or floats between us and the view: snow, rain, fireflies, a band of mist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, Drifting, Layer, margin, sprite
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import mix, rgb
from flik.providers.simulated.plan import Plan


@dataclass(frozen=True, slots=True)
class Flakes:
    """Soft dots that fall (or rise) and come back at the other edge."""

    dot: Image.Image
    places: tuple[tuple[float, float, float, float], ...]  # x, y, fall in pixels a second, phase

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paste each dot where it is now."""
        sway = self.dot.width * 1.5
        for x, y, fall, phase in self.places:
            left = int((x + np.sin(phase + at_s * 1.3) * sway) % (frame.width + self.dot.width)) - self.dot.width
            top = int((y + fall * at_s) % (frame.height + self.dot.height)) - self.dot.height
            frame.paste(self.dot, (left, top), self.dot)


def _dot(radius: float, colour: str, strength: float) -> Image.Image:
    size = max(3, int(radius * 4) | 1)
    down, across = np.mgrid[0:size, 0:size].astype(np.float32) - size // 2
    alpha = np.exp(-(across**2 + down**2) / max(radius, 0.4) ** 2) * strength
    return sprite(rgb(colour), alpha.astype(np.float32))


def _flakes(rng: Rng, canvas: Canvas, dot: Image.Image, *, count: int, fall: float) -> Layer:
    def place() -> tuple[float, float, float, float]:
        x, y = rng.uniform(0, canvas.width), rng.uniform(0, canvas.height)
        return float(x), float(y), float(fall * rng.uniform(0.7, 1.3)), float(rng.uniform(0, 6.28))

    return Flakes(dot, tuple(place() for _ in range(count)))


def snowfall(plan: Plan, canvas: Canvas) -> list[Layer]:
    """Let snow fall in three sheets, the near flakes large and fast."""
    unit, sheets = canvas.unit, []
    for near in range(3):
        dot = _dot(unit * (0.25 + 0.28 * near), "ffffff", 0.85 - 0.12 * near)
        rng = plan.chance(f"snow {near}")
        sheets.append(_flakes(rng, canvas, dot, count=150 // (near + 1), fall=unit * (7 + 7 * near)))
    return sheets


def fireflies(plan: Plan, canvas: Canvas) -> list[Layer]:
    """Warm lights that drift upwards."""
    unit = canvas.unit
    halo = _flakes(plan.chance("fireflies"), canvas, _dot(unit * 1.3, "ffd76a", 0.35), count=34, fall=-unit * 2)
    core = _flakes(plan.chance("fireflies"), canvas, _dot(unit * 0.4, "fff6c8", 0.95), count=34, fall=-unit * 2)
    return [halo, core]


@dataclass(frozen=True, slots=True)
class Rain:
    """A sheet of streaks that falls and repeats."""

    sheet: Image.Image
    fall: float

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paste the sheet twice, one above the other."""
        top = int(self.fall * at_s) % self.sheet.height
        for at in (top - self.sheet.height, top):
            frame.paste(self.sheet, (0, at), self.sheet)


def rain(plan: Plan, canvas: Canvas) -> Layer:
    """Thin slanting streaks."""
    rng = plan.chance("rain")
    seeds = (rng.random((canvas.height, canvas.width), np.float32) > 0.9965).astype(np.float32)
    length = max(4, int(canvas.unit * 5))
    streaks = np.zeros_like(seeds)
    for step in range(length):
        streaks += np.roll(seeds, (step, -step // 5), (0, 1)) * np.float32(step / length)
    pale = mix(plan.light.sky[-1], rgb("ffffff"), 0.4)
    return Rain(sprite(pale, np.clip(streaks * 0.3, 0, 0.55)), canvas.unit * 130)


def mist(plan: Plan, canvas: Canvas, name: str, *, middle: float, thick: float, strength: float = 0.75) -> Layer:
    """A drifting band of mist around row `middle`."""
    rng = plan.chance(name)
    speed = canvas.unit * rng.uniform(1.2, 2.4)
    width, height = canvas.width + margin(canvas, speed), max(4, int(thick * 2))
    wisps = noise.field(rng, width, height, (3.5 * width / canvas.width, 1.5), octaves=5, gain=0.5)
    band = np.clip(np.sin(np.linspace(0, np.pi, height, dtype=np.float32)), 0, 1)[:, None] ** 1.5
    haze = mix(plan.light.sky[-1], plan.light.sky[-2], 0.75 if plan.light.dark else 0.3)
    alpha = np.clip(wisps * 1.5 - 0.3, 0, 1) * band * np.float32(strength)
    return Drifting(sprite(haze, alpha, rng), int(middle - height / 2), speed)
