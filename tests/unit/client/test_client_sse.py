"""Streams of events are read as browsers read them, in whatever pieces they come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.client import sse
from flik.client.sse import EventTooLarge, Message, Reader

STREAM = (
    b"retry: 1500\n\n:\n\n"
    b"id: 1\nevent: queued\ndata: {}\n\n"
    b"event: progress\ndata:a\ndata: b\n\n"
    b"data\n\nevent: nothing\n\n"
    b"id: 2\r\nevent: completed\r\ndata: \xe7\x8c\xab\r\n\r\n"
    b"id: 3\rdata: x\r\r"
)
MESSAGES = [
    Message("queued", "{}", "1"),
    Message("progress", "a\nb", None),
    Message("message", "", None),
    Message("completed", "猫", "2"),
    Message("message", "x", "3"),
]


def read(pieces: list[bytes]) -> tuple[list[Message], float | None]:
    reader = Reader()
    return [message for piece in pieces for message in reader.feed(piece)], reader.retry_s


def test_a_stream_is_read() -> None:
    assert read([STREAM]) == (MESSAGES, 1.5)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_pieces_give_the_same_messages(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(places)]
    assert read(pieces) == (MESSAGES, 1.5)


def test_single_bytes_give_the_same_messages() -> None:
    assert read([bytes([byte]) for byte in STREAM]) == (MESSAGES, 1.5)


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_without_a_fault(noise: bytes) -> None:
    read([noise])


@pytest.mark.parametrize("endless", [b"data: " + b"x" * 400, b"data: xx\n" * 50, b"id: 7\n" * 60])
def test_an_event_without_end_is_refused(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 256)
    with pytest.raises(EventTooLarge):
        read([endless[start : start + 10] for start in range(0, len(endless), 10)])
