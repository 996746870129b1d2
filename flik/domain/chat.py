"""Chats of the earlier streaming system: the text of a task as messages, each of which says who made it.

A chat is named by a feature and an id. Its messages are the chunks of the task's text, counted from 0; a text
that starts anew is counted anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flik.domain.chunk import Chunk
from flik.domain.event import Event

MESSAGES = 20
MAX_ID_CHARS = 128
WORKER = "flik"
DONE = "[DONE]"


class Chat(NamedTuple):
    """Which chat it is."""

    feature_id: str
    chat_id: str

    @property
    def stream_key(self) -> str:
        """The key of its stream: no two chats have the same."""
        return f"{escaped(self.feature_id)}:{escaped(self.chat_id)}"


def escaped(part: str) -> str:
    """Return a part of a name that is joined by colons, so that two names are the same only if all their parts are."""
    return part.replace("%", "%25").replace(":", "%3A")


def prompt_of(chat: Chat) -> str:
    """Return what a model is asked for a chat."""
    return f"feature {chat.feature_id}, chat {chat.chat_id}"


def message(chat: Chat, number: int, chunk: Chunk | Event) -> Mapping[str, Any]:
    """Return one message; a line feed at its end parts it from the next one in the task's text, and is left out."""
    return {
        "id": str(number),
        "feature_id": chat.feature_id,
        "chat_id": chat.chat_id,
        "message": (chunk.text or "").removesuffix("\n"),
        "timestamp": datetime.fromtimestamp(chunk.at, UTC).isoformat(timespec="microseconds"),
        "container_id": chunk.worker_id,
        "container_feature_id": f"text-{chunk.version}",
        "worker": WORKER,
    }
