"""From a prompt to a plan of the picture: the place, the light, the ground, what else is there.

Words decide where they can. What the words leave open is decided by the prompt's hash
(so the same prompt stays in the same place) and, for details, by the seed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flik.providers.simulated import chance
from flik.providers.simulated.colour import Floats, mix, rgb, turned

# Rows that stand higher win: a mountain lake is a lake, a city by the sea is a city.
PLACES: Mapping[str, str] = {
    "space": "space galaxy planet nebula cosmos astronaut rocket orbit saturn jupiter universe alien comet spaceship "
    "asteroid cosmic",
    "silk": "abstract pattern flow fluid silk swirl texture wallpaper gradient logo psychedelic marble",
    "city": "city skyline street town tokyo york london paris berlin cyberpunk downtown urban skyscraper metropolis "
    "rooftop shanghai manhattan",
    "lake": "lake fjord river pond reflection loch waterfall swan",
    "sea": "sea ocean beach wave coast island ship boat sail sailboat harbor harbour lagoon shore surf whale bay "
    "tropical pirate lighthouse dolphin",
    "desert": "desert dune sahara sand mars camel canyon egypt pyramid oasis arizona",
    "forest": "forest wood tree jungle birch pine woodland grove",
    "mountains": "mountain alps alpine peak summit valley cliff himalaya volcano ridge",
    "meadow": "field meadow flower farm village grass prairie pasture countryside hill garden vineyard tulip poppy",
}
SCENERY: Mapping[str, str] = {  # asked only when no word names the place itself
    "forest": "deer bear wolf fox mushroom firefly fairy owl squirrel rabbit dragon castle",
    "silk": "dream music mind emotion paint colorful colourful colour color energy thought love future idea",
    "city": "building traffic car office robot computer machine night neon",
    "meadow": "horse sheep cow spring dog bee butterfly house balloon",
    "mountains": "goat eagle landscape snow winter glacier norway range",
    "sea": "sunset summer blue fish turtle storm",
}
LIGHTS: Mapping[str, str] = {
    "neon": "neon cyberpunk synthwave vaporwave retrowave laser futuristic",
    "fire": "fire volcano lava inferno flame apocalypse burning hell",
    "polar": "aurora northern borealis",
    "sunset": "sunset dusk evening romantic sundown",
    "dawn": "dawn sunrise morning pastel",
    "day": "day noon sunny bright daylight",
    "night": "night midnight moon moonlight moonlit dark star starry nocturnal",
    "twilight": "twilight violet purple magic mystic mystical fantasy dreamy",
    "storm": "storm stormy rain rainy thunder overcast grey gray gloomy cloudy tempest",
    "mist": "mist misty fog foggy haze",
    "golden": "golden amber honey gold",
}
MOODS: Mapping[str, str] = {  # asked only when no word names the light itself
    "sunset": "orange warm love beach tropical",
    "dawn": "soft pink gentle flower tulip lake",
    "day": "summer blue clear sky spring sea ocean meadow green",
    "night": "dream astronaut owl firefly",
    "mist": "calm zen quiet silent winter snow snowy forest birch",
    "golden": "autumn fall harvest desert sand dune egypt sahara",
    "polar": "arctic polar ice iceberg",
    "fire": "red mars dragon",
}
GROUNDS: Mapping[str, str] = {
    "snow": "snow snowy winter ice arctic polar glacier frozen",
    "autumn": "autumn fall october harvest maple",
    "sand": "desert sand dune sahara canyon mars egypt",
    "ash": "volcano lava ash fire inferno apocalypse",
    "meadow": "meadow grass field spring green farm pasture summer",
    "pine": "forest pine wood jungle tree fir",
}
EXTRAS: Mapping[str, str] = {
    "snowfall": "snow snowy snowfall blizzard winter",
    "rain": "rain rainy storm stormy tempest",
    "aurora": "aurora northern borealis polar",
    "birds": "bird gull seagull swallow crow flock eagle",
    "boat": "boat ship sail sailboat sailing yacht pirate",
    "balloon": "balloon",
    "cat": "cat kitten kitty",
    "lighthouse": "lighthouse",
    "pyramids": "pyramid egypt",
    "volcano": "volcano lava eruption",
    "mist": "mist misty fog foggy haze",
    "fireflies": "firefly fairy magic mystical",
    "rings": "saturn ring",
}
STYLES: Mapping[str, str] = {
    "watercolor": "watercolor watercolour aquarelle gouache",
    "pixel": "pixel 8bit 16bit pixelart retro",
    "noir": "noir monochrome bw black charcoal",
    "minimal": "minimal minimalist flat vector simple poster",
    "neon": "neon synthwave vaporwave cyberpunk",
    "oil": "oil impressionist impressionism painting gogh monet brush canvas painted",
    "vintage": "vintage sepia film analog analogue polaroid",
    "photo": "photorealistic photo photograph realistic cinematic 4k hdr",
}


@dataclass(frozen=True, slots=True)
class Light:
    """The time of day: sky colours from the zenith to the horizon, and what they do to the land."""

    sky: tuple[Floats, ...]
    sun: Floats
    cloud: Floats
    shade: float  # how far the near land goes towards a silhouette
    dark: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw. `seed` and `prompt` name the streams of chance; `light` is already tuned."""

    prompt: str
    seed: int
    place: str
    light_name: str
    light: Light
    ground_name: str
    ground: tuple[Floats, Floats]
    style: str
    extras: frozenset[str]

    def chance(self, name: str) -> chance.Rng:
        """Return the stream of chance for one thing in this picture."""
        return chance.stream(self.seed, self.prompt, self.style, name)


