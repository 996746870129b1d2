"""Generations that are whole, kept on the node while their files wait for the object store.

A replica that dies, shuts down or gives up on the store then leaves behind what it made: the task's next attempt on
this node, in whichever replica, takes it up and is spared the generation. Under the spool's folder lie

    <task id>/made.json     text, metadata, who made it; of each file where it is stored, or that it waits
    <task id>/<sha256>      a file that waits

`made.json` comes last and by a rename, so it is there whole or not at all; what is read is compared with its digest.
Nothing is flushed: it outlives processes, not the power. It holds 1 GiB at most, for 6 hours at most; the oldest goes
first. It may lose anything at any time: then the task is generated again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from flik.domain.task import StoredArtifact
from flik.errors import ArtifactNotFound
from flik.providers.base import Artifact

MOST_BYTES = 1024**3
MOST_AGE_S = 6 * 3600.0
_MANIFEST = "made.json"
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_log = logging.getLogger("flik.worker")


@dataclass(frozen=True, slots=True)
class Held:
    """A file in the spool, by what an `Artifact` has but its bytes."""

    index: int
    content_type: str
    sha256: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A generation that is whole. `made_by` is the lease token of its attempt, `version` that of the model."""

    version: str
    made_by: str
    text: str | None
    metadata: Mapping[str, Any]
    files: tuple[StoredArtifact | Artifact | Held, ...]


class Spool:
    """One folder, which all replicas of a node may share. Calls don't block the event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        most_bytes: int = MOST_BYTES,
        most_age_s: float = MOST_AGE_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_age_s = most_age_s
        self._now = now

    async def keep(self, task_id: str, made: Made) -> bool:
        """Keep a generation in place of an earlier one of its task; False when that was not possible."""
        try:
            return await asyncio.to_thread(self._keep, task_id, made)
        except OSError as error:
            _log.warning("a generation could not be kept: %s", error, extra={"taskId": task_id})
            return False

    async def find(self, task_id: str, version: str) -> Made | None:
        """Return what was kept of a task, if this model version made it; its files are stored or `Held`."""
        if not os.path.exists(f"{self._folder}/{task_id}/{_MANIFEST}"):  # noqa: PTH110, ASYNC240  # 2 us, of each attempt
            return None
        made = await asyncio.to_thread(self._find, task_id)
        return made if made is not None and made.version == version else None

    async def read(self, task_id: str, held: Held) -> Artifact:
        """Return a file with its bytes.

        Raises:
            ArtifactNotFound: it is not there, or not what was kept.
        """
        return await asyncio.to_thread(self._read, task_id, held)

    async def forget(self, task_id: str) -> None:
        """Remove what was kept of a task, if anything was."""
        await asyncio.to_thread(_remove, self._folder / task_id)

    def _keep(self, task_id: str, made: Made) -> bool:
        if not _TASK_ID.fullmatch(task_id):
            return False
        waiting = [file for file in made.files if isinstance(file, Artifact)]
        if not self._make_room(sum(len(file.data) for file in waiting)):
            return False
        folder = self._folder / task_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files: list[dict[str, Any]] = []
        for file in made.files:
            if isinstance(file, Artifact):
                held = _held(file)
                _write(folder / held.sha256, file.data)
                files.append({"held": held})
            else:
                files.append({"stored" if isinstance(file, StoredArtifact) else "held": file})
        document = {"version": made.version, "made_by": made.made_by, "text": made.text, "metadata": made.metadata}
        _write(folder / _MANIFEST, orjson.dumps({**document, "files": files}))
        return True

    def _find(self, task_id: str) -> Made | None:
        folder = self._folder / task_id
        try:
            if self._now() - folder.stat().st_mtime > self._most_age_s:
                return None
            read = orjson.loads((folder / _MANIFEST).read_bytes())
            files = tuple(
                StoredArtifact(**file["stored"]) if "stored" in file else Held(**file["held"]) for file in read["files"]
            )
            return Made(read["version"], read["made_by"], read["text"], read["metadata"], files)
        except (OSError, ValueError, TypeError, KeyError) as error:
            _log.warning("what was kept cannot be read: %s", error, extra={"taskId": task_id})
            return None

    def _read(self, task_id: str, held: Held) -> Artifact:
        try:
            data = (self._folder / task_id / Path(held.sha256).name).read_bytes()
        except OSError:
            data = b""
        if sha256(data).hexdigest() != held.sha256:
            raise ArtifactNotFound("a file that was kept is not there as it was kept")
        fields = {name: value for name, value in asdict(held).items() if name not in {"sha256", "size_bytes"}}
        return Artifact(data=data, **fields)

    def _make_room(self, wanted: int) -> bool:
        """Remove what is too old, then the oldest until `wanted` bytes fit in; False when they never will."""
        kept = sorted((path.stat().st_mtime, path) for path in self._folder.glob("*") if path.is_dir())
        sizes = {path: _size(path) for _, path in kept}
        total = sum(sizes.values())
        for at, path in kept:
            if self._now() - at > self._most_age_s or (total + wanted > self._most_bytes >= wanted):
                _remove(path)
                total -= sizes[path]
        return total + wanted <= self._most_bytes


def _held(file: Artifact) -> Held:
    digest = sha256(file.data).hexdigest()
    return Held(
        file.index, file.content_type, digest, len(file.data), file.width, file.height, file.duration_s
    )  # fmt: skip


def _size(folder: Path) -> int:
    """Return how many bytes a folder holds; others may move and remove its files meanwhile."""
    size_bytes = 0
    for file in folder.glob("*"):
        with suppress(FileNotFoundError):
            size_bytes += file.stat().st_size
    return size_bytes


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    part.write_bytes(data)
    part.replace(path)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
