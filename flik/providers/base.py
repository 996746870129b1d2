"""What a model back end looks like to Flik.

A provider turns one request into a stream of outputs: any number of `Progress`,
`TextChunk` and `Artifact`, then exactly one `Result`, which ends the stream. It raises
`flik.errors.ProviderError` and says there whether a retry is worth it; any other exception
counts as a retryable fault of the provider. When the back end is away, whatever it is asked
for, it raises `flik.errors.ProviderUnavailable`: the attempt is not counted, and the replica
takes one task at a time until one gets through.

It runs inside a model replica's event loop: work that takes the CPU for more than a few
milliseconds belongs in a thread. Cancelling the consuming task cancels the provider at its
next await; a provider that wants to wind down before the hard timeout watches
`context.wind_down`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Input:
    """One file that a generation starts from, whole; `data` hashes to `sha256` (hex). Sizes are pixels.

    It was made by another generation, and is no safer to decode than any file.
    """

    content_type: str
    size_bytes: int
    sha256: str
    data: bytes
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One generation. `payload` passed the catalog's schema of `task_type`; keys are snake_case.

    A step of a chain has `inputs`, what its parents made, and may then have no prompt; see `flik/catalog.py`.
    """

    task_id: str
    task_type: str
    payload: Mapping[str, Any]
    attempt: int = 1
    inputs: tuple[Input, ...] = ()


@dataclass(slots=True)
class Context:
    """What the replica tells the provider. `wind_down` is set at the soft timeout.

    `traceparent` is the header (W3C Trace Context) that the provider's own calls carry on the task's trace with.
    """

    version: str
    worker_id: str
    wind_down: asyncio.Event = field(default_factory=asyncio.Event)
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is: `fraction` from 0 to 1, and what is being done."""

    fraction: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class TextChunk:
    """The next piece of a text that is being written."""

    text: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """One finished file, `index` counting from 0. Sizes are pixels, `duration_s` seconds."""

    index: int
    content_type: str
    data: bytes
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The end of the stream: the text (for models that write) and facts about the generation."""

    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


Output = Progress | TextChunk | Artifact | Result


class Provider(Protocol):
    """A model back end."""

    def generate(self, request: Request, context: Context) -> AsyncIterator[Output]:
        """Yield outputs, the `Result` last.

        Raises:
            ProviderUnavailable: the back end is away.
            InputError: the inputs are not what it can start from.
            ProviderError: the back end failed, and whether a retry is worth it.
        """
        ...


def traced(inputs: Sequence[Input]) -> dict[str, Any]:
    """Return what the metadata of a result says of what it started from: nothing, or the digests of the inputs."""
    return {"inputs": [each.sha256 for each in inputs]} if inputs else {}
