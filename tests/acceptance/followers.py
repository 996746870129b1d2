"""Followers of a running Flik, over every transport, whose connections are cut and who come back with their cursor."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from flik.client import SyncFlikClient
from flik.client.sse import Reader
from flik.domain.stomp.frames import Frame, Parser, Version
from tests.acceptance.lines import Cut, Line, anywhere

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "EXPIRED"})
PATIENCE_S = 30
SILENCE_S = 3.0  # of a tenant's topic, which has no log: then whoever follows it looks for what it missed
Events = Iterator[dict[str, Any]]


class Place(NamedTuple):
    """What is followed, a task or a dag, and from where: the last event and, for its text too, the last chunk seen."""

    url: str
    key: str
    subject: str
    of: str = "tasks"
    since: int = 0
    chunk: int | None = None

    @property
    def path(self) -> str:
        """Where its events are."""
        return f"{self.url}/api/v1/{self.of}/{self.subject}/events"


Follow = Callable[[Place], Events]
CutBy = Callable[[random.Random], Cut]


class Refused(Exception):
    """The service said to come back."""


def stream(place: Place) -> Events:
    """Follow Server-Sent Events."""
    params, cursor = {}, str(place.since)
    if place.chunk is not None:
        params["chunks"] = "true"
        cursor += f".{place.chunk}" if place.chunk >= 0 else ""
    headers = {**_authorization(place), "Accept": "text/event-stream", "Last-Event-ID": cursor}
    reader = Reader()
    with httpx.stream("GET", place.path, params=params, headers=headers, timeout=PATIENCE_S) as answer:
        _check(answer.status_code)
        for piece in answer.iter_bytes():
            for message in reader.feed(piece):
                yield json.loads(message.data)


def long_poll(place: Place, wait_s: float = 2.0) -> Events:
    """Ask once for JSON."""
    params: dict[str, Any] = {"since": place.since, "wait": f"{wait_s:g}s"}
    if place.chunk is not None:
        params |= {"chunks": "true"} | ({"chunk": place.chunk} if place.chunk >= 0 else {})
    answer = httpx.get(place.path, params=params, headers=_authorization(place), timeout=PATIENCE_S)
    _check(answer.status_code)
    yield from answer.json()["events"]


def json_socket(place: Place) -> Events:
    """Follow with plain JSON."""
    asked: dict[str, Any] = {f"{place.of.removesuffix('s')}Id": place.subject, "fromSeq": place.since}
    if place.chunk is not None:
        asked |= {"chunks": True} | ({"fromChunk": place.chunk} if place.chunk >= 0 else {})
    for said in _json_messages(place, asked, PATIENCE_S):
        if said["type"] != "subscribed":
            yield said["event"]


def stomp_socket(place: Place) -> Events:
    """Follow with STOMP."""
    asked = f"destination:/topic/{place.of}/{place.subject}\nfrom-seq:{place.since}\n"
    if place.chunk is not None:
        asked += "chunks:true\n" + (f"from-chunk:{place.chunk}\n" if place.chunk >= 0 else "")
    for frame in _stomp_frames(place, asked, PATIENCE_S):
        if frame.command == "MESSAGE":
            yield json.loads(frame.body)


def json_tenant(place: Place) -> Events:
    """Follow all of the tenant with plain JSON, for the one task; what is missed is looked up in its log."""
    return _of_one(
        place,
        (None if said["type"] == "subscribed" else said["event"]
         for said in _json_messages(place, {"tenant": True}, SILENCE_S)),
    )  # fmt: skip


def stomp_tenant(place: Place) -> Events:
    """Follow all of the tenant with STOMP, for the one task; what is missed is looked up in its log."""
    return _of_one(
        place,
        (json.loads(frame.body) if frame.command == "MESSAGE" else None
         for frame in _stomp_frames(place, "destination:/topic/tenant\n", SILENCE_S)),
    )  # fmt: skip


def library(place: Place) -> Events:
    """Follow with Flik's own client, which comes back by itself where a connection breaks."""
    with SyncFlikClient(place.url, place.key) as client:
        for event in client.events(place.subject, since=place.since, chunks=place.chunk is not None):
            yield event.raw


TRANSPORTS: tuple[Follow, ...] = (stream, long_poll, json_socket, stomp_socket)
OF_TENANT: tuple[Follow, ...] = (json_tenant, stomp_tenant)
GONE = (httpx.TransportError, WebSocketException, OSError, EOFError, TimeoutError, Refused)


