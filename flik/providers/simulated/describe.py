"""What a text can say about a picture or a film without knowing what it shows: its size and its main colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from flik.providers.base import Input
from flik.providers.simulated import sources
from flik.providers.simulated.colour import rgb, to_oklab

NAMED: Mapping[str, str] = {
    "black": "0a0a0c", "dark grey": "45484d", "grey": "868a90", "light grey": "c4c8cc", "white": "fafafa",
    "red": "cf2b2b", "dark red": "6e1b1f", "orange": "ef8a2f", "brown": "6f4a2d", "beige": "dcc9a3",
    "yellow": "f2d441", "olive": "77792f", "green": "4aa34a", "dark green": "1f4a2c", "teal": "2c8b8b",
    "light blue": "8fc1e8", "blue": "2f6fd0", "dark blue": "16264f", "violet": "7a4bb5", "dark violet": "33164f",
    "pink": "ec86b4", "rose": "c48a8c", "mauve": "8a7290", "tan": "b08d6e", "slate": "5b6b7d",
}  # fmt: skip
COLOURS = 3  # named of one picture
_WEIGHTS = np.array([1, 2, 2], np.float32)  # people name the hue first: a pale pink is no grey to them
_LAB = to_oklab(np.stack([rgb(code) for code in NAMED.values()])) * _WEIGHTS
_SIDE = 48  # pixels a side that are looked at


class Description(NamedTuple):
    """A sentence about each input, and what all of them show, as a prompt."""

    text: str
    subject: str


def describe(inputs: Sequence[Input]) -> Description:
    """Return what is said about the inputs.

    Raises:
        InputError: one of them cannot be decoded.
    """
    sentences, seen = [], list[str]()
    for each, image in zip(inputs, sources.pictures_of(inputs), strict=True):
        colours = colours_of(image)
        seen += colours
        sentences.append(_sentence(each, image, colours))
    return Description(" ".join(sentences), f"a picture in {' and '.join(dict.fromkeys(seen))}")


def colours_of(image: Image.Image) -> list[str]:
    """Return the names of a picture's main colours, up to three, the most frequent first."""
    few = image.resize((_SIDE, _SIDE), Image.Resampling.BOX).quantize(8, Image.Quantize.MEDIANCUT).convert("RGB")
    named: Counter[str] = Counter()
    for count, colour in few.getcolors() or ():
        distances = np.linalg.norm(_LAB - to_oklab(np.array(colour, np.float32) / 255) * _WEIGHTS, axis=1)
        named[list(NAMED)[int(distances.argmin())]] += count
    ranked = sorted(named, key=lambda name: (-named[name], name))
    return [name for name in ranked if named[name] * 20 >= _SIDE**2][:COLOURS]


def _sentence(each: Input, image: Image.Image, colours: list[str]) -> str:
    kind = "film" if sources.type_of(each) == sources.FILM else "picture"
    size = f"{image.width} by {image.height} pixels"
    length = f" and {each.duration_s:g} s long" if kind == "film" and each.duration_s else ""
    rest = f", with {' and '.join(colours[1:])}" if colours[1:] else ""
    return f"The {kind} is {size}{length}, mostly {colours[0]}{rest}."
