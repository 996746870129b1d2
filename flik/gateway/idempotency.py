"""The Idempotency-Key header on routes that submit: read, looked up, and answered again byte for byte.

A route reads the key first, asks `replay_of` before it admits anything, so that a replay costs no
quota, and stores through `store`. Only answers that stored something are kept; a refusal is worked
out anew each time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from flik.domain.dag.graph import NewDag
from flik.domain.idempotency import MAX_KEY_CHARS, Answer, Keyed, KeyedRequest, fingerprint, read_key
from flik.domain.task import NewTask
from flik.gateway.parts import parts_of

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEPT_HEADERS = ("Location", "Retry-After")

PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes the request safe to send again (draft-ietf-httpapi-idempotency-key-header-07): the same key "
    "with the same body is answered as the first time, with `Idempotency-Replayed: true`. A string in quotation marks, "
    "or the bare text.",
    "schema": {
        "type": "string",
        "pattern": rf'^(?:"(?:[ !#-\[\]-~]|\\["\\]){{1,{MAX_KEY_CHARS}}}"|[!#-+\--:<-\[\]-~]{{1,{MAX_KEY_CHARS}}})$',
        "examples": ['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    },
}
"""The header as OpenAPI describes a parameter."""


def key_of(request: Request) -> str | None:
    """Return the idempotency key of a request; None when it has none.

    Raises:
        IdempotencyKeyInvalid: it cannot be read.
    """
    return read_key(request.headers.getlist(HEADER))


def keyed_request(request: Request, key: str | None, tenant_id: str, document: Any) -> KeyedRequest | None:
    """Return the request as its key stands for it, in the keys of `tenant_id`; None without a key."""
    if key is None:
        return None
    route = f"{request.method} {request.scope['path']}"
    return KeyedRequest(tenant_id, key, fingerprint(route, document), time.time())


async def replay_of(request: Request, asked: KeyedRequest | None) -> Response | None:
    """Return the answer this request was given before; None when it has to be run.

    Raises:
        IdempotencyInFlight: the first request under the key has no answer yet.
        IdempotencyKeyReused: the key stands for another request.
        Unavailable: PostgreSQL is away.
    """
    kept = await parts_of(request).commit.replay_of(asked) if asked else None
    return _again(kept) if kept else None


async def store(
    request: Request, tasks: Sequence[NewTask], asked: KeyedRequest | None, answer: Response, dag: NewDag | None = None
) -> Response:
    """Commit the tasks, under the key if there is one; return `answer`, or the one that was kept before.

    `dag`: the tasks are those of its steps.

    Raises:
        IdempotencyInFlight: the first request under the key has no answer yet.
        IdempotencyKeyReused: the key stands for another request.
        Unavailable: PostgreSQL is away.
    """
    commit = parts_of(request).commit
    if asked is None:
        await (commit.commit(tasks) if dag is None else commit.commit_dag(dag))
        return answer
    kept = await commit.commit_once(Keyed(asked, _to_keep(answer), tasks, dag))
    return _again(kept) if kept else answer


def _to_keep(answer: Response) -> Answer:
    headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
    return Answer(answer.status_code, headers, bytes(answer.body).decode())


def _again(kept: Answer) -> Response:
    headers = {**kept.headers, REPLAYED: "true"}
    return Response(kept.body, kept.status, headers=headers, media_type="application/json")
