"""The words of the routes below /api/tasks, and what they mean in Flik's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_snake

from flik.domain.task import Priority, Status
from flik.errors import FieldError

WORDS: Mapping[str, tuple[Status, ...]] = {
    "pending": (Status.PENDING, Status.QUEUED),
    "running": (Status.PROCESSING,),
    "completed": (Status.COMPLETED,),
    "failed": (Status.FAILED, Status.CANCELLED, Status.EXPIRED),
}
WORD_OF: Mapping[str, str] = {status.value: word for word, statuses in WORDS.items() for status in statuses}
SHOWN_PRIORITY: Mapping[int, int] = {Priority.REAL_TIME: 9, Priority.INTERACTIVE: 5, Priority.BACKGROUND: 2}


def priority_of(urgency: int) -> Priority:
    """Return Flik's priority for one from 1 to 10: 8 to 10 real-time, 4 to 7 interactive, 1 to 3 background."""
    if urgency >= 8:
        return Priority.REAL_TIME
    return Priority.INTERACTIVE if urgency >= 4 else Priority.BACKGROUND


def in_their_words(field: FieldError, parameters: Mapping[str, Any]) -> FieldError:
    """Return a broken rule of a native task with the pointer that the caller's own body has."""
    _, _, rest = field.pointer.partition("/payload")
    name, slash, deeper = rest.removeprefix("/").partition("/")
    if not name:
        return FieldError("/parameters" if field.pointer == "/payload" else to_snake(field.pointer), field.detail)
    own = name if name in parameters else to_snake(name)
    return FieldError(f"/parameters/{own}{slash}{deeper}", field.detail)
