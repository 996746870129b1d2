"""How the queue's loops wait, and what runs beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from flik.errors import Unavailable

PAUSE_S = 0.5
_BACKGROUND: set[asyncio.Task[None]] = set()
_T = TypeVar("_T")


async def wait(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event. Not with `wait_for`: before Python 3.12 it may swallow a cancel, and a loop would live on."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def pause() -> None:
    """Wait until PostgreSQL may be asked again."""
    await asyncio.sleep(PAUSE_S)


async def until_available(ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Ask until PostgreSQL answers; return what it says."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await pause()


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run what nobody waits for."""
    task = asyncio.create_task(work)
    _BACKGROUND.add(task)
    task.add_done_callback(_BACKGROUND.discard)
