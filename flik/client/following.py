"""Follows a task over Server-Sent Events, and comes back with the last number when the connection breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from flik.client.answers import Event, read_event
from flik.client.failures import FlikApiError, FlikUnreachable, UnreadableAnswer
from flik.client.sse import EventTooLarge, Reader
from flik.client.transport import Sleep, Transport

MAX_OUTAGES_IN_A_ROW = 10
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0


async def follow(transport: Transport, base_url: str, task_id: str, since: int, sleep: Sleep) -> AsyncIterator[Event]:
    """Yield what happens to a task after the event number `since`, up to its end, each numbered event once.

    A connection that breaks, and a gateway that is away, are waited for: about half a minute.

    Raises:
        FlikApiError: the gateway refuses.
        FlikUnreachable: it stays away.
        UnreadableAnswer: what it sends is not Flik's.
    """
    outages = 0
    reader = Reader()
    while True:
        failure: FlikUnreachable | FlikApiError | None = None
        reader = Reader()
        try:
            async with transport.events(f"/api/v1/tasks/{task_id}/events", since) as chunks:
                if chunks is None:  # it has ended, and its last event was seen
                    return
                async for chunk in chunks:
                    for event in _events_of(reader, chunk, base_url):
                        outages = 0
                        since = event.seq if event.seq is not None else since
                        yield event
                        if event.is_terminal:
                            return
        except (FlikUnreachable, FlikApiError) as error:
            if isinstance(error, FlikApiError) and error.status not in (429, 502, 503, 504):
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
