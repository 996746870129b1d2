"""A key carries 256 random bits and a checksum, and nothing but its digest is stored."""

from __future__ import annotations

import hashlib
import re
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain import key as keys
from flik.domain.identity import Scope
from flik.domain.key import ApiKey, Kind

ZERO, ONES = bytes(32), b"\xff" * 32
random_bytes = st.binary(min_size=32, max_size=32)


def test_key_of_known_bytes_is_always_the_same() -> None:
    assert keys.make(Kind.LIVE, ZERO) == "flik_live_0000000000000000000000000000000000000000000" + "3lsrcS"
    assert keys.make(Kind.TEST, ONES).startswith("flik_test_")


@given(random_bytes, st.sampled_from(Kind))
def test_every_key_is_recognised_and_has_one_form(randomness: bytes, kind: Kind) -> None:
    key = keys.make(kind, randomness)
    assert re.fullmatch(rf"flik_{kind}_[0-9A-Za-z]{{49}}", key)
    assert keys.parse(key) is kind
    assert key.startswith(keys.shown(key)) and len(keys.shown(key)) == 16


@given(random_bytes, random_bytes)
def test_other_bytes_make_another_key(one: bytes, other: bytes) -> None:
    assert (keys.make(Kind.LIVE, one) == keys.make(Kind.LIVE, other)) == (one == other)


@given(random_bytes, st.integers(10, 58), st.sampled_from(ascii_letters + digits))
def test_one_wrong_character_is_noticed(randomness: bytes, place: int, char: str) -> None:
    key = keys.make(Kind.LIVE, randomness)
    mistyped = key[:place] + char + key[place + 1 :]
    assert keys.parse(mistyped) == (Kind.LIVE if mistyped == key else None)


def test_key_of_one_kind_is_none_of_the_other() -> None:
    assert keys.parse(keys.make(Kind.LIVE, ONES).replace("live", "test")) is None


@pytest.mark.parametrize(
    "text",
    ["", "flik_live_", "demo", "flik_live_" + "0" * 49, "flik_prod_" + "0" * 49, " " + keys.make(Kind.LIVE, ZERO),
     keys.make(Kind.LIVE, ZERO) + "\n", keys.make(Kind.LIVE, ZERO)[:-1], "flik_live_" + "٣" * 49, "x" * 100_000],
)  # fmt: skip
def test_what_is_no_key_is_none(text: str) -> None:
    assert keys.parse(text) is None


@pytest.mark.parametrize("count", [0, 16, 31, 33])
def test_a_key_is_made_of_exactly_256_bits(count: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        keys.make(Kind.LIVE, bytes(count))


def test_digest_is_the_sha256_of_the_whole_key() -> None:
    key = keys.make(Kind.LIVE, ONES)
    assert keys.digest(key) == hashlib.sha256(key.encode("ascii")).digest()


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "works"),
    [(None, None, True), (100.0, None, False), (100.1, None, True), (None, 50.0, False), (None, 200.0, False),
     (200.0, 50.0, False)],
)  # fmt: skip
def test_key_works_until_it_expires_or_is_revoked(
    expires_at: float | None, revoked_at: float | None, works: bool
) -> None:
    key = ApiKey("k", "acme", "flik_live_", "", frozenset({Scope.READ}), 0.0, expires_at, revoked_at)
    assert key.works(100.0) is works
