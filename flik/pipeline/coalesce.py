"""Many who ask the same at one moment are answered by one question.

    read = Coalesced(store.read)
    history = await read(task_id)

An answer is never that of a question which was sent before it was asked for: who comes while one is under way
shares the next with all others who did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Coalesced(Generic[K, V]):
    """One question at a time for each key. Not thread-safe: it lives on one event loop."""

    def __init__(self, ask: Callable[[K], Awaitable[V]]) -> None:
        self._ask = ask
        self._waiting: dict[K, list[asyncio.Future[V]]] = {}  # for a question that is not sent yet
        self._asking: dict[K, asyncio.Task[None]] = {}

    async def __call__(self, key: K) -> V:
        """Return the answer, or raise what asking raised."""
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if key not in self._asking:
            self._asking[key] = asyncio.create_task(self._run(key))
        return await answer

    async def _run(self, key: K) -> None:
        try:
            while (answers := self._waiting.pop(key, None)) is not None:
                await self._answer(key, answers)
        finally:
            del self._asking[key]

    async def _answer(self, key: K, answers: list[asyncio.Future[V]]) -> None:
        try:
            found = await self._ask(key)
        except Exception as error:
            for answer in _awaited(answers):
                answer.set_exception(error)
        else:
            for answer in _awaited(answers):
                answer.set_result(found)


def _awaited(answers: Iterable[asyncio.Future[V]]) -> Iterable[asyncio.Future[V]]:
    """Return those whose callers have not gone away."""
    return (answer for answer in answers if not answer.done())
