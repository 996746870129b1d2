"""Reads Server-Sent Events (WHATWG HTML, section 9.2.6) from bytes that come in any pieces."""

from __future__ import annotations

from typing import NamedTuple

MAX_EVENT_BYTES = 8 * 1024 * 1024


class Message(NamedTuple):
    """One event of a stream: its name, its data, and the id to come back with (None: as before)."""

    name: str
    data: str
    last_id: str | None


class EventTooLarge(ValueError):
    """An event is larger than `MAX_EVENT_BYTES`."""


class Reader:
    """Takes bytes, gives the messages that they complete. `retry_s`: how long the server asks to pause."""

    def __init__(self) -> None:
        self.retry_s: float | None = None
        self._buffer = b""
        self._after_cr = False
        self._size_bytes = 0
        self._name = ""
        self._data: list[str] = []
        self._last_id: str | None = None

    def feed(self, more: bytes) -> list[Message]:
        """Take the next bytes.

        Raises:
            EventTooLarge: before they are all kept.
        """
        if self._after_cr and more.startswith(b"\n"):
            more = more[1:]
        if more:
            self._after_cr = more.endswith(b"\r")
        *lines, self._buffer = (self._buffer + more).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._size_bytes += len(more)
        messages = [message for line in lines if (message := self._line(line.decode(errors="replace"))) is not None]
        if self._size_bytes > MAX_EVENT_BYTES:
            raise EventTooLarge(f"an event of more than {MAX_EVENT_BYTES:,} bytes")
        return messages

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._last_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000
        return None

    def _end(self) -> Message | None:
        message = Message(self._name or "message", "\n".join(self._data), self._last_id) if self._data else None
        self._name, self._data, self._last_id, self._size_bytes = "", [], None, len(self._buffer)
        return message
