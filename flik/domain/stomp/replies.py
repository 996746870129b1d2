"""The frames that the server sends.

Ids are made without colons and backslashes: some clients leave escapes in 1.1 as they are.
"""

from __future__ import annotations

from flik.domain.stomp.beats import Beats
from flik.domain.stomp.frames import Frame, Version
from flik.domain.stomp.requests import Subscription
from flik.errors import FlikError, StreamVersionUnknown

SERVER = "Flik"
PROBLEM_TYPE = "application/problem+json"
EVENT_TYPE = "application/json"
_MAX_MESSAGE_CHARS = 200


def connected(version: Version, session_id: str, beats: Beats) -> Frame:
    """Return the frame that opens a session; 1.0 knows no heart-beats."""
    headers = {"version": version.value, "session": session_id, "server": SERVER}
    if version is not Version.V1_0:
        headers["heart-beat"] = str(beats)
    return Frame("CONNECTED", headers)


def receipt(receipt_id: str) -> Frame:
    """Return the frame that says that another one was processed."""
    return Frame("RECEIPT", {"receipt-id": receipt_id})


def error(failure: FlikError, problem: bytes, receipt_id: str | None) -> Frame:
    """Return the frame that ends a session; `problem` is the problem document as JSON."""
    headers = {"message": _one_line(str(failure)), "content-type": PROBLEM_TYPE}
    if receipt_id is not None:
        headers["receipt-id"] = receipt_id
    if isinstance(failure, StreamVersionUnknown):
        headers["version"] = ",".join(failure.offered)
    return Frame("ERROR", headers, problem)


def message(
    subscription: Subscription, message_id: str, seq: int | None, body: bytes, *, is_reset: bool = False
) -> Frame:
    """Return the frame of an event; `body` is JSON.

    `message_id` is no other message's. `seq` is what a later SUBSCRIBE can go on from with `from-seq`;
    None: the event has no number. `reset: true` says that events before it cannot be had and that the
    body is how things stand. `ack` is what an ACK names.
    """
    headers: dict[str, str] = {"destination": subscription.topic.destination, "message-id": message_id}
    if subscription.is_named:
        headers["subscription"] = subscription.subscription_id
    if subscription.acks:
        headers["ack"] = message_id
    headers["content-type"] = EVENT_TYPE
    if seq is not None:
        headers["seq"] = str(seq)
    if is_reset:
        headers["reset"] = "true"
    return Frame("MESSAGE", headers, body)


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:_MAX_MESSAGE_CHARS]
