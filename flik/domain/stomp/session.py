"""One STOMP connection, the server's side: a `Session` of `flik/domain/follow.py`.

```
        CONNECT, STOMP             accept
   NEW ────────────────► (who?) ───────────► OPEN ──┐ SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, heart-beats
    │                        │ refuse         │ ◄───┘
    │ anything else, silence ▼                │ DISCONNECT, a violation, silence, idleness, end
    └─────────────────────► CLOSED ◄──────────┘
```

What can be followed is a `Topic`, named by its destination. A SUBSCRIBE may say `from-seq`, the `seq`
of the last MESSAGE with one that was seen, and misses nothing then. ACK and NACK are checked for their shape
and change nothing: events are sent once in order, and what was lost with a connection is had again
by `from-seq`, so nothing waits for an acknowledgement and nothing is sent anew without one. SEND
and transactions are not offered. To end a subscription that is not there is no error.

An error ends the connection, as STOMP has it: an ERROR frame, with the problem document as its
body, then Close. ERROR frames before CONNECTED are written without escapes, as the client cannot
know the version yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum

import orjson

from flik.domain import follow
from flik.domain.follow import (
    Authenticate,
    Close,
    CloseCode,
    Explain,
    Idleness,
    Output,
    Question,
    Send,
    Subscribe,
    Unsubscribe,
)
from flik.domain.stomp import beats, replies, requests
from flik.domain.stomp.beats import Beats, Pace
from flik.domain.stomp.frames import DEFAULT_BOUNDS, EOL, Bounds, Frame, Parser, Version, encode
from flik.domain.stomp.requests import Subscription
from flik.errors import (
    FieldError,
    FlikError,
    InvalidRequest,
    NotBuilt,
    StreamIdle,
    StreamMalformed,
    StreamTooLarge,
    StreamVersionUnknown,
    TooManySubscriptions,
)


class _State(Enum):
    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class StompSession:
    """One connection from `now` on. `explain` makes the problem document of an error.

    `session_id` is told to the client, and begins the ids of its messages; `offer` is what the server can
    and wants of heart-beats; a client must send CONNECT within `connect_s`, and may follow nothing that goes on
    for `idle_s`.
    """

    def __init__(
        self,
        now: float,
        explain: Explain,
        *,
        session_id: str = "",
        offer: Beats = beats.OFFER,
        max_subscriptions: int = follow.MAX_SUBSCRIPTIONS,
        connect_s: float = follow.FIRST_WORD_S,
        idle_s: float = follow.IDLE_S,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._explain = explain
        self._session_id = session_id
        self._offer = offer
        self._max_subscriptions = max_subscriptions
        self._connect_s = connect_s
        self._bounds = bounds
        self._parser = Parser(bounds=bounds)
        self._state = _State.NEW
        self._version = Version.V1_0  # until CONNECT says otherwise
        self._is_known = False  # the handshake said who it is
        self._question: Question | None = None
        self._receipt_id: str | None = None  # of the frame that is worked on or asked about
        self._pace = Pace()
        self._subscriptions: dict[str, Subscription] = {}
        self._messages = itertools.count(1)
        self._idleness = Idleness(idle_s)
        self._began_at = self._heard_at = self._sent_at = now
        self._on: dict[str, Callable[[Frame, Version, float], list[Output]]] = {
            "SUBSCRIBE": self._on_subscribe,
            "UNSUBSCRIBE": self._on_unsubscribe,
            "ACK": self._on_ack,
            "NACK": self._on_ack,
            "DISCONNECT": self._on_disconnect,
        }

    # ---- what the gateway calls

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Take bytes: a part of a frame, one, several, or a heart-beat."""
        if self._state is _State.CLOSED:
            return []
        self._heard_at = now
        self._parser.feed(data)
        return self._told(self._read(now), now)

    def accept(self, now: float) -> list[Output]:
        """Answer yes; what arrived meanwhile is read on."""
        question, self._question = self._question, None
        if self._state is _State.NEW and question is None:
            self._is_known = True
        if self._state is _State.CLOSED or question is None:
            return []
        self._heard_at = now  # nothing was read while the question was open
        if isinstance(question, Subscribe):
            self._idleness.note(question.subscription_id, now, goes_on=True)
            first = self._receipt()
        else:
            first = self._opened(now)
        return self._told([*first, *self._read(now)], now)

    def refuse(self, error: FlikError, now: float) -> list[Output]:
        """Answer no, which ends the connection."""
        return self.end(error, now)

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
        """Tell of an event to a subscription that was accepted."""
        subscription = self._subscriptions.get(subscription_id)
        asked = isinstance(self._question, Subscribe) and self._question.subscription_id == subscription_id
        if subscription is None or asked or self._state is not _State.OPEN:
            return []
        message_id = f"{self._session_id}-{next(self._messages)}"
        own_seq = seq if is_numbered else None
        return self._told(
            [self._send(replies.message(subscription, message_id, own_seq, body, is_reset=is_reset))], now
        )

    def note(self, subscription_id: str, now: float, *, goes_on: bool) -> list[Output]:
        """Hear whether more can come of a subscription that was accepted."""
        if subscription_id in self._subscriptions:
            self._idleness.note(subscription_id, now, goes_on=goes_on)
        return []

    def end(self, error: FlikError | None, now: float) -> list[Output]:
        """End the connection, with an ERROR frame if there is something to tell."""
        if self._state is _State.CLOSED:
            return []
        return self._told(self._closed(Close(CloseCode.GOING_AWAY)) if error is None else self._failed(error), now)

    def tick(self, now: float) -> list[Output]:
        """Send a heart-beat that is due; give up a client that is silent, or follows nothing."""
        if self._state is _State.NEW and self._question is None and now >= self._began_at + self._connect_s:
            return self.end(StreamMalformed(f"no CONNECT within {self._connect_s:g} s"), now)
        if self._state is not _State.OPEN:
            return []
        dead_at, idle_at, due_at = self._dead_at(), self._idle_at(), self._pace.due_at(self._sent_at)
        if dead_at is not None and now >= dead_at:
            return self._closed(Close(CloseCode.PROTOCOL_ERROR, "no_heart_beat"))
        if idle_at is not None and now >= idle_at:
            return self.end(StreamIdle(self._idleness.idle_s), now)
        return self._told([Send(EOL)], now) if due_at is not None and now >= due_at else []

    def wakes_at(self) -> float | None:
        """Return when a heart-beat is due or the client is given up; before CONNECT, when that must be there."""
        if self._state is _State.NEW:
            return None if self._question is not None else self._began_at + self._connect_s
        if self._state is _State.CLOSED:
            return None
        times = (self._dead_at(), self._idle_at(), self._pace.due_at(self._sent_at))
        return min((at for at in times if at is not None), default=None)

    def _dead_at(self) -> float | None:
        return None if self._question is not None else self._pace.dead_at(self._heard_at)

    def _idle_at(self) -> float | None:
        return None if self._question is not None else self._idleness.over_at()

    # ---- reading

    def _read(self, now: float) -> list[Output]:
        """Work on what has arrived, up to a question or the end."""
        outputs: list[Output] = []
        try:
            while self._question is None and self._state is not _State.CLOSED:
                self._receipt_id = None
                part = self._parser.take()
                if part is None:
                    break
                if isinstance(part, Frame):
                    outputs += self._handle(part, now)
            if self._parser.held_bytes > self._bounds.frame_bytes:
                raise StreamTooLarge("what was sent at once", self._bounds.frame_bytes)
        except FlikError as error:
            outputs += self._failed(error)
        return outputs

    def _handle(self, frame: Frame, now: float) -> list[Output]:
        version, connects = self._version, frame.command in ("CONNECT", "STOMP")
        self._receipt_id = None if connects else frame.headers.get("receipt")
        if self._state is _State.NEW:
            if not connects:
                raise StreamMalformed("the first frame must be CONNECT or STOMP")
            return self._on_connect(frame, now)
        if connects:
            raise StreamMalformed("the connection is open already: CONNECT must be the first frame and the only one")
        if frame.command in requests.NOT_OFFERED:
            raise NotBuilt(requests.NOT_OFFERED[frame.command])
        handle = self._on.get(frame.command)
        if handle is None or (frame.command == "NACK" and version is Version.V1_0):
            raise StreamMalformed(f"{frame.command} is no frame that a client of STOMP {version} sends")
        _check_body(frame, version)
        return handle(frame, version, now)

    def _on_connect(self, frame: Frame, now: float) -> list[Output]:
        version = requests.version_of(frame.headers.get("accept-version"))
        if version is None:
            raise StreamVersionUnknown(requests.OFFERED_VERSIONS)
        _check_body(frame, version)
        headers = requests.connect_headers(frame, version)
        if version is not Version.V1_0:
            self._pace = beats.agree(self._offer, beats.read(headers.get("heart-beat")))
        self._version = self._parser.version = version
        token = requests.token_of(headers)
        if token is None and self._is_known:
            return self._opened(now)
        return [self._ask(Authenticate(token))]

    def _on_subscribe(self, frame: Frame, version: Version, now: float) -> list[Output]:
        wanted = requests.read_subscribe(frame, version)
        if wanted.subscription_id in self._subscriptions:
            raise InvalidRequest((FieldError("/id", "is the id of a subscription that is there already"),))
        if len(self._subscriptions) >= self._max_subscriptions:
            raise TooManySubscriptions(self._max_subscriptions)
        self._subscriptions[wanted.subscription_id] = wanted
        return [self._ask(Subscribe(wanted.subscription_id, wanted.topic, wanted.from_seq, wanted.first_chunk))]

    def _on_unsubscribe(self, frame: Frame, version: Version, now: float) -> list[Output]:
        subscription_id = requests.read_unsubscribe(frame, version)
        if self._subscriptions.pop(subscription_id, None) is None:
            return self._receipt()
        self._idleness.note(subscription_id, now, goes_on=False)
        return [Unsubscribe(subscription_id), *self._receipt()]

    def _on_ack(self, frame: Frame, version: Version, now: float) -> list[Output]:
        requests.check_ack(frame, version)
        return self._receipt()

    def _on_disconnect(self, frame: Frame, version: Version, now: float) -> list[Output]:
        return [*self._receipt(), *self._closed(Close(CloseCode.NORMAL))]

    # ---- answering

    def _ask(self, question: Question) -> Question:
        self._question = question
        return question

    def _opened(self, now: float) -> list[Output]:
        self._state = _State.OPEN
        self._idleness.begin(now)
        return [self._send(replies.connected(self._version, self._session_id, self._offer))]

    def _receipt(self) -> list[Output]:
        return [] if self._receipt_id is None else [self._send(replies.receipt(self._receipt_id))]

    def _failed(self, error: FlikError) -> list[Output]:
        problem = orjson.dumps(dict(self._explain(error)))
        return [self._send(replies.error(error, problem, self._receipt_id)), *self._closed(follow.closing(error))]

    def _closed(self, close: Close) -> list[Output]:
        self._state = _State.CLOSED
        self._parser = Parser(bounds=self._bounds)  # what is left is dropped
        return [close]

    def _send(self, frame: Frame) -> Send:
        return Send(encode(frame, self._version if self._state is _State.OPEN else None))

    def _told(self, outputs: list[Output], now: float) -> list[Output]:
        if any(isinstance(output, Send) for output in outputs):
            self._sent_at = now
        return outputs


def _check_body(frame: Frame, version: Version) -> None:
    if frame.body and version is not Version.V1_0:
        raise StreamMalformed(f"{frame.command} must not have a body")
