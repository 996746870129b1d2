"""A text is streamed without a missing or a repeated piece, whoever writes it and whoever dies in between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import EPOCH
from memory_chunks import MemoryStream

from flik.domain.chunk import (
    MAX_CHARS,
    MAX_CHUNKS,
    Chunk,
    Draft,
    TextPosition,
    Written,
    event_of,
    text_of,
)
from flik.domain.event import Event
from flik.domain.position import Verdict

MANY = 1_000


def draft(attempt: int = 1, run: str = "") -> Draft:
    return Draft(attempt, run or f"run {attempt}", f"w{attempt}", "v1")


def put(stream: MemoryStream, draft: Draft, most: int = MANY) -> None:
    """Write all that waits, as a writer does."""
    for _ in range(MANY):
        write = draft.next_write(most)
        if write is None:
            return
        draft.heed(stream.write(write))
    raise AssertionError("it writes for ever")


def wrote(stream: MemoryStream, attempt: int, *pieces: str, whole: bool = False) -> Draft:
    """Have an attempt write pieces into the stream."""
    writer = draft(attempt)
    for piece in pieces:
        writer.add(piece, EPOCH)
    if whole:
        writer.end(EPOCH)
    put(stream, writer)
    return writer


def shown(stream: MemoryStream) -> list[str]:
    return [chunk.text or chunk.kind for chunk in stream.chunks]


@pytest.mark.parametrize(
    ("there", "pieces", "afterwards"),
    [
        ([], ["a", "b"], ["a", "b", "end"]),
        (["a", "b"], ["a", "b", "c"], ["a", "b", "c", "end"]),
        (["a", "b"], ["ab", "c"], ["a", "b", "c", "end"]),
        (["ab"], ["a", "bc"], ["ab", "c", "end"]),
        (["a", "b"], ["a", "x"], ["a", "b", "restart", "a", "x", "end"]),
        (["a", "b"], ["a"], ["a", "b", "restart", "a", "end"]),
        (["a", "b"], ["x"], ["a", "b", "restart", "x", "end"]),
        (["a", "b"], ["a", "b"], ["a", "b", "end"]),
        (["a"], [], ["a"]),
    ],
)
def test_a_later_attempt_goes_on_where_its_text_fits_and_begins_anew_where_it_does_not(
    there: list[str], pieces: list[str], afterwards: list[str]
) -> None:
    stream = MemoryStream()
    wrote(stream, 1, *there)
    wrote(stream, 2, *pieces, whole=True)
    assert shown(stream) == afterwards


def test_a_whole_text_is_not_ended_twice() -> None:
    stream = MemoryStream()
    wrote(stream, 1, "a", "b", whole=True)
    assert wrote(stream, 2, "ab", whole=True).stopped is False
    assert shown(stream) == ["a", "b", "end"]


def test_an_attempt_that_was_given_up_changes_nothing() -> None:
    stream = MemoryStream()
    zombie = wrote(stream, 1, "a")
    wrote(stream, 2, "a", "b")
    zombie.add("z", EPOCH)
    put(stream, zombie)
    assert zombie.stopped
    assert shown(stream) == ["a", "b"]


def test_a_write_whose_reply_was_lost_is_not_made_twice() -> None:
    stream = MemoryStream()
    writer = draft()
    writer.add("a", EPOCH)
    lost = writer.next_write(MANY)
    assert lost is not None
    stream.write(lost)
    writer.add("b", EPOCH)
    put(stream, writer)
    assert shown(stream) == ["a", "b"]


def test_a_stream_that_was_lost_is_written_again_with_the_same_numbers() -> None:
    stream = MemoryStream()
    wrote(stream, 1, "a")
    writer = wrote(stream, 2, "a", "b")
    stream.lose()
    writer.add("c", EPOCH)
    put(stream, writer)
    assert shown(stream) == ["a", "b", "c"]


def test_what_a_given_up_attempt_wrote_into_a_lost_stream_is_replaced() -> None:
    stream = MemoryStream()
    zombie, writer = draft(1), wrote(stream, 2, "a", "b")
    stream.lose()
    zombie.add("ab", EPOCH)
    put(stream, zombie)
    writer.add("c", EPOCH)
    put(stream, writer)
    assert shown(stream) == ["a", "b", "c"]


def test_of_two_runs_of_one_attempt_the_first_stops() -> None:
    stream = MemoryStream()
    handed_back = wrote(stream, 1, "a")
    again = draft(1, "another run")
    for piece in ("a", "b"):
        again.add(piece, EPOCH)
    put(stream, again)
    handed_back.add("z", EPOCH)
    put(stream, handed_back)
    assert (handed_back.stopped, again.stopped) == (True, False)
    assert shown(stream) == ["a", "b"]


@pytest.mark.parametrize("pieces", [["x" * (MAX_CHARS + 1)], ["x"] * (MAX_CHUNKS + 1)])
def test_a_text_beyond_the_bounds_is_not_streamed_further(pieces: list[str]) -> None:
    writer = draft()
    for piece in pieces:
        writer.add(piece, EPOCH)
    assert writer.stopped
    assert writer.next_write(MANY) is None


def test_text_of_a_stream_is_what_came_since_its_last_restart() -> None:
    assert text_of([chunk("a"), chunk("", "restart"), chunk("b"), chunk("c"), chunk("", "end")]) == "bc"


def chunk(text: str, kind: str = "chunk") -> Chunk:
    return Chunk(kind, text, 1, "w1", "v1", EPOCH)


# ---- whatever happens, in whatever order

texts = st.text("ab", max_size=6)
pieces = st.lists(texts.filter(bool), max_size=5)
steps = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["add", "write", "lost reply", "end"]), st.integers(1, 3)), max_size=60
)


@given(st.lists(pieces, min_size=4, max_size=4), st.lists(st.integers(1, 3), min_size=4, max_size=4), steps,
       st.sets(st.integers(0, 60), max_size=2))  # fmt: skip
def test_any_interleaving_of_attempts_leaves_a_stream_of_one_attempts_text(
    written: list[list[str]], attempts: list[int], steps: list[tuple[int, str, int]], losses: set[int]
) -> None:
    stream = MemoryStream()
    drafts = [draft(attempt, f"run {number}") for number, attempt in enumerate(attempts)]
    left = [list(each) for each in written]
    added = [""] * 4
    for number, (who, what, most) in enumerate(steps):
        if number in losses:
            stream.lose()
        before = list(stream.chunks)
        if what == "add" and left[who]:
            added[who] += left[who][0]
            drafts[who].add(left[who].pop(0), EPOCH)
        elif what == "end" and not left[who]:
            drafts[who].end(EPOCH)
        elif (write := drafts[who].next_write(most)) is not None:
            reply = stream.write(write)
            if what == "write":
                drafts[who].heed(reply)
            if not isinstance(reply, Written):
                assert stream.chunks == before
        assert any(whole.startswith(text_of(stream.chunks)) for whole in added)
    latest = max(attempts)
    last = drafts[attempts.index(latest)]
    if attempts.count(latest) == 1:
        for piece in left[attempts.index(latest)]:
            last.add(piece, EPOCH)
        last.end(EPOCH)
        put(stream, last)
        text = "".join(written[attempts.index(latest)])
        assert not last.stopped
        assert not text or text_of(stream.chunks) == text


@given(pieces, pieces, st.integers(1, 4))
def test_who_follows_from_anywhere_gets_every_chunk_once(first: list[str], second: list[str], most: int) -> None:
    stream, heard = MemoryStream(), list[Event]()
    for attempt, texts in ((1, first), (2, second)):
        writer = draft(attempt)
        for text in texts:
            writer.add(text, EPOCH)
            put(stream, writer, most)
    heard = [event_of("t1", index, chunk) for index, chunk in enumerate(stream.chunks)]
    for cursor in range(len(heard) + 1):
        position = TextPosition(cursor)
        given = position.pass_over(heard[: cursor + 1])
        for event in heard:
            if position.judge(event.chunk_index or 0) is Verdict.DELIVER:
                position.note(event)
                given.append(event)
        assert given == heard[cursor:]
        assert position.has(text_of(stream.chunks)) or not stream.chunks
        assert not position.has(text_of(stream.chunks) + "x")


def test_a_gap_asks_to_read_the_stream() -> None:
    position = TextPosition()
    assert [position.judge(index) for index in (0, 1)] == [Verdict.DELIVER, Verdict.READ_LOG]
    position.note(event_of("t1", 0, chunk("a")))
    assert [position.judge(index) for index in (0, 1, 2)] == [Verdict.SKIP, Verdict.DELIVER, Verdict.READ_LOG]


def test_who_did_not_get_the_beginning_does_not_have_the_text() -> None:
    position = TextPosition(1)
    position.note(event_of("t1", 1, chunk("b")))
    assert not position.has("b")
