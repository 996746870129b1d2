"""Simulated films are H.264 in MP4 that decodes to the frames asked for, and they move."""

import io

import av
import numpy as np
import pytest

from flik.providers.simulated import film, plan


def filmed(prompt: str = "the sea", width: int = 96, height: int = 64, fps: int = 12, length_s: float = 1.0) -> bytes:
    images = film.frames(plan.read(prompt, None, 1), width, height, fps, length_s)
    return film.encode(images, (film.even(width), film.even(height)), fps, lambda: False)


def test_a_film_has_the_size_the_frames_and_the_length_asked_for() -> None:
    with av.open(io.BytesIO(filmed(width=98, height=66, fps=10, length_s=1.5))) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (98, 66, 10)
        assert float(stream.duration * stream.time_base) == pytest.approx(1.5)
        assert sum(1 for _ in file.decode(video=0)) == 15


def test_odd_sides_are_rounded_down_to_even_ones() -> None:
    with av.open(io.BytesIO(filmed(width=97, height=65, length_s=0.5))) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (96, 64)
    assert [film.even(side) for side in (1, 2, 64, 65, 2047)] == [2, 2, 64, 64, 2046]


def test_the_index_stands_before_the_frames_so_that_playing_can_start_early() -> None:
    data = filmed(length_s=0.5)
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("prompt", ["the sea", "saturn in space", "abstract flow", "city", "snow forest", "aurora"])
def test_a_film_moves(prompt: str) -> None:
    frames = list(film.frames(plan.read(prompt, None, 1), 96, 64, 8, 1.0))
    moved = np.abs(np.asarray(frames[0], np.float32) - np.asarray(frames[-1], np.float32)).mean()
    assert moved > 0.15


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert filmed("waves at night", length_s=0.5) == filmed("waves at night", length_s=0.5)


def test_an_encoder_that_is_stopped_takes_no_further_frame() -> None:
    taken = []
    images = film.frames(plan.read("x", None, 1), 64, 64, 10, 5.0)
    film.encode((taken.append(image) or image for image in images), (64, 64), 10, lambda: len(taken) >= 3)
    assert len(taken) == 3
