"""Signatures of Standard Webhooks 1.0, made and checked.

A secret is `whsec_` and the base64 of 24 to 64 bytes. Signed is `<id>.<timestamp>.<body>` with HMAC-SHA256; the
header holds `v1,<base64>` once for each secret that is live, separated by spaces, so that a receiver goes on while
it changes from the old secret to the new one. A receiver takes a timestamp at most 300 s from its own clock, or
somebody who saw a message could send it again for ever.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from enum import StrEnum

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
_FOUR = "[A-Za-z0-9+/]{4}"  # base64 of three bytes
_REST = "[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}=="
FORM = rf"^whsec_(?:(?:{_FOUR}){{8,20}}(?:{_FOUR}|{_REST})?|(?:{_FOUR}){{21}}[A-Za-z0-9+/]{{2}}==)$"
"""What a secret looks like, as a regular expression: 24 to 64 bytes."""
RANDOM_BYTES = 32  # of a secret that Flik makes
TOLERANCE_S = 300
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_MAX_SIGNATURES = 32  # what a forger could make a receiver compute


class Fault(StrEnum):
    """Why a message is not to be trusted."""

    MISSING = "a header is missing"
    MALFORMED = "a header cannot be read"
    TOO_OLD = "the timestamp is too old"
    TOO_NEW = "the timestamp is in the future"
    WRONG = "no signature fits"


def make_secret(randomness: bytes) -> str:
    """Return the secret of 24 to 64 random bytes.

    Raises:
        ValueError: they are fewer, or more.
    """
    if not LEAST_BYTES <= len(randomness) <= MOST_BYTES:
        raise ValueError(f"a secret is made of {LEAST_BYTES} to {MOST_BYTES} bytes, not of {len(randomness)}")
    return PREFIX + base64.b64encode(randomness).decode()


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret; the prefix may be missing, as some tools drop it.

    Raises:
        ValueError: it is no secret. The message does not repeat it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret is whsec_ and base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"a secret holds {LEAST_BYTES} to {MOST_BYTES} bytes")
    return key


def sign(message_id: str, timestamp: int, body: bytes, secrets: Sequence[str]) -> str:
    """Return the value of `webhook-signature`; `timestamp` is in whole seconds since the epoch.

    Raises:
        ValueError: there is no secret, one is none, or the id holds a full stop, which separates what is signed.
    """
    if not secrets:
        raise ValueError("there is no secret to sign with")
    if not message_id or "." in message_id:
        raise ValueError("the id of a message is not empty and holds no full stop")
    return " ".join(f"v1,{_digest(key_of(secret), message_id, str(timestamp), body)}" for secret in secrets)


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> Fault | None:
    """Return what is wrong with a message that came in; None: it is from who holds one of the secrets.

    `headers` are looked up in lower case; `now` is in seconds since the epoch.

    Raises:
        ValueError: a secret is none.
    """
    named = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (named.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not message_id or not timestamp or not signatures:
        return Fault.MISSING
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return Fault.MALFORMED
    if int(timestamp) < now - TOLERANCE_S:
        return Fault.TOO_OLD
    if int(timestamp) > now + TOLERANCE_S:
        return Fault.TOO_NEW
    known = [_digest(key_of(secret), message_id, timestamp, body).encode() for secret in secrets]
    sent = [one.removeprefix("v1,").encode() for one in signatures.split(" ") if one.startswith("v1,")]
    fits = [hmac.compare_digest(one, mine) for one in sent[:_MAX_SIGNATURES] for mine in known]
    return None if any(fits) else Fault.WRONG


def _digest(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
