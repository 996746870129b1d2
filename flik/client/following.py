"""Follows a task over Server-Sent Events, and comes back with the last number when the connection breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from flik.client.answers import Event, read_event
from flik.client.failures import FlikApiError, FlikUnreachable, UnreadableAnswer
from flik.client.patience import MAX_OUTAGES_IN_A_ROW, passes
from flik.client.sse import EventTooLarge, Reader
from flik.client.transport import Asked, Sleep, Transport

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0


class Place:
    """Where a follower is, and what it asks for to go on: the events of a task, with its text or without."""

    def __init__(self, task_id: str = "", since: int = 0, *, chunks: bool = False) -> None:
        self._task_id = task_id
        self._since = since
        self._chunks = chunks
        self._last_chunk = -1

    def asks(self) -> Asked:
        """Return what is to be asked for now."""
        last_id = str(self._since) if self._last_chunk < 0 else f"{self._since}.{self._last_chunk}"
        params = {"chunks": "true"} if self._chunks else {}
        return Asked("GET", f"/api/v1/tasks/{self._task_id}/events", params, last_id=last_id)

    def note(self, event: Event) -> None:
        """Note that an event was seen."""
        self._task_id = event.task_id or self._task_id
        self._since = event.seq if event.seq is not None else self._since
        self._last_chunk = event.index if event.index is not None else self._last_chunk


class StreamPlace(Place):
    """The same for a stream by name: started or joined at first; from then on it is a task like any other."""

    def __init__(self, key: str, tenant: str, payload: Mapping[str, Any] | None) -> None:
        super().__init__(chunks=True)
        self._start = Asked(
            "GET" if payload is None else "POST", f"/api/v1/streams/{key}", {"tenantId": tenant}, body=payload
        )

    def asks(self) -> Asked:
        """Return what is to be asked for now."""
        return super().asks() if self._task_id else self._start


async def follow(transport: Transport, base_url: str, place: Place, sleep: Sleep) -> AsyncIterator[Event]:
    """Yield what happens to a task, from a place on, up to its end: each numbered event and each chunk once.

    A connection that breaks, and a gateway that is away, are waited for: about half a minute.

    Raises:
        FlikApiError: the gateway refuses.
        FlikUnreachable: it stays away.
        UnreadableAnswer: what it sends is not Flik's.
    """
    outages = 0
    while True:
        failure: FlikUnreachable | FlikApiError | None = None
        reader = Reader()
        try:
            async with transport.events(place.asks()) as chunks:
                if chunks is None:  # it has ended, and its last event was seen
                    return
                async for chunk in chunks:
                    for event in _events_of(reader, chunk, base_url):
                        outages = 0
                        place.note(event)
                        yield event
                        if event.is_terminal:
                            return
        except (FlikUnreachable, FlikApiError) as error:
            if not passes(error):
                raise
            failure = error
        outages += 1
        if outages > MAX_OUTAGES_IN_A_ROW:
            raise failure or FlikUnreachable(base_url, "the stream of events ends again and again")
        asked_s = getattr(failure, "retry_after_s", None) or reader.retry_s or 0.0
        await sleep(max(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (outages - 1)), min(asked_s, LONGEST_PAUSE_S)))


def _events_of(reader: Reader, chunk: bytes, base_url: str) -> list[Event]:
    try:
        return [read_event(json.loads(message.data)) for message in reader.feed(chunk)]
    except (EventTooLarge, ValueError) as error:
        raise UnreadableAnswer(base_url, str(error)) from None
