"""STOMP frames as bytes: read piece by piece, and written.

    frame = command EOL *(name ":" value EOL) EOL body NUL *EOL

What the versions differ in (the specifications are those of stomp.github.io):

| | 1.0 | 1.1 | 1.2 |
|---|---|---|---|
| end of a line | LF | LF | LF or CR LF |
| escapes in headers | none | `\\n` `\\c` `\\\\` | `\\r` too; others end the connection |
| white space around headers | trimmed | kept | kept |

CONNECT and CONNECTED are never escaped, nor is STOMP, which has to be taken as CONNECT is. Until a
version is agreed on (None) nothing is escaped or trimmed, and CR LF ends a line. Headers are UTF-8.
Of a header that is repeated the first value counts. A body is as long as `content-length` says,
and may then hold NULs, or else ends at the first NUL.

Read more leniently than written: a colon may stand unescaped in a value, as many clients leave it;
and a NUL in the place of a header ends a frame that lacks its blank line, as one example of the
specification does. Nothing else is forgiven, and nothing is read after a violation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flik.errors import FlikError, StreamMalformed, StreamTooLarge

EOL = b"\n"
"""A heart-beat, as it is sent."""


class Version(StrEnum):
    """The versions of the protocol, ascending."""

    V1_0 = "1.0"
    V1_1 = "1.1"
    V1_2 = "1.2"


CLIENT_COMMANDS = frozenset({
    "CONNECT", "STOMP", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "ACK", "NACK", "BEGIN", "COMMIT", "ABORT", "DISCONNECT",
})  # fmt: skip
SERVER_COMMANDS = frozenset({"CONNECTED", "MESSAGE", "RECEIPT", "ERROR"})
COMMANDS = CLIENT_COMMANDS | SERVER_COMMANDS
_UNESCAPED = frozenset({"CONNECT", "STOMP", "CONNECTED"})
_MAX_COMMAND_BYTES = max(map(len, COMMANDS))
_ESCAPED_1_1 = {"\\": "\\\\", "\n": "\\n", ":": "\\c"}
_ESCAPED: Mapping[Version, Mapping[str, str]] = {
    Version.V1_1: _ESCAPED_1_1,
    Version.V1_2: _ESCAPED_1_1 | {"\r": "\\r"},
}
_TO_ESCAPE = {version: str.maketrans(dict(escaped)) for version, escaped in _ESCAPED.items()}
_MEANT = {version: {written: meant for meant, written in escaped.items()} for version, escaped in _ESCAPED.items()}
_ESCAPE = re.compile(r"\\.?", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,10}", re.ASCII)
_EOLS, _LFS = re.compile(rb"(?:\r?\n)*"), re.compile(rb"\n*")


@dataclass(frozen=True, slots=True)
class Frame:
    """A command with headers and body; header names and values as they are meant, not as they are escaped."""

    command: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HeartBeat:
    """One or more ends of line between frames."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a frame is read: headers, repeated ones included; bytes of a line, of the body, of all of it."""

    headers: int = 64
    line_bytes: int = 8_192
    body_bytes: int = 65_536
    frame_bytes: int = 131_072


DEFAULT_BOUNDS = Bounds()
_BEAT = HeartBeat()


