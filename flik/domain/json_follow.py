"""Following events with plain JSON: a `Session` of `flik/domain/follow.py`, one object a WebSocket message.

| the client says | and gets |
|---|---|
| `{"type": "auth", "token": "..."}`, or `"ticket"` instead | `{"type": "ready"}` |
| `{"type": "subscribe", "id": "a", "taskId": "..."}`, or `"dagId"`, or `"tenant": true`; `"fromSeq": 7` to go on after 7 | `{"type": "subscribed", "id": "a"}`, then its events |
| the same with a `taskId` and `"chunks": true`; `"fromChunk": 17` to go on after chunk 17 | its text too, as events `chunk` and `restart` |
| `{"type": "unsubscribe", "id": "a"}` | `{"type": "unsubscribed", "id": "a"}`, also if there was none |
| `{"type": "ping"}` | `{"type": "pong"}` |

Events are `{"type": "event", "id": "a", "seq": 8, "event": {...}}`. A `reset` looks the same and says
that what came before `seq` cannot be had: `event` is how things stand. Errors are `{"type": "error",
"problem": {...}}`, with `id` if they are about one subscription; those leave the connection open.
All others close it, as does to follow nothing that goes on for 60 s. Who was recognised in the handshake gets `ready` at once, and sends no `auth`.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from flik.domain import follow
from flik.domain.follow import (
    MAX_CHUNK,
    MAX_SEQ,
    MAX_SUBSCRIPTION_ID_CHARS,
    TENANT,
    Authenticate,
    Close,
    CloseCode,
    Explain,
    Idleness,
    Kind,
    Output,
    Question,
    Send,
    Subscribe,
    Topic,
    Unsubscribe,
    first_chunk,
    is_subject,
)
from flik.errors import (
    FieldError,
    FlikError,
    InvalidRequest,
    StreamIdle,
    StreamMalformed,
    StreamTooLarge,
    TooManySubscriptions,
)

MAX_MESSAGE_BYTES = 65_536
_MAX_TOKEN_CHARS = 4_096
_MAX_HELD = 100  # messages, while a question is open
_MAX_ERRORS = 20
_MEMBERS: Mapping[str, frozenset[str]] = {
    "auth": frozenset({"token", "ticket"}),
    "subscribe": frozenset({"id", "taskId", "dagId", "tenant", "fromSeq", "chunks", "fromChunk"}),
    "unsubscribe": frozenset({"id"}),
    "ping": frozenset(),
}
_TOPICS = {"taskId": Kind.TASK, "dagId": Kind.DAG}


class JsonSession:
    """One connection from `now` on. `explain` makes the problem document of an error.

    A client must send `auth` within `auth_s`, unless it was recognised in the handshake; it may follow nothing
    that goes on for `idle_s`.
    """

    def __init__(
        self,
        now: float,
        explain: Explain,
        *,
        max_subscriptions: int = follow.MAX_SUBSCRIPTIONS,
        auth_s: float = follow.FIRST_WORD_S,
        idle_s: float = follow.IDLE_S,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._explain = explain
        self._max_subscriptions = max_subscriptions
        self._auth_s = auth_s
        self._auth_until = now + auth_s
        self._max_bytes = max_message_bytes
        self._is_ready = self._is_closed = False
        self._question: Question | None = None
        self._held: deque[bytes] = deque()
        self._subscriptions: set[str] = set()
        self._idleness = Idleness(idle_s)
        self._on: dict[str, Callable[[Mapping[str, Any], float], list[Output]]] = {
            "subscribe": self._on_subscribe,
            "unsubscribe": self._on_unsubscribe,
            "ping": lambda said, now: [_send("pong")],
        }

    # ---- what the gateway calls

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Take one message."""
        if self._is_closed:
            return []
        self._held.append(data)
        return self._read(now)

    def accept(self, now: float) -> list[Output]:
        """Answer yes; what arrived meanwhile is read on."""
        question, self._question = self._question, None
        if self._is_closed or (question is None and self._is_ready):
            return []
        if isinstance(question, Subscribe):
            self._idleness.note(question.subscription_id, now, goes_on=True)
            return [_send("subscribed", id=question.subscription_id), *self._read(now)]
        self._is_ready = True
        self._idleness.begin(now)
        return [_send("ready"), *self._read(now)]

    def refuse(self, error: FlikError, now: float) -> list[Output]:
        """Answer no: to a subscription, and the connection stays; to who it is, and it ends."""
        question, self._question = self._question, None
        if not isinstance(question, Subscribe):
            return self.end(error, now)
        self._subscriptions.discard(question.subscription_id)
        return [self._error(error, question.subscription_id), *self._read(now)]

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
        asked = isinstance(self._question, Subscribe) and self._question.subscription_id == subscription_id
        if subscription_id not in self._subscriptions or asked:
            return []
        return [_send("reset" if is_reset else "event", id=subscription_id, seq=seq, event=orjson.Fragment(body))]

    def note(self, subscription_id: str, now: float, *, goes_on: bool) -> list[Output]:
        """Hear whether more can come of a subscription that was accepted."""
        if subscription_id in self._subscriptions:
            self._idleness.note(subscription_id, now, goes_on=goes_on)
        return []

    def end(self, error: FlikError | None, now: float) -> list[Output]:
        """End the connection, with an error message if there is something to tell."""
        if self._is_closed:
            return []
        return self._closed(Close(CloseCode.GOING_AWAY)) if error is None else self._failed(error)

    def tick(self, now: float) -> list[Output]:
        """Give up a client that does not say who it is, or follows nothing."""
        until = self.wakes_at()
        if until is None or now < until:
            return []
        if self._is_ready:
            return self.end(StreamIdle(self._idleness.idle_s), now)
        return self.end(StreamMalformed(f"no auth within {self._auth_s:g} s"), now)

    def wakes_at(self) -> float | None:
        """Return until when the client must have said who it is, or follow something; None: nothing falls due."""
        if self._is_closed or self._question is not None:
            return None
        return self._idleness.over_at() if self._is_ready else self._auth_until

    # ---- reading

    def _read(self, now: float) -> list[Output]:
        """Work on what has arrived, up to a question or the end."""
        outputs: list[Output] = []
        try:
            while self._held and self._question is None:
                outputs += self._handle(self._held.popleft(), now)
            if len(self._held) > _MAX_HELD:
                raise StreamTooLarge("what was sent at once", _MAX_HELD, "messages")
            if sum(map(len, self._held)) > self._max_bytes:
                raise StreamTooLarge("what was sent at once", self._max_bytes)
        except FlikError as error:
            outputs += self._failed(error)
        return outputs

    def _handle(self, data: bytes, now: float) -> list[Output]:
        if len(data) > self._max_bytes:
            raise StreamTooLarge("a message", self._max_bytes)
        said = _parse(data)
        kind = said["type"]
        names = sorted(said.keys() - _MEMBERS[kind] - {"type"})
        unknown = [FieldError(_pointer(name), "is not known") for name in names[:_MAX_ERRORS]]
        if kind == "auth":
            return [self._on_auth(said, unknown)]
        if not self._is_ready:
            raise StreamMalformed("the first message must be auth")
        try:
            if unknown:
                raise InvalidRequest(tuple(unknown))
            return self._on[kind](said, now)
        except (InvalidRequest, TooManySubscriptions) as error:
            return [self._error(error, said.get("id"))]

    def _on_auth(self, said: Mapping[str, Any], unknown: list[FieldError]) -> Question:
        if self._is_ready:
            raise StreamMalformed("the connection is open already: auth must be the first message and the only one")
        errors = unknown + [
            FieldError(f"/{name}", f"must be a text of 1 to {_MAX_TOKEN_CHARS:,} characters")
            for name in ("token", "ticket")
            if name in said and not _is_text(said[name], _MAX_TOKEN_CHARS)
        ]
        if ("token" in said) is ("ticket" in said):
            errors.append(FieldError("/token", "either a token or a ticket is required"))
        if errors:
            raise InvalidRequest(tuple(errors))
        return self._ask(Authenticate(said.get("token"), said.get("ticket")))

    def _on_subscribe(self, said: Mapping[str, Any], now: float) -> list[Output]:
        subscription_id, topic = said.get("id"), _topic_of(said)
        from_seq, from_chunk, chunks = said.get("fromSeq"), said.get("fromChunk"), said.get("chunks", False)
        errors = _id_errors(said)
        if not errors and subscription_id in self._subscriptions:
            errors.append(FieldError("/id", "is the id of a subscription that is there already"))
        if not isinstance(topic, Topic):
            errors.append(topic)
        errors += [
            FieldError(f"/{name}", f"must be a whole number from 0 to {most}")
            for name, number, most in (("fromSeq", from_seq, MAX_SEQ), ("fromChunk", from_chunk, MAX_CHUNK))
            if number is not None and (type(number) is not int or not 0 <= number <= most)
        ]
        if not isinstance(chunks, bool) or (chunks and "taskId" not in said):
            errors.append(FieldError("/chunks", "must be true or false, and true for a taskId only"))
        if errors or not isinstance(topic, Topic) or not isinstance(subscription_id, str):
            raise InvalidRequest(tuple(errors))
        if len(self._subscriptions) >= self._max_subscriptions:
            raise TooManySubscriptions(self._max_subscriptions)
        self._subscriptions.add(subscription_id)
        return [self._ask(Subscribe(subscription_id, topic, from_seq, first_chunk(from_chunk) if chunks else None))]

    def _on_unsubscribe(self, said: Mapping[str, Any], now: float) -> list[Output]:
        errors = _id_errors(said)
        if errors:
            raise InvalidRequest(tuple(errors))
        subscription_id = said["id"]
        answer = _send("unsubscribed", id=subscription_id)
        if subscription_id not in self._subscriptions:
            return [answer]
        self._subscriptions.discard(subscription_id)
        self._idleness.note(subscription_id, now, goes_on=False)
        return [Unsubscribe(subscription_id), answer]

    # ---- answering

    def _ask(self, question: Question) -> Question:
        self._question = question
        return question

    def _error(self, error: FlikError, subscription_id: object) -> Send:
        about = {"id": subscription_id} if _is_text(subscription_id, MAX_SUBSCRIPTION_ID_CHARS) else {}
        return _send("error", **about, problem=dict(self._explain(error)))

    def _failed(self, error: FlikError) -> list[Output]:
        return [self._error(error, None), *self._closed(follow.closing(error))]

    def _closed(self, close: Close) -> list[Output]:
        self._is_closed = True
        self._subscriptions.clear()
        return [close]