def _light(sky: str, sun: str, cloud: str, shade: float, dark: bool = False) -> Light:
    return Light(tuple(rgb(code) for code in sky.split()), rgb(sun), rgb(cloud), shade, dark)


LIGHT: Mapping[str, Light] = {
    "sunset": _light("1d2b5c 5a3f86 c0567a f58a5b ffd08a", "fff0c4", "ff9d7d", 0.72),
    "dawn": _light("5b7fb8 9aa9d6 e3b7cf f9cdb8 fff0d2", "fffbe8", "ffd9d3", 0.45),
    "day": _light("1f62b0 3f8bd6 7fb8ea b7dbf4 e3f2f7", "fffdf0", "ffffff", 0.15),
    "night": _light("050817 0b1433 152450 24386b 3d5586", "f4f1e2", "3a4a75", 0.62, dark=True),
    "twilight": _light("15103c 3a2470 7a3f9e c56cae f6b3b8", "ffe9e4", "b782c4", 0.66),
    "storm": _light("23303c 3b4b59 5c6d79 87959c b3bcbc", "e6e9e4", "6f7d86", 0.45),
    "mist": _light("9fb3c4 b5c5d2 cad6de dde5e8 eef1ef", "fffdf6", "f2f6f8", 0.3),
    "neon": _light("0a0424 240a4d 5a1080 c21e8f ff6fa0", "ffe27a", "7a2bb5", 0.85, dark=True),
    "fire": _light("14070c 3d0d12 8c1d12 df4a14 ffb347", "fff1b8", "a3321c", 0.85),
    "golden": _light("4c6f9c 93a5b0 dcc193 f5cf86 ffe9b5", "fffbe0", "ffe0a8", 0.42),
    "polar": _light("03101f 07243a 0c3b4f 185a66 4a8f8c", "eafff6", "2a5d6b", 0.5, dark=True),
}
GROUND: Mapping[str, tuple[Floats, Floats]] = {
    "rock": (rgb("3c4654"), rgb("8a8f98")),
    "snow": (rgb("6f86a6"), rgb("f6f9fd")),
    "autumn": (rgb("6b2d1a"), rgb("e39a35")),
    "sand": (rgb("9c5f36"), rgb("edbf7c")),
    "ash": (rgb("1c1618"), rgb("5a4440")),
    "meadow": (rgb("2f5a2c"), rgb("a3bf57")),
    "pine": (rgb("14302b"), rgb("4d7a58")),
}
HOME_GROUND = {"desert": "sand", "meadow": "meadow", "forest": "pine"}
SPACE_LIGHTS = ("twilight", "neon", "sunset", "polar", "fire")
OPEN_LIGHTS = ("sunset", "dawn", "day", "night", "twilight", "mist", "golden", "sunset", "day")
OPEN_PLACES = ("mountains", "lake", "sea", "city", "forest", "desert", "space", "silk", "meadow", "mountains")


