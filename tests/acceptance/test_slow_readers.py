"""Who opens a stream or a socket and then reads nothing costs a bounded memory, slows nobody, and is let go."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
import socket
import time
from datetime import datetime
from typing import Any

import pytest
from websockets.asyncio.client import connect

from flik.client.sse import Message, Reader
from flik.domain.event import Event, Kind, Notice
from flik.gateway.events import SEND_S
from flik.live.feed import FeedWriter
from tests.acceptance.running import RunningFlik

SLOW = 4  # of each kind
COUNT = 8_000
AT_ONCE = 50
EVERY_S = 0.1
FILLING = "w" * 4_000  # a follower's events are 34 MB with it: no buffer between here and there holds them
MAX_BYTES = 40e6  # with a queue for each slow reader it would be five times as much
MAX_LATE_S = 2.0
LET_GO_WITHIN_S = SEND_S + 15.0


@pytest.mark.timeout(240)
async def test_who_reads_nothing_is_let_go_and_slows_nobody(flik: RunningFlik) -> None:
    (gateway,) = flik.find("gateway")
    task_id = flik.submit("VIDEO", payload={"script": {"durationS": 4_000}})
    flik.wait(task_id, until=("PROCESSING",))
    others, before = followers(flik), gateway.memory_info().rss
    slow = [open_slowly(flik, task_id) for open_slowly in (stream, json_socket) for _ in range(SLOW)]
    try:
        reading = asyncio.create_task(read_all(flik, task_id))
        await asyncio.to_thread(until_followers, flik, others + len(slow) + 1, 10.0)
        most = await happen(flik, task_id, gateway)
        await asyncio.to_thread(until_followers, flik, others + 1, LET_GO_WITHIN_S)
        grown = max(most, gateway.memory_info().rss) - before
        assert flik.http.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 200
        late_s = await asyncio.wait_for(reading, 30)
        logging.getLogger("slow").info(
            "%d slow readers: %.0f MB; of %d events %d were told, the latest after %.2f s",
            len(slow), grown / 1e6, COUNT, len(late_s), max(late_s),
        )  # fmt: skip
        assert grown < MAX_BYTES
        assert max(late_s) < MAX_LATE_S
        assert len(late_s) > 0.9 * COUNT  # progress passes by, and may be missed by who is held up by others' work
        for each in slow[:SLOW]:
            told = await asyncio.to_thread(rest_of, each)
            assert [(message.name, message.last_id) for message in told[:2]] == [("queued", "1"), ("processing", "2")]
            assert {message.name for message in told[2:]} == {"progress"}
            assert len(told) < COUNT  # not all of it was kept for who does not read
        goes_on = flik.http.get(f"/api/v1/tasks/{task_id}/events", params={"since": 2}).json()["events"]
        assert [(event["seq"], event["event"]) for event in goes_on] == [(3, "cancelled")]  # the cursor is good
    finally:
        for each in slow:
            each.close()


async def happen(flik: RunningFlik, task_id: str, gateway: Any) -> int:
    """Tell of progress by the thousand, as the queue does; return how large the gateway was at most, in bytes."""
    feed = FeedWriter(f"unix://{flik.data_dir.resolve()}/valkey/valkey.sock").open()
    most = 0
    for start in range(0, COUNT, AT_ONCE):
        feed.tell(
            Notice("tests", Event(task_id, 0, Kind.PROGRESS, time.time(), 1, FILLING, progress=number / COUNT))
            for number in range(start, start + AT_ONCE)
        )
        await asyncio.sleep(EVERY_S)
        most = max(most, gateway.memory_info().rss)
    await feed.close()
    return most


async def read_all(flik: RunningFlik, task_id: str) -> list[float]:
    """Follow to the end as a client should; return how late each of the events came, in seconds."""
    late_s = []
    headers = {"Authorization": f"Bearer {flik.key}"}
    async with connect(f"ws://127.0.0.1:{flik.port}/ws/json", additional_headers=headers, proxy=None) as reading:
        await reading.send(json.dumps({"type": "subscribe", "id": "a", "taskId": task_id}))
        async for message in reading:
            event = json.loads(message).get("event", {})
            if event.get("workerId") == FILLING:
                late_s.append(time.time() - datetime.fromisoformat(event["timestamp"]).timestamp())
            if event.get("status") == "CANCELLED":
                break
    return late_s


def stream(flik: RunningFlik, task_id: str) -> socket.socket:
    """Open a stream, read the start of the answer, and nothing from then on."""
    opened = _open(flik, f"/api/v1/tasks/{task_id}/events", "Accept: text/event-stream\r\n")
    assert b" 200 " in _start_of(opened)
    return opened


def json_socket(flik: RunningFlik, task_id: str) -> socket.socket:
    """Open a WebSocket, subscribe, and read nothing from then on."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    upgrade = (
        f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {nonce}\r\n"
    )
    opened = _open(flik, "/ws/json", upgrade)
    assert b" 101 " in _start_of(opened)
    said = json.dumps({"type": "subscribe", "id": "a", "taskId": task_id}).encode()
    opened.sendall(bytes([0x81, 0x80 | len(said), 0, 0, 0, 0]) + said)  # a text; masked, as it must be, with zeroes
    return opened


def _open(flik: RunningFlik, path: str, headers: str) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    opened.settimeout(30)
    opened.connect(("127.0.0.1", flik.port))
    opened.sendall(f"GET {path} HTTP/1.1\r\nHost: flik\r\nAuthorization: Bearer {flik.key}\r\n{headers}\r\n".encode())
    return opened


def _start_of(opened: socket.socket) -> bytes:
    """Read no further than the head of the answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += opened.recv(1)
    return head


def rest_of(opened: socket.socket) -> list[Message]:
    """Read a chunked stream to where the connection ends."""
    raw = b""
    while data := opened.recv(1 << 20):
        raw += data
    reader, told, at = Reader(), list[Message](), 0
    while (end := raw.find(b"\r\n", at)) > at:
        size = int(raw[at:end], 16)
        told += reader.feed(raw[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return told


def followers(flik: RunningFlik) -> int:
    told = re.findall(r"^flik_followers\{.*\} (\d+)", flik.http.get("/metrics").text, re.MULTILINE)
    return sum(map(int, told))


def until_followers(flik: RunningFlik, count: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while (now := followers(flik)) != count:
        assert time.monotonic() < deadline, f"{now} follow, not {count}"
        time.sleep(0.2)
