"""Routes of API keys, for operators: make one (it is shown once), list them, revoke one.

A revoked key opens nothing 5 s later, on any gateway; one that was made works at once.
"""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from uuid_utils import uuid7

from flik import errors, schemas
from flik.domain import key as api_keys
from flik.domain.identity import Scope
from flik.domain.key import ApiKey, Kind
from flik.errors import FieldError, InvalidRequest, KeyNotFound
from flik.gateway import cursor, filters, headers, pages, paths, problems
from flik.gateway.answers import iso
from flik.gateway.body import read_json, read_model
from flik.gateway.identity import authenticate
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_body, json_response
from flik.gateway.tenants import by

_FILTERS = ("tenantId",)
_LAST_AT = datetime.max.replace(tzinfo=UTC).timestamp() - 1  # what an answer can show
router = APIRouter(prefix="/api/v1", tags=["keys"])


@router.post(
    "/keys",
    status_code=201,
    response_model=schemas.KeyMade,
    responses={**problems.responses(400, 401, 403, 413, 415, 422, 503), 201: headers.told("Location")},
    openapi_extra=json_body(schemas.NewKey),
)
async def create_key(request: Request) -> Response:
    """Make a key; `key` in the answer is the key itself, which is shown this once and never again."""
    caller = await authenticate(request, Scope.ADMIN)
    wanted = read_model(schemas.NewKey, await read_json(request))
    text = api_keys.make(Kind(wanted.kind), secrets.token_bytes(api_keys.RANDOM_BYTES))
    record = _record(wanted, api_keys.shown(text), time.time())
    made = await parts_of(request).keys.create(record, api_keys.digest(text), by(request, caller))
    if made is None:
        raise InvalidRequest((FieldError("/tenantId", "is not a tenant; POST /api/v1/tenants makes one"),))
    sent = {"Location": f"{base_url(request)}/api/v1/keys/{made.key_id}", "Cache-Control": "no-store"}
    return json_response({**_answer(made), "key": text}, 201, sent)


@router.get(
    "/keys",
    response_model=schemas.KeyPage,
    responses=problems.responses(401, 403, 422, 503),
    openapi_extra=filters.query_parameters(_FILTERS),
)
async def list_keys(request: Request) -> Response:
    """List keys, revoked ones too, newest first."""
    await authenticate(request, Scope.ADMIN)
    wanted = filters.read_filter(request.query_params, _FILTERS)
    find = parts_of(request).keys.list
    return await pages.answer(
        lambda limit: find(tenant_id=wanted.tenant_id, before_id=wanted.before_id, limit=limit),
        wanted.limit,
        _answer,
        lambda key: cursor.encode(key.key_id),
    )


@router.delete(
    "/keys/{key_id}",
    response_model=schemas.KeyAnswer,
    responses=problems.responses(401, 403, errors.KeyNotFound, 422, 503),
)
async def revoke_key(request: Request, key_id: Uuid) -> Response:
    """Revoke a key for good; one that is revoked already stays as it is."""
    caller = await authenticate(request, Scope.ADMIN)
    if not paths.is_uuid(key_id):
        raise InvalidRequest((FieldError("/keyId", "is not the id of a key (a UUID)"),))
    revoked = await parts_of(request).keys.revoke(key_id.lower(), time.time(), by(request, caller))
    if revoked is None:
        raise KeyNotFound(key_id.lower())
    return json_response(_answer(revoked))


def _record(wanted: schemas.NewKey, prefix: str, now: float) -> ApiKey:
    expires_at = filters.read_time(wanted.expires_at, "expiresAt")
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest((FieldError("/expiresAt", "has passed already"),))
    if expires_at is not None and expires_at > _LAST_AT:
        raise InvalidRequest((FieldError("/expiresAt", "is beyond the year 9999"),))
    scopes = frozenset(map(Scope, wanted.scopes))
    return ApiKey(str(uuid7()), wanted.tenant_id, prefix, wanted.name, scopes, now, expires_at)


def _answer(key: ApiKey) -> dict[str, Any]:
    return {
        "keyId": key.key_id,
        "tenantId": key.tenant_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": [scope.value for scope in Scope if scope in key.scopes],
        "createdAt": iso(key.created_at),
        **{name: None if at is None else iso(at) for name, at in _times(key).items()},
    }


def _times(key: ApiKey) -> dict[str, float | None]:
    return {"expiresAt": key.expires_at, "revokedAt": key.revoked_at, "lastUsedAt": key.last_used_at}
