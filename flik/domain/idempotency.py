"""Requests that may be sent twice: the Idempotency-Key header, and what the second one is answered.

The header is that of draft-ietf-httpapi-idempotency-key-header-07: a string of structured
fields (RFC 9651, section 3.3.3), `Idempotency-Key: "8e03978e-40d5"`. Many clients send the
bare text, so that is read too; `abc` and `"abc"` are one key.

A key belongs to a tenant and stands for one request: method, path and body, where neither
the order of names nor white space counts. The answer is kept with the tasks, in one
transaction. Who sends the request again gets that answer; who sends another one under the
same key is refused; when the answer has expired, the key is free again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from flik.domain.dag.graph import NewDag
from flik.domain.task import NewTask
from flik.errors import IdempotencyKeyInvalid

MAX_KEY_CHARS = 255
_QUOTED = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_BARE = r"[!#-+\--:<-\[\]-~]+"  # printable, but none of `"` `\` `,` `;` and space: those belong to structured fields
_KEY = re.compile(f"{_QUOTED}|{_BARE}")
_ESCAPED = re.compile(r"\\(.)")

Place = tuple[str, str]
"""Where an answer is kept: (tenant id, key)."""


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request under a key. `fingerprint` is what it asks for; `asked_at` decides what has expired for it."""

    tenant_id: str
    key: str
    fingerprint: str
    asked_at: float

    @property
    def place(self) -> Place:
        """Where its answer is kept."""
        return self.tenant_id, self.key


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered: status, the headers that matter, and the body as text."""

    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Keyed:
    """A submission under a key: one or more tasks, or those of a dag, and the answer to keep with them."""

    asked: KeyedRequest
    answer: Answer
    tasks: Sequence[NewTask]
    dag: NewDag | None = None

    @property
    def submission_id(self) -> str:
        """The id of its first task: no other submission has it, so a repeated statement knows its own record."""
        return self.tasks[0].task_id


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer that is kept in a place, and for which request."""

    fingerprint: str
    expires_at: float
    answer: Answer


class Verdict(StrEnum):
    """What to do with a request under a key."""

    RUN = "RUN"  # the key is free
    REPLAY = "REPLAY"  # it was answered before: say the same
    REUSED = "REUSED"  # the key stands for another request


def decide(asked: KeyedRequest, kept: Kept | None) -> Verdict:
    """Return what to do with a request, given what is kept in its place."""
    if kept is None or kept.expires_at <= asked.asked_at:
        return Verdict.RUN
    return Verdict.REPLAY if kept.fingerprint == asked.fingerprint else Verdict.REUSED


def read_key(fields: Sequence[str]) -> str | None:
    """Return the key that a request's Idempotency-Key fields hold; None when it has none.

    Raises:
        IdempotencyKeyInvalid: there are several, or it is no string of 1 to 255 printable ASCII characters.
    """
    if not fields:
        return None
    if len(fields) > 1:
        raise IdempotencyKeyInvalid("it was sent more than once")
    sent = fields[0].strip(" \t")
    if not _KEY.fullmatch(sent):
        raise IdempotencyKeyInvalid('send one string of printable ASCII characters, as in "8e03978e-40d5"')
    key = _ESCAPED.sub(r"\1", sent[1:-1]) if sent.startswith('"') else sent
    if not 1 <= len(key) <= MAX_KEY_CHARS:
        raise IdempotencyKeyInvalid(f"it must hold 1 to {MAX_KEY_CHARS} characters")
    return key


def fingerprint(route: str, document: Any) -> str:
    """Return the SHA-256 (hex) of what a request asks for: its route, and its JSON body in canonical form."""
    canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"%b\n%b" % (route.encode(), canonical)).hexdigest()
