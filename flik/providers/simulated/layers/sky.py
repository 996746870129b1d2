"""The sky: a gradient with a sun or a moon, clouds in perspective, stars that twinkle, an aurora."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, Drifting, Layer, Still, margin, sprite, to_bytes
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix, ramp, rgb
from flik.providers.simulated.plan import Plan

CLOUDY = {"day": 0.62, "sunset": 0.6, "dawn": 0.58, "storm": 0.9, "golden": 0.5, "twilight": 0.5, "fire": 0.7}


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun or moon stands (pixels) and how large it is."""

    x: float
    y: float
    radius: float


def place_sun(plan: Plan, canvas: Canvas, horizon: int) -> Sun:
    """Choose a place near a line of thirds: low when the light is low, high by day and for a moon."""
    rng = plan.chance("sun")
    x = canvas.width * (rng.choice([0.31, 0.5, 0.66]) + rng.uniform(-0.05, 0.05))
    high = plan.light_name in ("day", "night", "polar", "storm", "mist")
    y = horizon * (rng.uniform(0.2, 0.38) if high else rng.uniform(0.6, 0.82))
    radius = canvas.unit * (rng.uniform(9, 14) if plan.light_name == "neon" else rng.uniform(3.4, 5.6))
    return Sun(float(x), float(y), float(radius))


def _distance(canvas: Canvas, sun: Sun, height: int) -> Floats:
    down, across = np.mgrid[0:height, 0 : canvas.width].astype(np.float32)
    far: Floats = np.hypot(across - np.float32(sun.x), (down - np.float32(sun.y)) * np.float32(1.15))
    return far


def backdrop(plan: Plan, canvas: Canvas, horizon: int, sun: Sun) -> Layer:
    """Paint the gradient from the zenith to the horizon with the glow around the sun."""
    stops = ramp(plan.light.sky, horizon)
    below = np.broadcast_to(stops[-1], (canvas.height - horizon, 3))
    colours = np.repeat(np.concatenate([stops, below])[:, None], canvas.width, 1).astype(np.float32)
    far = _distance(canvas, sun, canvas.height) / np.float32(canvas.unit)
    strength = 0.28 if plan.light.dark else 0.55
    glow = strength * np.exp(-far / 26) + 0.55 * strength * np.exp(-far / 7)
    colours += (1 - colours) * plan.light.sun * glow[..., None]
    return Still(Image.fromarray(to_bytes(colours, plan.chance("dither"))))


