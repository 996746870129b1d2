"""A receiver of webhooks on this machine, that does what a test tells it: answers, redirects, hangs, cuts off."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CUT, SILENT, SLOW, ENDLESS = "cut", "silent", "slow", "endless"
Says = int | str | bytes  # a status, what not to do, or the whole answer


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`says` is asked for each request; `port` is there once it listens."""

    says: Callable[[Request], Says] = lambda _: 200
    got: list[Request] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    came: asyncio.Condition = field(default_factory=asyncio.Condition)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20), self.came:
            await self.came.wait_for(lambda: len(self.got) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self._answer(await _read(reader), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def hang_up(self) -> None:
        """Leave no connection to the garbage collector, whatever is still to be written."""
        for writer in self.writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        says = self.says(request)
        async with self.came:
            self.got.append(request)
            self.came.notify_all()
        if says == CUT:
            writer.transport.abort()
            return
        if says == SILENT:
            await reader.read()  # until the other side goes
            return
        if says in (SLOW, ENDLESS):
            writer.write(b"HTTP/1.1 200 X\r\n\r\n")
            while says == ENDLESS:
                writer.write(b"x" * 10_000)
                await writer.drain()
            await reader.read()
            return
        if isinstance(says, int):
            says = b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 2\r\n\r\nok" % says
        assert isinstance(says, bytes)
        writer.write(says)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    assert method == "POST"
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in headers.items()}
    return Request(path, headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def listening(
    says: Callable[[Request], Says] = lambda _: 200, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    receiver = Receiver(says)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver
        server.close()
        for _ in range(5):  # whom it had accepted already gets a writer first
            await asyncio.sleep(0)
        await receiver.hang_up()
