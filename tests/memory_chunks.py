"""The stream of a text in a list: passes the same tests as the one in Redis. `lose`: as when it expires."""

from __future__ import annotations

from flik.domain.chunk import Chunk, Missing, Mode, Refused, Reply, Taken, Write, Written, event_of
from flik.domain.event import Event


class MemoryStream:
    """The stream of one task."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._attempt = 0
        self._run = ""

    def write(self, write: Write) -> Reply:
        attempt, run, first, mode, chunks = write
        if self.chunks:
            if self._attempt > attempt:
                return Refused()
            if self._run == run:
                if first < len(self.chunks):
                    return Written(len(self.chunks))
            elif mode is Mode.ANEW and self._attempt < attempt:
                self.chunks = []
            elif mode is not Mode.BEGIN or first != len(self.chunks):
                return Taken(self._attempt, list(self.chunks))
        if first != len(self.chunks):
            return Missing()
        self.chunks += [chunk._replace(attempt=attempt) for chunk in chunks]
        self._attempt, self._run = attempt, run
        return Written(len(self.chunks))

    def lose(self) -> None:
        self.chunks = []


class MemoryChunks:
    """The streams of tasks, as followers read them."""

    def __init__(self) -> None:
        self.streams: dict[str, MemoryStream] = {}
        self.away = False
        self.reads: list[tuple[str, int]] = []

    async def read(self, task_id: str, first: int = 0) -> list[Event] | None:
        self.reads.append((task_id, first))
        if self.away:
            return None
        chunks = self.streams[task_id].chunks if task_id in self.streams else []
        return [event_of(task_id, index, chunk) for index, chunk in enumerate(chunks)][first:]