def words_of(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return re.findall(r"[^\W_]+", text.lower())


def _named(words: list[str], table: Mapping[str, str]) -> list[str]:
    """Return the rows of which a word is named, in the table's order; a plural names its singular."""
    stems = {stem for word in words for stem in (word, word.removesuffix("s"), word.removesuffix("es"))}
    stems |= {word.removesuffix("ies") + "y" for word in words}
    return [name for name, listed in table.items() if not stems.isdisjoint(listed.split())]


def _tuned(light: Light, rng: chance.Rng) -> Light:
    """Turn the hues a little, so that two seeds of one prompt are two evenings."""
    hue, chroma = float(rng.normal(0, 0.09)), float(rng.uniform(0.9, 1.12))
    sky = tuple(turned(stop, hue, chroma) for stop in light.sky)
    return Light(sky, turned(light.sun, hue, chroma), turned(light.cloud, hue, chroma), light.shade, light.dark)


def _style(words: list[str], style: str | None) -> str:
    named = _named(words_of(style or ""), STYLES) or _named(words, STYLES)
    return named[0] if named else "photo"


def read(prompt: str, style: str | None, seed: int) -> Plan:
    """Decide what a picture of this prompt shows. Any text will do; unknown words are hashed."""
    words = words_of(prompt)
    look = _style(words, style)
    words = words + words_of(style or "")
    open_choice = chance.number("open", " ".join(words) or prompt)
    place = (_named(words, PLACES) or _named(words, SCENERY) or [OPEN_PLACES[open_choice % len(OPEN_PLACES)]])[0]
    light = (_named(words, LIGHTS) or _named(words, MOODS) or [OPEN_LIGHTS[open_choice // 16 % len(OPEN_LIGHTS)]])[0]
    if place == "space" and light in ("day", "dawn", "mist", "storm", "golden", "night"):
        light = SPACE_LIGHTS[chance.number("nebula", seed, prompt) % len(SPACE_LIGHTS)]
    ground = (_named(words, GROUNDS) or [HOME_GROUND.get(place, "rock")])[0]
    tuned = _tuned(LIGHT[light], chance.stream(seed, prompt, "light"))
    return Plan(prompt, seed, place, light, tuned, ground, GROUND[ground], look, frozenset(_named(words, EXTRAS)))


def land_colours(plan: Plan, depth: float) -> tuple[Floats, Floats]:
    """Return the shaded and the lit colour of land; depth 0 is at our feet, 1 fades into the haze."""
    haze = mix(plan.light.sky[-1], plan.light.sky[-3], 0.7 if plan.light.dark else 0.15 + 0.5 * plan.light.shade)
    night = mix(plan.light.sky[0], rgb("06060c"), 0.35)
    lit = mix(mix(plan.ground[1], plan.light.sun, 0.14), night, plan.light.shade * 0.5)
    shaded = mix(plan.ground[0], night, plan.light.shade * 0.75 + 0.1)
    fade = 0.82 * depth
    return mix(shaded, haze, fade), mix(lit, mix(haze, plan.light.sun, 0.12), fade)
