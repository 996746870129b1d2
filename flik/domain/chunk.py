"""The text of a task while it is written: one stream of chunks, whoever writes it and whoever dies in between.

A stream is numbered 0, 1, 2 ... without a gap. An attempt that finds the stream of an earlier one goes on where
it ends: what it writes is compared with what is there, and only what comes after that is added. When its text
is another one, a `restart` stands in the stream before it, and whoever follows forgets what came before.

    there                this attempt writes     stream afterwards
    -                    "a", "b"                a b
    "a" "b"              "a", "b", "c"           a b c
    "a" "b"              "ab", "c"               a b c
    "a" "b"              "a", "x"                a b restart a x

`Draft` is what one attempt wants to stand in the stream. It makes writes and heeds the replies to them. What a
reply says is decided in Redis (`flik/live/chunks.lua`): a write takes effect if it goes on where the stream ends
and no later attempt has written.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from flik.domain.event import Event, Kind
from flik.domain.position import Verdict

CHUNK, RESTART, END = "chunk", "restart", "end"
MAX_CHARS = 4_000_000  # of one task's stream; a longer text is in the result only
MAX_CHUNKS = 50_000


class Chunk(NamedTuple):
    """One entry of a stream: a piece of text, a restart, or the end of a whole text. `at`: when it was written."""

    kind: str
    text: str
    attempt: int
    worker_id: str
    version: str
    at: float


class Mode(StrEnum):
    """What a write may find in the stream."""

    BEGIN = "begin"  # what others wrote, up to `first`
    GO_ON = "go_on"  # what this run wrote
    ANEW = "anew"  # what an earlier attempt wrote: it is replaced


class Write(NamedTuple):
    """Chunks that are to be numbers `first`, `first` + 1 ... of the stream. `run` names the attempt's run for good."""

    attempt: int
    run: str
    first: int
    mode: Mode
    chunks: Sequence[Chunk]


class Written(NamedTuple):
    """They stand there, as did those of an earlier try of this write; the stream has `total` chunks now."""

    total: int


class Refused(NamedTuple):
    """A later attempt writes: this one must not any more."""


class Missing(NamedTuple):
    """There is no stream (any more): it expired, or Redis lost it."""


class Taken(NamedTuple):
    """Others wrote what this run does not know of: these chunks are in the stream, the last by `attempt`."""

    attempt: int
    chunks: Sequence[Chunk]


Reply = Written | Refused | Missing | Taken


def text_of(chunks: Iterable[Chunk]) -> str:
    """Return the text that a stream holds: what came since its last restart."""
    parts: list[str] = []
    for chunk in chunks:
        if chunk.kind == RESTART:
            parts.clear()
        parts.append(chunk.text)
    return "".join(parts)


