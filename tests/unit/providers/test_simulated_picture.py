"""Simulated pictures open, show something, and are decided by prompt, style and seed."""

import io

import numpy as np
import pytest
from PIL import Image

from flik.providers.simulated import picture, plan, scene
from flik.providers.simulated.canvas import Canvas


def drawn(prompt: str, style: str | None = None, seed: int = 1, width: int = 128, height: int = 96) -> Image.Image:
    return picture.draw(plan.read(prompt, style, seed), width, height)


@pytest.mark.parametrize("place", list(scene.COMPOSERS))
@pytest.mark.parametrize("size", [(96, 96), (64, 300), (300, 64)])
def test_every_place_is_drawn_at_every_shape_and_is_not_blank(place: str, size: tuple[int, int]) -> None:
    word = "abstract" if place == "silk" else place
    image = drawn(
        f"{word} with snow, rain, fog, a cat, a balloon, birds, fireflies, a boat and the aurora", None, 3, *size
    )
    assert image.size == size
    assert plan.read(word, None, 1).place == place
    assert np.asarray(image, np.float32).std() > 8


@pytest.mark.parametrize("light", list(plan.LIGHT))
def test_every_light_is_drawn(light: str) -> None:
    assert plan.read(f"{light} mountains", None, 1).light_name == light
    assert np.asarray(drawn(f"{light} mountains"), np.float32).std() > 8


def test_every_style_changes_the_picture() -> None:
    looks = {style: drawn("mountain lake at sunset", style).tobytes() for style in plan.STYLES}
    assert len(set(looks.values())) == len(plan.STYLES)
    assert all(plan.read("x", style, 1).style == style for style in plan.STYLES)


def test_noir_has_no_colour_and_pixel_art_has_few() -> None:
    noir = np.asarray(drawn("city at night", "noir"), np.int32)
    assert np.abs(noir[..., 0] - noir[..., 2]).max() <= 1
    assert len(drawn("city at night", "pixel art").getcolors(10_000)) <= 28


def test_words_steer_the_colours() -> None:
    fire, ocean = (
        np.asarray(drawn(prompt), np.float32).mean((0, 1)) for prompt in ("lava inferno", "ocean on a clear day")
    )
    assert fire[0] > fire[2]
    assert ocean[2] > ocean[0]


def test_different_prompts_and_seeds_give_different_pictures() -> None:
    pictures = {drawn(prompt, None, seed).tobytes() for prompt in ("quux", "wibble", "東京", "🙂") for seed in (1, 2)}
    assert len(pictures) == 8


def test_the_same_plan_shows_the_same_picture_at_every_size() -> None:
    small, large = (
        drawn("desert", None, 5, 96, 96),
        drawn("desert", None, 5, 288, 288).resize((96, 96), Image.Resampling.BOX),
    )
    assert np.abs(np.asarray(small, np.float32) - np.asarray(large, np.float32)).mean() < 14


@pytest.mark.parametrize(("kind", "opened_as"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_every_format_opens_as_what_it_says(kind: str, opened_as: str) -> None:
    with Image.open(io.BytesIO(picture.encode(drawn("forest"), kind))) as image:
        image.load()
        assert (image.format, image.size, image.mode) == (opened_as, (128, 96), "RGB")


@pytest.mark.parametrize(
    ("prompt", "place", "light", "ground"),
    [
        ("a mountain lake at sunset", "lake", "sunset", "rock"),
        ("a city by the sea at night", "city", "night", "rock"),
        ("misty forest in autumn", "forest", "mist", "autumn"),
        ("snowy mountains at dawn", "mountains", "dawn", "snow"),
        ("Berries in the meadows", "meadow", "day", "meadow"),
        ("sand dunes", "desert", "golden", "sand"),
        ("a cyberpunk city at night", "city", "neon", "rock"),
    ],
)
def test_words_decide_place_light_and_ground(prompt: str, place: str, light: str, ground: str) -> None:
    read = plan.read(prompt, None, 1)
    assert (read.place, read.light_name, read.ground_name) == (place, light, ground)


def test_layers_paint_onto_the_frame_they_are_given() -> None:
    canvas = Canvas(64, 64)
    layers = scene.compose(plan.read("lake", None, 1), canvas)
    assert (
        np.asarray(scene.paint(layers[:1], canvas, 0.0)).tobytes()
        != np.asarray(scene.paint(layers, canvas, 0.0)).tobytes()
    )
