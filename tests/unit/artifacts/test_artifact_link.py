"""Links open exactly one artifact until they expire; Range headers are read as RFC 9110 says."""

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.artifacts.link import Part, Unsatisfiable, Whole, parse_range, sign, verify
from flik.errors import ArtifactNotFound

KEY = b"k" * 32
KEYS = st.text(min_size=1, max_size=80)
EXPIRIES = st.integers(0, 2**40)


def opened(link: str) -> tuple[str, str, str]:
    parts = urlsplit(link)
    query = parse_qs(parts.query)
    return unquote(parts.path.removeprefix("/artifacts/")), query["expires"][0], query["signature"][0]


@given(KEYS, EXPIRIES, st.binary(min_size=1, max_size=64))
def test_a_link_opens_what_it_was_signed_for_until_it_expires(key: str, expires_at: int, signing_key: bytes) -> None:
    found, expires, signature = opened(sign(key, expires_at, signing_key))
    assert found == key
    verify(found, expires, signature, signing_key, expires_at - 0.001)
    with pytest.raises(ArtifactNotFound, match="expired"):
        verify(found, expires, signature, signing_key, expires_at)


@given(KEYS, KEYS, EXPIRIES, EXPIRIES)
def test_a_signature_fits_no_other_key_and_no_other_expiry(key: str, other: str, expires_at: int, later: int) -> None:
    _, expires, signature = opened(sign(key, expires_at, KEY))
    for changed_key, changed_expiry in ((other, expires), (key, str(later))):
        if (changed_key, changed_expiry) != (key, expires):
            with pytest.raises(ArtifactNotFound, match="signature"):
                verify(changed_key, changed_expiry, signature, KEY, -1.0)


@given(KEYS, EXPIRIES, st.text(max_size=60))
def test_a_guessed_signature_opens_nothing(key: str, expires_at: int, guess: str) -> None:
    with pytest.raises(ArtifactNotFound, match="signature"):
        verify(key, expires_at, guess, KEY, -1.0)


def test_a_link_signed_with_another_key_opens_nothing() -> None:
    found, expires, signature = opened(sign("a/1-0.png", 100, b"another"))
    with pytest.raises(ArtifactNotFound, match="signature"):
        verify(found, expires, signature, KEY, 0)


@pytest.mark.parametrize("expires", ["", "soon", "-1", "1.5", "1e9", " 1", "٣", "9" * 5000, "0x10"])
def test_an_expiry_that_is_no_time_is_called_malformed(expires: str) -> None:
    with pytest.raises(ArtifactNotFound, match="malformed"):
        verify("a/1-0.png", expires, "x", KEY, 0)


def test_the_link_shows_key_expiry_and_signature_ready_for_a_url() -> None:
    link = sign("task/1-0.png", 1700000000, KEY)
    assert link.startswith("/artifacts/task/1-0.png?expires=1700000000&signature=")
    assert link.isascii()
    assert link.count("=") == 2


@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (None, Whole()),
        ("", Whole()),
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-99", Part(0, 100)),
        ("bytes=10-19", Part(10, 20)),
        ("bytes=0-1000", Part(0, 100)),
        ("bytes=99-", Part(99, 100)),
        ("bytes=0-", Part(0, 100)),
        ("bytes=-1", Part(99, 100)),
        ("bytes=-500", Part(0, 100)),
        ("Bytes = 5-6", Part(5, 7)),
        ("bytes=100-", Unsatisfiable()),
        ("bytes=100-200", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=20-10", Whole()),
        ("bytes=0-1,5-6", Whole()),
        ("bytes=-", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=٣-٤", Whole()),
        ("bytes=1-2-3", Whole()),
        ("items=0-5", Whole()),
        ("bytes 0-5", Whole()),
        ("bytes=" + "9" * 5000 + "-", Whole()),
    ],
)
def test_range_headers_of_a_hundred_bytes(header: str | None, answer: object) -> None:
    assert parse_range(header, 100) == answer


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=0-0"])
def test_no_range_of_nothing_can_be_sent(header: str) -> None:
    assert parse_range(header, 0) == Unsatisfiable()


@given(st.binary(max_size=300), st.integers(0, 400), st.none() | st.integers(0, 400))
def test_a_part_is_what_slicing_gives(data: bytes, first: int, last: int | None) -> None:
    answer = parse_range(f"bytes={first}-{'' if last is None else last}", len(data))
    wanted = data[first:] if last is None else data[first : last + 1]
    if isinstance(answer, Part):
        assert data[answer.start : answer.end] == wanted != b""
        assert answer.content_range(len(data)) == f"bytes {first}-{first + len(wanted) - 1}/{len(data)}"
    else:
        assert wanted == b""


@given(st.binary(max_size=300), st.integers(0, 400))
def test_a_suffix_is_the_end_of_the_data(data: bytes, length: int) -> None:
    answer = parse_range(f"bytes=-{length}", len(data))
    wanted = data[-length:] if length else b""
    if isinstance(answer, Part):
        assert data[answer.start : answer.end] == wanted
    else:
        assert (wanted, answer) == (b"", Unsatisfiable())


@given(st.text(max_size=40), st.integers(0, 2**40))
def test_any_header_gives_an_answer_within_the_size(header: str, size_bytes: int) -> None:
    answer = parse_range(header, size_bytes)
    if isinstance(answer, Part):
        assert 0 <= answer.start < answer.end <= size_bytes


def test_an_unsatisfiable_range_tells_the_size() -> None:
    assert Unsatisfiable().content_range(100) == "bytes */100"
