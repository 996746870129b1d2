"""The events of a task: as a stream (Server-Sent Events), or as JSON, at once or when something has happened.

One route, one cursor: the number of the last event that was seen, as `Last-Event-ID` or as `since`. Which of
the two it is, `Accept` says; without a preference it is the stream, unless `since` or `wait` ask for JSON.

A stream sends a comment every `HEARTBEAT_S`, so that nobody between here and there takes it for dead, and ends after
the task's last event. Who comes back with that event's number is answered 204, by which browsers know that they
need not come again. A reader that takes nothing for `SEND_S` is left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flik import schemas
from flik.domain.event import Event, Kind
from flik.errors import FieldError, InvalidRequest, TooManyFollowers
from flik.gateway import problems
from flik.gateway.answers import Answers
from flik.gateway.following import authenticate_follower, followed
from flik.gateway.parts import parts_of
from flik.gateway.paths import Uuid
from flik.gateway.prefer import MAX_WAIT_S
from flik.gateway.responses import json_response
from flik.gateway.tasks import answers_for, read_task_id
from flik.pipeline.follow import Following

HEARTBEAT_S = 15.0
SEND_S = 30.0
COME_BACK_MS = 1_000
MAX_SEQ = 2**31 - 1
STREAM_TYPE = "text/event-stream"
_WAIT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)s?", re.ASCII)
_NUMBER = {"type": "integer", "minimum": 0, "maximum": MAX_SEQ}
_STREAMED = {
    "type": "object",
    "description": "Each event of the stream; `data` is an EventAnswer as JSON.",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
_PARAMETERS = [
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
        "name": "ticket", "in": "query", "required": False, "schema": {"type": "string"},
        "description": "In the place of the Authorization header, for browsers; see `POST /api/v1/tickets`.",
    },
    {
        "name": "Last-Event-ID", "in": "header", "required": False, "schema": _NUMBER,
        "description": "As `since`; sent by browsers that come back.",
    },
]  # fmt: skip
router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get(
    "/tasks/{task_id}/events",
    response_model=schemas.EventPage,
    responses={
        200: {"content": {STREAM_TYPE: {"schema": _STREAMED}}},
        204: {"description": "The task has ended, and its last event was seen."},
        **problems.responses(401, 404, 422, 503, TooManyFollowers),
    },
    openapi_extra={"parameters": _PARAMETERS},
)
async def get_events(request: Request, task_id: Uuid) -> Response:
    """Follow a task: a stream of its events, or those after `since` as JSON."""
    caller = await authenticate_follower(request)
    task_id = read_task_id(task_id)
    since, wait_s = _read_since(request), _read_wait(request)
    following = followed(parts_of(request), caller, task_id, since or 0)
    if not _wants_stream(request):
        async with following as entered:
            return json_response(await _page(entered, wait_s, answers_for(request)))
    entered = await following.__aenter__()
    if since is not None and entered.ended and entered.seq == since:
        await following.__aexit__(None, None, None)
        return Response(status_code=204)
    return EventStream(following, entered, answers_for(request), only_head=request.scope.get("flik_head", False))


def _wants_stream(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    if STREAM_TYPE in accepted:
        return True
    return "application/json" not in accepted and not {"since", "wait"} & request.query_params.keys()


def _read_since(request: Request) -> int | None:
    """Return the cursor; the header goes before the query, because browsers repeat the query when they come back."""
    numbers = [_number(given) for given in (request.headers.get("last-event-id"), request.query_params.get("since"))]
    return next((number for number in numbers if number is not None), None)


def _number(given: str | None) -> int | None:
    if given is None:
        return None
    if not given.isascii() or not given.isdigit() or len(given) > 10 or int(given) > MAX_SEQ:
        raise InvalidRequest((FieldError("/since", f"must be a whole number from 0 to {MAX_SEQ:,}"),))
    return int(given)


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
    return {
        "events": [answers.event(event) for event in events],
        "lastSeq": following.seq,
        "ended": following.ended,
        "live": following.live,
    }


class EventStream(Response):
    """Server-Sent Events (WHATWG HTML, section 9.2) of one follower; leaves it when the reader goes."""

    def __init__(
        self,
        entered: AbstractAsyncContextManager[Following],
        following: Following,
        answers: Answers,
        *,
        only_head: bool = False,
    ) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"}, media_type=STREAM_TYPE)
        del self.headers["content-length"]  # it ends when the task does
        self._entered = entered
        self._following = following
        self._answers = answers
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
        following = self._following
        frames = b"retry: %d\n\n" % COME_BACK_MS
        while True:
            while (event := following.next_now()) is not None:
                frames += frame(self._answers.event(event), event)
            over = following.ended or self._only_head
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": frames, "more_body": not over})
            if over:
                return
            event = await following.next(HEARTBEAT_S)
            frames = b":\n\n" if event is None else frame(self._answers.event(event), event)


def frame(shown: Mapping[str, Any], event: Event) -> bytes:
    """Return one event as it stands in a stream. Only what may be resumed from has an id."""
    number = b"id: %d\n" % event.seq if event.is_durable or event.kind == Kind.RESET else b""
    return number + b"event: %s\ndata: %s\n\n" % (event.kind.encode(), orjson.dumps(shown))


async def _gone(receive: Receive) -> None:
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
