"""Following events over a connection: what a client asks for, and what the gateway has to do for it.

Two protocols are spoken over WebSockets: STOMP (`flik/domain/stomp/session.py`) and plain JSON
(`flik/domain/json_follow.py`). Both are sessions: values come out, bytes and answers go in, and
nothing is done in between, so that one route drives either of them:

    receive(data) ─► Send           to be sent as one WebSocket message
                     Unsubscribe    stop to follow
                     Close          close the WebSocket; nothing comes after it
                     Authenticate ┐ a question, always the last output: answer it with accept() or refuse(error),
                     Subscribe    ┘ whose outputs are handled in the same way

A session has one open question at most and reads no further until it is answered. What arrives
meanwhile is held, up to a bound; a gateway that reads on only when it has answered holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol

from flik.errors import FlikError, GatewayStops, RequestError, StreamMalformed, StreamTooLarge, StreamVersionUnknown

MAX_SEQ = 2**63 - 1
MAX_CHUNK = 2**31 - 1
MAX_SUBSCRIPTION_ID_CHARS = 255
MAX_SUBSCRIPTIONS = 100
FIRST_WORD_S = 10.0  # so long a client may take to say who it is
IDLE_S = 60.0  # so long a connection may follow nothing that goes on
_SUBJECT = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)

Explain = Callable[[FlikError], Mapping[str, Any]]
"""Makes the problem document (RFC 9457) of an error; the gateway has the one table for it."""


class Kind(StrEnum):
    """What a topic is about; the word of its destination."""

    TASK = "tasks"
    DAG = "dags"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Topic:
    """What can be followed: one task, one chain, or all of the caller's tenant (then `subject` is None)."""

    kind: Kind
    subject: str | None = None

    @property
    def destination(self) -> str:
        """Its name: `/topic/tasks/{taskId}`, `/topic/dags/{dagId}` or `/topic/tenant`."""
        return f"/topic/{self.kind}" if self.subject is None else f"/topic/{self.kind}/{self.subject}"


TENANT = Topic(Kind.TENANT)


def topic_of(destination: str) -> Topic | None:
    """Return the topic of a destination; None when there is none of this form. Whether its subject exists is not said.

    A subject is 1 to 64 letters, digits, `-` and `_`.
    """
    if destination == TENANT.destination:
        return TENANT
    for kind in (Kind.TASK, Kind.DAG):
        before, _, subject = destination.partition(f"/topic/{kind}/")
        if not before and is_subject(subject):
            return Topic(kind, subject)
    return None


def first_chunk(seen: int | None) -> int:
    """Return the number of the first chunk that a client wants, given the last one that it saw (None: none)."""
    return 0 if seen is None else seen + 1


def is_subject(raw: str) -> bool:
    """Return whether a task or a chain can have this id."""
    return _SUBJECT.fullmatch(raw) is not None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Who is it? The question of a client's key or token, or of its one-time ticket; both None: it sent neither."""

    token: str | None = field(default=None, repr=False)
    ticket: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """May it follow? `from_seq`: send what comes after this number; None: of a task or a dag all, from its first on.

    `first_chunk`: of a task, its text too, chunk by chunk from this number on; None: without.
    """

    subscription_id: str
    topic: Topic
    from_seq: int | None = None
    first_chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Stop to follow."""

    subscription_id: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send this as one message; it is UTF-8, so a text message will do."""

    data: bytes


class CloseCode(IntEnum):
    """Why a WebSocket is closed (RFC 6455, section 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Close:
    """Close the WebSocket. `reason` is a word of ASCII, at most 123 bytes as the standard asks."""

    code: CloseCode = CloseCode.NORMAL
    reason: str = ""


class Idleness:
    """Since when a connection follows nothing that goes on; it may for `idle_s`.

    What has ended goes on when it is retried or resumed.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.idle_s = idle_s
        self._going_on: set[str] = set()
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Begin to count: the client was let in."""
        self._since = now

    def note(self, subscription_id: str, now: float, *, goes_on: bool) -> None:
        """Take note of a subscription: what it is to goes on, or it has ended, or the subscription has."""
        if goes_on:
            self._going_on.add(subscription_id)
            self._since = None
        elif subscription_id in self._going_on:
            self._going_on.discard(subscription_id)
            self._since = None if self._going_on else now

    def over_at(self) -> float | None:
        """Return when it will have been idle for too long; None: it follows something, or was not let in yet."""
        return None if self._since is None else self._since + self.idle_s


Question = Authenticate | Subscribe
Output = Question | Unsubscribe | Send | Close


def closing(error: FlikError) -> Close:
    """Return how a connection ends on which `error` was told."""
    if isinstance(error, StreamTooLarge):
        code = CloseCode.TOO_BIG
    elif isinstance(error, StreamMalformed | StreamVersionUnknown):
        code = CloseCode.PROTOCOL_ERROR
    elif isinstance(error, GatewayStops):
        code = CloseCode.SERVICE_RESTART
    elif error.retry_after_s is not None:
        code = CloseCode.TRY_AGAIN_LATER
    else:
        code = CloseCode.POLICY if isinstance(error, RequestError) else CloseCode.INTERNAL
    return Close(code, error.code)


class Session(Protocol):
    """One connection, whichever protocol it speaks. After a Close every method returns no outputs."""

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Take one WebSocket message, text as UTF-8."""

    def accept(self, now: float) -> list[Output]:
        """Answer the open question with yes. Before anything was received: the handshake said who it is."""

    def refuse(self, error: FlikError, now: float) -> list[Output]:
        """Answer the open question with no."""

    def event(
        self,
        subscription_id: str,
        seq: int,
        body: bytes,
        now: float,
        *,
        is_reset: bool = False,
        is_numbered: bool = True,
    ) -> list[Output]:
        """Tell of an event; `body` is its JSON. Nothing comes out for a subscription that is not there (any more).

        `seq` is what to go on from after it: its own number, or, of one that has none (`is_numbered` is false),
        that of the last one before. `is_reset`: what was missed cannot be had; `body` is how things stand at `seq`.
        """

    def note(self, subscription_id: str, now: float, *, goes_on: bool) -> list[Output]:
        """Hear whether more can come of what an accepted subscription is to. When it was accepted, it could."""

    def end(self, error: FlikError | None, now: float) -> list[Output]:
        """End the connection from this side, for a reason or because the service stops."""

    def tick(self, now: float) -> list[Output]:
        """Do what is due at `now`; to be called at `wakes_at()`, earlier does no harm."""

    def wakes_at(self) -> float | None:
        """Return when something falls due; None: nothing until the next call of another method."""