class Text:
    """A text as its follower has it; `last` is the number of the last chunk, -1 at first."""

    def __init__(self) -> None:
        self.last = -1
        self._pieces: list[str] = []
        self._is_lost = False

    def take(self, event: dict[str, Any]) -> None:
        """Take what is told of it: each chunk once and in order, and at the end it must be the result's."""
        if event["event"] == "restart":
            self._pieces.clear()
            self._is_lost = "index" not in event
            self.last = event.get("index", self.last)
        elif event["event"] == "chunk":
            assert event["index"] == self.last + 1, (event["index"], self.last)
            self.last = event["index"]
            self._pieces.append(event["text"])
        elif event["event"] == "completed" and not self._is_lost:
            assert "".join(self._pieces) == event["result"]["text"]


class Follower(threading.Thread):
    """Follows to the end, over one transport after the other, each connection cut somewhere else.

    `seen` are the events that have a number, as they came. With `place.chunk` the text is followed too.
    """

    def __init__(
        self, line: Line, place: Place, seed: int, transports: Sequence[Follow] = TRANSPORTS, cut: CutBy = anywhere
    ) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.seen: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self.stop = threading.Event()
        chance = random.Random(seed)
        self._text = None if place.chunk is None else Text()
        self._transports = itertools.cycle(chance.sample(transports, len(transports)))
        self._line = line
        line.next_cut = lambda: cut(chance)

    def run(self) -> None:
        """Follow; what goes wrong is kept in `failure`."""
        try:
            while not self.stop.is_set() and not self._has_ended():
                self._follow_once(next(self._transports))
        except BaseException as error:  # the test tells of it
            self.failure = error

    def _follow_once(self, follow: Follow) -> None:
        self._line.name = follow.__name__
        since, chunk = self.seen[-1]["seq"] if self.seen else 0, self._text.last if self._text else None
        try:
            for event in follow(self.place._replace(url=self._line.url, since=since, chunk=chunk)):
                if self._text:
                    self._text.take(event)
                if "seq" in event:
                    self.seen.append(event)
                if self._has_ended():
                    return
        except GONE:
            time.sleep(0.1)

    def _has_ended(self) -> bool:
        return bool(self.seen) and self.seen[-1]["status"] in ENDED


def _of_one(place: Place, told: Iterator[dict[str, Any] | None]) -> Events:
    """Yield what a tenant's topic tells of one task, gapless; None: it has begun.

    Its log is read at the beginning, where a number is missing, and where the topic says that some may be.
    """
    since = place.since
    for event in told:
        if event is None or event["event"] in ("live", "reset") or _is_later(event, place.subject, since):
            missing = long_poll(place._replace(since=since), wait_s=0)
        else:
            missing = iter([event] if event.get("seq") == since + 1 and event["taskId"] == place.subject else [])
        for each in missing:
            since = each["seq"]
            yield each


def _is_later(event: dict[str, Any], task_id: str, since: int) -> bool:
    return event.get("taskId") == task_id and event.get("seq", 0) > since + 1


def _json_messages(place: Place, asked: dict[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
    with _socket(place, "/ws/json") as socket:
        socket.send(json.dumps({"type": "auth", "token": place.key}))
        socket.send(json.dumps({"type": "subscribe", "id": "a", **asked}))
        while True:
            said = json.loads(socket.recv(timeout=timeout_s))
            if said["type"] == "error":
                _check(said["problem"]["status"])
            if said["type"] in ("subscribed", "event", "reset"):
                yield said


def _stomp_frames(place: Place, asked: str, timeout_s: float) -> Iterator[Frame]:
    parser = Parser(version=Version.V1_2)
    with _socket(place, "/ws", ["v12.stomp"]) as socket:
        socket.send(f"CONNECT\naccept-version:1.2\nhost:flik\npasscode:{place.key}\n\n\0")
        socket.send(f"SUBSCRIBE\nid:s\nreceipt:begun\n{asked}\n\0")
        while True:
            while not isinstance(part := parser.take(), Frame):
                data = socket.recv(timeout=timeout_s)
                parser.feed(data.encode() if isinstance(data, str) else data)
            if part.command == "ERROR":
                _check(json.loads(part.body)["status"])
            if part.command in ("RECEIPT", "MESSAGE"):
                yield part


def _authorization(place: Place) -> dict[str, str]:
    return {"Authorization": f"Bearer {place.key}"}


def _check(status: int) -> None:
    if status in (502, 503, 504):
        raise Refused(status)
    assert status in (200, 204), status


def _socket(place: Place, path: str, subprotocols: Any = None) -> ClientConnection:
    url = place.url.replace("http", "ws") + path
    return connect(url, subprotocols=subprotocols, open_timeout=PATIENCE_S, close_timeout=1, proxy=None)
