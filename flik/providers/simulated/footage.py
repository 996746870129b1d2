"""Films that a generation starts from: H.264 in MP4, as Flik's own are, decoded frame by frame.

The container's format and the codec are given, not guessed: a file that calls itself a film reaches no other parser,
and so no file or address that a playlist could name. Nor are frames decoded that are larger than a picture may be,
or more of them than a film of Flik's can have.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
from PIL import Image

from flik.catalog import MAX_FILM_PIXELS
from flik.errors import InputError
from flik.providers.base import Input
from flik.providers.simulated.sources import MAX_PIXELS, refusal

MAX_RATE = 120  # frames a second


class Facts(NamedTuple):
    """What the header of a film tells: its size in pixels, and frames a second."""

    width: int
    height: int
    rate: Fraction


def facts_of(each: Input) -> Facts:
    """Return what the header of a film tells.

    Raises:
        InputError: it is no film that can be decoded.
    """
    try:
        with av.open(io.BytesIO(each.data), format="mp4") as file:
            stream = _stream(each, file)
            return Facts(stream.width, stream.height, Fraction(stream.average_rate))
    except InputError:
        raise
    except Exception:  # as for pictures
        raise refusal(each, "cannot be decoded") from None


def frames_of(each: Input) -> Iterator[Any]:
    """Yield the frames of a film as PyAV has them; `to_image` makes pictures of those that are wanted.

    Raises:
        InputError: it cannot be decoded, or to its end.
    """
    pixels = 0
    try:
        with av.open(io.BytesIO(each.data), format="mp4") as file:
            for frame in file.decode(_stream(each, file)):
                pixels += frame.width * frame.height
                if pixels > MAX_FILM_PIXELS:
                    raise refusal(each, f"has more than {MAX_FILM_PIXELS:,} pixels, all frames together")
                yield frame
    except InputError:
        raise
    except Exception:
        raise refusal(each, "cannot be decoded") from None
    if not pixels:
        raise refusal(each, "has no frames")


def first_frame(each: Input) -> Image.Image:
    """Return the first frame of a film, RGB. Raises as `frames_of`."""
    image: Image.Image = next(frames_of(each)).to_image()
    return image


def _stream(each: Input, file: Any) -> Any:
    stream = next(iter(file.streams.video), None)
    if stream is None or stream.codec_context.name != "h264":
        raise refusal(each, "is no H.264 film")
    if not 0 < stream.width * stream.height <= MAX_PIXELS:
        raise refusal(each, f"has more than {MAX_PIXELS:,} pixels a frame")
    if not stream.average_rate or not 0 < stream.average_rate <= MAX_RATE:
        raise refusal(each, f"has not between 0 and {MAX_RATE} frames a second")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # a frame may be larger than the header says
    stream.codec_context.thread_count = 1
    return stream
