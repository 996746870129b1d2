"""What a client's frames ask for: the rules for their headers, version by version.

`host` may be missing, as in what browsers' clients send, and any name will do: there are no virtual
hosts. A key comes in `Authorization: Bearer ...`, or as `passcode` for clients that have a field for
a password only; `login` is not looked at. A 1.0 client may name a subscription by its destination.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flik.domain.follow import MAX_CHUNK, MAX_SEQ, MAX_SUBSCRIPTION_ID_CHARS, Kind, Topic, first_chunk, topic_of
from flik.domain.stomp.frames import Frame, Version, trim
from flik.errors import FieldError, InvalidRequest, NotBuilt

ACK_MODES = ("auto", "client", "client-individual")
NOT_OFFERED: Mapping[str, str] = {
    "SEND": "SEND: tasks are submitted with POST /api/v1/tasks",
    "BEGIN": "transactions (BEGIN)",
    "COMMIT": "transactions (COMMIT)",
    "ABORT": "transactions (ABORT)",
}
OFFERED_VERSIONS = tuple(version.value for version in Version)
_SUBPROTOCOLS = {f"v{version.replace('.', '')}.stomp" for version in OFFERED_VERSIONS}
_SEQ = re.compile(r"[0-9]{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client follows. `is_named`: by an id of the client's own; `acks`: it means to send ACK.

    `first_chunk`: its text too, from this chunk on.
    """

    subscription_id: str
    topic: Topic
    from_seq: int | None
    acks: bool
    is_named: bool = True
    first_chunk: int | None = None


def subprotocol(offered: Sequence[str]) -> str | None:
    """Return which of a WebSocket's subprotocols to take: the first that is STOMP; None: none of them.

    Browsers break off when they offered some and none is taken. It decides nothing: `accept-version` does.
    """
    return next((name for name in offered if name in _SUBPROTOCOLS), None)


def version_of(accepted: str | None) -> Version | None:
    """Return the highest version that `accept-version` names and Flik speaks; None: there is none.

    Without the header a client speaks 1.0.
    """
    if accepted is None:
        return Version.V1_0
    named = {name.strip() for name in accepted.split(",")}
    return max((version for version in Version if version in named), default=None)


def connect_headers(frame: Frame, version: Version) -> Mapping[str, str]:
    """Return the headers of a CONNECT frame, now that the version is known: 1.0 trims them."""
    if version is not Version.V1_0:
        return frame.headers
    return {trim(name): trim(value) for name, value in frame.headers.items()}


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the key or token that a CONNECT frame shows; None when it shows none."""
    for name, value in headers.items():
        scheme, _, token = value.strip().partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "bearer" and token.strip():
            return token.strip()
    return headers.get("passcode", "").strip() or None


def read_subscribe(frame: Frame, version: Version) -> Subscription:
    """Return what a SUBSCRIBE frame asks for.

    Raises:
        InvalidRequest: a header is missing or breaks a rule.
    """
    headers = frame.headers
    errors = []
    destination = headers.get("destination")
    topic = None if destination is None else topic_of(destination)
    if topic is None:
        errors.append(FieldError("/destination", _wrong_destination(destination)))
    subscription_id = key_of(frame, version)
    if subscription_id is None:
        errors.append(FieldError("/id", "is required"))
    elif not 1 <= len(subscription_id) <= MAX_SUBSCRIPTION_ID_CHARS:
        errors.append(FieldError("/id", f"must have 1 to {MAX_SUBSCRIPTION_ID_CHARS} characters"))
    from_seq, from_chunk = headers.get("from-seq"), headers.get("from-chunk")
    errors += [
        FieldError(f"/{name}", f"must be a whole number from 0 to {most}")
        for name, number, most in (("from-seq", from_seq, MAX_SEQ), ("from-chunk", from_chunk, MAX_CHUNK))
        if number is not None and not (_SEQ.fullmatch(number) and int(number) <= most)
    ]
    chunks = headers.get("chunks", "false")
    if chunks not in ("true", "false") or (chunks == "true" and topic is not None and topic.kind is not Kind.TASK):
        errors.append(FieldError("/chunks", "must be true or false, and true for a task only"))
    ack = headers.get("ack", ACK_MODES[0])
    if ack not in ACK_MODES:
        errors.append(FieldError("/ack", f"must be one of {', '.join(ACK_MODES)}"))
    if errors or topic is None or subscription_id is None:
        raise InvalidRequest(tuple(errors))
    seq, seen = _number(from_seq), _number(from_chunk)
    first = first_chunk(seen) if chunks == "true" else None
    return Subscription(subscription_id, topic, seq, ack != ACK_MODES[0], "id" in headers, first)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def key_of(frame: Frame, version: Version) -> str | None:
    """Return what SUBSCRIBE and UNSUBSCRIBE name a subscription by; None: by nothing."""
    named = frame.headers.get("id")
    return frame.headers.get("destination") if named is None and version is Version.V1_0 else named


def read_unsubscribe(frame: Frame, version: Version) -> str:
    """Return the id of the subscription that an UNSUBSCRIBE frame ends.

    Raises:
        InvalidRequest: it names none.
    """
    subscription_id = key_of(frame, version)
    if subscription_id is None:
        raise InvalidRequest((FieldError("/id", "is required"),))
    return subscription_id


def check_ack(frame: Frame, version: Version) -> None:
    """Check the shape of an ACK or NACK frame. What it acknowledges is not looked at: see `session.py`.

    Raises:
        InvalidRequest: a header that this version requires is missing.
        NotBuilt: it belongs to a transaction.
    """
    required = {Version.V1_0: ("message-id",), Version.V1_1: ("message-id", "subscription"), Version.V1_2: ("id",)}
    missing = [FieldError(f"/{name}", "is required") for name in required[version] if name not in frame.headers]
    if missing:
        raise InvalidRequest(tuple(missing))
    if "transaction" in frame.headers:
        raise NotBuilt("transactions")


def _wrong_destination(destination: str | None) -> str:
    if destination is None:
        return "is required"
    return "must be /topic/tasks/{taskId}, /topic/dags/{dagId} or /topic/tenant"
