"""Space: nebulae behind a turning planet, with bands, rings and a night side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from flik.providers.simulated import noise
from flik.providers.simulated.canvas import Canvas, Layer, Still, sprite, to_bytes
from flik.providers.simulated.chance import Rng
from flik.providers.simulated.colour import Floats, mix, ramp, rgb
from flik.providers.simulated.plan import Plan


def nebula(plan: Plan, canvas: Canvas) -> Layer:
    """Draw gas clouds: noise bent by noise, glowing where two fields agree."""
    rng = plan.chance("nebula")
    texture = noise.field(rng, 512, 512, (3, 3), octaves=7, gain=0.55)
    other = noise.field(rng, 512, 512, (4, 4), octaves=7, gain=0.55)
    down, across = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32) / (canvas.unit * 100) * 330
    bend = noise.looked_up(other, across * 0.7, down * 0.7) - 0.5
    gas = noise.looked_up(texture, across + bend * 130, down - bend * 100)
    dust = noise.looked_up(other, across * 1.1 + gas * 60 + 200, down * 1.1 + 90)
    glow = np.clip((gas - 0.3) * 1.5, 0, 1) ** 1.4
    sky = plan.light.sky
    colours = [
        rgb("04050f"),
        mix(sky[1], rgb("0a0a22"), 0.35),
        sky[2],
        mix(sky[2], sky[3], 0.6),
        mix(sky[3], sky[4], 0.5),
    ]
    table = ramp(colours, 256)
    value = np.clip(glow * (0.25 + 0.85 * dust) + 0.08 * gas, 0, 1)
    picture = table[(value * 255).astype(np.int32)] * (0.55 + 0.45 * value[..., None])
    return Still(Image.fromarray(to_bytes(picture.astype(np.float32), rng)))


@dataclass(frozen=True, slots=True)
class Planet:
    """A ball with a texture that turns, lit from one side, perhaps with rings before and behind it."""

    left: int
    top: int
    across: Floats  # where on the texture each pixel lies, at 0 s
    down: Floats
    surface: Floats
    table: Floats
    light: Floats
    alpha: Floats
    air: Floats
    turn: float  # texture pixels a second
    rings: tuple[Image.Image, Image.Image, int, int] | None  # behind, before, left, top

    def paint(self, frame: Image.Image, at_s: float) -> None:
        """Paint the far half of the rings, the ball, the near half of the rings."""
        if self.rings:
            frame.paste(self.rings[0], self.rings[2:], self.rings[0])
        value = noise.looked_up(self.surface, self.across + np.float32(self.turn * at_s), self.down)
        colour = self.table[(value * 255).astype(np.int32)] * self.light[..., None] + self.air
        ball = sprite(np.clip(colour, 0, 1).astype(np.float32), self.alpha)
        frame.paste(ball, (self.left, self.top), ball)
        if self.rings:
            frame.paste(self.rings[1], self.rings[2:], self.rings[1])


def _surface(plan: Plan, name: str, banded: bool) -> Floats:
    rng = plan.chance(f"{name} surface")
    texture = noise.field(rng, 1024, 512, (4, 4), octaves=8, gain=0.55)
    if not banded:
        return texture
    rows = np.arange(512, dtype=np.float32)[:, None]
    bands = noise.line(rng, 512, 9, octaves=4, gain=0.6)
    return noise.stretched(bands[np.clip(rows + (texture - 0.5) * 60, 0, 511).astype(np.int32)] * 0.85 + texture * 0.15)


@dataclass(frozen=True, slots=True)
class Orbit:
    """Where a planet stands, in pixels."""

    x: float
    y: float
    radius: float


def _square(orbit: Orbit, radii: float) -> tuple[Floats, Floats]:
    """Return down and across, in radii from the planet's middle, for a square of `radii` to each side."""
    size = int(orbit.radius * radii * 2) + 3
    grid = np.mgrid[0:size, 0:size].astype(np.float32) - np.float32(size / 2)
    return grid[0] / np.float32(orbit.radius), grid[1] / np.float32(orbit.radius)


def planet(plan: Plan, name: str, orbit: Orbit, *, ringed: bool) -> Layer:
    """Draw a planet, lit from the upper left."""
    rng = plan.chance(name)
    down, across = _square(orbit, 1)
    far = np.hypot(across, down)
    front = np.sqrt(np.clip(1 - far * far, 0.0, 1))
    tilt = rng.uniform(-0.5, 0.5)
    latitude = across * np.sin(tilt) + down * np.cos(tilt)
    longitude = np.arctan2(across * np.cos(tilt) - down * np.sin(tilt), np.maximum(front, 0.02))
    day = np.clip(across * -0.62 + down * -0.42 + front * 0.66, 0, 1)
    rim = np.clip(1 - front, 0, 1) ** 3.0 * np.clip(day * 1.6 + 0.08, 0, 1)
    air = mix(plan.light.sky[-1], plan.light.sun, 0.3) * rim[..., None] * 0.8
    return Planet(
        left=int(orbit.x - len(down) / 2),
        top=int(orbit.y - len(down) / 2),
        across=(longitude / np.pi * 512 + 512).astype(np.float32),
        down=((latitude * 0.5 + 0.5) * 511).astype(np.float32),
        surface=_surface(plan, name, ringed or bool(rng.random() < 0.5)),
        table=_colours(plan, rng),
        light=(day**0.85 * 1.12 + 0.015).astype(np.float32),
        alpha=np.clip((1 - far) * orbit.radius + 0.5, 0, 1),
        air=air.astype(np.float32),
        turn=float(rng.uniform(14, 26)),
        rings=_rings(plan, orbit, tilt) if ringed else None,
    )


def _colours(plan: Plan, rng: Rng) -> Floats:
    sky, sun = plan.light.sky, plan.light.sun
    first, second = rng.permutation(len(sky) - 1)[:2] + 1
    return ramp([mix(sky[1], rgb("101018"), 0.3), sky[first], mix(sky[second], sun, 0.4), sun], 256)


def _rings(plan: Plan, orbit: Orbit, tilt: float) -> tuple[Image.Image, Image.Image, int, int]:
    rng = plan.chance("rings")
    down, across = _square(orbit, 2.5)
    along = across * np.cos(tilt) - down * np.sin(tilt)
    over = (across * np.sin(tilt) + down * np.cos(tilt)) / 0.26
    far = np.hypot(along, over)
    grooves = noise.line(rng, 512, 14, octaves=5, gain=0.7)
    density = grooves[np.clip((far - 1.3) / 1.1 * 511, 0, 511).astype(np.int32)]
    soft = orbit.radius * 0.3
    alpha = np.clip((far - 1.32) * soft, 0, 1) * np.clip((2.35 - far) * soft, 0, 1) * (0.12 + 0.8 * density)
    shadow = np.clip(1.25 - np.clip(along * 0.75, 0, 1) * (over < 0), 0.2, 1)
    tone = mix(plan.light.sky[-1], plan.light.sun, 0.4) * ((0.55 + 0.45 * density) * shadow)[..., None]
    tone = np.clip(tone, 0, 1).astype(np.float32)
    behind, before = sprite(tone, np.where(over < 0, alpha, 0)), sprite(tone, np.where(over >= 0, alpha, 0))
    return behind, before, int(orbit.x - len(down) / 2), int(orbit.y - len(down) / 2)