class Parser:
    """Bytes in, frames and heart-beats out; however the bytes are cut, the frames are the same.

    It holds no more than one frame within its bounds, besides what was fed and not yet taken.
    Whoever learns the version from a frame sets it before the next one is taken.
    """

    def __init__(self, version: Version | None = None, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self.version = version
        self._bounds = bounds
        self._buffer = bytearray()
        self._broken: FlikError | None = None
        self._start()

    @property
    def held_bytes(self) -> int:
        """How much was fed and has not come out."""
        return self._head_bytes + len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what was received. After a violation it is dropped."""
        if self._broken is None:
            self._buffer += data

    def take(self) -> Frame | HeartBeat | None:
        """Return what comes next; None when more bytes are needed.

        Raises:
            StreamMalformed: the bytes are not STOMP.
            StreamTooLarge: a frame is beyond the bounds. After either, every call raises the same again.
        """
        if self._broken is not None:
            raise self._broken
        try:
            return self._next()
        except FlikError as error:
            self._broken = error
            self._buffer.clear()
            self._start()
            raise

    def _start(self) -> None:
        self._command = ""
        self._headers: dict[str, str] = {}
        self._count = 0
        self._head_bytes = 0
        self._in_body = False
        self._scanned = 0  # so far the buffer holds no end of what is read now

    def _next(self) -> Frame | HeartBeat | None:
        if not self._command and self._skip_ends_of_line():
            return _BEAT
        while not self._in_body:
            if self._command and self._ends_early():
                self._in_body = True
            elif (line := self._line()) is None:
                return None
            elif not self._command:
                self._command = self._command_of(line)
            elif line:
                self._add(line)
            else:
                self._in_body = True
        return self._frame()

    @property
    def _takes_cr_lf(self) -> bool:
        return self.version is not Version.V1_1

    def _skip_ends_of_line(self) -> bool:
        found = (_EOLS if self._takes_cr_lf else _LFS).match(self._buffer)
        skipped = found.end() if found else 0
        if skipped:
            del self._buffer[:skipped]
            self._scanned = 0
        return skipped > 0

    def _ends_early(self) -> bool:
        return self._buffer.startswith(b"\0") and not self._declared_bytes()

    # ---- lines

    def _line(self) -> bytes | None:
        """Return the next line without its end; None when it is not there yet."""
        end = self._buffer.find(b"\n", self._scanned)
        self._check_line(len(self._buffer) if end < 0 else end)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        self._head_bytes += end + 1
        if self._head_bytes > self._bounds.frame_bytes:
            raise StreamTooLarge("a frame", self._bounds.frame_bytes)
        return line.removesuffix(b"\r") if self._takes_cr_lf else line

    def _check_line(self, size: int) -> None:
        """Check the line, or as much of it as is there, before it is read; a CR at its end is not counted."""
        bound = self._bounds.line_bytes if self._command else _MAX_COMMAND_BYTES
        if self._buffer.find(b"\0", self._scanned, min(size, bound + 1)) >= 0:
            raise StreamMalformed("a NUL stands before the blank line that ends the headers")
        if size > bound and not (size == bound + 1 and self._takes_cr_lf and self._buffer[bound] == b"\r"[0]):
            if not self._command:
                raise StreamMalformed("this is no command of STOMP")
            raise StreamTooLarge("a header", bound)

    def _command_of(self, line: bytes) -> str:
        command = line.decode("ascii", "replace")
        if self.version is Version.V1_0:
            command = trim(command)
        if command not in COMMANDS:
            raise StreamMalformed("this is no command of STOMP")
        return command

    def _add(self, line: bytes) -> None:
        self._count += 1
        if self._count > self._bounds.headers:
            raise StreamTooLarge("a frame", self._bounds.headers, "headers")
        try:
            name, colon, value = line.decode().partition(":")
        except UnicodeDecodeError:
            raise StreamMalformed("a header is not UTF-8") from None
        if self.version is Version.V1_0:
            name, value = trim(name), trim(value)
        if not colon or not name:
            raise StreamMalformed("a header must be a name, a colon and a value")
        self._headers.setdefault(self._meant(name), self._meant(value))

    def _meant(self, text: str) -> str:
        if self.version is Version.V1_2 and "\r" in text:
            raise StreamMalformed("a carriage return in a header must be escaped")
        escapes = None if self.version is None or self._command in _UNESCAPED else _MEANT.get(self.version)
        if escapes is None or "\\" not in text:
            return text
        try:
            return _ESCAPE.sub(lambda found: escapes[found[0]], text)
        except KeyError:
            raise StreamMalformed("a header has an escape that this version does not define") from None

    # ---- body

    def _declared_bytes(self) -> int | None:
        declared = self._headers.get("content-length")
        if declared is None:
            return None
        if not _LENGTH.fullmatch(declared):
            raise StreamMalformed("content-length must be a number of bytes")
        return int(declared)

    def _frame(self) -> Frame | None:
        declared = self._declared_bytes()
        size = self._buffer.find(b"\0", self._scanned) if declared is None else declared
        self._check_body(len(self._buffer) if size < 0 else size)
        if size < 0 or len(self._buffer) <= size:
            self._scanned = len(self._buffer)
            return None
        if self._buffer[size]:
            raise StreamMalformed("no NUL stands where content-length says that the body ends")
        frame = Frame(self._command, self._headers, bytes(self._buffer[:size]))
        del self._buffer[: size + 1]
        self._start()
        return frame

    def _check_body(self, size: int) -> None:
        if size > self._bounds.body_bytes:
            raise StreamTooLarge("the body of a frame", self._bounds.body_bytes)
        if self._head_bytes + size > self._bounds.frame_bytes:
            raise StreamTooLarge("a frame", self._bounds.frame_bytes)


def trim(text: str) -> str:
    """Return a header's name or value, or a command, without the white space that 1.0 does not count."""
    return text.strip(" \t\r")


def encode(frame: Frame, version: Version | None) -> bytes:
    """Return a frame as bytes; `content-length` is set when it has a body.

    Raises:
        ValueError: a header cannot be written in this version: 1.0 has no way to write a line feed.
    """
    headers = dict(frame.headers)
    if frame.body:
        headers["content-length"] = str(len(frame.body))
    table = None if version is None or frame.command in _UNESCAPED else _TO_ESCAPE.get(version)
    lines = [frame.command, *(_header(name, value, table) for name, value in headers.items()), "\n"]
    return "\n".join(lines).encode() + frame.body + b"\0"


def _header(name: str, value: str, table: dict[int, str] | None) -> str:
    if table is not None:
        name, value = name.translate(table), value.translate(table)
    elif ":" in name or "\n" in name + value:
        raise ValueError(f"the header {name!r} cannot be written without escapes")
    if not name or "\0" in name + value:
        raise ValueError(f"the header {name!r} has no name, or holds a NUL")
    return f"{name}:{value}"
