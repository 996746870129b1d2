"""STOMP frames: what the three specifications say, any cut of the bytes, and bounds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flik.domain.stomp.frames import Bounds, Frame, HeartBeat, Parser, Version, encode
from flik.errors import FlikError, StreamMalformed, StreamTooLarge

V1_0, V1_1, V1_2 = Version
ANY = (None, *Version)
BOUNDS = Bounds(headers=4, line_bytes=32, body_bytes=64, frame_bytes=128)


def taken(parser: Parser) -> list[Frame | HeartBeat]:
    found = []
    while (part := parser.take()) is not None:
        found.append(part)
    return found


def frames(data: bytes, version: Version | None = None, bounds: Bounds | None = None) -> list[Frame]:
    parser = Parser(version, bounds or Bounds())
    parser.feed(data)
    return [part for part in taken(parser) if isinstance(part, Frame)]


def one(data: bytes, version: Version | None = None, bounds: Bounds | None = None) -> Frame:
    (frame,) = frames(data, version, bounds)
    return frame


# ---- the shape of a frame


@pytest.mark.parametrize("version", ANY)
def test_frame_has_command_headers_and_body(version: Version | None) -> None:
    assert one(b"SEND\ndestination:/queue/a\nfoo:bar\n\nhello\x00", version) == Frame(
        "SEND", {"destination": "/queue/a", "foo": "bar"}, b"hello"
    )


@pytest.mark.parametrize("version", ANY)
def test_frame_may_have_neither_headers_nor_body(version: Version | None) -> None:
    assert one(b"DISCONNECT\n\n\x00", version) == Frame("DISCONNECT")


def test_of_repeated_headers_the_first_counts() -> None:
    assert one(b"MESSAGE\nfoo:World\nfoo:Hello\n\n\x00", V1_2).headers == {"foo": "World"}


def test_value_may_be_empty_and_hold_colons_that_are_not_escaped() -> None:
    assert one(b"SEND\na:\nb::\nc:x:y\n\n\x00", V1_2).headers == {"a": "", "b": ":", "c": "x:y"}


def test_headers_are_utf_8() -> None:
    assert one("SEND\nh\u00fctte:\u0434\u043e\u043c \U0001f3e0\n\n\x00".encode(), V1_2).headers == {
        "h\u00fctte": "\u0434\u043e\u043c \U0001f3e0"
    }


def test_body_without_length_ends_at_the_first_nul_and_with_it_may_hold_them() -> None:
    first, second = frames(b"SEND\n\na\x00\nSEND\ncontent-length:3\n\na\x00b\x00", V1_2)
    assert (first.body, second.body) == (b"a", b"a\x00b")


def test_body_may_look_like_a_frame() -> None:
    inner = encode(Frame("SEND", {"a": "b"}, b"\x00\n\x00"), V1_2)
    assert one(encode(Frame("SEND", {}, inner), V1_2), V1_2).body == inner


def test_first_content_length_counts() -> None:
    assert one(b"SEND\ncontent-length:1\ncontent-length:900\n\na\x00", V1_2).body == b"a"


@pytest.mark.parametrize("version", ANY)
def test_ends_of_line_between_frames_are_heart_beats(version: Version | None) -> None:
    parser = Parser(version)
    parser.feed(b"\n\nSEND\n\n\x00\n\n\nSEND\n\n\x00SEND\n\n\x00\n")
    frame = Frame("SEND")
    assert taken(parser) == [HeartBeat(), frame, HeartBeat(), frame, frame, HeartBeat()]


def test_lone_end_of_line_is_a_heart_beat_and_leaves_nothing_behind() -> None:
    parser = Parser(V1_2)
    for beat in (b"\n", b"\r\n", b"\r", b"\n"):
        parser.feed(beat)
        assert taken(parser) in ([HeartBeat()], [])
    assert parser.held_bytes == 0


@pytest.mark.parametrize("version", [None, V1_0, V1_2])
def test_cr_lf_ends_lines_in_1_2_and_before_a_version_is_known(version: Version | None) -> None:
    data = b"\r\nSEND\r\na:b\r\n\r\nx\r\n\x00\r\n\r\n"
    assert one(data, version) == Frame("SEND", {"a": "b"}, b"x\r\n")


def test_in_1_1_a_carriage_return_is_part_of_the_value() -> None:
    assert one(b"SEND\na:b\r\n\n\x00", V1_1).headers == {"a": "b\r"}
    with pytest.raises(StreamMalformed):
        frames(b"SEND\r\n\r\n\x00", V1_1)


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [(V1_0, "a", "b c"), (V1_1, " a ", "  b c "), (V1_2, " a ", "  b c ")],
)
def test_white_space_around_headers_is_trimmed_in_1_0_only(version: Version, name: str, value: str) -> None:
    assert one(b"SEND\n a :  b c \n\n\x00", version).headers == {name: value}


@pytest.mark.parametrize("command", ["DISCONNECT\nreceipt:77", "DISCONNECT\nreceipt:77\ncontent-length:0"])
def test_nul_in_the_place_of_a_header_ends_a_frame_without_blank_line(command: str) -> None:
    assert one(f"{command}\n\x00\n".encode(), V1_2).headers["receipt"] == "77"


# ---- escapes

ESCAPES = [
    (V1_0, r"a\nb\cc\\d\re", r"a\nb\cc\\d\re"),
    (V1_1, r"a\nb\cc\\d", "a\nb:c\\d"),
    (V1_2, r"a\nb\cc\\d\re", "a\nb:c\\d\re"),
    (V1_2, r"\\n\\c", "\\n\\c"),
    (V1_2, r"\\\\\c\c", "\\\\::"),
]


@pytest.mark.parametrize(("version", "written", "meant"), ESCAPES)
def test_escapes_of_names_and_values(version: Version, written: str, meant: str) -> None:
    assert one(f"SEND\n{written}:{written}\n\n\x00".encode(), version).headers == {meant: meant}


@pytest.mark.parametrize(("version", "written", "meant"), [row for row in ESCAPES if row[0] is not V1_0])
def test_what_needs_an_escape_is_written_with_one(version: Version, written: str, meant: str) -> None:
    assert encode(Frame("MESSAGE", {"k": meant}), version) == f"MESSAGE\nk:{written}\n\n\x00".encode()


@pytest.mark.parametrize(
    ("version", "value"), [(V1_1, r"\r"), (V1_1, r"\t"), (V1_2, r"\t"), (V1_2, r"\N"), (V1_2, "a\\"), (V1_2, "\\\\\\")]
)
def test_undefined_escape_is_fatal(version: Version, value: str) -> None:
    for header in (f"k:{value}", f"{value}:v"):
        with pytest.raises(StreamMalformed):
            frames(f"SEND\n{header}\n\n\x00".encode(), version)


@pytest.mark.parametrize("command", ["CONNECT", "CONNECTED", "STOMP"])
@pytest.mark.parametrize("version", ANY)
def test_frames_that_connect_are_never_escaped(command: str, version: Version | None) -> None:
    frame = Frame(command, {"passcode": r"a\t\c:b"})
    data = encode(frame, version)
    assert data == command.encode() + b"\npasscode:a\\t\\c:b\n\n\x00"
    assert one(data, version) == frame


@pytest.mark.parametrize(
    ("version", "headers"),
    [(V1_0, {"a": "x\ny"}), (V1_0, {"a:b": ""}), (V1_2, {"": "x"}), (V1_2, {"a": "\x00"}), (None, {"a": "\n"})],
)
def test_header_that_cannot_be_written_is_refused(version: Version | None, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        encode(Frame("MESSAGE", headers), version)


# ---- violations


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"send\n\n\x00",
        b" SEND\n\n\x00",
        b"SEND \n\n\x00",
        b"\x00",
        b"\xff\xfe\xfd\n",
        b"UNSUBSCRIBES",
        b"\rSEND\n",
        b"SEND\nno-colon\n\n\x00",
        b"SEND\n:value\n\n\x00",
        b"SEND\nk:\xff\n\n\x00",
        b"SEND\nk:\xed\xa0\x80\n\n\x00",
        b"SEND\nk:a\rb\n\n\x00",
        b"SEND\nk:v\x00",
        b"SEND\nk\x00:v\n\n\x00",
        b"SEND\x00",
        b"SEND\ncontent-length:-1\n\n\x00",
        b"SEND\ncontent-length:+1\n\na\x00",
        b"SEND\ncontent-length:1.0\n\na\x00",
        b"SEND\ncontent-length: 1\n\na\x00",
        b"SEND\ncontent-length:\n\n\x00",
        "SEND\ncontent-length:\u0661\n\na\x00".encode(),
        b"SEND\ncontent-length:99999999999999999999\n\na\x00",
        b"SEND\ncontent-length:1\n\nab\x00",
        b"SEND\ncontent-length:2\n\na\x00\nSEND",
        b"SEND\ncontent-length:1\n\x00\n",
        b"SEND\ncontent-length:1\n\x00\x00",
    ],
)
def test_what_is_no_frame_is_malformed(data: bytes) -> None:
    with pytest.raises(StreamMalformed):
        frames(data, V1_2)


FILLER = b"k:" + b"v" * 30 + b"\n"


@pytest.mark.parametrize(
    ("fits", "does_not", "says"),
    [
        (b"SEND\n" + b"a:b\n" * 4 + b"\n\x00", b"SEND\n" + b"a:b\n" * 5, "a frame has more than 4 headers"),
        (b"SEND\n" + FILLER + b"\n\x00", b"SEND\n" + b"k:" + b"v" * 31, "a header has more than 32 bytes"),
        (b"SEND\nk:" + b"v" * 30 + b"\r\n\n\x00", b"SEND\nk:" + b"v" * 30 + b"\rx", "a header has more than 32 bytes"),
        (b"SEND\n\n" + b"b" * 64 + b"\x00", b"SEND\n\n" + b"b" * 65, "the body of a frame has more than 64 bytes"),
        (
            b"SEND\ncontent-length:64\n\n" + b"\x00" * 65,
            b"SEND\ncontent-length:65\n\n",
            "the body of a frame has more than 64 bytes",
        ),
        (
            b"SEND\n" + FILLER * 3 + b"\n" + b"b" * 23 + b"\x00",
            b"SEND\n" + FILLER * 3 + b"\n" + b"b" * 24,
            "a frame has more than 128 bytes",
        ),
        (
            b"SEND\n" + FILLER * 3 + b"\n\x00",
            b"SEND\n" + FILLER * 3 + b"k:" + b"v" * 22 + b"\n",
            "a frame has more than 128 bytes",
        ),
    ],
)
def test_bounds_hold_to_the_byte(fits: bytes, does_not: bytes, says: str) -> None:
    assert len(frames(fits, V1_2, BOUNDS)) == 1
    with pytest.raises(StreamTooLarge, match=says):
        frames(does_not, V1_2, BOUNDS)


def test_nothing_is_held_or_read_after_a_violation() -> None:
    parser = Parser(V1_2)
    parser.feed(b"SEND\n\n\x00NO\n" + b"x" * 1_000)
    assert parser.take() == Frame("SEND")
    for _ in range(2):
        with pytest.raises(StreamMalformed):
            parser.take()
        parser.feed(b"SEND\n\n\x00" * 1_000)
        assert parser.held_bytes == 0


# ---- any frame, any cut

TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
PLAIN = st.text(st.characters(exclude_characters="\x00\n\r:\t ", exclude_categories=["Cs"]), max_size=12)


@st.composite
def some_frames(draw: st.DrawFn, version: Version | None) -> Frame:
    words = TEXTS if version in (V1_1, V1_2) else PLAIN
    command = draw(st.sampled_from(["SEND", "MESSAGE", "ERROR"]))
    headers = draw(st.dictionaries(words.filter(bool), words, max_size=5))
    headers.pop("content-length", None)
    body = draw(st.binary(max_size=40))
    return Frame(command, headers | ({"content-length": str(len(body))} if body else {}), body)


@given(st.data(), st.sampled_from(ANY))
def test_what_is_written_is_read_again(data: st.DataObject, version: Version | None) -> None:
    sent = data.draw(st.lists(some_frames(version), max_size=4))
    stream = b"\n".join(encode(frame, version) for frame in sent)
    assert frames(stream, version) == sent


def parts_of(data: bytes, cuts: Sequence[int], version: Version | None) -> tuple[list[Frame], str, int]:
    """Return the frames, the violation and the most bytes held, when `data` comes in the pieces that `cuts` make."""
    parser, found, most = Parser(version, BOUNDS), [], 0
    edges = [0, *sorted(cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            parser.feed(data[start:end])
            while (part := parser.take()) is not None:
                found += [part] if isinstance(part, Frame) else []
            most = max(most, parser.held_bytes)
    except FlikError as error:
        return found, str(error), most
    return found, "", most


PIECES = st.lists(
    st.one_of(
        st.sampled_from([
            b"SEND", b"SUBSCRIBE", b"CONNECT", b"\n", b"\r\n", b"\r", b"\x00", b":", b"\\", b"a:b\n",
            b"content-length:3\n", b"content-length:70\n", b"id:\\c\n", b"\n\n", b"xyz\x00", b"SEND\n\nabc\x00",
            b"k" * 33, b"\xc3\xa4", b"\xff",
        ]),
        st.binary(max_size=6),
    ),
    max_size=16,
).map(b"".join)  # fmt: skip


@example(b"\r\n\x00SEND\n", [1], None)
@example(b"SEND\n" + b"k" * 40 + b"\x00\n", [], V1_2)
@example(b"SEND\nk:" + b"v" * 30 + b"\r\n\n\x00", [], V1_2)
@given(PIECES, st.lists(st.integers(0, 200), max_size=8), st.sampled_from(ANY))
def test_any_cut_of_the_bytes_gives_the_same(data: bytes, cuts: list[int], version: Version | None) -> None:
    cuts = [cut for cut in cuts if cut <= len(data)]
    whole, said, _ = parts_of(data, [], version)
    for pieces in (cuts, range(len(data))):
        cut, cut_said, most = parts_of(data, pieces, version)
        assert (cut, cut_said) == (whole, said)
    assert most <= BOUNDS.frame_bytes + BOUNDS.line_bytes


def test_long_stream_in_single_bytes_is_read_in_linear_time() -> None:
    """Each byte is looked at once: the same bytes again and again would be 2 * 10**9 looks here."""
    parser = Parser(V1_2)
    count = 0
    for byte in b"SEND\n\n" + b"x" * 65_000 + b"\x00":
        parser.feed(bytes([byte]))
        count += len(taken(parser))
    assert count == 1
