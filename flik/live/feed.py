"""What happens, told to all gateways over Redis as it happens; whoever misses it finds it in the log.

One channel carries the events of all tasks, a message for as many as have gathered. Each gateway listens to
it once and picks what its followers want (`flik/pipeline/follow.py`). Nothing is kept: without a listener
a message is gone, and while Redis is away they are dropped.

Metrics: flik_events_told, flik_events_dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flik.domain.event import Event, Notice
from flik.live import keys
from flik.live.channel import PAUSE_S, listen
from flik.live.connect import connect
from flik.telemetry import Metrics

MAX_MESSAGE = 2_000  # events in one message
MAX_GATHERED = 50_000  # events that wait for Redis; older ones are dropped


class FeedWriter:
    """Sends events to all gateways. Not thread-safe: it lives on one event loop."""

    def __init__(self, url: str, measured: Metrics | None = None) -> None:
        self._url = url
        self._gathered: list[Notice] = []
        self._wanted = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        measured = measured or Metrics("flik_events_*")
        self._told, self._dropped = measured["flik_events_told"], measured["flik_events_dropped"]

    def open(self) -> Self:
        """Start to send what `tell` is given."""
        self._sending = asyncio.get_running_loop().create_task(self._run(), name="feed")
        return self

    async def close(self) -> None:
        """Stop; what was not sent is dropped."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def tell(self, notices: Iterable[Notice]) -> None:
        """Send events on their way; returns at once."""
        self._gathered += notices
        self._wanted.set()

    async def _run(self) -> None:
        redis = connect(self._url)
        try:
            while True:
                await self._wanted.wait()
                await self._send(redis)
        finally:
            await redis.aclose()

    async def _send(self, redis: Redis) -> None:
        surplus = len(self._gathered) - MAX_GATHERED
        if surplus > 0:
            del self._gathered[:surplus]
            self._dropped.inc(surplus)
        batch, self._gathered = self._gathered[:MAX_MESSAGE], self._gathered[MAX_MESSAGE:]
        if not self._gathered:
            self._wanted.clear()
        if not batch:
            return
        try:
            await redis.publish(keys.EVENTS, pack(batch))
            self._told.inc(len(batch))
        except (RedisError, OSError):
            self._dropped.inc(len(batch))
            await asyncio.sleep(PAUSE_S)


class FeedReader:
    """Hears the events of all tasks. Not thread-safe: it lives on one event loop.

    Args:
        hear: gets the events of one message.
        note_live: is told True when everything from now on will be heard, False when something may be missed.
        is_wanted: whether anybody follows; a message that nobody wants is not unpacked.
    """

    def __init__(
        self,
        url: str,
        hear: Callable[[Sequence[Notice]], None],
        note_live: Callable[[bool], None],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._url = url
        self._hear = hear
        self._note_live = note_live
        self._is_wanted = is_wanted

    async def run(self) -> None:
        """Listen until cancelled; a connection that breaks or falls silent is made anew."""
        await listen(self._url, keys.EVENTS, self._take, self._note_live)

    def _take(self, message: bytes) -> None:
        if self._is_wanted():
            self._hear(unpack(message))


def pack(notices: Iterable[Notice]) -> bytes:
    """Return events as one message: JSON, each cut after its last field that holds something."""
    rows = []
    for tenant_id, event in notices:
        fields = [tenant_id, *event]
        while fields[-1] is None:
            fields.pop()
        rows.append(fields)
    return orjson.dumps(rows)


def unpack(message: bytes) -> list[Notice]:
    """Return the events of a message; none when another version of Flik wrote it in another form."""
    try:
        return [Notice(tenant_id, Event(*fields)) for tenant_id, *fields in orjson.loads(message)]
    except (TypeError, ValueError):
        return []