def _parse(data: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise StreamMalformed(f"the message is not valid JSON: {error}") from None
    if not isinstance(said, dict) or not isinstance(said.get("type"), str) or said["type"] not in _MEMBERS:
        raise StreamMalformed(f"a message must be an object whose type is one of {', '.join(_MEMBERS)}")
    return said


def _topic_of(said: Mapping[str, Any]) -> Topic | FieldError:
    named = [name for name in (*_TOPICS, "tenant") if name in said]
    if len(named) != 1:
        return FieldError("/taskId", "either a taskId, a dagId or tenant is required")
    name, value = named[0], said[named[0]]
    if name == "tenant":
        return TENANT if value is True else FieldError("/tenant", "must be true")
    if not isinstance(value, str) or not is_subject(value):
        return FieldError(f"/{name}", "must be an id: 1 to 64 letters, digits, - and _")
    return Topic(_TOPICS[name], value)


def _id_errors(said: Mapping[str, Any]) -> list[FieldError]:
    if "id" not in said:
        return [FieldError("/id", "is required")]
    if not _is_text(said["id"], MAX_SUBSCRIPTION_ID_CHARS):
        return [FieldError("/id", f"must be a text of 1 to {MAX_SUBSCRIPTION_ID_CHARS} characters")]
    return []


def _is_text(value: object, most_chars: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= most_chars


def _pointer(name: str) -> str:
    return "/" + name[:64].replace("~", "~0").replace("/", "~1")


def _send(kind: str, **members: Any) -> Send:
    return Send(orjson.dumps({"type": kind, **members}))