class Draft:
    """What one attempt wants to stand in the stream. `stopped`: it writes no more."""

    def __init__(self, attempt: int, run: str, worker_id: str, version: str) -> None:
        self.stopped = False
        self._attempt = attempt
        self._run = run
        self._worker_id = worker_id
        self._version = version
        self._own: list[Chunk] = []  # what this attempt wrote
        self._chunks: list[Chunk] = []  # the whole stream as it is to be
        self._ahead = ""  # what stands in the stream beyond what this attempt wrote so far
        self._sent = 0  # so many of `_chunks` are known to stand there
        self._mode = Mode.BEGIN
        self._size = 0

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return not self.stopped and self._sent < len(self._chunks)

    @property
    def chunks(self) -> Sequence[Chunk]:
        """The whole stream as it is to be."""
        return self._chunks

    def add(self, text: str, at: float) -> None:
        """Take the next piece of the text; a text that grows beyond what a stream holds is not streamed further."""
        self._size += len(text)
        if self._size > MAX_CHARS or len(self._chunks) >= MAX_CHUNKS:
            self.stopped = True
        if text and not self.stopped:
            self._note(self._chunk(CHUNK, text, at))

    def end(self, at: float) -> None:
        """Note that the text is whole."""
        if self._own and not self.stopped:
            self._note(self._chunk(END, "", at))

    def next_write(self, most: int) -> Write | None:
        """Return what is to be written next, at most so many chunks; None when there is nothing."""
        if not self.waits:
            return None
        chunks = self._chunks[self._sent : self._sent + most]
        return Write(self._attempt, self._run, self._sent, self._mode, chunks)

    def heed(self, reply: Reply) -> None:
        """Take in what became of the last write."""
        if isinstance(reply, Written):
            self._sent, self._mode = reply.total, Mode.GO_ON
        elif isinstance(reply, Missing):
            self._sent = 0
        elif isinstance(reply, Refused):
            self.stopped = True
        elif self._mode is Mode.BEGIN:
            self._go_on(reply.chunks)
        elif reply.attempt < self._attempt:  # it came back after Redis had lost the stream
            self._sent, self._mode = 0, Mode.ANEW
        else:
            self.stopped = True

    def _go_on(self, there: Sequence[Chunk]) -> None:
        own, self._own = self._own, []
        self._chunks, self._sent, self._ahead = list(there), len(there), text_of(there)
        for chunk in own:
            self._note(chunk)

    def _note(self, chunk: Chunk) -> None:
        self._own.append(chunk)
        if self._fits(chunk):
            return
        if self._ahead:  # another text than the one that is there
            self._ahead = ""
            self._chunks += [self._chunk(RESTART, "", chunk.at), *self._own]
        else:
            self._chunks.append(chunk)

    def _fits(self, chunk: Chunk) -> bool:
        """Return whether a chunk stands in the stream already; if a part of it does, add the rest."""
        ahead = self._ahead
        if chunk.kind == END:
            return not ahead and bool(self._chunks) and self._chunks[-1].kind == END
        if not ahead or not (ahead.startswith(chunk.text) or chunk.text.startswith(ahead)):
            return False
        self._ahead = ahead[len(chunk.text) :]
        if rest := chunk.text[len(ahead) :]:
            self._chunks.append(chunk._replace(text=rest))
        return True

    def _chunk(self, kind: str, text: str, at: float) -> Chunk:
        return Chunk(kind, text, self._attempt, self._worker_id, self._version, at)


def event_of(task_id: str, index: int, chunk: Chunk) -> Event:
    """Return what followers hear of a chunk; an end is one without text, which they are not told."""
    kind, text, attempt, worker_id, version, at = chunk
    if kind == RESTART:
        return Event(task_id, 0, Kind.RESTART, at, attempt, worker_id, version, chunk_index=index)
    return Event(task_id, 0, Kind.CHUNK, at, attempt, worker_id, version, text=text, chunk_index=index)


def is_told(event: Event) -> bool:
    """Return whether a follower who wants chunks is told of this one."""
    return event.kind == Kind.RESTART or bool(event.text)


class TextPosition:
    """How far one follower is in a task's stream: `next_index` is the number of the chunk that it gets next."""

    def __init__(self, next_index: int = 0) -> None:
        self.next_index = next_index
        self._given = (0, 0)  # characters, checksum
        self._counted = 0  # chunks that `_given` is about

    @property
    def first_unread(self) -> int:
        """From which number on a stream must be read, to know all that the follower was given."""
        return self._counted

    def judge(self, index: int) -> Verdict:
        """Return what to do with a chunk that was heard of; READ_LOG: read the stream."""
        if index < self.next_index:
            return Verdict.SKIP
        return Verdict.DELIVER if index == self.next_index else Verdict.READ_LOG

    def pass_over(self, stream: Iterable[Event]) -> list[Event]:
        """Take in a stream from its start; return what of it the follower was not given yet."""
        fresh = []
        for event in stream:
            index = event.chunk_index or 0
            if index == self._counted:
                self._count(event)
            if index >= self.next_index:
                self.next_index = index + 1
                fresh += [event] if is_told(event) else []
        return fresh

    def note(self, event: Event) -> None:
        """Note that a chunk is given to the follower."""
        if event.chunk_index == self._counted:
            self._count(event)
        self.next_index = (event.chunk_index or 0) + 1

    def has(self, text: str) -> bool:
        """Return whether what the follower was given is this text."""
        return self._given == _added((0, 0), text)

    def _count(self, event: Event) -> None:
        self._counted += 1
        self._given = (0, 0) if event.kind == Kind.RESTART else _added(self._given, event.text or "")


def _added(given: tuple[int, int], text: str) -> tuple[int, int]:
    length, checksum = given
    return length + len(text), zlib.crc32(text.encode("utf-8", "surrogatepass"), checksum)
