"""Whatever a client sends, it ends in ERROR and Close or goes on: never in an exception, never in much memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.follow import Authenticate, Close, Output, Send, Subscribe
from flik.domain.stomp.frames import DEFAULT_BOUNDS, Frame, Version, encode
from flik.domain.stomp.session import StompSession
from flik.errors import FlikError, TaskNotFound

V1_0, V1_1, V1_2 = Version
CHUNK = 4_096


def explain(error: FlikError) -> dict[str, object]:
    return {"code": error.code, "detail": str(error)}


def opened(version: Version | None) -> StompSession:
    """Return a connection in a version; None: one that has not connected."""
    session = StompSession(0.0, explain)
    if version is not None:
        session.receive(f"CONNECT\naccept-version:{version}\npasscode:k\n\n\x00".encode(), 0.0)
        session.accept(0.0)
    return session


def drive(session: StompSession, pieces: Iterable[bytes]) -> tuple[list[Output], int]:
    """Return what came out, all questions answered with yes, and how much was fed until the end."""
    outputs: list[Output] = []
    fed = 0
    for piece in pieces:
        fed += len(piece)
        new = session.receive(piece, 0.0)
        while new:
            outputs += new
            new = session.accept(0.0) if isinstance(new[-1], Authenticate | Subscribe) else []
        assert session._parser.held_bytes <= DEFAULT_BOUNDS.frame_bytes + DEFAULT_BOUNDS.line_bytes
        if outputs and isinstance(outputs[-1], Close):
            break
    return outputs, fed


def for_ever(piece: bytes) -> Iterator[bytes]:
    return itertools.repeat(piece * (1 + CHUNK // len(piece)))


@pytest.mark.parametrize("version", [None, *Version])
@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"x"),
        (b"", b"\r"),
        (b"", b"\x00"),
        (b"SUBSCRIBE", b"E"),
        (b"CONNECT\n", b"a"),
        (b"SUBSCRIBE\n", b"a:b\n"),
        (b"SUBSCRIBE\nid:", b"1"),
        (b"SUBSCRIBE\nid:", b"\\\\"),
        (b"SEND\n\n", b"b"),
        (b"SEND\ncontent-length:9999999999\n\n", b"\x00"),
        (b"SEND\ncontent-length:60000\n\n", b"\x01"),
        (b"ACK\nid:\xff\xfe\n\n", b"\x00"),
        (b"", bytes(range(256))),
    ],
    ids=repr,
)
def test_endless_stream_is_cut_off(version: Version | None, start: bytes, piece: bytes) -> None:
    outputs, fed = drive(opened(version), itertools.chain([start], for_ever(piece)))
    *_, error, close = outputs
    assert isinstance(error, Send)
    assert error.data.startswith(b"ERROR\n")
    assert isinstance(close, Close)
    assert fed <= DEFAULT_BOUNDS.frame_bytes + 2 * CHUNK


def test_ten_thousand_subscriptions_are_too_many_however_they_come() -> None:
    each = [
        encode(Frame("SUBSCRIBE", {"id": str(number), "destination": "/topic/tenant"}), V1_2)
        for number in range(10_000)
    ]
    for pieces in (each, [b"".join(each)]):
        outputs, _ = drive(opened(V1_2), pieces)
        assert sum(isinstance(output, Subscribe) for output in outputs) <= 100
        assert isinstance(outputs[-1], Close)


def test_heart_beats_without_end_cost_nothing() -> None:
    session = opened(V1_2)
    assert drive(session, itertools.islice(for_ever(b"\n"), 256))[0] == []
    assert session._parser.held_bytes == 0


def test_who_sends_on_while_a_question_is_open_is_cut_off() -> None:
    session = StompSession(0.0, explain)
    assert session.receive(b"CONNECT\npasscode:k\n\n\x00", 0.0) == [Authenticate("k")]
    for count in itertools.count(1):
        outputs = session.receive(b"\n" * CHUNK, 0.0)
        if outputs:
            break
        assert count * CHUNK <= DEFAULT_BOUNDS.frame_bytes
    assert isinstance(outputs[-1], Close)
    assert session.accept(0.0) == []


WORDS = st.sampled_from([
    b"CONNECT\n", b"STOMP\n", b"SUBSCRIBE\n", b"UNSUBSCRIBE\n", b"ACK\n", b"NACK\n", b"SEND\n", b"BEGIN\n",
    b"DISCONNECT\n", b"MESSAGE\n", b"accept-version:1.2\n", b"accept-version:1.1\n", b"accept-version:9\n", b"id:1\n",
    b"id:\\c\\n\n", b"id:\\t\n", b"destination:/topic/tasks/t1\n", b"destination:/topic/tenant\n", b"destination:/x\n",
    b"receipt:\xc3\xa4\\n\n", b"receipt:\n", b"from-seq:7\n", b"from-seq:x\n", b"ack:client\n", b"message-id:1\n",
    b"heart-beat:1,1\n", b"passcode:k\n", b"Authorization:Bearer k\n", b"subscription:1\n", b"content-length:2\n",
    b"\n\x00", b"\n", b"\r\n", b"\x00", b"ab", b"\xff", b":", b"\\",
])  # fmt: skip


class Fuzzer:
    """Feeds bytes, and between them answers, events and time; checks what must hold of all that comes out."""

    def __init__(self, version: Version | None, chance: random.Random) -> None:
        self.session = opened(version)
        self.chance = chance
        self.is_over = False
        self.now = 0.0

    def step(self, data: bytes) -> None:
        self.now += self.chance.choice((0.0, 0.1, 5.0))
        self.check(self.session.receive(data, self.now))
        number = self.chance.randrange(12)
        if number < 6:
            self.check(self.session.accept(self.now))
        elif number == 6:
            self.check(self.session.refuse(TaskNotFound("1"), self.now))
        elif number == 7:
            self.check(self.session.tick(self.now))
        else:
            self.check(self.session.event(self.chance.choice("01:"), 5, b"{}", self.now))
        wakes_at = self.session.wakes_at()
        assert not self.is_over or wakes_at is None

    def check(self, outputs: list[Output]) -> None:
        assert not (self.is_over and outputs)
        for output in outputs[:-1]:
            assert not isinstance(output, Close | Authenticate | Subscribe)
        for output in outputs:
            assert not isinstance(output, Send) or output.data == b"\n" or output.data.endswith(b"\x00")
        self.is_over = self.is_over or (bool(outputs) and isinstance(outputs[-1], Close))


@given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=40), st.sampled_from([None, *Version]), st.randoms())
def test_no_input_raises(words: list[bytes], version: Version | None, chance: random.Random) -> None:
    fuzzer = Fuzzer(version, chance)
    for word in words:
        fuzzer.step(word)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_raise_nothing(seed: int) -> None:
    chance = random.Random(seed)
    for version in (None, *Version):
        for _ in range(50):
            fuzzer = Fuzzer(version, chance)
            while not fuzzer.is_over:
                fuzzer.step(chance.randbytes(chance.randrange(1, 200)))
