"""What a generation starts from: the pictures among its inputs, and the first frames of the films.

Inputs come from other tasks and may be anything, so they are decoded with care: only the formats that Flik's own
artifacts have, whatever the bytes claim to be, and only up to a size that the header has to tell first. What cannot
be used is an `InputError`, which no retry mends.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

from PIL import Image

from flik.errors import InputError
from flik.providers.base import Input

PICTURES: Mapping[str, str] = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
FILM = "video/mp4"
MAX_PIXELS = 2**25  # of one picture, or one frame: 5,792 a side, 100 MB of memory
MAX_ALL_PIXELS = 2**28  # of all pictures of one generation, which are decoded one after another: some seconds of CPU


def type_of(each: Input) -> str:
    """Return the content type of an input without its parameters.

    Raises:
        InputError: it is none that can start a generation.
    """
    kind = each.content_type.partition(";")[0].strip().lower()
    if kind != FILM and kind not in PICTURES:
        raise refusal(each, f"is none of {', '.join((*PICTURES, FILM))}")
    return kind


def refusal(each: Input, why: str) -> InputError:
    """Return the error that says why an input cannot be used."""
    return InputError(f"the input {each.sha256[:12]} ({each.content_type[:100]}) {why}")


def picture_of(each: Input) -> Image.Image:
    """Return an input as a picture, RGB; of a film its first frame.

    Raises:
        InputError: it cannot be decoded, or is too large.
    """
    kind = type_of(each)
    if kind == FILM:
        from flik.providers.simulated import footage  # noqa: PLC0415  # PyAV is for those only that meet a film

        return footage.first_frame(each)
    try:
        with Image.open(io.BytesIO(each.data), formats=[PICTURES[kind]]) as image:
            if image.width * image.height <= MAX_PIXELS:
                return _opaque(image)
    except Image.DecompressionBombError:
        pass
    except Exception:  # a decoder may raise anything over bytes that are broken on purpose
        raise refusal(each, "cannot be decoded") from None
    raise refusal(each, f"has more than {MAX_PIXELS:,} pixels")


def pictures_of(inputs: Sequence[Input]) -> Iterator[Image.Image]:
    """Yield the inputs as pictures, one at a time. Raises as `picture_of`, also when they are too large together."""
    pixels = 0
    for each in inputs:
        image = picture_of(each)
        pixels += image.width * image.height
        if pixels > MAX_ALL_PIXELS:
            raise InputError(f"the inputs have more than {MAX_ALL_PIXELS:,} pixels together")
        yield image


def _opaque(image: Image.Image) -> Image.Image:
    """Return the picture as RGB, on white where one can see through it."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
