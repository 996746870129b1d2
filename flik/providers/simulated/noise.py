"""Smooth random fields: what clouds, rock and nebulae are made of.

A field is a sum of octaves; each octave is a small grid of random numbers enlarged by
Pillow's bicubic filter, which is faster than any noise function written in numpy.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats


def _enlarged(grid: Floats, width: int, height: int) -> Floats:
    """Enlarge a grid so that its right edge meets its left and its bottom its top."""
    rows, columns = grid.shape
    padded = Image.fromarray(np.pad(grid, 2, mode="wrap"))
    box = (2.0, 2.0, 2.0 + columns, 2.0 + rows)
    return np.asarray(padded.resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32)


def field(
    rng: Rng, width: int, height: int, cells: tuple[float, float], *, octaves: int = 5, gain: float = 0.5
) -> Floats:
    """Return a field from 0 to 1 that wraps at its edges; `cells` are its largest blobs across and down."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        columns = max(1, min(width, round(cells[0] * 2**octave)))
        rows = max(1, min(height, round(cells[1] * 2**octave)))
        grid = rng.random((rows, columns), np.float32)
        total += _enlarged(grid, width, height) * np.float32(gain**octave)
    return stretched(total)


def line(rng: Rng, count: int, cells: float, *, octaves: int = 7, gain: float = 0.5) -> Floats:
    """Return `count` numbers from 0 to 1 that rise and fall like a horizon with `cells` hills."""
    return stretched(field(rng, count, 1, (cells, 1), octaves=octaves, gain=gain)[0])


def stretched(values: Floats) -> Floats:
    """Return the values moved and scaled to run from 0 to 1."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / np.float32(max(high - low, 1e-6))


def looked_up(texture: Floats, across: Floats, down: Floats) -> Floats:
    """Return the texture at fractional places, which wrap; between its points it is interpolated."""
    rows, columns = texture.shape
    left, top = np.floor(across).astype(np.int32), np.floor(down).astype(np.int32)
    share_x, share_y = across - left, down - top
    x0, x1, y0, y1 = left % columns, (left + 1) % columns, top % rows, (top + 1) % rows
    upper = texture[y0, x0] * (1 - share_x) + texture[y0, x1] * share_x
    lower = texture[y1, x0] * (1 - share_x) + texture[y1, x1] * share_x
    between: Floats = upper * (1 - share_y) + lower * share_y
    return between.astype(np.float32)
