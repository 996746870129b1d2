"""Keep-alive connections for requests that start at their own time: a free one is taken, else one more is opened."""

from __future__ import annotations

import asyncio
import time

from benchmarks.load.connection import Connection


class Cut(Exception):
    """The connection ended before the answer came."""


class Pool:
    """Gives each request a connection of its own while it is on its way, so none waits for another."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._idle: list[Connection] = []
        self._waiting: dict[Connection, asyncio.Future[tuple[int, bytes]]] = {}

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send `request`, return (status, body).

        Raises:
            Cut: the server hung up first; it may have acted on the request.
            OSError: no connection could be opened.
        """
        connection = self._idle.pop() if self._idle else await self._connect()
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[connection] = answer
        connection.send(request, time.monotonic())
        return await answer

    async def warm(self, connections: int) -> None:
        """Open `connections` ahead of time. Raises OSError when the server refuses."""
        self._idle += await asyncio.gather(*(self._connect() for _ in range(connections)))

    def close(self) -> None:
        """Hang up everything."""
        for connection in [*self._idle, *self._waiting]:
            connection.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self._answered, self._cut), *self._address)
        return connection

    def _answered(self, connection: Connection, status: int, body: bytes) -> None:
        answer = self._waiting.pop(connection)
        self._idle.append(connection)
        if not answer.done():
            answer.set_result((status, body))

    def _cut(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        answer = self._waiting.pop(connection, None)
        if answer is not None and not answer.done():
            answer.set_exception(Cut())
