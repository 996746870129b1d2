"""The fastest answer that one Python process can give: fixed bytes for every request that came in whole.

python -m benchmarks.limits.static_http PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

BODY = b'{"taskId":"00000000-0000-7000-8000-000000000000","status":"QUEUED","createdAt":"2026-01-01T00:00:00.000Z"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Responder(asyncio.Protocol):
    """Answers whatever ends with a closing brace; the load client sends one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            self._transport.write(ANSWER)


async def serve(port: int) -> None:
    """Answer on the loopback interface until cancelled."""
    server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
