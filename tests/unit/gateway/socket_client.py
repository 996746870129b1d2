"""A WebSocket to the application without a network: what a server and a client would do, message by message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway_parts import Fakes

SOON_S = 5.0


class Socket:
    """What was sent to the client is in `sent`; `read` takes the next text."""

    def __init__(self, fakes: Fakes, path: str, headers: dict[str, str], subprotocols: tuple[str, ...]) -> None:
        self._fakes = fakes
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        path, _, query = path.partition("?")
        self._scope = {
            "type": "websocket", "path": path, "raw_path": path.encode(), "scheme": "ws", "http_version": "1.1",
            "query_string": query.encode(), "subprotocols": list(subprotocols),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "extensions": {"websocket.http.response": {}},
        }  # fmt: skip
        self._incoming.put_nowait({"type": "websocket.connect"})

    async def serve(self) -> None:
        await self._fakes.app(self._scope, self._incoming.get, self.sent.put)

    def send(self, data: str | bytes) -> None:
        kind = "text" if isinstance(data, str) else "bytes"
        self._incoming.put_nowait({"type": "websocket.receive", kind: data})

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def next(self) -> Any:
        async with asyncio.timeout(SOON_S):
            return await self.sent.get()

    async def read(self) -> str:
        message = await self.next()
        assert message["type"] == "websocket.send", message
        text: str = message["text"]
        return text


@asynccontextmanager
async def connected(
    fakes: Fakes, path: str, *, subprotocols: tuple[str, ...] = (), **headers: str
) -> AsyncIterator[Socket]:
    """Open a WebSocket, which need not be accepted; leave it at the end."""
    socket = Socket(fakes, path, headers, subprotocols)
    serving = asyncio.create_task(socket.serve())
    try:
        yield socket
    finally:
        socket.leave()
        async with asyncio.timeout(SOON_S):
            await serving
