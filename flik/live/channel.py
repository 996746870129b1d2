"""One channel of Redis, listened to for as long as a process lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from flik.live.connect import connect

PAUSE_S = 0.25
PING_S = 1.0
_log = logging.getLogger("flik.live")


async def listen(
    url: str, channel: str, hear: Callable[[bytes], None], note_live: Callable[[bool], None] = lambda _: None
) -> None:
    """Hear the messages of a channel until cancelled; a connection that breaks or falls silent is made anew.

    Args:
        url: where Redis is.
        channel: its name.
        hear: gets each message.
        note_live: is told True when everything from now on will be heard, False when something may be missed.
    """
    while True:
        redis = connect(url)
        pubsub = redis.pubsub()
        try:
            await _listen(pubsub, channel, hear, note_live)
        except (RedisError, OSError):
            _log.debug("the channel %s is away", channel, exc_info=True)
        finally:
            note_live(False)
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await redis.aclose()
        await asyncio.sleep(PAUSE_S)


async def _listen(
    pubsub: PubSub, channel: str, hear: Callable[[bytes], None], note_live: Callable[[bool], None]
) -> None:
    await pubsub.subscribe(channel)
    pinged = False
    while True:
        message: dict[str, Any] | None = await pubsub.get_message(timeout=PING_S)
        if (task := asyncio.current_task()) and task.cancelling():  # swallowed in there, which happens
            raise asyncio.CancelledError
        if message is None:
            if pinged:
                raise RedisConnectionError("it does not answer")
            await pubsub.ping()
            pinged = True
            continue
        pinged = False
        if message["type"] == "subscribe":
            note_live(True)
        elif message["type"] == "message":
            hear(message["data"])
