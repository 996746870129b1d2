"""What the simulated provider makes of its inputs: measured on the decoded bytes, hostile inputs refused."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from hashlib import sha256
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flik import catalog
from flik.errors import InputError
from flik.providers import build
from flik.providers.base import Artifact, Context, Input, Request, Result
from flik.providers.simulated import SimulatedProvider, actions, describe, film, footage, sources
from flik.providers.simulated.provider import make

Pixels = NDArray[np.float32]
RED, BLUE, GREEN = (200, 30, 30), (30, 60, 200), (40, 160, 60)


def given(data: bytes, content_type: str = "image/png", **facts: Any) -> Input:
    return Input(content_type, len(data), sha256(data).hexdigest(), data, **facts)


def picture(colour: Any = RED, size: tuple[int, int] = (96, 64), kind: str = "PNG", mode: str = "RGB") -> Input:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind)
    return given(buffer.getvalue(), f"image/{kind.lower()}", width=size[0], height=size[1])


def halves(left: Any = RED, right: Any = BLUE, size: tuple[int, int] = (96, 64)) -> Input:
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return given(buffer.getvalue())


def movie(colours: list[Any], size: tuple[int, int] = (64, 48), fps: int = 8) -> Input:
    """A film that shows each colour for one frame."""
    images = (Image.new("RGB", size, colour) for colour in colours)
    data = film.encode(images, size, fps, lambda: False)
    return given(data, "video/mp4", width=size[0], height=size[1], duration_s=len(colours) / fps)


def made(task_type: str, inputs: list[Input], seed: int = 5, **payload: Any) -> list[Artifact]:
    small = {"VIDEO": {"width": 96, "height": 64, "fps": 8, "lengthS": 1.0}, "IMAGE": {"width": 96, "height": 64}}
    read = catalog.read_payload(task_type, {**small.get(task_type, {}), **payload})
    return make(Request("task-1", task_type, read, 1, tuple(inputs)), seed)


def pixels(artifact: Artifact) -> Pixels:
    with Image.open(io.BytesIO(artifact.data)) as image:
        assert image.size == (artifact.width, artifact.height)
        return np.asarray(image.convert("RGB"), np.float32)


def frames(artifact: Artifact) -> list[Pixels]:
    with av.open(io.BytesIO(artifact.data)) as file:
        shown = [np.asarray(frame.to_image(), np.float32) for frame in file.decode(video=0)]
        assert {each.shape for each in shown} == {(artifact.height, artifact.width, 3)}
        assert len(shown) / float(file.streams.video[0].average_rate) == pytest.approx(artifact.duration_s)
        return shown


def apart(first: Any, second: Any) -> float:
    """The mean difference of two pictures, 0 to 255."""
    return float(np.abs(np.asarray(first, np.float32) - np.asarray(second, np.float32)).mean())


# ---- IMAGE


def test_a_picture_is_drawn_over_the_one_it_starts_from() -> None:
    [plain], [red], [blue] = (
        made("IMAGE", inputs, prompt="a lake") for inputs in ([], [picture(RED)], [picture(BLUE)])
    )
    assert apart(pixels(red), pixels(plain)) > 15
    mean_of_red, mean_of_blue = pixels(red).mean((0, 1)), pixels(blue).mean((0, 1))
    assert mean_of_red[0] - mean_of_blue[0] > 60  # the input shows through ...
    assert mean_of_blue[2] - mean_of_red[2] > 60
    [other] = made("IMAGE", [picture(RED)], prompt="a city at night")
    assert apart(pixels(red), pixels(other)) > 10  # ... and so does the prompt


def test_a_picture_keeps_the_size_asked_for_whatever_it_starts_from() -> None:
    [one] = made("IMAGE", [picture(RED, (31, 200), "JPEG")], prompt="x", width=64, height=100, outputFormat="webp")
    assert (one.width, one.height, one.content_type) == (64, 100, "image/webp")


def test_all_inputs_are_seen_in_one_picture() -> None:
    [one] = made("IMAGE", [picture(RED), picture(BLUE), picture(GREEN)], style="minimal")
    shown = pixels(one)
    top, left, right = shown[:30], shown[34:, :46], shown[34:, 50:]
    assert [int(part.mean((0, 1)).argmax()) for part in (top, left, right)] == [0, 2, 1]
    assert made("IMAGE", [picture((n, n, n), (8, 8)) for n in range(99)], prompt="x")[0].width == 96


def test_several_outputs_of_one_input_are_different_pictures() -> None:
    first, second = made("IMAGE", [picture()], prompt="a lake", numOutputs=2)
    assert first.data != second.data


def test_upscale_doubles_the_picture_and_shows_the_same() -> None:
    source = halves()
    [large] = made("IMAGE", [source], action="upscale", prompt="is not drawn")
    assert (large.width, large.height) == (192, 128)
    small = Image.open(io.BytesIO(large.data)).resize((96, 64), Image.Resampling.BOX)
    assert apart(small, Image.open(io.BytesIO(source.data))) < 2


def test_upscale_without_an_input_doubles_what_the_prompt_draws() -> None:
    [plain], [large] = made("IMAGE", [], prompt="a lake"), made("IMAGE", [], prompt="a lake", action="upscale")
    assert (large.width, large.height) == (192, 128)
    small = Image.open(io.BytesIO(large.data)).resize((96, 64), Image.Resampling.BOX)
    assert apart(small, pixels(plain)) < 4


@pytest.mark.parametrize(
    ("size", "large"),
    [((1, 1), (2, 2)), ((2048, 100), (4096, 200)), ((3000, 1500), (4096, 2048)), ((4096, 9), (4096, 9)),
     ((5000, 10), (5000, 10))],
)  # fmt: skip
def test_an_upscaled_side_has_4096_pixels_at_most(size: tuple[int, int], large: tuple[int, int]) -> None:
    assert actions.size_of("upscale", *size) == large
    assert actions.size_of("watermark", *size) == actions.size_of(None, *size) == size


def test_watermark_marks_the_lower_right_corner_and_nothing_else() -> None:
    for colour in ((255, 255, 255), (0, 0, 0), RED):
        source = picture(colour, (200, 120))
        [marked] = made("IMAGE", [source], action="watermark")
        shown = pixels(marked)
        changed = np.abs(shown - np.array(colour, np.float32)).max(-1) > 30
        rows, columns = np.nonzero(changed)
        assert rows.min() > 90
        assert columns.min() > 140
        mark = shown[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert mark.max() - mark.min() > 90  # letters stand out from what is behind them
        assert 15 < columns.max() - columns.min() < 60


def test_the_mark_on_the_smallest_pictures_does_no_harm() -> None:
    assert pixels(made("IMAGE", [picture(RED, (3, 2))], action="watermark")[0]).shape == (2, 3, 3)
    [drawn] = made("IMAGE", [], prompt="x", action="watermark")
    [plain] = made("IMAGE", [], prompt="x")
    assert 0 < apart(pixels(drawn), pixels(plain)) < 40


def test_an_action_is_done_to_each_input() -> None:
    both = made("IMAGE", [picture(RED), picture(BLUE)], action="upscale")
    assert [each.index for each in both] == [0, 1]
    assert [int(pixels(each).mean((0, 1)).argmax()) for each in both] == [0, 2]


def test_an_action_without_anything_to_act_on_draws_what_the_seed_decides() -> None:
    assert made("IMAGE", [], action="upscale")[0].data == made("IMAGE", [], action="upscale")[0].data


def test_what_can_be_seen_through_is_on_white() -> None:
    for source in (picture((255, 0, 0, 0), mode="RGBA"), picture((255, 0, 0, 0), (96, 64), "WEBP", "RGBA")):
        assert sources.picture_of(source).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 9, 9] * 256)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([0] * 256))
    assert sources.picture_of(given(buffer.getvalue())).getpixel((0, 0)) == (255, 255, 255)
    assert sources.picture_of(picture(200, mode="L")).getpixel((0, 0)) == (200, 200, 200)


# ---- VIDEO


def test_a_film_begins_with_its_picture_and_comes_nearer() -> None:
    source = halves(size=(192, 128))
    shown = frames(made("VIDEO", [source])[0])
    assert len(shown) == 8
    with Image.open(io.BytesIO(source.data)) as image:
        assert apart(shown[0], image.resize((96, 64))) < 4
    assert apart(shown[0], shown[-1]) > 0.5


def test_what_the_prompt_adds_moves_over_the_picture() -> None:
    still, snowy = (frames(made("VIDEO", [picture((90, 90, 90))], prompt=prompt)[0]) for prompt in (None, "snow"))
    assert apart(still[0], snowy[0]) < 2
    assert apart(still[-1], snowy[-1]) > 1


def test_several_inputs_are_shots_of_equal_length() -> None:
    [one] = made("VIDEO", [picture(RED), picture(BLUE), movie([GREEN] * 3)], fps=12)
    assert [int(frame.mean((0, 1)).argmax()) for frame in frames(one)] == [0] * 4 + [2] * 4 + [1] * 4
    [short] = made("VIDEO", [picture(RED)] * 20, lengthS=0.5)
    assert len(frames(short)) == 4


@pytest.mark.parametrize(("fps", "length_s", "shown"), [(8, 0.5, "RBGG"), (16, 0.5, "RRBBGGGG"), (4, 1.0, "RGGG")])
def test_a_film_is_shown_at_its_own_speed_and_its_last_frame_stands(fps: int, length_s: float, shown: str) -> None:
    [one] = made("VIDEO", [movie([RED, BLUE, GREEN, GREEN])], fps=fps, lengthS=length_s)
    assert "".join("RGB"[int(frame.mean((0, 1)).argmax())] for frame in frames(one)) == shown


def test_a_film_is_acted_on_frame_by_frame_and_keeps_rate_and_length() -> None:
    source = movie([RED, BLUE, GREEN], (64, 48), 4)
    [large] = made("VIDEO", [source], action="upscale")
    [marked] = made("VIDEO", [source], action="watermark")
    assert (large.width, large.height, large.duration_s) == (128, 96, 0.75)
    assert (marked.width, marked.height, marked.duration_s) == (64, 48, 0.75)
    assert [int(frame.mean((0, 1)).argmax()) for frame in frames(large)] == [0, 2, 1]
    for frame, colour in zip(frames(marked), (RED, BLUE, GREEN), strict=True):
        assert apart(frame[:24], np.full((24, 64, 3), colour)) < 6
        assert apart(frame[32:, 30:], np.full((16, 34, 3), colour)) > 12


def test_an_action_on_pictures_is_done_to_the_film_of_them() -> None:
    [large] = made("VIDEO", [halves(size=(128, 96)), picture(GREEN)], action="upscale")
    assert (large.width, large.height, len(frames(large))) == (192, 128, 8)
    [drawn] = made("VIDEO", [], prompt="the sea", action="upscale")
    assert (drawn.width, drawn.height, len(frames(drawn))) == (192, 128, 8)


def test_each_film_is_acted_on_by_itself() -> None:
    both = made("VIDEO", [movie([RED]), movie([BLUE] * 2, (32, 32))], action="upscale")
    assert [(each.index, each.width, len(frames(each))) for each in both] == [(0, 128, 1), (1, 64, 2)]


def test_a_picture_starts_from_the_first_frame_of_a_film() -> None:
    [one] = made("IMAGE", [movie([BLUE, RED])], action="upscale")
    assert (one.width, one.height, int(pixels(one).mean((0, 1)).argmax())) == (128, 96, 2)


# ---- TEXT


def written(inputs: list[Input], **payload: Any) -> str:
    return made("TEXT", inputs, **payload)[0].data.decode()


def test_a_text_names_size_and_main_colours_of_a_picture() -> None:
    text = written([halves((200, 30, 30), (20, 20, 80))], prompt="the sea", maxWords=80)
    assert text.startswith("The picture is 96 by 64 pixels, mostly dark blue, with red.\n\n")
    assert "sea" in text
    assert len(text.split()) <= 80


def test_a_text_without_a_prompt_is_about_the_picture() -> None:
    text = written([picture((240, 140, 40))])
    assert text.startswith("The picture is 96 by 64 pixels, mostly orange.\n\n")
    assert "picture" in text.partition("\n\n")[2]


def test_a_text_describes_every_input_and_keeps_to_its_length() -> None:
    film = movie([GREEN] * 4)
    text = written([picture(RED), film], maxWords=40)
    assert "The film is 64 by 48 pixels and 0.5 s long, mostly green." in text
    for most in (1, 3, 11, 12, 24, 25):
        assert 1 <= len(written([picture(RED), film], maxWords=most).split()) <= most


@pytest.mark.parametrize("name", list(describe.NAMED))
def test_each_named_colour_is_named(name: str) -> None:
    code = describe.NAMED[name]
    assert describe.colours_of(Image.new("RGB", (9, 9), f"#{code}")) == [name]


# ---- the same inputs, the same bytes


SMALL = {"TEXT": {"maxWords": 50}, "IMAGE": {"prompt": "a lake"}, "VIDEO": {"prompt": "rain"}}


def digests() -> list[str]:
    inputs = [halves(), movie([RED, GREEN])]
    return [sha256(made(kind, inputs, **payload)[0].data).hexdigest() for kind, payload in SMALL.items()]


def test_the_same_inputs_give_the_same_bytes_in_another_process() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_simulated_inputs as t; print(*t.digests())"
    folder = __file__.rpartition("/")[0]
    there = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert there.stdout.split() == digests()


def test_a_film_that_stands_still_has_the_same_bytes_every_time() -> None:
    source = movie([RED, GREEN])
    assert len({made("VIDEO", [source])[0].data for _ in range(20)}) == 1


@pytest.mark.parametrize("task_type", list(SMALL))
def test_another_input_or_seed_gives_other_bytes(task_type: str) -> None:
    payload = SMALL[task_type]
    data = {
        made(task_type, [each], seed, **payload)[0].data for each in (picture(RED), picture(BLUE)) for seed in (1, 2)
    }
    assert len(data) == 4


# ---- what the result says


async def outputs(asked: Request, name: str) -> list[Any]:
    return [output async for output in build(name, speed=1e6).generate(asked, Context("v1", "w"))]


@pytest.mark.parametrize("name", ["simulated", "noop"])
async def test_the_result_tells_the_digests_of_the_inputs_if_there_are_any(name: str) -> None:
    inputs = (picture(RED), movie([BLUE]))
    payload = catalog.read_payload("TEXT", {"maxWords": 20})
    with_inputs, without = (Request("t", "TEXT", payload, 1, each) for each in (inputs, ()))
    result = (await outputs(with_inputs, name))[-1]
    assert isinstance(result, Result)
    assert result.metadata["inputs"] == [each.sha256 for each in inputs]
    assert "inputs" not in (await outputs(without, name))[-1].metadata


# ---- what cannot be used


def bomb(width: int, height: int) -> Input:
    """A PNG whose header tells a size; there are a few bytes behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    return given(b"\x89PNG\r\n\x1a\n" + body)


