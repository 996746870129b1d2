"""API keys as text: `flik_live_<secret><checksum>`, made, recognised, and reduced to what is stored.

    flik_live_ 43 characters of 256 random bits  6 characters of checksum
    flik_test_ the same; the word is for people and for scanners of leaked secrets, both kinds work alike

The checksum (CRC-32 of all that stands before it) is no secret: it lets a gateway refuse what was
mistyped or made up without asking the database, and lets a scanner tell a key from noise. What is
stored is the SHA-256 of the whole key. A slow hash would add nothing: 256 random bits cannot be
guessed, whatever a guess costs.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

from flik.domain.identity import Scope

RANDOM_BYTES = 32
SHOWN_CHARS = 16  # `flik_live_` and six characters of the secret: enough to tell keys apart, not to use one
_SECRET_CHARS = 43  # the least that hold 256 bits: 62**43 > 2**256
_CHECKSUM_CHARS = 6  # 62**6 > 2**32
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY = re.compile(rf"flik_(live|test)_[0-9A-Za-z]{{{_SECRET_CHARS + _CHECKSUM_CHARS}}}", re.ASCII)
STARTS_WITH = "flik_"


class Kind(StrEnum):
    """What a key is for; says nothing about what it may do."""

    LIVE = "live"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """All that is kept of a key. `prefix` is its visible beginning; times are seconds since the epoch."""

    key_id: str
    tenant_id: str
    prefix: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None

    def works(self, now: float) -> bool:
        """Return whether it opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def make(kind: Kind, randomness: bytes) -> str:
    """Return the key of 32 random bytes.

    Raises:
        ValueError: they are not 32.
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not of {len(randomness)}")
    start = f"{STARTS_WITH}{kind}_{_base62(int.from_bytes(randomness), _SECRET_CHARS)}"
    return start + _checksum(start)


def parse(text: str) -> Kind | None:
    """Return the kind of a key; None for what no key looks like, or whose checksum is wrong."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(text[:-_CHECKSUM_CHARS]) != text[-_CHECKSUM_CHARS:]:
        return None
    return Kind(found[1])


def digest(key: str) -> bytes:
    """Return what is stored in the place of a key: its SHA-256."""
    return hashlib.sha256(key.encode()).digest()


def shown(key: str) -> str:
    """Return the beginning of a key that may be shown."""
    return key[:SHOWN_CHARS]


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECKSUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
