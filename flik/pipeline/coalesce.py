"""Many who ask the same at one moment are answered by one question.

    read = Coalesced(store.read)
    history = await read(task_id)

An answer is never that of a question which was sent before it was asked for: who comes while one is under way
shares the next with all others who did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Coalesced(Generic[K, V]):
    """One question at a time for each key. Not thread-safe: it lives on one event loop."""

    def __init__(self, ask: Callable[[K], Awaitable[V]]) -> None:
        self._ask = ask
        self._waiting: dict[K, asyncio.Future[V]] = {}  # for a question that is not sent yet
        self._asking: dict[K, asyncio.Task[None]] = {}

    async def __call__(self, key: K) -> V:
        """Return the answer, or raise what asking raised."""
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(_look_at)
            if key not in self._asking:
                self._asking[key] = asyncio.create_task(self._run(key))
        return await asyncio.shield(answer)  # one who goes away must not take the others with it

    async def _run(self, key: K) -> None:
        try:
            while (answer := self._waiting.pop(key, None)) is not None:
                try:
                    answer.set_result(await self._ask(key))
                except Exception as error:
                    answer.set_exception(error)
        finally:
            del self._asking[key]


def _look_at(answer: asyncio.Future[V]) -> None:
    if not answer.cancelled():
        answer.exception()  # so that asyncio does not complain when all who asked have gone
