"""Following a task and its text while it is written: each chunk once and in order, and then the end.

Chunks come over the feed as other events do, and stand in a stream in Redis (`flik/live/chunks.py`) from which a
follower reads what it missed: the numbers say what that is. Both may be lost, and then only the result has the
text. So before a completed task's end what the follower was given is compared with the result, and if it is
not the same it is told to `restart`: what was shown does not hold, and the `completed` that follows has the text.
"""

from __future__ import annotations

from typing import Protocol

from flik.domain.chunk import TextPosition, is_told
from flik.domain.event import Event, Kind
from flik.domain.position import Verdict
from flik.pipeline.coalesce import Coalesced
from flik.pipeline.follow import Following, Hub

LOST = "chunks_lost"


class Texts(Protocol):
    """Where texts can be read while they are written."""

    async def read(self, task_id: str, first: int = 0) -> list[Event] | None:
        """Return the chunks of a task from number `first` on; None when they cannot be had now."""


class SharedTexts:
    """Texts that many read at one moment: those who are equally far are answered by one question."""

    def __init__(self, texts: Texts) -> None:
        self._read: Coalesced[tuple[str, int], list[Event] | None] = Coalesced(lambda asked: texts.read(*asked))

    async def read(self, task_id: str, first: int = 0) -> list[Event] | None:
        """Return the chunks of a task from number `first` on; None when they cannot be had now."""
        return await self._read((task_id, first))


class TextFollowing(Following):
    """One follower of one task and its text; `first_chunk` is the number of the first chunk that it wants."""

    def __init__(self, hub: Hub, texts: Texts, task_id: str, since: int = 0, first_chunk: int = 0) -> None:
        super().__init__(hub, task_id, since, wants_text=True)
        self._texts = texts
        self._text = TextPosition(first_chunk)

    @property
    def next_chunk(self) -> int:
        """The number of the chunk that comes next."""
        return self._text.next_index

    async def _begin(self) -> None:
        await super()._begin()
        if not self._position.ended:
            await self._catch_up()

    async def _take(self) -> None:
        await super()._take()
        if self._ready and self._ready[-1].kind == Kind.LIVE:
            await self._catch_up()

    async def _look(self) -> None:
        await super()._look()
        if not self._position.ended:
            await self._catch_up()

    async def _judge(self, event: Event) -> None:
        if not event.is_of_text:
            await super()._judge(event)
            return
        verdict = self._text.judge(event.chunk_index or 0)
        if verdict is Verdict.READ_LOG:
            await self._catch_up()
        elif verdict is Verdict.DELIVER:
            self._text.note(event)
            self._ready += [event] if is_told(event) else []

    async def _give(self, events: list[Event]) -> None:
        if events and events[-1].ends:
            *events, last = events
            await super()._give(events)
            await self._complete_text(last)
            events = [last]
        await super()._give(events)

    async def _complete_text(self, last: Event) -> None:
        """Give what is missing of the text before the task's end; if it cannot be had, say so."""
        result = (last.task.result or {}) if last.task else {}
        text = result.get("text") or ""
        if last.kind == Kind.COMPLETED and self._text.has(text):
            return
        await self._catch_up()
        if last.kind == Kind.COMPLETED and not self._text.has(text):
            self._ready.append(
                Event(self._id, 0, Kind.RESTART, last.at, last.attempt, last.worker_id, last.version, reason=LOST)
            )

    async def _catch_up(self) -> None:
        stream = await self._texts.read(self._id, self._text.first_unread)
        self._ready += self._text.pass_over(stream or ())
