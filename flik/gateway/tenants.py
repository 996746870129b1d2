"""Routes of tenants, for operators: make one, look at them, change limits. A change holds everywhere within 5 s."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from flik import errors, schemas
from flik.domain.identity import Caller, Limits, OwnLimits, Scope, TenantRecord, is_tenant_id
from flik.errors import TenantExists, TenantNotFound
from flik.gateway import cursor, filters, headers, pages, problems
from flik.gateway.answers import iso
from flik.gateway.body import read_json, read_model
from flik.gateway.identity import authenticate
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import TenantId
from flik.gateway.responses import json_body, json_response
from flik.storage.audit import By

_WRITE_PROBLEMS = (400, 401, 403, 413, 415, 422, 503)
router = APIRouter(prefix="/api/v1", tags=["tenants"])


def by(request: Request, caller: Caller) -> By:
    """Return who is answerable for what a request changes."""
    return By(caller.actor, problems.request_id_of(request)[:128])


@router.post(
    "/tenants",
    status_code=201,
    response_model=schemas.TenantAnswer,
    responses={**problems.responses(*_WRITE_PROBLEMS, errors.TenantExists), 201: headers.told("Location")},
    openapi_extra=json_body(schemas.NewTenant),
)
async def create_tenant(request: Request) -> Response:
    """Make a tenant."""
    caller = await authenticate(request, Scope.ADMIN)
    wanted = read_model(schemas.NewTenant, await read_json(request))
    parts, limits = parts_of(request), OwnLimits(**wanted.limits.model_dump())
    made = await parts.tenants.create(wanted.tenant_id, wanted.name, limits, time.time(), by(request, caller))
    if made is None:
        raise TenantExists(wanted.tenant_id)
    parts.directory.forget_tenant(made.tenant_id)
    location = f"{base_url(request)}/api/v1/tenants/{made.tenant_id}"
    return json_response(_answer(made, parts.directory.defaults), 201, {"Location": location})


@router.get(
    "/tenants",
    response_model=schemas.TenantPage,
    responses=problems.responses(401, 403, 422, 503),
    openapi_extra=filters.query_parameters((), cursor.OF_NAMES),
)
async def list_tenants(request: Request) -> Response:
    """List tenants in the order of their ids."""
    await authenticate(request, Scope.ADMIN)
    limit, after = filters.read_page(request.query_params)
    parts = parts_of(request)
    name = "" if after is None else cursor.decode_name(after)
    return await pages.answer(
        lambda count: parts.tenants.list(after=name, limit=count),
        limit,
        lambda record: _answer(record, parts.directory.defaults),
        lambda record: cursor.encode_name(record.tenant_id),
    )


@router.get(
    "/tenants/{tenant_id}",
    response_model=schemas.TenantAnswer,
    responses=problems.responses(401, 403, errors.TenantNotFound, 503),
)
async def get_tenant(request: Request, tenant_id: TenantId) -> Response:
    """Return one tenant."""
    await authenticate(request, Scope.ADMIN)
    parts = parts_of(request)
    found = (await parts.tenants.find([_read_id(tenant_id)])).get(tenant_id)
    if found is None:
        raise TenantNotFound(tenant_id)
    return json_response(_answer(found, parts.directory.defaults))


@router.patch(
    "/tenants/{tenant_id}",
    response_model=schemas.TenantAnswer,
    responses=problems.responses(*_WRITE_PROBLEMS, errors.TenantNotFound),
    openapi_extra=json_body(schemas.TenantChange),
)
async def change_tenant(request: Request, tenant_id: TenantId) -> Response:
    """Change a tenant's name or limits; what is not named stays, null resets a limit to the default (RFC 7396)."""
    caller = await authenticate(request, Scope.ADMIN)
    wanted = read_model(schemas.TenantChange, await read_json(request))
    parts = parts_of(request)
    changed = await parts.tenants.change(_read_id(tenant_id), _changes(wanted), time.time(), by(request, caller))
    if changed is None:
        raise TenantNotFound(tenant_id)
    parts.directory.forget_tenant(tenant_id)
    return json_response(_answer(changed, parts.directory.defaults))


def _changes(wanted: schemas.TenantChange) -> dict[str, Any]:
    """Return what a request names, by column."""
    changes: dict[str, Any] = {"name": wanted.name} if "name" in wanted.model_fields_set else {}
    return changes | wanted.limits.model_dump(exclude_unset=True)


def _read_id(raw: str) -> str:
    """Return the id of a path; one that no tenant can have belongs to none."""
    if not is_tenant_id(raw):
        raise TenantNotFound(raw[:128])
    return raw


def _answer(record: TenantRecord, defaults: Limits) -> dict[str, Any]:
    return {
        "tenantId": record.tenant_id,
        "name": record.name,
        "createdAt": iso(record.created_at),
        "updatedAt": iso(record.updated_at),
        "limits": _camel(record.limits),
        "effectiveLimits": _camel(record.limits.over(defaults)),
    }


def _camel(limits: OwnLimits | Limits) -> dict[str, Any]:
    return {to_camel(name): value for name, value in asdict(limits).items()}