def disc(plan: Plan, canvas: Canvas, sun: Sun) -> Layer:
    """Draw the sun, a striped one in neon light, or a moon with its seas and its phase."""
    size = int(sun.radius * 7) | 1
    down, across = (np.mgrid[0:size, 0:size].astype(np.float32) - size // 2) / np.float32(sun.radius)
    edge = np.clip((1 - np.hypot(across, down)) * sun.radius + 0.5, 0, 1)
    colour = np.broadcast_to(plan.light.sun, (size, size, 3)).astype(np.float32)
    if plan.light_name == "neon":
        colour, edge = _striped(plan, down, edge)
    elif plan.light.dark:
        colour, edge = _moon(plan, across, down, edge)
    else:
        colour = colour * 0.35 + 0.65
        edge = np.maximum(edge, 0.75 * np.exp(-np.maximum(np.hypot(across, down) - 0.97, 0) * 2.4) - 0.003)
    left, top = sun.x - size / 2, int(sun.y - size / 2)
    return Drifting(
        sprite(colour.astype(np.float32), np.clip(edge, 0, 1), plan.chance("halo")),
        top,
        left=round(left),
        rise=0.6 * canvas.unit,
    )


def _striped(plan: Plan, down: Floats, edge: Floats) -> tuple[Floats, Floats]:
    share = np.clip(down * 0.5 + 0.5, 0, 1)[..., None]
    colour = rgb("ffe66b") * (1 - share) + rgb("ff2e88") * share
    gaps = (np.sin(down * 20) > 0.85 - np.clip(down, 0, 1) * 1.0) & (down > -0.05)
    return colour, np.where(gaps, 0, edge).astype(np.float32)


def _moon(plan: Plan, across: Floats, down: Floats, edge: Floats) -> tuple[Floats, Floats]:
    rng = plan.chance("moon")
    size = across.shape[0]
    seas = noise.field(rng, size, size, (3, 3), octaves=5)
    colour = plan.light.sun * (1.0 - 0.28 * np.clip((seas - 0.45) * 3, 0, 1))[..., None]
    bite = rng.uniform(0.35, 2.2)  # beyond 2 the moon is full
    shadow = np.clip((np.hypot(across + bite, down + bite * 0.25) - 1) * size * 0.12, 0.0, 1)
    return colour.astype(np.float32), edge * shadow


def clouds(plan: Plan, canvas: Canvas, horizon: int, sun: Sun) -> Layer:
    """Draw clouds that grow smaller towards the horizon, lit from where the sun stands."""
    rng = plan.chance("clouds")
    speed = 0.9 * canvas.unit * rng.uniform(0.6, 1.2)
    width = canvas.width + margin(canvas, speed)
    texture = noise.field(rng, 512, 512, (7, 7), octaves=7, gain=0.52)
    down, across = np.mgrid[0:horizon, 0:width].astype(np.float32)
    depth = 1 / (1.06 - down / np.float32(horizon))
    u = (across - canvas.width / 2) / canvas.height * depth * 85 + 999 + rng.uniform(0, 512)
    v = depth * 95 + rng.uniform(0, 512)
    body = noise.looked_up(texture, u, v)
    lit = np.clip((body - noise.looked_up(texture, u, v + 9)) * 2.2 + 0.55, 0, 1)
    cover = CLOUDY.get(plan.light_name, 0.36) + rng.uniform(-0.08, 0.08)
    alpha = np.clip((body - (0.86 - cover * 0.55)) * 4.2, 0, 1) * np.clip((1.03 - down / horizon) * 3.2, 0, 1)
    near_sun = np.exp(-np.hypot(across - np.float32(sun.x), down - np.float32(sun.y)) / (canvas.unit * 38))
    dim = mix(plan.light.cloud, plan.light.sky[1], 0.55)
    share = np.clip(lit * 0.8 + near_sun * 0.5, 0, 1)[..., None]
    bright = mix(plan.light.cloud, plan.light.sun, 0.15 if plan.light.dark else 0.45)
    return Drifting(sprite((dim * (1 - share) + bright * share).astype(np.float32), alpha * 0.9, rng), 0, speed)


@dataclass(frozen=True, slots=True)
class Stars:
    """Stars, faint ones painted once and bright ones that twinkle."""

    faint: Image.Image
    bright: tuple[tuple[Image.Image, float, float], ...]  # an image, its pace and its phase

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Add the light of the stars to the sky."""
        sky = ImageChops.add(frame.crop((0, 0, *self.faint.size)), self.faint)
        for image, pace, phase in self.bright:
            level = 0.62 + 0.38 * np.sin(phase + pace * at_s)
            sky = ImageChops.add(sky, image.point([int(value * level) for value in range(256)] * 3))
        frame.paste(sky)


def _starlight(rng: Rng, canvas: Canvas, *, height: int, count: int, strength: float, spread: float) -> Image.Image:
    light = np.zeros((height + 4, canvas.width + 4, 3), np.float32)
    rows, columns = rng.integers(2, height + 1, count), rng.integers(2, canvas.width + 1, count)
    power = strength * rng.random(count, np.float32) ** 3 + 0.12
    tint = np.stack([ramp([rgb("9fc0ff"), rgb("ffffff"), rgb("ffd9a8")], 32)[i] for i in rng.integers(0, 32, count)])
    reach = 2
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            fall = np.exp(-(dx * dx + dy * dy) / spread)
            np.add.at(light, (rows + dy, columns + dx), tint * (power * np.float32(fall))[:, None])
    fade = np.linspace(1.1, 0.25, height, dtype=np.float32)[:, None, None]
    return Image.fromarray(to_bytes(np.clip(light[2:-2, 2:-2] * np.clip(fade, 0, 1), 0, 1)))


def stars(plan: Plan, canvas: Canvas, height: int, density: float = 1.0) -> Layer:
    """Scatter stars over the upper `height` pixels, more of them the larger the sky."""
    rng = plan.chance("stars")
    count = int(density * 0.16 * canvas.width * height / max(canvas.unit, 2) ** 1.15) // 10 + 30
    spread = 0.35 + canvas.unit * 0.06
    faint = _starlight(rng, canvas, height=height, count=count, strength=0.7, spread=spread * 0.6)
    bright = []
    for _ in range(3 if canvas.length_s else 1):
        light = _starlight(rng, canvas, height=height, count=max(4, count // 24), strength=2.2, spread=spread * 1.5)
        bright.append((light, float(rng.uniform(2, 5)), float(rng.uniform(0, 6.28))))
    return Stars(faint, tuple(bright))


@dataclass(frozen=True, slots=True)
class Aurora:
    """Curtains of light whose folds wander."""

    curtains: tuple[Drifting, ...]

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paint the curtains, the far one first."""
        for curtain in self.curtains:
            curtain.paint(frame, at_s)


def _curtain(plan: Plan, canvas: Canvas, horizon: int, index: int) -> Drifting:
    rng = plan.chance(f"aurora {index}")
    speed = canvas.unit * rng.uniform(1.5, 3) * (-1) ** index
    extra = margin(canvas, speed)
    width = canvas.width + extra
    foot = horizon * (0.45 + 0.3 * noise.line(rng, width, 1.6 * width / canvas.width, octaves=3) + 0.05 * index)
    height = horizon * (0.3 + 0.35 * noise.line(rng, width, 3, octaves=3))
    rays = 0.45 + 0.55 * noise.line(rng, width, 60 * width / canvas.width, octaves=3, gain=0.6)
    down = np.arange(horizon, dtype=np.float32)[:, None]
    above = (foot[None] - down) / height[None]
    body = np.where(above > 0, np.exp(-above * 2.2), np.exp(above * 22)) * rays[None]
    alpha = np.clip(body * noise.line(rng, width, 3, octaves=2)[None] * 1.25, 0, 0.85)
    share = np.clip(above * 1.1, 0, 1)[..., None]
    colour = rgb("5dffb0") * (1 - share) + rgb(("a45cff", "3fb7ff", "ff6ad5")[index % 3]) * share
    return Drifting(
        sprite(colour.astype(np.float32), alpha.astype(np.float32), rng),
        0,
        speed,
        -extra if speed < 0 else 0.0,
    )


def aurora(plan: Plan, canvas: Canvas, horizon: int) -> Layer:
    """Hang two curtains of northern light in the sky."""
    return Aurora(tuple(_curtain(plan, canvas, horizon, index) for index in range(2)))
