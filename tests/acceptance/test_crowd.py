"""Two thousand who only wait, and some on sockets beside them, cost little and hear of the end at once."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from contextlib import AsyncExitStack
from datetime import datetime

import pytest
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.load.crowd import OPEN_AT_ONCE, Crowd
from tests.acceptance.running import RunningFlik

COUNT = int(os.environ.get("FLIK_CROWD", "2000"))
SOCKETS = COUNT // 4
MAX_BYTES = 300e6
TOLD_WITHIN_S = 1.0
SLACK_S = 4.0  # the machine is shared, the client runs on it too; `make bench` has the figure


@pytest.mark.timeout(180)
async def test_two_thousand_wait_on_one_gateway_and_hear_of_the_end(flik: RunningFlik) -> None:
    (gateway,) = flik.find("gateway")
    in_the_way = flik.submit(payload={"script": {"durationS": 3000}})  # 150 s in the one slot: the others wait
    flik.wait(in_the_way, until=("PROCESSING",))
    task_ids = [flik.submit() for _ in range(2)]
    before = gateway.memory_info().rss
    streams = Crowd("127.0.0.1", flik.port, flik.key, f"/api/v1/tasks/{task_ids[0]}/events")
    sockets = Sockets(flik, task_ids[1])
    try:
        await streams.gather(COUNT)
        await sockets.gather(SOCKETS)
        grown = gateway.memory_info().rss - before
        assert [flik.get(each)["status"] for each in task_ids] == ["QUEUED", "QUEUED"]
        assert flik.http.post(f"/api/v1/tasks/{in_the_way}/cancel").status_code == 200
        await streams.wait(60)
        await sockets.wait(60)
    finally:
        await streams.leave()
        await sockets.leave()
    ended_at = [datetime.fromisoformat(flik.wait(each)["completedAt"]).timestamp() for each in task_ids]
    assert (len(streams.told_at), len(sockets.told_at)) == (COUNT, SOCKETS)
    late_s = [max(crowd.told_at) - at for crowd, at in zip((streams, sockets), ended_at, strict=True)]
    logging.getLogger("crowd").info("%.0f MB, told after %.2f and %.2f s", grown / 1e6, *late_s)
    assert grown < MAX_BYTES
    assert max(late_s) < TOLD_WITHIN_S + SLACK_S


class Sockets:
    """WebSockets that follow one task, as a `Crowd` does by Server-Sent Events; compressed, as browsers have them."""

    def __init__(self, flik: RunningFlik, task_id: str) -> None:
        self.told_at: list[float] = []
        self._url = flik.url.replace("http", "ws") + "/ws/json"
        self._headers = {"Authorization": f"Bearer {flik.key}"}
        self._asks = json.dumps({"type": "subscribe", "id": "a", "taskId": task_id, "fromSeq": 0})
        self._open = AsyncExitStack()
        self._reading: list[asyncio.Task[None]] = []

    async def gather(self, count: int) -> None:
        """Open so many connections; return when each has been told what is known so far."""
        gate = asyncio.Semaphore(OPEN_AT_ONCE)
        opened = await asyncio.gather(*(self._follow(gate) for _ in range(count)))
        self._reading = [asyncio.create_task(self._read(socket)) for socket in opened]

    async def wait(self, within_s: float) -> None:
        """Return when all were told of the end."""
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._reading)

    async def leave(self) -> None:
        """Close what is open still."""
        for each in self._reading:
            each.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await self._open.aclose()

    async def _follow(self, gate: asyncio.Semaphore) -> ClientConnection:
        async with gate:
            socket = await self._open.enter_async_context(
                connect(self._url, additional_headers=self._headers, proxy=None, close_timeout=1, open_timeout=30)
            )
            await socket.send(self._asks)
            await _until(socket, "queued")
            return socket

    async def _read(self, socket: ClientConnection) -> None:
        await _until(socket, "completed")
        self.told_at.append(time.time())


async def _until(socket: ClientConnection, kind: str) -> None:
    while json.loads(await socket.recv()).get("event", {}).get("event") != kind:
        pass
