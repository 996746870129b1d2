"""Lines to a running Flik that break: a TCP proxy which resets connections after so many bytes, wherever that is.

Each follower has a line of its own, which says of each connection where it is to be cut. A cut is a reset (RST) to
both sides; what came before it has been handed on, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_PIECE = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: what is not sent yet is thrown away


class Cut(NamedTuple):
    """Where a connection ends: after so many bytes from Flik (`down`), or else to it."""

    after: int
    down: bool = True


class Made(NamedTuple):
    """A cut that took place; `in_head`: before the head of the request or the answer was through."""

    name: str
    cut: Cut
    in_head: bool


class Line:
    """One way to Flik, a port of its own. `next_cut` is asked for each connection; `name` is what it is for."""

    def __init__(self, made: list[Made], to_port: int) -> None:
        self.next_cut: Callable[[], Cut | None] = lambda: None
        self.name = ""
        self.connections = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self._made = made
        self._to_port = to_port
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Take connections until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                client, _ = await loop.sock_accept(self.listening)
                self.connections += 1
                carrying = asyncio.create_task(self._carry(client, self.name, self.next_cut()))
                self._open.add(carrying)
                carrying.add_done_callback(self._open.discard)
        finally:
            self.listening.close()
            await self.break_all()

    async def break_all(self) -> None:
        """Reset what is connected now."""
        carrying = list(self._open)
        for each in carrying:
            each.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    async def _carry(self, client: socket.socket, name: str, cut: Cut | None) -> None:
        loop = asyncio.get_running_loop()
        flik = socket.socket()
        ends = (client, flik)
        for end in ends:
            end.setblocking(False)
        ways: list[_Way] = []
        broken = True
        try:
            await loop.sock_connect(flik, ("127.0.0.1", self._to_port))
            ways = [
                _Way(client, flik, cut.after if cut and not cut.down else None),
                _Way(flik, client, cut.after if cut and cut.down else None),
            ]
            async with asyncio.TaskGroup() as both:
                for way in ways:
                    both.create_task(way.run())
            broken = False
        except* _Here:
            assert cut is not None
            self._made.append(Made(name, cut, not all(way.head_is_through for way in ways)))
        except* OSError:  # one side is gone: so is the other
            pass
        finally:
            for end in ends:
                if broken:
                    with suppress(OSError):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.close()


class _Here(Exception):  # nothing went wrong
    """The connection is to be cut."""


class _Way:
    """One direction of a connection; `most`: after so many bytes it is cut."""

    def __init__(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        self.head_is_through = False
        self._source = source
        self._sink = sink
        self._left = most
        self._tail = b""

    async def run(self) -> None:
        """Hand on what comes, to its end.

        Raises:
            _Here: so many bytes were handed on.
            OSError: one side is gone.
        """
        loop = asyncio.get_running_loop()
        while piece := await loop.sock_recv(self._source, min(_PIECE, self._left or _PIECE)):
            await loop.sock_sendall(self._sink, piece)
            self._note(piece)
            if self._left == 0:
                raise _Here
        self._sink.shutdown(socket.SHUT_WR)

    def _note(self, piece: bytes) -> None:
        if self._left is not None:
            self._left -= len(piece)
        if not self.head_is_through:
            self._tail += piece
            self.head_is_through = b"\r\n\r\n" in self._tail


class Lines:
    """All lines to one Flik, served by a thread. `made` are the cuts that took place."""

    def __init__(self, to_port: int) -> None:
        self.made: list[Made] = []
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._serving: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def open(self) -> Line:
        """Return a new line, which takes connections already."""
        line = Line(self.made, self._to_port)
        asyncio.run_coroutine_threadsafe(self._start(line), self._loop).result(10)
        return line

    def break_now(self, line: Line) -> None:
        """Reset what is connected over a line."""
        asyncio.run_coroutine_threadsafe(line.break_all(), self._loop).result(10)

    def close(self) -> None:
        """End all of them."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self, line: Line) -> None:
        self._serving.append(asyncio.create_task(line.serve()))

    async def _stop(self) -> None:
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@contextmanager
def lines_to(port: int) -> Iterator[Lines]:
    """Have lines to what listens on a port, in here."""
    lines = Lines(port)
    try:
        yield lines
    finally:
        lines.close()


def anywhere(chance: random.Random) -> Cut:
    """Return a cut within the first bytes either way: in the head, between two events, or in the middle of one."""
    if chance.random() < 0.25:
        return Cut(chance.randrange(1, 400), down=False)
    return Cut(chance.randrange(1, chance.choice((700, 3_000))))


def seldom_at_once(chance: random.Random) -> Cut:
    """Return a cut before which mostly something is told: who comes to nothing ten times in a row may give up."""
    return Cut(chance.randrange(1, 6_000))
