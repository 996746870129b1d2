"""Signed links to artifacts: whoever holds one may read one artifact until it expires, without a key.

    /artifacts/{key}?expires={seconds since the epoch}&signature={HMAC-SHA256, base64url}

The signature covers the key and the expiry, so neither can be changed. Pure: the time is
passed in. Also reads the Range header (RFC 9110, section 14), which players and download
managers send.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from flik.errors import ArtifactNotFound

PATH_PREFIX = "/artifacts/"
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_DIGITS_AT_MOST = 19  # beyond any file size; int() of a longer string costs time


def _signature(key: str, expires_at: int, signing_key: bytes) -> str:
    message = f"{expires_at}\n{key}".encode("utf-8", "surrogatepass")
    return urlsafe_b64encode(hmac.digest(signing_key, message, sha256)).decode().rstrip("=")


def sign(key: str, expires_at: int, signing_key: bytes) -> str:
    """Return the path and query of a link that opens the artifact until `expires_at` (seconds since the epoch)."""
    return f"{PATH_PREFIX}{quote(key)}?expires={expires_at}&signature={_signature(key, expires_at, signing_key)}"


def verify(key: str, expires: str | int, signature: str, signing_key: bytes, now: float) -> None:
    """Do nothing if the link is genuine and `now` is before its expiry.

    Raises:
        ArtifactNotFound: the link is malformed, forged or expired; the sentence says which.
    """
    written = str(expires)
    if not (written.isascii() and written.isdigit() and len(written) <= _DIGITS_AT_MOST):
        raise ArtifactNotFound("the link is malformed: expires is not a time in seconds")
    expected = _signature(key, int(written), signing_key)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass")):
        raise ArtifactNotFound("the link's signature does not fit this artifact")
    if now >= int(written):
        raise ArtifactNotFound("the link has expired; read the task again for a fresh one")


@dataclass(frozen=True, slots=True)
class Whole:
    """Send all of it, with status 200."""


@dataclass(frozen=True, slots=True)
class Part:
    """Send the bytes from `start` up to but not including `end`, with status 206."""

    start: int
    end: int

    def content_range(self, size_bytes: int) -> str:
        """Return the Content-Range header of the reply."""
        return f"bytes {self.start}-{self.end - 1}/{size_bytes}"


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Nothing of it lies in the range: status 416."""

    def content_range(self, size_bytes: int) -> str:
        """Return the Content-Range header of the reply, which tells the real size."""
        return f"bytes */{size_bytes}"


def parse_range(header: str | None, size_bytes: int) -> Whole | Part | Unsatisfiable:
    """Decide what of an artifact a Range header asks for.

    One range of bytes is understood: `bytes=0-99`, `bytes=100-`, `bytes=-50`. Several ranges,
    another unit or anything malformed mean the whole, as RFC 9110 allows.
    """
    found = _RANGE.fullmatch(header or "")
    if not found or found[1] == found[2] == "" or max(len(found[1]), len(found[2])) > _DIGITS_AT_MOST:
        return Whole()
    if not found[1]:
        return _suffix(int(found[2]), size_bytes)
    first = int(found[1])
    if found[2] and int(found[2]) < first:
        return Whole()
    end = min(size_bytes, int(found[2]) + 1) if found[2] else size_bytes
    return Part(first, end) if first < size_bytes else Unsatisfiable()


def _suffix(length: int, size_bytes: int) -> Part | Unsatisfiable:
    """Decide on `bytes=-length`: the last bytes, all of them if there are fewer."""
    if length == 0 or size_bytes == 0:
        return Unsatisfiable()
    return Part(max(0, size_bytes - length), size_bytes)
