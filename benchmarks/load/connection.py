"""One keep-alive HTTP/1.1 connection with at most one request on its way.

Reads answers that carry Content-Length, which is what every server measured here sends;
anything else ends the connection and counts as no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"


def encode(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Return the bytes of a whole request."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + HEAD_END + body


def decode(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Split the first answer off `data`: (status, body, what follows); None while it is incomplete.

    Raises:
        ValueError: the answer has no Content-Length, or is no HTTP.
    """
    head_end = data.find(HEAD_END)
    if head_end < 0:
        return None
    head = data[:head_end].lower()
    found = head.find(LENGTH)
    if found < 0:
        raise ValueError(f"answer without Content-Length: {data[:80]!r}")
    size = int(head[found + len(LENGTH) :].split(b"\r\n", 1)[0])
    body_at = head_end + len(HEAD_END)
    if len(data) < body_at + size:
        return None
    return int(data[9:12]), data[body_at : body_at + size], data[body_at + size :]


class Connection(asyncio.Protocol):
    """Calls `on_answer(connection, status, body)` for each answer and `on_cut(connection)` when the peer hangs up."""

    def __init__(
        self,
        on_answer: Callable[[Connection, int, bytes], None],
        on_cut: Callable[[Connection], None],
    ) -> None:
        self._on_answer = on_answer
        self._on_cut = on_cut
        self._pending = b""
        self._transport: asyncio.Transport | None = None
        self.sent_at: float | None = None  # None: nothing on its way
        self.number = 0  # which request it carries; the owner's business

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send(self, request: bytes, now: float) -> None:
        """Send one whole request; the one before must have been answered."""
        assert self._transport is not None
        self.sent_at = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._pending = self._pending + data if self._pending else data
        try:
            answer = decode(self._pending)
        except ValueError:
            self.close()
            return
        if answer is not None:
            status, body, self._pending = answer
            self._on_answer(self, status, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_cut(self)

    def close(self) -> None:
        """Hang up; `on_cut` follows."""
        if self._transport is not None:
            self._transport.abort()
