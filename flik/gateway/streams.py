"""Streams by name: whoever comes first starts one, everybody gets it from its beginning.

`POST /api/v1/streams/{key}` starts or joins the stream of that name with a TEXT task; `GET` joins only. `POST
/stream` is the face of an earlier streaming system: a feature and a chat name the stream, and its frames are the
messages of `flik/gateway/chat_frames.py`. Both are tasks like any other, found again under the name of their tenant's
stream until `FLIK_STREAM_TTL_S` after their end; then the name is free.

Who joins passes no door and pays nothing. What a joiner would have sent is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from flik import schemas
from flik.catalog import TASK_TYPES
from flik.domain.chat import MAX_ID_CHARS, Chat, prompt_of
from flik.domain.identity import Caller, Scope
from flik.domain.task import NewTask
from flik.errors import (
    ExceedsBurst,
    FieldError,
    GatewayStops,
    InvalidRequest,
    PayloadTooLarge,
    PriorityNotAllowed,
    QueueFull,
    RateLimited,
    ScopeMissing,
    StreamNotFound,
    TenantMismatch,
    TenantQueueFull,
    TenantUnknown,
    TooManyFollowers,
)
from flik.gateway import door, events, problems
from flik.gateway.body import read_json, read_model, refuse_unstorable
from flik.gateway.chat_frames import ChatFrames
from flik.gateway.events import EventStream
from flik.gateway.filters import read_tenant_id
from flik.gateway.following import authenticate_follower, followed, following_of
from flik.gateway.identity import authenticate, named_tenant, tenant_of
from flik.gateway.parts import parts_of
from flik.gateway.responses import json_body
from flik.gateway.submit import origin_of, read_task
from flik.pipeline.streams import Joined

DEMO_TENANT = "demo"  # of callers of `/stream` who belong to no tenant and name none
_KEY = r"^[A-Za-z0-9][A-Za-z0-9._~:-]*$"
_MAX_KEY_CHARS = 255
_TEXT = TASK_TYPES["TEXT"].payload
_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARS, **schemas.STORABLE}
_TENANT = {
    "in": "query", "required": False, "schema": schemas.TENANT_ID_SCHEMA,
    "description": "Whose stream it is; by default the key's tenant's.",
}  # fmt: skip
_OF_CHAT: list[dict[str, Any]] = [
    {"name": "feature_id", "in": "query", "required": True, "schema": _NAME},
    {"name": "chat_id", "in": "query", "required": True, "schema": _NAME},
    {"name": "tenant_id", **_TENANT},
]
_OF_STREAM = [each for each in events.PARAMETERS if each["name"] != "chunks"] + [{"name": "tenantId", **_TENANT}]
_STREAMED = {
    "type": "object",
    "description": "Each frame of the stream; `data` is a message as JSON, or `[DONE]`.",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}
_STARTING = (
    401, 422, 503, TenantMismatch, TenantUnknown, RateLimited, ExceedsBurst, TenantQueueFull, QueueFull,
    PriorityNotAllowed, PayloadTooLarge, TooManyFollowers, GatewayStops,
)  # fmt: skip
StreamKey = Annotated[str, Path(json_schema_extra={"pattern": _KEY, "maxLength": _MAX_KEY_CHARS})]
router = APIRouter(tags=["streams"])


@router.post(
    "/stream",
    response_class=Response,
    responses={
        200: {"description": "The stream.", "content": {events.STREAM_TYPE: {"schema": _STREAMED}}},
        **problems.responses(403, *_STARTING),
    },
    openapi_extra={"parameters": _OF_CHAT},
)
async def stream_chat(request: Request) -> Response:
    """Start or join a chat's stream: its messages from the first on, then `[DONE]`."""
    caller = await _authenticate(request)
    chat = Chat(_read_name(request, "feature_id"), _read_name(request, "chat_id"))
    tenant_id = read_tenant_id(request.query_params.get("tenant_id"), "tenant_id") or caller.tenant_id or DEMO_TENANT
    payload = {"prompt": prompt_of(chat), "chat": {"featureId": chat.feature_id, "chatId": chat.chat_id}}
    joined = await _start_or_join(request, caller, tenant_id, chat.stream_key, payload)
    parts = parts_of(request)
    following = followed(parts, caller, following_of(parts, joined.task_id, 0, 0))
    frames = ChatFrames(chat, parts.stream_silence_s)
    return EventStream(following, await following.__aenter__(), frames)


