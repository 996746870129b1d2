"""Puts an artifact on disk: whole and as promised, or not at all.

The bytes go into a hidden file beside the target, are counted and hashed on the way, and
take the target's name in one step at the end. Whatever goes wrong, Ctrl-C included, leaves
neither a part nor a changed target behind.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from flik.client.answers import Artifact
from flik.client.failures import DownloadRefused
from flik.client.transport import Transport


async def download(transport: Transport, artifact: Artifact, path: Path) -> Path:
    """Fetch the artifact into `path`, replacing what is there. The folder must exist.

    Raises:
        DownloadRefused: size or hash differ from what the task said, or the file cannot be written.
        FlikApiError, FlikUnreachable: it could not be fetched.
    """
    with _PartFile(path, artifact) as part:
        async with transport.stream(artifact.url) as chunks:
            async for chunk in chunks:
                part.write(chunk)
        part.finish()
    return path


class _PartFile:
    """The file while it is coming."""

    def __init__(self, path: Path, artifact: Artifact) -> None:
        self._path = path
        self._artifact = artifact
        self._part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._part.open("xb")
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._refused(error.strerror or str(error)) from None

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; more than were announced are refused at once."""
        self._size_bytes += len(chunk)
        announced = self._artifact.size_bytes
        if announced is not None and self._size_bytes > announced:
            raise self._refused(f"it is larger than the {announced:,} bytes that were announced")
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> None:
        """Check what came and give it its name."""
        announced = self._artifact.size_bytes
        if announced is not None and self._size_bytes != announced:
            raise self._refused(f"{self._size_bytes:,} of {announced:,} bytes came")
        promised = self._artifact.sha256
        if promised is not None and self._hash.hexdigest() != promised.lower():
            raise self._refused("its SHA-256 is not the one that was announced")
        self._file.close()
        self._part.replace(self._path)

    def _refused(self, reason: str) -> DownloadRefused:
        return DownloadRefused(str(self._path), reason)
