"""A task's text as readers of the earlier streaming system expect it: one message a frame, then `[DONE]`.

A task that does not complete, and a stream in which nothing comes for long, ends with an error in a frame of
its own before the `[DONE]`; no reader is left to wait. A text that begins anew is counted from 0 again, after a
comment that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from flik.domain import chat as chats
from flik.domain.chat import Chat
from flik.domain.event import Event, Kind
from flik.errors import FlikError

_RESTART = b": restart\n\n"
_DONE = b"data: %s\n\n" % chats.DONE.encode()
_ENDED_AS = {Kind.FAILED: "task_failed", Kind.CANCELLED: "task_cancelled", Kind.EXPIRED: "task_expired"}


class ChatFrames:
    """The frames of one reader. `patience_s`: after so long without anything new it is let go."""

    opening = b""

    def __init__(self, chat: Chat, patience_s: float) -> None:
        self.patience_s = patience_s
        self._chat = chat
        self._shown: list[str] = []
        self._is_lost = False

    def of(self, event: Event) -> bytes:
        """Return an event as it stands in the stream; of most there is nothing to say."""
        if event.kind == Kind.CHUNK:
            return self._message(event, event.text or "")
        if event.kind == Kind.RESTART and event.chunk_index is None:
            self._is_lost = True  # the result has the text: what is missing comes with it
        elif event.kind == Kind.RESTART:
            return self._restart()
        elif event.kind == Kind.COMPLETED:
            return self._rest(event) + _DONE
        elif event.ends:
            code = event.error_code or _ENDED_AS[Kind(event.kind)]
            return self._error(code, event.error_message or f"the task {event.kind}") + _DONE
        return b""

    def cut_off(self, error: FlikError | None) -> bytes:
        """Return what ends the stream before the task has."""
        if error is not None:
            return self._error(error.code, str(error)) + _DONE
        return self._error("stream_silent", f"nothing came for {self.patience_s:g} s; the task goes on") + _DONE

    def _rest(self, completed: Event) -> bytes:
        """Return what the stream lost, from the result."""
        if not self._is_lost or completed.task is None:
            return b""
        messages = ((completed.task.result or {}).get("text") or "").splitlines(keepends=True)
        frames = b"" if messages[: len(self._shown)] == self._shown else self._restart()
        return frames + b"".join(self._message(completed, text) for text in messages[len(self._shown) :])

    def _restart(self) -> bytes:
        self._shown.clear()
        return _RESTART

    def _message(self, event: Event, text: str) -> bytes:
        content = chats.message(self._chat, len(self._shown), event._replace(text=text))
        self._shown.append(text)
        return _frame(content)

    def _error(self, code: str, message: str) -> bytes:
        names = {"feature_id": self._chat.feature_id, "chat_id": self._chat.chat_id}
        return _frame({"error": {"code": code, "message": message}, **names})


def _frame(content: Mapping[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(content)
