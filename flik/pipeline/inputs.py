"""What a step of a chain starts from, gathered by the worker when it runs: its parents' words and files.

Files are read from the object store, each once however often it is named, and are whole in memory before the provider
starts: 256 MiB at most, all together. One that is gone or is not what was stored fails the step, until its dag is
resumed, with the step that made it; a store that is away fails the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flik.catalog import MAX_PROMPT_CHARS
from flik.domain.dag import references
from flik.domain.task import StoredArtifact
from flik.errors import ArtifactNotFound, InputError, InputGone
from flik.providers.base import Input

MAX_INPUT_BYTES = 256 * 1024 * 1024


class Files(Protocol):
    """Where the files of parents lie."""

    async def get(self, stored: StoredArtifact) -> bytes:
        """Return the bytes of a file, as they were stored."""


async def gather(payload: Mapping[str, Any], outputs: str, files: Files) -> tuple[dict[str, Any], tuple[Input, ...]]:
    """Return a step's payload with what its parents made, and the files that go with it; `outputs` as in a grant.

    Raises:
        InputError: a path leads nowhere, or the files are too large.
        InputGone: a file is not there as it was stored.
        Unavailable: the object store is away.
    """
    filled = references.fill(payload, references.outputs_of(outputs), max_prompt_chars=MAX_PROMPT_CHARS)
    return filled.payload, await _read(filled.inputs, files)


async def _read(stored: Sequence[StoredArtifact], files: Files) -> tuple[Input, ...]:
    named = {each.key: each for each in stored}
    size_bytes = sum(each.size_bytes for each in named.values())
    if size_bytes > MAX_INPUT_BYTES:
        raise InputError(f"the inputs have {size_bytes:,} bytes together; the most is {MAX_INPUT_BYTES:,}")
    data: dict[str, bytes] = {}
    for each in named.values():
        try:
            data[each.key] = await files.get(each)
        except ArtifactNotFound as error:
            said = f"the input {each.sha256[:12]} ({each.content_type}): {error}"
            raise InputGone(f"{said}; resume the dag, and what made it runs again") from None
    return tuple(
        Input(
            each.content_type, each.size_bytes, each.sha256, data[each.key], each.width, each.height, each.duration_s
        )
        for each in stored
    )  # fmt: skip
