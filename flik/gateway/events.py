"""The events of a task, or a dag: as a stream (Server-Sent Events), or as JSON, at once or when something has happened.

One route, one cursor: the number of the last event that was seen, as `Last-Event-ID` or as `since`. Which of
the two it is, `Accept` says; without a preference it is the stream, unless `since` or `wait` ask for JSON.

With `chunks=true` the text of a task comes too, chunk by chunk as it is written. Then the cursor has two parts, the
second the number of the last chunk: `3.17` as `Last-Event-ID`, or `since=3&chunk=17`.

A stream sends a comment every `HEARTBEAT_S`, so that nobody between here and there takes it for dead, and ends after
the task's last event. Who comes back with that event's number is answered 204, by which browsers know that they
need not come again. A reader that takes nothing for `SEND_S` is left. When the gateway is being stopped, a stream ends
with a comment that says so and a new `retry`.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flik import schemas
from flik.domain.event import Event, Kind
from flik.domain.identity import Caller
from flik.errors import DagNotFound, FieldError, FlikError, GatewayStops, InvalidRequest, TooManyFollowers
from flik.gateway import problems
from flik.gateway.answers import Answers
from flik.gateway.following import authenticate_follower, followed, following_of
from flik.gateway.parts import parts_of
from flik.gateway.paths import Uuid, read_dag_id
from flik.gateway.prefer import MAX_WAIT_S
from flik.gateway.responses import json_response
from flik.gateway.tasks import answers_for, read_task_id
from flik.pipeline.follow import Following
from flik.pipeline.follow_text import TextFollowing

HEARTBEAT_S = 15.0
SEND_S = 30.0
SENT_AT_ONCE = 64 * 1024  # bytes, and what is left of the last event
COME_BACK_MS = 1_000
COME_BACK_FROM_STOP_MS = (500, 2_500)
MAX_SEQ = 2**31 - 1
STREAM_TYPE = "text/event-stream"
_WAIT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)s?", re.ASCII)
_NUMBER = {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}
_STREAMED = {
    "type": "object",
    "description": "Each event of the stream; `data` is an EventAnswer as JSON.",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "since", "in": "query", "required": False, "schema": _NUMBER,
        "description": "The number of the last event that was seen.",
    },
    {
        "name": "wait", "in": "query", "required": False,
        "schema": {"type": "string", "pattern": r"^\d{1,3}(\.\d{1,3})?s?$"},
        "description": f"As JSON: wait for up to so many seconds ({MAX_WAIT_S} at most) until there is an event.",
    },
    {
        "name": "chunks", "in": "query", "required": False, "schema": {"type": "boolean"},
        "description": "Send the text of the task too, chunk by chunk as it is written.",
    },
    {
        "name": "chunk", "in": "query", "required": False, "schema": _NUMBER,
        "description": "With `chunks=true`: the number of the last chunk that was seen.",
    },
    {
        "name": "ticket", "in": "query", "required": False, "schema": {"type": "string"},
        "description": "In the place of the Authorization header, for browsers; see `POST /api/v1/tickets`.",
    },
    {
        "name": "Last-Event-ID", "in": "header", "required": False,
        "schema": {"anyOf": [_NUMBER, {"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{1,9}$"}]},
        "description": "As `since`, or `since` and `chunk` with a point between; sent by browsers that come back.",
    },
]  # fmt: skip
FOLLOWING: dict[int | str, dict[str, Any]] = {
    200: {"content": {STREAM_TYPE: {"schema": _STREAMED}}},
    204: {"description": "The task has ended, and its last event was seen."},
}
router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get(
    "/tasks/{task_id}/events",
    response_model=schemas.EventPage,
    responses={
        **FOLLOWING,
        **problems.responses(401, 404, 422, 503, TooManyFollowers, GatewayStops),
    },
    openapi_extra={"parameters": PARAMETERS},
)
async def get_events(request: Request, task_id: Uuid) -> Response:
    """Follow a task: a stream of its events, or those after `since` as JSON."""
    caller = await authenticate_follower(request)
    return await of_task(request, caller, read_task_id(task_id), with_text=_read_flag(request, "chunks"))


@router.get(
    "/dags/{dag_id}/events",
    response_model=schemas.DagEventPage,
    responses={**FOLLOWING, **problems.responses(401, DagNotFound, 422, 503, TooManyFollowers, GatewayStops)},
    openapi_extra={"parameters": [each for each in PARAMETERS if each["name"] not in ("chunk", "chunks")]},
)
async def get_dag_events(request: Request, dag_id: Uuid) -> Response:
    """Follow a dag: a stream of its events, or those after `since` as JSON."""
    caller = await authenticate_follower(request)
    since, _ = _read_cursor(request)
    return await _answer(request, caller, parts_of(request).hub.follow_dag(read_dag_id(dag_id), since or 0))


async def of_task(request: Request, caller: Caller, task_id: str, *, with_text: bool) -> Response:
    """Answer with what happens to a task: a stream, or JSON, from the cursor of the request on.

    Raises:
        TaskNotFound: there is none that the caller sees.
        InvalidRequest: the cursor or the wait cannot be read.
        TooManyFollowers: there are as many as there may be.
        Unavailable: PostgreSQL is away.
    """
    since, last_chunk = _read_cursor(request)
    first_chunk = last_chunk + 1 if with_text else None
    following = following_of(parts_of(request), task_id, since or 0, first_chunk)
    return await _answer(request, caller, following, last_chunk if with_text else -1)


async def _answer(request: Request, caller: Caller, to_follow: Following, last_chunk: int = -1) -> Response:
    since, _ = _read_cursor(request)
    wait_s, answers = _read_wait(request), answers_for(request)
    following = followed(parts_of(request), caller, to_follow)
    if not _wants_stream(request):
        async with following as entered:
            return json_response(await _page(entered, wait_s, answers))
    entered = await following.__aenter__()
    if since is not None and entered.ended and entered.seq == since:
        await following.__aexit__(None, None, None)
        return Response(status_code=204)
    frames = EventFrames(answers, since or 0, last_chunk)
    return EventStream(following, entered, frames, only_head=request.scope.get("flik_head", False))


def _wants_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    if STREAM_TYPE in accepted:
        return True
    return "application/json" not in accepted and not {"since", "wait"} & request.query_params.keys()


def _read_cursor(request: Request) -> tuple[int | None, int]:
    """Return the numbers of the last event (None: not said) and of the last chunk (-1: none) that were seen.

    The header goes before the query, because browsers repeat the query when they come back.
    """
    header = request.headers.get("last-event-id")
    since, chunk = (_read_number(name, request.query_params.get(name)) for name in ("since", "chunk"))
    if header is not None:
        event, point, piece = header.partition(".")
        since, chunk = _read_number("since", event), _read_number("since", piece) if point else None
    return since, -1 if chunk is None else chunk


def _read_number(name: str, given: str | None) -> int | None:
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 10 or int(given) > MAX_SEQ:
        raise InvalidRequest((FieldError(f"/{name}", f"must be a whole number from 0 to {MAX_SEQ:,}"),))
    return int(given)


def _read_flag(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false")
    if given not in ("true", "false"):
        raise InvalidRequest((FieldError(f"/{name}", "must be true or false"),))
    return given == "true"


def _read_wait(request: Request) -> float:
    given = request.query_params.get("wait")
    if given is None:
        return 0.0
    found = _WAIT.fullmatch(given)
    if found is None:
        raise InvalidRequest((FieldError("/wait", "must be a number of seconds, such as 20s"),))
    return min(float(found[1]), MAX_WAIT_S)


async def _page(following: Following, wait_s: float, answers: Answers) -> dict[str, Any]:
    """Return the events there are, or that come within the time; what passes by is left out."""
    events = await following.gather(wait_s)
    page = {
        "events": [answers.event(event) for event in events],
        "lastSeq": following.seq,
        "ended": following.ended,
        "live": following.live,
    }
    if isinstance(following, TextFollowing) and following.next_chunk:
        page["lastChunk"] = following.next_chunk - 1
    return page


class Frames(Protocol):
    """How events stand in a stream. `patience_s`: after so long without one it is over."""

    opening: bytes
    patience_s: float

    def of(self, event: Event) -> bytes:
        """Return an event as it stands in the stream."""

    def cut_off(self, error: FlikError | None) -> bytes | None:
        """Return what ends the stream before the task has; None: it just breaks. No error: nothing came for long."""


class EventFrames:
    """Server-Sent Events with a name, and an id to come back with: where the reader is after each."""

    opening = b"retry: %d\n\n" % COME_BACK_MS
    patience_s = math.inf

    def __init__(
        self, answers: Answers, seq: int, last_chunk: int, chance: Callable[[], float] = random.random
    ) -> None:
        self._answers = answers
        self._chance = chance
        self._seq = seq
        self._last_chunk = last_chunk

    def of(self, event: Event) -> bytes:
        """Return an event as it stands in the stream."""
        if event.is_durable or event.kind == Kind.RESET:
            self._seq = event.seq
        if event.chunk_index is not None:
            self._last_chunk = event.chunk_index
        return frame(self._answers.event(event), event, self._cursor())

    def cut_off(self, error: FlikError | None) -> bytes | None:
        """Let it break: who comes back goes on. From a gateway that stops not all of them at one moment."""
        if not isinstance(error, GatewayStops):
            return None
        least, most = COME_BACK_FROM_STOP_MS
        return b": %s\nretry: %d\n\n" % (str(error).encode(), least + (most - least) * self._chance())

    def _cursor(self) -> bytes:
        return b"%d" % self._seq if self._last_chunk < 0 else b"%d.%d" % (self._seq, self._last_chunk)


class EventStream(Response):
    """Server-Sent Events (WHATWG HTML, section 9.2) of one follower; leaves it when the reader goes."""

    def __init__(
        self,
        entered: AbstractAsyncContextManager[Following],
        following: Following,
        frames: Frames,
        *,
        only_head: bool = False,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"}, media_type=STREAM_TYPE)
        del self.headers["content-length"]  # it ends when the task does
        self._entered = entered
        self._following = following
        self._frames = frames
        self._silent_s = 0.0
        self._only_head = only_head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        writing = asyncio.ensure_future(self._write(send))
        leaving = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            writing.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
            await self._entered.__aexit__(None, None, None)
        if not writing.cancelled():
            writing.result()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        written, over = self._frames.opening, False
        while True:
            body, is_all = self._with_what_is_there(written)
            ends = is_all and (over or self._following.ended or self._only_head)
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": body, "more_body": not ends})
            if ends:
                return
            if is_all:
                written, over = await self._next()
            else:
                written = b""
                await asyncio.sleep(0)  # it is others' turn, too

    def _with_what_is_there(self, written: bytes) -> tuple[bytes, bool]:
        """Return what is written and the events that are there, as many as go at once; and whether these are all."""
        pieces, size = [written], len(written)
        while size < SENT_AT_ONCE:
            event = self._following.next_now()
            if event is None:
                return b"".join(pieces), True
            pieces.append(self._frames.of(event))
            size += len(pieces[-1])
        return b"".join(pieces), False

    async def _next(self) -> tuple[bytes, bool]:
        """Return what is to be sent next, and whether it is the end."""
        waited_s = min(HEARTBEAT_S, self._frames.patience_s - self._silent_s)
        try:
            event = await self._following.next(waited_s)
        except FlikError as error:
            last = self._frames.cut_off(error)
            if last is None:
                raise
            return last, True
        if event is not None:
            self._silent_s = 0.0
            return self._frames.of(event), False
        self._silent_s += waited_s
        if self._silent_s >= self._frames.patience_s:
            return self._frames.cut_off(None) or b"", True
        return b":\n\n", False


def frame(shown: Mapping[str, Any], event: Event, cursor: bytes) -> bytes:
    """Return one event as it stands in a stream. Only what may be resumed from has an id."""
    resumable = event.is_durable or event.kind == Kind.RESET or event.chunk_index is not None
    number = b"id: %s\n" % cursor if resumable else b""
    return number + b"event: %s\ndata: %s\n\n" % (event.kind.encode(), orjson.dumps(shown))


async def _gone(receive: Receive) -> None:
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
