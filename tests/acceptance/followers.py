"""Followers of a running Flik, over every transport, that are cut off at random and come back with their cursor."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from flik.client.sse import Reader
from flik.domain.stomp.frames import Frame, Parser, Version
from tests.acceptance.running import RunningFlik

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "EXPIRED"})
Events = Iterator[dict[str, Any]]
Follow = Callable[[RunningFlik, str, int, int], Events]
"""A way to follow: task, the last number that was seen, and after how many bytes or messages to be cut off."""


class Refused(Exception):
    """The service said to come back."""


def stream(flik: RunningFlik, task_id: str, since: int, cut: int) -> Events:
    """Follow Server-Sent Events; the connection is closed after `cut` bytes, wherever that is."""
    headers = {"Authorization": f"Bearer {flik.key}", "Accept": "text/event-stream", "Last-Event-ID": str(since)}
    reader, left = Reader(), cut
    with httpx.stream("GET", f"{flik.url}/api/v1/tasks/{task_id}/events", headers=headers, timeout=30) as answer:
        _check(answer.status_code)
        for chunk in answer.iter_bytes():
            for message in reader.feed(chunk[:left]):
                yield json.loads(message.data)
            left -= len(chunk)
            if left <= 0:
                return


def long_poll(flik: RunningFlik, task_id: str, since: int, cut: int) -> Events:
    """Ask once for JSON."""
    answer = httpx.get(
        f"{flik.url}/api/v1/tasks/{task_id}/events",
        params={"since": since, "wait": f"{cut % 3}s"},
        headers={"Authorization": f"Bearer {flik.key}"},
        timeout=30,
    )
    _check(answer.status_code)
    yield from answer.json()["events"]


def json_socket(flik: RunningFlik, task_id: str, since: int, cut: int) -> Events:
    """Follow with plain JSON; the connection is closed after `cut` messages at most."""
    with _socket(flik, "/ws/json") as socket:
        socket.send(json.dumps({"type": "auth", "token": flik.key}))
        socket.send(json.dumps({"type": "subscribe", "id": "a", "taskId": task_id, "fromSeq": since}))
        for _ in range(1 + cut % 9):
            said = json.loads(socket.recv(timeout=30))
            if said["type"] == "error":
                raise Refused(said)
            if said["type"] in ("event", "reset"):
                yield said["event"]


def stomp_socket(flik: RunningFlik, task_id: str, since: int, cut: int) -> Events:
    """Follow with STOMP; the connection is closed after `cut` frames at most."""
    parser = Parser(version=Version.V1_2)
    with _socket(flik, "/ws", ["v12.stomp"]) as socket:
        socket.send(f"CONNECT\naccept-version:1.2\nhost:flik\npasscode:{flik.key}\n\n\0")
        socket.send(f"SUBSCRIBE\nid:s\ndestination:/topic/tasks/{task_id}\nfrom-seq:{since}\n\n\0")
        for _ in range(1 + cut % 9):
            while not isinstance(part := parser.take(), Frame):
                data = socket.recv(timeout=30)
                parser.feed(data.encode() if isinstance(data, str) else data)
            if part.command == "ERROR":
                raise Refused(part)
            if part.command == "MESSAGE":
                yield json.loads(part.body)


TRANSPORTS: tuple[Follow, ...] = (stream, long_poll, json_socket, stomp_socket)
GONE = (httpx.TransportError, WebSocketException, OSError, EOFError, TimeoutError, Refused)


class Follower(threading.Thread):
    """Follows one task to its end, over one transport after the other; `seen` are the events that have a number."""

    def __init__(self, flik: RunningFlik, task_id: str, seed: int) -> None:
        super().__init__(daemon=True)
        self.task_id = task_id
        self.seen: list[dict[str, Any]] = []
        self.connections = 0
        self.failure: BaseException | None = None
        self._flik = flik
        self._random = random.Random(seed)
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            while not self.stop.is_set() and not self._has_ended():
                self._follow_once()
        except BaseException as error:
            self.failure = error
            raise

    def _follow_once(self) -> None:
        follow, cut = self._random.choice(TRANSPORTS), self._random.randrange(1, 2_500)
        since = self.seen[-1]["seq"] if self.seen else 0
        self.connections += 1
        try:
            for event in follow(self._flik, self.task_id, since, cut):
                if "seq" in event:
                    self.seen.append(event)
                if self._has_ended():
                    return
        except GONE:
            time.sleep(0.1)

    def _has_ended(self) -> bool:
        return bool(self.seen) and self.seen[-1]["status"] in ENDED


def _check(status: int) -> None:
    if status in (502, 503, 504):
        raise Refused(status)
    assert status in (200, 204), status


def _socket(flik: RunningFlik, path: str, subprotocols: Any = None) -> ClientConnection:
    return connect(
        flik.url.replace("http", "ws") + path, subprotocols=subprotocols, open_timeout=30, close_timeout=1, proxy=None
    )
