"""What is painted on, and what can be painted: the contract between layers, pictures and films.

A layer does its expensive drawing once, when it is made, and then paints itself onto as
many frames as asked. A still is the frame at 0 s. Layers paint in order, back to front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats


@dataclass(frozen=True, slots=True)
class Canvas:
    """The frame: pixels, and how long it will be filmed (0 s for a still)."""

    width: int
    height: int
    length_s: float = 0.0

    @property
    def unit(self) -> float:
        """Pixels of one hundredth of the shorter side: the size that things are measured in."""
        return min(self.width, self.height) / 100


class Layer(Protocol):
    """Something that paints itself onto a frame as it looks after `at_s` seconds."""

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paint onto the frame, in place."""
        ...


def to_bytes(values: Floats, rng: Rng | None = None) -> NDArray[np.uint8]:
    """Turn 0..1 into 0..255; with a `rng` the rounding is dithered, which hides the bands of a gradient."""
    noise = rng.random(values.shape[:2], np.float32) if rng else np.full(values.shape[:2], 0.5, np.float32)
    if values.ndim == 3:
        noise = noise[..., None]
    scaled: Floats = np.clip(values * 255 + noise, 0, 255)
    return scaled.astype(np.uint8)


def sprite(colour: Floats, alpha: Floats, rng: Rng | None = None) -> Image.Image:
    """Return an RGBA image of colours (height, width, 3) or (3,) under an alpha (height, width)."""
    full = np.broadcast_to(colour, (*alpha.shape, 3))
    return Image.fromarray(np.dstack([to_bytes(full, rng), to_bytes(alpha, rng)]))


@dataclass(frozen=True, slots=True)
class Still:
    """A picture that covers the whole frame and does not move."""

    image: Image.Image

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Cover the frame."""
        frame.paste(self.image)


@dataclass(frozen=True, slots=True)
class Drifting:
    """A wide sprite that slides past at `speed` pixels a second (to the left), between pixels too."""

    image: Image.Image
    top: int
    speed: float = 0.0
    left: float = 0.0  # where the sprite's left edge stands at 0 s, in frame pixels
    rise: float = 0.0  # pixels a second upwards

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paste the part of the sprite that is in view."""
        place = self.left - self.speed * at_s
        whole = int(np.floor(place))
        image = _shifted(self.image, place - whole)
        frame.paste(image, (whole, round(self.top - self.rise * at_s)), image)


def _shifted(image: Image.Image, share: float) -> Image.Image:
    """Return the image moved right by a fraction of a pixel, so that slow drift doesn't stutter."""
    if share < 0.02:
        return image
    moved = image.crop((-1, 0, image.width - 1, image.height))
    return Image.blend(image, moved, share)


def margin(canvas: Canvas, speed: float) -> int:
    """Return how many pixels wider than the frame a drifting sprite must be."""
    return int(abs(speed) * canvas.length_s) + 2
