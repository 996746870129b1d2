"""Water: what stands above it, mirrored, broken by waves, with the sun's glitter.

The surface is a plane seen in perspective; its slope is a sum of travelling sines whose
spatial part is computed once. Each frame looks up the mirrored pixel that the slope points
to, so everything that moves above the water moves in it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from flik.providers.simulated.canvas import Canvas, Layer
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix, rgb
from flik.providers.simulated.layers.sky import Sun
from flik.providers.simulated.plan import Plan


@dataclass(frozen=True, slots=True)
class Water:
    """Everything of the surface that does not change from frame to frame."""

    shore: int
    phases: tuple[tuple[Floats, Floats, float], ...]  # a wave's phase, its height, its pace in radians a second
    reach: Floats  # pixels that a slope of 1 moves the mirrored pixel, by row
    column: Floats  # how much of the sun's glitter can fall here
    deep: Floats
    depth_share: Floats  # by row: how much of the water's own colour shows
    sun: Floats

    def slope(self, at_s: float) -> Floats:
        """Return the slope of the surface at each pixel, about -1 to 1."""
        total = np.zeros_like(self.phases[0][0])
        for phase, height, pace in self.phases:
            total += np.sin(phase + np.float32(pace * at_s)) * height
        return total

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Mirror what is above the shore into the frame below it."""
        above = np.asarray(frame)[: self.shore]
        slope = self.slope(at_s)
        rows, width = slope.shape
        mirrored = self.shore - 1 - np.arange(rows, dtype=np.float32)[:, None] * min(1.0, self.shore / rows)
        row = np.clip(mirrored + slope * self.reach, 0, self.shore - 1).astype(np.int32)
        column = np.clip(np.arange(width)[None] + slope * self.reach * 0.22, 0, width - 1).astype(np.int32)
        colour = above[row, column].astype(np.float32)
        share = np.clip(self.depth_share - slope * 0.16, 0, 1)[..., None]
        colour += (self.deep * 255 - colour) * share
        sparkle = np.clip((slope - 0.08) * 2.6, 0, 1) * self.column
        colour += (self.sun * 255 - colour) * sparkle[..., None]
        frame.paste(Image.fromarray(np.clip(colour, 0, 255).astype(np.uint8)), (0, self.shore))


def _waves(rng: Rng, canvas: Canvas, rows: int, calm: float) -> tuple[tuple[Floats, Floats, float], ...]:
    down, across = np.mgrid[0:rows, 0 : canvas.width].astype(np.float32)
    near = (down + 1.5) / rows  # 0 at the horizon, 1 at our feet
    far = 1 / (near + 0.015)
    x, z = (across / canvas.width - 0.5) * far * canvas.width / canvas.height, far
    waves = []
    for index in range(6):
        length = 2.6 * 1.75**index
        angle = rng.normal(0, 0.55)
        phase = (x * np.sin(angle) * 2.4 + z * np.cos(angle)) * np.float32(length) + rng.uniform(0, 6.28)
        phase += np.sin(x * np.float32(length * 0.7) + z * np.float32(length * 0.31) + rng.uniform(0, 6)) * 1.1
        blur = length * far * far / rows  # radians from one row to the next: finer than a pixel is not drawn
        height = np.clip(1.3 - blur * 0.55, 0.05, 1) * np.float32(0.34 * 0.8**index * calm)
        waves.append(
            (phase.astype(np.float32), height.astype(np.float32), float(1.1 + 0.7 * index * rng.uniform(0.8, 1.2)))
        )
    return tuple(waves)


def water(plan: Plan, canvas: Canvas, shore: int, sun: Sun, calm: float) -> Layer:
    """Fill the frame below row `shore` with water; `calm` from 0, a mirror, to 1, open sea."""
    rows = canvas.height - shore
    near = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    across = np.arange(canvas.width, dtype=np.float32)[None]
    spread = canvas.unit * (2 + 11 * near)
    column = np.exp(-(((across - np.float32(sun.x)) / spread) ** 2)) * (0.8 if not plan.light.dark else 0.45)
    tint = mix(mix(plan.light.sky[0], plan.light.sky[1], 0.5), rgb("0d4a5c"), 0.35)
    share = (0.12 + 0.55 * near) * (0.5 + 0.5 * calm) + np.zeros_like(across)
    reach = (canvas.unit * (1.0 + 34 * near)).astype(np.float32) * np.float32(0.35 + 0.65 * calm)
    return Water(
        shore,
        _waves(plan.chance("water"), canvas, rows, 0.45 + 0.55 * calm),
        reach,
        column.astype(np.float32),
        mix(tint, rgb("000814"), 0.25),
        share.astype(np.float32),
        plan.light.sun,
    )
