"""Uploads: each file of an attempt goes to the object store by itself, beside the generation, and again if it fails.

While one waits for the store, the generation goes on and the other files go their own way; nothing is generated again
because a file could not be stored. An upload is tried again after 0.2, 0.4, 0.8, 1.6, then each 3 s, until the store
takes it or its attempt is nearly at its hard timeout (the last tenth of it, 5 s at most, is left). Then it has failed,
and its attempt with it; the worker goes on renewing the lease meanwhile, like that of any other attempt.

Bounds of one worker, over all its attempts: 8 files on their way at a time (one that waits for its next try is not
on its way), and 64 MiB of files in memory that are not stored yet; a larger file goes alone. A provider that is ahead
of that is not asked for its next output, so it may hold one more file an attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from flik.domain.task import Grant, StoredArtifact, Upload, UploadStatus
from flik.errors import Unavailable
from flik.pipeline.inputs import Files
from flik.providers.base import Artifact

Store = Callable[[], Awaitable[StoredArtifact]]

FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 3.0
LEFT_S = 5.0
LEAST_BYTES = 64 * 1024  # what a file counts for at least, so that many small ones are bounded as well
AT_A_TIME = 8
WAITING_BYTES = 64 * 1024 * 1024
MAX_ERROR_CHARS = 300
MAX_ATTEMPTS = 32_767  # what the column holds


class Artifacts(Files, Protocol):
    """Where finished files go, and those of a step's parents lie."""

    async def put(self, task_id: str, attempt: int, artifact: Artifact) -> StoredArtifact:
        """Store one file, replacing an earlier try of the same attempt."""


def pauses_s() -> Iterator[float]:
    """Yield how long an upload waits after its first failure, its second ...: 0.2, 0.4, 0.8, 1.6, 3, 3, ... s."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, MOST_PAUSE_S)


class Room:
    """Room for so many bytes; who comes first gets it first. What is larger than all of it gets it alone."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    def take_now(self, size_bytes: int) -> int:
        """Take room that is there and for which nobody waits; 0: there is none."""
        needed = self._needed(size_bytes)
        if self._free < needed or self._turn.locked():
            return 0
        self._free -= needed
        return needed

    async def take(self, size_bytes: int) -> int:
        """Wait for room; return how much was taken, which is to be given back."""
        needed = self._needed(size_bytes)
        async with self._turn:
            while self._free < needed:
                self._freed.clear()
                await self._freed.wait()
            self._free -= needed
        return needed

    def give_back(self, taken: int) -> None:
        """Let others have it."""
        self._free += taken
        self._freed.set()

    def _needed(self, size_bytes: int) -> int:
        return min(max(size_bytes, LEAST_BYTES), self._most)


@dataclass(slots=True, eq=False)
class _Unit:
    """One file on its way: the artifact until it is stored, then where it lies."""

    file: Artifact | StoredArtifact
    index: int
    size_bytes: int
    started_at: float
    began: float
    attempts: int = 0
    took_s: float | None = None
    failed: bool = False
    error: str | None = None
    adopted: bool = False

    def told(self) -> Upload:
        """Return what is recorded of it, now that its attempt ends."""
        status = UploadStatus.FAILED if self.failed else UploadStatus.ABANDONED
        if isinstance(self.file, StoredArtifact):
            status = UploadStatus.STORED
        took_s = _clock() - self.began if self.took_s is None else self.took_s
        attempts = min(self.attempts, MAX_ATTEMPTS)
        return Upload(
            self.index, status, attempts, self.size_bytes, self.started_at, self.started_at + took_s, self.error
        )