@router.post(
    "/api/v1/streams/{key}",
    response_model=schemas.EventPage,
    responses={**events.FOLLOWING, **problems.responses(400, 403, 413, 415, *_STARTING)},
    openapi_extra={**json_body(_TEXT), "parameters": [each for each in _OF_STREAM if each["name"] != "ticket"]},
)
async def start_stream(request: Request, key: StreamKey) -> Response:
    """Start or join a stream: the events of its task, with the text chunk by chunk. The body is a TEXT task's payload.

    Who joins gets the stream that is there, whatever its own body says.
    """
    caller = await _authenticate(request)
    key, tenant_id = _read_key(key), _tenant_id(request, caller)
    document = await read_json(request)
    if not isinstance(document, dict):
        raise InvalidRequest((FieldError("", "must be an object"),))
    read_model(_TEXT, document)
    joined = await _start_or_join(request, caller, tenant_id, key, document)
    return await events.of_task(request, caller, joined.task_id, with_text=True)


@router.get(
    "/api/v1/streams/{key}",
    response_model=schemas.EventPage,
    responses={**events.FOLLOWING, **problems.responses(401, StreamNotFound, 422, 503, TooManyFollowers, GatewayStops)},
    openapi_extra={"parameters": _OF_STREAM},
)
async def join_stream(request: Request, key: StreamKey) -> Response:
    """Join a stream that somebody started: the events of its task, with the text chunk by chunk."""
    caller = await authenticate_follower(request)
    key, tenant_id = _read_key(key), _tenant_id(request, caller)
    task_id = await parts_of(request).streams.join(tenant_id, key) if caller.sees(tenant_id) else None
    if task_id is None:
        raise StreamNotFound(key)
    return await events.of_task(request, caller, task_id, with_text=True)


async def _authenticate(request: Request) -> Caller:
    """Return who starts or joins: that is a submit and a read in one."""
    caller = await authenticate(request, Scope.SUBMIT)
    if not caller.may(Scope.READ):
        raise ScopeMissing(Scope.READ)
    return caller


async def _start_or_join(
    request: Request, caller: Caller, tenant_id: str, key: str, payload: Mapping[str, Any]
) -> Joined:
    tenant = await tenant_of(request, caller, tenant_id)

    async def make() -> NewTask:
        document = {"tenantId": tenant_id, "taskType": "TEXT", "payload": payload}
        task = read_task(document, caller, origin_of(request), parts_of(request))
        refused = (await door.admit(request, tenant, (task,))).refusals[0]
        if refused is not None:
            raise refused
        return task

    return await parts_of(request).streams.start_or_join(tenant_id, key, make)


def _read_key(raw: str) -> str:
    if len(raw) > _MAX_KEY_CHARS or not re.fullmatch(_KEY[:-1], raw):  # a `$` would let a line feed pass
        raise InvalidRequest((FieldError("/key", f"must be 1 to {_MAX_KEY_CHARS} letters, digits and . _ ~ : -"),))
    return raw


def _read_name(request: Request, name: str) -> str:
    given = request.query_params.get(name, "")
    if not 1 <= len(given) <= MAX_ID_CHARS:
        raise InvalidRequest((FieldError(f"/{name}", f"must have 1 to {MAX_ID_CHARS} characters"),))
    refuse_unstorable({name: given})
    return given


def _tenant_id(request: Request, caller: Caller) -> str:
    return named_tenant(caller, read_tenant_id(request.query_params.get("tenantId"), "tenantId"))