def as_film(each: Input) -> Input:
    return given(each.data, "video/mp4")


def mpeg4() -> Input:
    """A film in MP4 of another codec."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(8))
        stream.width = stream.height = 64
        file.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 64)))))
        file.mux(stream.encode())
    return given(buffer.getvalue(), "video/mp4")


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "GIF")
    return buffer.getvalue()


UNUSABLE: dict[str, tuple[Callable[[], Input], str]] = {
    "empty": (lambda: given(b""), "cannot be decoded"),
    "no picture": (lambda: given(b"not a picture" * 99), "cannot be decoded"),
    "cut off": (lambda: given(picture().data[:60]), "cannot be decoded"),
    "another format": (lambda: given(picture().data, "image/jpeg"), "cannot be decoded"),
    "a format that is not read": (lambda: given(gif()), "cannot be decoded"),
    "an unknown type": (lambda: given(gif(), "image/gif"), "is none of image/png"),
    "a text": (lambda: given(b"hello", "text/plain; charset=utf-8"), "is none of image/png"),
    "too large": (lambda: bomb(8192, 8192), "has more than 33,554,432 pixels"),
    "a bomb": (lambda: bomb(60_000, 60_000), "has more than 33,554,432 pixels"),
    "a bomb beyond all measure": (lambda: bomb(2**31 - 1, 2**31 - 1), ""),
    "an empty film": (lambda: given(b"", "video/mp4"), "cannot be decoded"),
    "no film": (lambda: as_film(picture()), "cannot be decoded"),
    "a film of another codec": (mpeg4, "is no H.264 film"),
    "a playlist": (lambda: given(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "video/mp4"), "cannot be decoded"),
}


@pytest.mark.parametrize("task_type", ["TEXT", "IMAGE", "VIDEO"])
@pytest.mark.parametrize("case", list(UNUSABLE))
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_input_that_cannot_be_used_is_refused_for_good(task_type: str, case: str) -> None:
    unusable, said = UNUSABLE[case]
    for payload in ({"prompt": "x"}, {"action": "watermark"}):
        if task_type == "TEXT" and "action" in payload:
            continue
        with pytest.raises(InputError) as refused:
            made(task_type, [unusable()], **payload)
        assert said in refused.value.message
        assert (refused.value.error_code, refused.value.retryable) == ("input_unusable", False)


def test_inputs_that_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ALL_PIXELS", 96 * 64 * 2)
    inputs = [picture(), picture(), picture()]
    made("IMAGE", inputs[:2], action="upscale")
    for task_type in ("TEXT", "IMAGE", "VIDEO"):
        with pytest.raises(InputError, match="pixels together"):
            made(task_type, inputs)


def test_a_film_that_is_too_long_or_would_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = movie([RED] * 4)
    monkeypatch.setattr(film, "MAX_FILM_PIXELS", 64 * 48 * 8)
    made("VIDEO", [source], action="watermark")
    with pytest.raises(InputError, match="takes more than 24,576 pixels, all frames together"):
        made("VIDEO", [source], action="upscale")
    monkeypatch.setattr(footage, "MAX_FILM_PIXELS", 64 * 48 * 3)
    with pytest.raises(InputError, match="has more than 9,216 pixels, all frames together"):
        made("VIDEO", [source], action="watermark")


def test_a_frame_that_is_too_large_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    source = movie([RED])
    monkeypatch.setattr(footage, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="has more than 1,000 pixels a frame"):
        made("VIDEO", [source])


def test_a_film_of_absurd_speed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footage, "MAX_RATE", 7)
    with pytest.raises(InputError, match="has not between 0 and 7 frames a second"):
        made("VIDEO", [movie([RED])])


def test_a_film_that_breaks_off_is_refused() -> None:
    whole = made("VIDEO", [], prompt="the sea")[0].data
    broken = given(whole[: len(whole) * 2 // 3], "video/mp4")
    for payload in ({"action": "watermark"}, {"prompt": "x"}):
        with pytest.raises(InputError, match="cannot be decoded"):
            made("VIDEO", [broken], **payload)


async def test_an_input_that_cannot_be_decoded_fails_the_generation_of_every_type() -> None:
    for task_type in ("TEXT", "IMAGE", "VIDEO"):
        asked = Request("t", task_type, catalog.read_payload(task_type, {}), 1, (given(b"x"),))
        with pytest.raises(InputError):
            [output async for output in SimulatedProvider(1e6).generate(asked, Context("v1", "w"))]


def test_a_film_that_nobody_wants_any_more_is_not_finished() -> None:
    taken: Iterator[bool] = iter([False] * 4)
    read = catalog.read_payload("VIDEO", {"width": 64, "height": 64, "lengthS": 30.0, "fps": 60})
    asked = Request("t", "VIDEO", read, 1, (picture(),))
    assert make(asked, 1, lambda: next(taken, True)) == []
