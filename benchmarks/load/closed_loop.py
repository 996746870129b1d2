"""As fast as the server allows: every connection sends again when it was answered.

A cut connection is opened again; its request counts as unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.load.connection import Connection

GRACE_S = 30.0  # how long answers may take after the last request was sent


@dataclass
class Tally:
    """What a loop has seen so far: (index of the post, status, body) of each answer, and how long each took."""

    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    unknown: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0


class ClosedLoop:
    """Sends `count` requests over `connections`, for `seconds` at most, and tallies the answers."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], count: int, seconds: float) -> None:
        self._address = (host, port)
        self._requests = requests
        self._count = count
        self._seconds = seconds
        self._sent = 0
        self._until = 0.0
        self._open: set[Connection] = set()
        self._reopening: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self.tally = Tally()

    async def run(self, connections: int) -> Tally:
        """Return the tally once all requests are answered, cut off, or overdue by 30 s."""
        await asyncio.gather(*(self._connect() for _ in range(min(connections, self._count))))
        self.tally.started_at = time.monotonic()
        self._until = self.tally.started_at + self._seconds
        for connection in list(self._open):
            self._next(connection)
        try:
            await asyncio.wait_for(self._over.wait(), self._seconds + GRACE_S)
        except TimeoutError:
            self.tally.unknown += sum(connection.sent_at is not None for connection in self._open)
            self.tally.ended_at = time.monotonic()
        self._close()
        return self.tally

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self._answered, self._cut), *self._address)
        self._open.add(connection)
        return connection

    def _next(self, connection: Connection) -> None:
        now = time.monotonic()
        if self._sent < self._count and now < self._until:
            connection.number = self._sent % len(self._requests)
            self._sent += 1
            connection.send(self._requests[connection.number], now)
        else:
            self._retire(connection)

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        now = time.monotonic()
        assert connection.sent_at is not None
        self.tally.latencies_ms.append((now - connection.sent_at) * 1000)
        self.tally.answers.append((connection.number, status, body))
        self.tally.ended_at = now
        connection.sent_at = None
        self._next(connection)

    def _reopened(self, reopening: asyncio.Task[None]) -> None:
        self._reopening.discard(reopening)
        self._end_if_idle()

    def _retire(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.close()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if not self._open and not self._reopening:
            self._over.set()

    def _cut(self, connection: Connection) -> None:
        if connection not in self._open:
            return  # retired by us
        self._open.discard(connection)
        if connection.sent_at is not None:
            self.tally.unknown += 1
            self.tally.ended_at = time.monotonic()
        reopening = asyncio.get_running_loop().create_task(self._reopen())
        self._reopening.add(reopening)
        reopening.add_done_callback(self._reopened)

    async def _reopen(self) -> None:
        connection: Connection | None = None
        while connection is None and time.monotonic() < self._until:
            try:
                connection = await self._connect()
            except OSError:
                await asyncio.sleep(0.1)
        if connection is not None:
            self._next(connection)

    def _close(self) -> None:
        for connection in self._open.copy():
            self._open.discard(connection)
            connection.close()
