"""An abstract: folds of coloured silk that flow. The field bends itself with sines a few times over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from flik.providers.simulated.canvas import Canvas, Layer, to_bytes
from flik.providers.simulated.colour import Floats, ramp
from flik.providers.simulated.plan import Plan


@dataclass(frozen=True, slots=True)
class Silk:
    """The folds: `bends` holds strength, pace and phase of each turn of the field."""

    across: Floats
    down: Floats
    bends: tuple[tuple[float, float, float], ...]
    table: Floats

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Compute the folds at this moment and stretch them over the frame."""
        x, y = self.across.copy(), self.down.copy()
        for turn, (strength, pace, phase) in enumerate(self.bends, 1):
            x += np.float32(strength / turn) * np.sin(turn * y + np.float32(pace * at_s + phase))
            y += np.float32(strength / turn) * np.cos(turn * x + np.float32(pace * at_s * 0.8 + phase * 2))
        value = 0.5 + 0.5 * np.sin(x * 0.9 + y * 0.6)
        colour = self.table[(value * (len(self.table) - 1)).astype(np.int32)]
        fold = np.gradient(np.sin(x + y), axis=1) * (self.across.shape[1] / 16)
        sheen = np.clip(fold, -1, 1)[..., None]
        lit = np.clip(colour * (1 + 0.3 * sheen) + np.clip(sheen - 0.35, 0, 1) * 0.28, 0, 1)
        small = Image.fromarray(to_bytes(lit.astype(np.float32)))
        frame.paste(small.resize(frame.size, Image.Resampling.BICUBIC))


def silk(plan: Plan, canvas: Canvas) -> Layer:
    """Lay out the folds; a film computes them at half the size, four times as fast."""
    rng = plan.chance("silk")
    coarse = 2 if canvas.length_s else 1
    rows, columns = max(8, canvas.height // coarse), max(8, canvas.width // coarse)
    scale = rng.uniform(3.2, 5.2)
    down, across = np.mgrid[0:rows, 0:columns].astype(np.float32) / np.float32(min(rows, columns)) * np.float32(scale)
    angle = rng.uniform(0, 6.28)
    x = across * np.cos(angle) - down * np.sin(angle) + rng.uniform(0, 9)
    y = across * np.sin(angle) + down * np.cos(angle) + rng.uniform(0, 9)
    bends = tuple(
        (float(rng.uniform(0.65, 1.05)), float(rng.uniform(0.35, 0.9)), float(rng.uniform(0, 6))) for _ in range(6)
    )
    stops = [plan.light.sky[at] for at in rng.permutation(len(plan.light.sky))]
    return Silk(x.astype(np.float32), y.astype(np.float32), bends, ramp([*stops, plan.light.sun, stops[0]], 512))
