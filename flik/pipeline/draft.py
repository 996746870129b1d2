"""What an attempt has brought forth so far, but for its files, and where its text goes while it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from flik.domain.task import Grant
from flik.errors import ProviderError
from flik.providers.base import Result, TextChunk


class Writing(Protocol):
    """Where the text of one attempt goes while it is written."""

    def add(self, text: str) -> None:
        """Send the next piece on its way; returns at once."""

    async def end(self) -> None:
        """Note that the text is whole; return when followers can have it, or soon."""

    def close(self) -> None:
        """Nothing more comes of this attempt."""


class Chunks(Protocol):
    """Where texts go while they are written."""

    def begin(self, grant: Grant, payload: Mapping[str, Any]) -> Writing:
        """Return where the text of an attempt goes."""


class _Unheard:
    """A text that nobody follows."""

    def add(self, text: str) -> None:
        return

    async def end(self) -> None:
        return

    def close(self) -> None:
        return


@dataclass(slots=True)
class Draft:
    """What an attempt has brought forth so far. Once it is `whole`, `text` is all of it, and `metadata` plain JSON."""

    chunks: list[str] = field(default_factory=list)
    whole: bool = False
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    writing: Writing = field(default_factory=_Unheard)

    def note(self, output: TextChunk | Result) -> None:
        """Take in what the provider brought forth.

        Raises:
            ProviderError: the result's metadata is nothing that JSON can hold.
        """
        if isinstance(output, Result):
            self.text = output.text if output.text is not None else "".join(self.chunks) or None
            self.metadata = _plain(output.metadata)
            self.whole = True
        else:
            self.chunks.append(output.text)
            self.writing.add(output.text)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as what it will be once it is stored.

    Raises:
        ProviderError: it is nothing that JSON can hold; here it costs one task, on its way to the queue the replica.
    """
    if not metadata:
        return {}
    try:
        plain: dict[str, Any] = orjson.loads(orjson.dumps(metadata))
    except (TypeError, ValueError) as error:
        raise ProviderError("result_not_storable", f"metadata: {error}", False) from None
    return plain
