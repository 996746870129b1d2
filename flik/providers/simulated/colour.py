"""Colours as float32 arrays of sRGB from 0 to 1, mixed in OKLab so that gradients stay clean.

OKLab: Björn Ottosson, "A perceptual color space for image processing", 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_FROM_LMS = np.linalg.inv(_TO_LMS)
_FROM_LAB = np.linalg.inv(_TO_LAB)


def rgb(code: str) -> Floats:
    """Return the colour of a code such as `ff8800`."""
    return np.array([int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)], np.float32)


def to_oklab(colours: Floats) -> Floats:
    """Convert sRGB colours (last axis 3) to OKLab."""
    wide = colours.astype(np.float64)
    linear: Floats = np.where(wide <= 0.04045, wide / 12.92, ((wide + 0.055) / 1.055) ** 2.4)
    lab: Floats = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    return lab.astype(np.float32)


def from_oklab(lab: Floats) -> Floats:
    """Convert OKLab colours (last axis 3) to sRGB, clipped to what a screen can show."""
    linear = np.clip((lab.astype(np.float64) @ _FROM_LAB.T) ** 3 @ _FROM_LMS.T, 0, 1)
    curved = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return curved.astype(np.float32)


def mix(first: Floats, second: Floats, share: float) -> Floats:
    """Return the colour `share` of the way from the first to the second."""
    return from_oklab(to_oklab(first) * (1 - share) + to_oklab(second) * share)


def ramp(stops: Sequence[Floats], count: int) -> Floats:
    """Return `count` colours that run smoothly through the stops; shape (count, 3)."""
    lab = to_oklab(np.stack(stops))
    at = np.linspace(0, len(stops) - 1, max(count, 2))[: max(count, 1)]
    low = np.minimum(at.astype(int), len(stops) - 2)
    share = (at - low)[:, None]
    share = share * share * (3 - 2 * share) * 0.6 + share * 0.4  # softer at the stops, no visible bands
    return from_oklab((lab[low] * (1 - share) + lab[low + 1] * share).astype(np.float32))


def turned(colour: Floats, hue: float, chroma: float = 1.0) -> Floats:
    """Return the colour with its hue turned by `hue` radians and its chroma scaled."""
    lab = to_oklab(colour)
    cos, sin = np.cos(hue), np.sin(hue)
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    return from_oklab(np.stack([lightness, (a * cos - b * sin) * chroma, (a * sin + b * cos) * chroma], -1))
