"""Hands a task's result to the user: text to stdout, artifacts as links or as files in a folder.

File names are made here from the task's id and the type of the content; no name that a
server sends is ever used as a path.
"""

from __future__ import annotations

import mimetypes
from pathlib import Path

import click

from flik.cli.output import write
from flik.client import Artifact, FlikClient, Task

_EXTENSIONS = {"image/jpeg": ".jpg", "image/webp": ".webp", "text/plain": ".txt", "video/mp4": ".mp4"}


def make_folder(folder: Path | None) -> None:
    """Make the folder for results, so that it is known before the work whether they can be kept."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"cannot make the folder {folder}: {error.strerror}") from None


async def fetch(client: FlikClient, task: Task, folder: Path, name: str | None = None) -> list[Path]:
    """Download the task's artifacts into the folder, which must exist, and return the files.

    They are called by the task's id, or by `name`, which no server may have made up.
    """
    files = [folder / file_name(name or task.task_id, index, artifact) for index, artifact in enumerate(task.artifacts)]
    for artifact, file in zip(task.artifacts, files, strict=True):
        await client.download(artifact, file)
    return files


def file_name(name: str, index: int, artifact: Artifact) -> str:
    """Return `<name>-<index>.<extension>`."""
    return f"{name}-{index}{extension_of(artifact)}"


def extension_of(artifact: Artifact) -> str:
    """Return the ending, with its dot, of a file that holds the artifact."""
    content_type = artifact.content_type.partition(";")[0].strip().lower()
    return _EXTENSIONS.get(content_type) or mimetypes.guess_extension(content_type) or ".bin"


def write_result(client: FlikClient, task: Task, files: list[Path] | None) -> None:
    """Print the text, then the files that were written, or else the links."""
    if task.text is not None:
        write(task.text)
    links = [client.access.absolute(artifact.url) for artifact in task.artifacts]
    for line in links if files is None else map(str, files):
        write(line)
