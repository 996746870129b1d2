"""The object store: the one place where artifacts are written and read. The only home of `obstore`.

A local folder (file:///...) by default, S3 and others by URL. Keys are made here from the
task id, the attempt and the index, never from a caller's text, and look like
`0199.../1-0.png`. Writing a key again replaces it whole: a reader sees the old bytes or the
new ones, never a mixture. Calls don't block the event loop.

While the store is away, calls are refused at once (`flik/guard.py`). Away is: it cannot be
reached, or does not answer in time. That something is not there is an answer.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError, NotFoundError
from obstore.store import LocalStore, from_url

from flik.domain.breaker import BreakerPolicy, Tally, Verdict
from flik.domain.task import StoredArtifact
from flik.errors import ArtifactNotFound, SettingInvalid, Unavailable
from flik.guard import Guard
from flik.providers.base import Artifact
from flik.telemetry import Metrics

EXTENSIONS: Mapping[str, str] = {
    "text/plain": "txt",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "video/mp4": "mp4",
}
CHUNK_BYTES = 1024 * 1024
READ_WITHIN_S = 10.0  # a size, or one chunk
WRITE_WITHIN_S = 120.0  # a whole film, on a slow line
BREAKER = BreakerPolicy()
_NOWHERE = "probe/1-0.bin"
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}/\d{1,9}-\d{1,9}\.[a-z0-9]{1,8}", re.ASCII)


def key_of(task_id: str, attempt: int, artifact: Artifact) -> str:
    """Return the key under which an artifact is stored.

    Raises:
        ValueError: the task id is not one that Flik makes.
    """
    if not _TASK_ID.fullmatch(task_id):
        raise ValueError(f"not a task id: {task_id!r}")
    extension = EXTENSIONS.get(artifact.content_type.split(";")[0].strip(), "bin")
    return f"{task_id}/{attempt}-{artifact.index}.{extension}"


def content_type_of(key: str) -> str:
    """Return the content type of what lies under a key, as HTTP wants it."""
    extension = key.rpartition(".")[2]
    found = next((kind for kind, ending in EXTENSIONS.items() if ending == extension), "application/octet-stream")
    return f"{found}; charset=utf-8" if found.startswith("text/") else found


def _checked(key: str) -> str:
    """Return the key if it can be one of ours; `..`, absolute paths and the like never reach the store."""
    if not _KEY.fullmatch(key):
        raise ArtifactNotFound("there is no artifact with this name")
    return key


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def verdict_of(error: Exception) -> Verdict:
    """Return what a call's failure says about the store."""
    if isinstance(error, NotFoundError | FileNotFoundError):
        return Verdict.ANSWERED
    away = isinstance(error, GenericError | OSError)  # a TimeoutError is an OSError
    return Verdict.AWAY if away else Verdict.ANSWERED


def _force_to_disk(path: Path) -> None:
    """Flush a file and its place in its folder: a task must not be COMPLETED before its artifacts are on disk."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ArtifactStore:
    """Reads and writes artifacts in one object store, opened by `open_store`."""

    def __init__(self, store: Any, folder: Path | None = None, measured: Metrics | None = None) -> None:
        self._store = store
        self._folder = folder  # of a local store: what is put there is forced to disk
        self._guard = Guard("artifacts", self._ask, BREAKER, verdict_of=verdict_of, measured=measured)

    async def put(self, task_id: str, attempt: int, artifact: Artifact) -> StoredArtifact:
        """Store an artifact, in place of what was there, and return where it lies; then it is on disk.

        Raises:
            Unavailable: the store did not take it; putting it again is safe.
        """
        key = key_of(task_id, attempt, artifact)
        try:
            async with self._reached(WRITE_WITHIN_S):
                await obstore.put_async(self._store, key, artifact.data)
                if self._folder is not None:
                    await asyncio.to_thread(_force_to_disk, self._folder / key)
        except ArtifactNotFound as error:  # not the artifact: the bucket or the folder
            raise Unavailable("artifacts") from error
        return StoredArtifact(
            index=artifact.index,
            key=key,
            content_type=artifact.content_type,
            size_bytes=len(artifact.data),
            sha256=_digest(artifact.data),
            width=artifact.width,
            height=artifact.height,
            duration_s=artifact.duration_s,
        )

    async def head(self, key: str) -> int:
        """Return the size in bytes.

        Raises:
            ArtifactNotFound: there is nothing under this key, or it cannot be a key.
            Unavailable: the store is away.
        """
        checked = _checked(key)
        async with self._reached(READ_WITHIN_S):
            return int((await obstore.head_async(self._store, checked))["size"])

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to but not including `end`; fewer if it ends sooner. Raises as `head`."""
        checked = _checked(key)
        if end <= start:
            return b""
        async with self._reached(READ_WITHIN_S):
            return bytes(await obstore.get_range_async(self._store, checked, start=start, end=end))

    async def stream(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes of a range in chunks of at most 1 MiB. Raises as `head`."""
        for at in range(start, end, CHUNK_BYTES):
            yield await self.get_range(key, at, min(at + CHUNK_BYTES, end))

    async def get(self, stored: StoredArtifact) -> bytes:
        """Return the bytes of an artifact, all of them in memory.

        Raises:
            ArtifactNotFound: it is not there any more, or what is there is not what was stored.
            Unavailable: the store is away.
        """
        data = b""
        if await self.head(stored.key) == stored.size_bytes:
            data = b"".join([piece async for piece in self.stream(stored.key, 0, stored.size_bytes)])
        if await asyncio.to_thread(_digest, data) != stored.sha256:
            raise ArtifactNotFound("the artifact is not what was stored")
        return data

    async def delete(self, key: str) -> None:
        """Remove an artifact; removing what is not there does nothing."""
        checked = _checked(key)
        async with self._reached(READ_WITHIN_S):
            try:
                await obstore.delete_async(self._store, checked)
            except (NotFoundError, FileNotFoundError):
                return

    def tally(self) -> Tally:
        """Return what is told of the store's breaker."""
        return self._guard.tally()

    @asynccontextmanager
    async def _reached(self, within_s: float) -> AsyncIterator[None]:
        """Refuse while the store is away, give up after `within_s`, and turn what it raises into Flik's errors."""
        try:
            with self._guard.call(verdict_of):
                async with asyncio.timeout(within_s):
                    yield
        except (NotFoundError, FileNotFoundError):
            raise ArtifactNotFound("the artifact is not there (any more)") from None
        except (BaseError, OSError) as error:
            raise Unavailable("artifacts") from error

    async def _ask(self) -> None:
        """Probe: look for what is not there."""
        with suppress(NotFoundError, FileNotFoundError):
            await obstore.head_async(self._store, _NOWHERE)


def open_store(url: str, measured: Metrics | None = None) -> ArtifactStore:
    """Open the object store at a URL: file:///folder (made if it is missing), memory:///, s3://bucket/prefix ...

    Raises:
        SettingInvalid: the URL names no store that can be opened.
    """
    try:
        if urlsplit(url).scheme != "file":
            return ArtifactStore(from_url(url), None, measured)
        folder = Path(unquote(urlsplit(url).path))
        folder.mkdir(parents=True, exist_ok=True)
        return ArtifactStore(LocalStore(folder, automatic_cleanup=True), folder, measured)
    except (BaseError, OSError, ValueError) as error:
        raise SettingInvalid("artifact store URL", str(error).splitlines()[0]) from None
