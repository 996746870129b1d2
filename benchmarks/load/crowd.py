"""Many followers of one task, on raw connections, so that what is measured is the service and not the client."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

OPEN_AT_ONCE = 100


@dataclass
class Crowd:
    """Connections that follow one task by Server-Sent Events. `told_at` holds when each was told of the end."""

    host: str
    port: int
    key: str
    path: str
    told_at: list[float] = field(default_factory=list)
    _reading: list[asyncio.Task[None]] = field(default_factory=list)

    async def gather(self, count: int) -> None:
        """Open so many connections; return when each has been told what is known so far."""
        gate = asyncio.Semaphore(OPEN_AT_ONCE)
        opened = [asyncio.create_task(self._open(gate)) for _ in range(count)]
        for reader, writer in await asyncio.gather(*opened):
            self._reading.append(asyncio.create_task(self._read(reader, writer)))

    async def wait(self, within_s: float) -> None:
        """Return when all were told of the end."""
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._reading)

    async def leave(self) -> None:
        """Close what is open still."""
        for each in self._reading:
            each.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def _open(self, gate: asyncio.Semaphore) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(
                f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
                "Accept: text/event-stream\r\n\r\n".encode()
            )
            status = await reader.readline()
            assert b" 200 " in status, status + await reader.read(500)
            await reader.readuntil(b"event: queued")
            return reader, writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"event: completed")
            self.told_at.append(time.time())
        finally:
            writer.close()
