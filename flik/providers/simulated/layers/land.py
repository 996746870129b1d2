"""Land in layers: ridges, hills and dunes, each a silhouette with light on its slopes and haze at its foot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, Drifting, Layer, margin, sprite
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix
from flik.providers.simulated.plan import Plan, land_colours


@dataclass(frozen=True, slots=True)
class Relief:
    """The character of a kind of land."""

    hills: float  # hills across the frame
    octaves: int
    gain: float
    sharp: float  # 0 round, 1 a knife's edge
    shear: float  # how far the shadows lean
    grit: float  # strength of the rock's texture
    mist: float  # how much haze gathers at the foot
    snow: bool = False  # whether its peaks can be white


ALPINE = Relief(hills=1.9, octaves=9, gain=0.46, sharp=0.8, shear=0.85, grit=0.42, mist=0.8, snow=True)
HILLS = Relief(hills=1.6, octaves=3, gain=0.32, sharp=0.0, shear=1.6, grit=0.16, mist=0.25)
DUNES = Relief(hills=1.5, octaves=2, gain=0.3, sharp=0.6, shear=1.9, grit=0.05, mist=0.12)
SNOWLESS = ("sand", "ash", "meadow")


@dataclass(frozen=True, slots=True)
class Ridge:
    """Where one ridge stands, in pixels: `depth` 0 is near and 1 far; its peaks are `rise` above its foot, `top`."""

    name: str
    relief: Relief
    depth: float
    top: float
    rise: float
    bottom: int
    sun_x: float


@dataclass(frozen=True, slots=True)
class Slopes:
    """A ridge in pixels: the row of its crest by column, how far below it each point lies, how lit that point is."""

    crest: Floats
    below: Floats
    lit: Floats


def ridge(plan: Plan, canvas: Canvas, place: Ridge) -> Layer:
    """Draw one ridge, down to its bottom row."""
    rng = plan.chance(place.name)
    speed = canvas.unit * 2.6 * (1 - place.depth) ** 1.6
    width = canvas.width + margin(canvas, speed)
    crest = place.top - place.rise * _profile(rng, width, canvas.width, place.relief)
    first = max(0, int(crest.min()) - 2)
    below = np.arange(first, max(place.bottom, first + 8), dtype=np.float32)[:, None] - crest[None]
    steep = np.hypot(1, np.gradient(crest)).astype(np.float32)[None]
    alpha = np.clip(below / steep + 0.5, 0, 1)
    inside = np.maximum(below, 0)
    slopes = Slopes(crest, inside, _light_on(rng, crest, inside, place, canvas))
    return Drifting(sprite(_coloured(plan, canvas, rng, place, slopes), alpha, rng), first, speed)


def _profile(rng: Rng, width: int, frame_width: int, relief: Relief) -> Floats:
    """Return the height of a ridge at each pixel, 0 to 1."""
    cells = relief.hills * width / frame_width
    soft = noise.line(rng, width, cells, octaves=relief.octaves, gain=relief.gain)
    edged = 1 - np.abs(2 * noise.line(rng, width, cells * 0.9, octaves=relief.octaves, gain=relief.gain) - 1)
    return noise.stretched(soft * (1 - relief.sharp * 0.6) + edged * relief.sharp * 0.6)


def _light_on(rng: Rng, crest: Floats, below: Floats, place: Ridge, canvas: Canvas) -> Floats:
    """Return how lit each point is: the slope of the crest, carried down the face at a slant, and the rock's grain."""
    rows, width = below.shape
    toward = 1.0 if place.sun_x > canvas.width / 2 else -1.0
    fine = 1.5 / canvas.unit  # texture points a pixel: the rock is the same in a thumbnail and a poster
    soft = max(3, width // 160)
    smooth = np.convolve(np.pad(crest, soft, mode="edge"), np.ones(2 * soft + 1) / (2 * soft + 1), "valid")
    slope = np.gradient(smooth).astype(np.float32) * toward
    at = np.arange(width, dtype=np.float32)[None] + below * np.float32(place.relief.shear * toward)
    bends = noise.looked_up(noise.field(rng, 256, 256, (6, 6), octaves=3, gain=0.4), at * fine, below * fine * 1.6)
    rock = noise.looked_up(noise.field(rng, 512, 512, (14, 20), gain=0.62), at * fine * 2, below * fine * 2.6)
    index = np.clip(at + (bends - 0.5) * rows * 0.1, 0, width - 1).astype(np.int32)
    facets = np.tanh(slope[index] * 1.6) * np.exp(-below / rows * 1.1)
    lit: Floats = np.clip(0.45 + 0.5 * facets + place.relief.grit * (rock - 0.5), 0, 1)
    return lit


def _coloured(plan: Plan, canvas: Canvas, rng: Rng, place: Ridge, slopes: Slopes) -> Floats:
    """Return the colours of a ridge: earth or rock, snow where it can lie, haze towards the foot."""
    shaded, bright = land_colours(plan, place.depth)
    share = slopes.lit[..., None]
    colour: Floats = shaded * (1 - share) + bright * share
    if place.relief.snow and plan.ground_name not in SNOWLESS:
        colour = _snowed(plan, rng, place, slopes, colour)
    haze = mix(plan.light.sky[-1], plan.light.sky[-2], 0.8 if plan.light.dark else 0.1 + 0.4 * plan.light.shade)
    reach = max(place.rise * 1.1, canvas.unit * 12)
    fog = np.clip(slopes.below / reach, 0, 1) ** 1.6 * place.relief.mist * (0.25 + 0.75 * place.depth)
    hazed: Floats = np.clip(colour * (1 - fog[..., None]) + haze * fog[..., None], 0, 1)
    return hazed.astype(np.float32)


def _snowed(plan: Plan, rng: Rng, place: Ridge, slopes: Slopes, colour: Floats) -> Floats:
    """Lay snow on what stands high, thinner on what is steep."""
    reach = 0.95 if plan.ground_name == "snow" else 0.48
    height = (place.top - slopes.crest[None] - slopes.below) / max(place.rise, 1)
    patches = noise.field(rng, 256, 256, (9, 9), gain=0.6)
    ragged = noise.looked_up(patches, slopes.below * 0.3 + np.arange(slopes.below.shape[1]), slopes.below * 1.4)
    cover = np.clip((height - (1 - reach) + (ragged - 0.5) * 0.6) * 5, 0, 1) * np.clip(0.35 + slopes.lit * 0.9, 0, 1)
    tone = _snow_tone(plan, place.depth, slopes.lit[..., None])
    covered: Floats = colour * (1 - cover[..., None]) + tone * cover[..., None]
    return covered.astype(np.float32)


def _snow_tone(plan: Plan, depth: float, lit: Floats) -> Floats:
    """Return the colour of snow: the sun's where lit, the sky's in the shade, the haze's far away."""
    shade = mix(plan.light.sky[1], plan.light.sky[2], 0.5)
    white = mix(mix(np.ones(3, np.float32), plan.light.sun, 0.35), shade, plan.light.shade * 0.55)
    tone = mix(white, shade, 0.6) * (1 - lit) + white * lit
    haze = plan.light.sky[-2] if plan.light.dark else plan.light.sky[-1]
    return (tone * (1 - 0.75 * depth) + haze * (0.75 * depth)).astype(np.float32)