class Uploader:
    """Sends the files of a worker's attempts. Not thread-safe: it lives on one event loop."""

    def __init__(
        self,
        artifacts: Artifacts,
        *,
        at_a_time: int = AT_A_TIME,
        waiting_bytes: int = WAITING_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.artifacts = artifacts
        self.room = Room(waiting_bytes)
        self.gate = asyncio.Semaphore(at_a_time)
        self.now = now

    def begin(self, grant: Grant, began_at: float) -> Uploads:
        """Return where the files of an attempt go, which began at `began_at` of the loop's time."""
        return Uploads(self, grant, began_at)


class Uploads:
    """The files of one attempt. `close` must be called in the end."""

    __slots__ = ("_all_ended", "_attempt", "_failure", "_give_up_at", "_sending", "_task_id", "_units", "_uploader")

    def __init__(self, uploader: Uploader, grant: Grant, began_at: float) -> None:
        hard_s = grant.hard_timeout_s
        self._uploader = uploader
        self._task_id, self._attempt = grant.task_id, grant.attempt
        self._give_up_at = began_at + hard_s - min(hard_s / 10, LEFT_S)
        self._units: list[_Unit] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._all_ended: asyncio.Future[None] | None = None  # or one has failed; there while somebody waits for it

    async def add(self, artifact: Artifact) -> None:
        """Send a file on its way; return when there is room for it.

        Raises:
            Unavailable: the object store did not take it, or one before it, in time.
        """
        put = partial(self._uploader.artifacts.put, self._task_id, self._attempt, artifact)
        await self._begin(artifact, artifact.index, len(artifact.data), put)

    async def adopt(self, stored: StoredArtifact) -> None:
        """Take in a file that an earlier attempt has stored, once it was seen to be there; it is no upload of this one.

        Raises:
            Unavailable: the object store did not show it in time.
            ArtifactNotFound: it, or one before it, is not there as it was stored.
        """

        async def look() -> StoredArtifact:
            await self._uploader.artifacts.get(stored)
            return stored

        await self._begin(stored, stored.index, stored.size_bytes, look, adopted=True)

    async def end(self) -> tuple[StoredArtifact, ...]:
        """Return all files in the order in which they came, when all are stored.

        Raises:
            Unavailable: the object store did not take one in time.
        """
        if self._sending and self._failure is None:
            self._all_ended = asyncio.get_running_loop().create_future()
            await self._all_ended
        if self._failure is not None:
            raise self._failure
        return tuple([unit.file for unit in self._units if isinstance(unit.file, StoredArtifact)])

    def files(self) -> tuple[StoredArtifact | Artifact, ...]:
        """Return all files in the order in which they came, as far as each has come."""
        return tuple([unit.file for unit in self._units])

    async def close(self) -> None:
        """Call off what is still on its way; return when that is over."""
        if self._sending:
            for sending in self._sending:
                sending.cancel()
            await asyncio.wait(list(self._sending))

    def told(self) -> tuple[Upload, ...]:
        """Return what is recorded of each upload."""
        return tuple([unit.told() for unit in self._units if not unit.adopted])

    async def _begin(
        self, file: Artifact | StoredArtifact, index: int, size_bytes: int, store: Store, *, adopted: bool = False
    ) -> None:
        taken = self._uploader.room.take_now(size_bytes) or await self._room_in_time(size_bytes)
        unit = _Unit(file, index, size_bytes, self._uploader.now(), _clock(), adopted=adopted)
        self._units.append(unit)
        sending = asyncio.get_running_loop().create_task(self._send(unit, store))
        sending.add_done_callback(lambda _: self._note_ended(sending, taken))
        self._sending.add(sending)
        if self._failure is not None:
            raise self._failure

    async def _room_in_time(self, size_bytes: int) -> int:
        try:
            async with asyncio.timeout_at(self._give_up_at):
                return await self._uploader.room.take(size_bytes)
        except TimeoutError:
            raise self._failure or Unavailable("artifacts") from None

    def _note_ended(self, sending: asyncio.Task[None], taken: int) -> None:
        self._sending.discard(sending)
        self._uploader.room.give_back(taken)
        error = None if sending.cancelled() else sending.exception()
        self._failure = self._failure if self._failure is not None else error
        waiting = self._all_ended
        if waiting is not None and not waiting.done() and (self._failure is not None or not self._sending):
            waiting.set_result(None)

    async def _send(self, unit: _Unit, store: Store) -> None:
        try:
            stored = await self._patiently(unit, store)
        except Exception as error:
            unit.failed, unit.error = True, _reason(error)
            raise
        finally:
            unit.took_s = _clock() - unit.began
        again = unit.attempts > 1 and not unit.adopted
        unit.file = replace(stored, upload_attempts=min(unit.attempts, MAX_ATTEMPTS)) if again else stored

    async def _patiently(self, unit: _Unit, store: Store) -> StoredArtifact:
        pauses = pauses_s()
        while True:
            try:
                async with self._uploader.gate:
                    unit.attempts += 1
                    return await store()
            except Unavailable as error:
                unit.error = _reason(error)
                pause_s = next(pauses)
                if _clock() + pause_s >= self._give_up_at:
                    raise
            await asyncio.sleep(pause_s)


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _reason(error: BaseException) -> str:
    """Return what is recorded of a failure: what the store itself said, as far as PostgreSQL can hold it."""
    said = error.__cause__ or error
    text = f"{type(said).__name__}: {said}".partition("\n")[0][:MAX_ERROR_CHARS]
    return text.replace("\0", " ").encode(errors="replace").decode()
