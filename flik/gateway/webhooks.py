"""Routes of webhooks: a tenant says where it wants to hear of its tasks.

Its own keys do: changes take the scope `submit`, reading takes `read`; an operator does it for everybody. A secret is
shown when it is made, and never again. A URL is looked at here, its name resolved, and again at each sending.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from uuid_utils import uuid7

from flik import errors, schemas
from flik.domain.identity import Caller, Scope
from flik.domain.task import TaskFilter
from flik.domain.webhook import signature
from flik.domain.webhook.record import MAX_WEBHOOKS, OLD_SECRET_S, Webhook, WebhookStatus
from flik.domain.webhook.target import Refused
from flik.errors import FieldError, InvalidRequest, TooManyWebhooks, WebhookInactive, WebhookNotFound
from flik.gateway import cursor, deliveries, filters, pages, problems
from flik.gateway.answers import iso
from flik.gateway.body import read_json, read_model
from flik.gateway.deliveries import CHANGE_PROBLEMS, OF_ONE, find_webhook
from flik.gateway.identity import authenticate, named_tenant, tenant_of
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_body, json_response
from flik.gateway.tenants import by
from flik.outbound.sender import refusal_of

_FILTERS = ("tenantId",)
_BODY_PROBLEMS = (400, 413, 415)
_NOT_KEPT = {"Cache-Control": "no-store"}
router = APIRouter(prefix="/api/v1", tags=["webhooks"])


@router.post(
    "/webhooks",
    status_code=201,
    response_model=schemas.WebhookMade,
    responses=problems.responses(
        *_BODY_PROBLEMS, 401, 403, 422, 503, errors.TenantMismatch, errors.TenantUnknown, errors.TooManyWebhooks
    ),
    openapi_extra=json_body(schemas.NewWebhook),
)
async def create_webhook(request: Request) -> Response:
    """Make a webhook; `secret` in the answer is what its messages are signed with, and is shown this once."""
    caller = await authenticate(request, Scope.SUBMIT)
    wanted = read_model(schemas.NewWebhook, await read_json(request))
    tenant_id = named_tenant(caller, wanted.tenant_id)
    await tenant_of(request, caller, tenant_id)
    url, now = await _usable(request, tenant_id, wanted.url), time.time()
    secret = signature.make_secret(secrets.token_bytes(signature.RANDOM_BYTES))
    new = Webhook(str(uuid7()), tenant_id, url, _kinds(wanted.kinds), WebhookStatus.ACTIVE, None, now, now)
    made = await parts_of(request).webhooks.create(new, secret, by(request, caller))
    if made is None:
        raise TooManyWebhooks(tenant_id, MAX_WEBHOOKS)
    location = f"{base_url(request)}/api/v1/webhooks/{made.webhook_id}"
    return json_response({**_answer(made), "secret": secret}, 201, {"Location": location, **_NOT_KEPT})


@router.get(
    "/webhooks",
    response_model=schemas.WebhookPage,
    responses=problems.responses(401, 403, 422, 503),
    openapi_extra=filters.query_parameters(_FILTERS),
)
async def list_webhooks(request: Request) -> Response:
    """List webhooks, newest first; without `tenantId` the caller's own, for an operator all."""
    caller = await authenticate(request, Scope.READ)
    wanted = filters.read_filter(request.query_params, _FILTERS)
    reached = caller.narrow(TaskFilter(tenant_id=wanted.tenant_id))
    if reached is None:
        return pages.nothing()
    find = parts_of(request).webhooks.find
    return await pages.answer(
        lambda limit: find(tenant_id=reached.tenant_id, before_id=wanted.before_id, limit=limit),
        wanted.limit,
        _answer,
        lambda webhook: cursor.encode(webhook.webhook_id),
    )


@router.get("/webhooks/{webhook_id}", response_model=schemas.WebhookAnswer, responses=OF_ONE)
async def get_webhook(request: Request, webhook_id: Uuid) -> Response:
    """Return one webhook."""
    caller = await authenticate(request, Scope.READ)
    return json_response(_answer(await find_webhook(request, caller, webhook_id)))


@router.patch(
    "/webhooks/{webhook_id}",
    response_model=schemas.WebhookAnswer,
    responses=problems.responses(*_BODY_PROBLEMS, 401, 403, errors.WebhookNotFound, 422, 503),
    openapi_extra=json_body(schemas.WebhookChange),
)
async def change_webhook(request: Request, webhook_id: Uuid) -> Response:
    """Change what is named. PAUSED gathers what happens, for three days; ACTIVE sends it, and starts anew."""
    found = await _found(request, webhook_id)
    wanted = read_model(schemas.WebhookChange, await read_json(request))
    changed = await parts_of(request).webhooks.change(
        found.webhook.webhook_id,
        time.time(),
        by(request, found.caller),
        url=None if wanted.url is None else await _usable(request, found.webhook.tenant_id, wanted.url),
        kinds=None if wanted.kinds is None else _kinds(wanted.kinds),
        status=None if wanted.status is None else WebhookStatus(wanted.status),
    )
    if changed is None:
        raise WebhookNotFound(found.webhook.webhook_id)
    parts_of(request).wake_courier()
    return json_response(_answer(changed))


@router.delete("/webhooks/{webhook_id}", response_model=schemas.WebhookAnswer, responses=OF_ONE)
async def delete_webhook(request: Request, webhook_id: Uuid) -> Response:
    """Delete a webhook for good, and return it as it was; what waits for it is not sent any more."""
    found = await _found(request, webhook_id)
    if not await parts_of(request).webhooks.delete(found.webhook.webhook_id, time.time(), by(request, found.caller)):
        raise WebhookNotFound(found.webhook.webhook_id)
    return json_response(_answer(found.webhook))


@router.post("/webhooks/{webhook_id}/rotate-secret", response_model=schemas.WebhookMade, responses=OF_ONE)
async def rotate_secret(request: Request, webhook_id: Uuid) -> Response:
    """Make a new secret, shown this once. The one before signs beside it for 24 hours; an older one no longer."""
    found = await _found(request, webhook_id)
    now, secret = time.time(), signature.make_secret(secrets.token_bytes(signature.RANDOM_BYTES))
    rotated = await parts_of(request).webhooks.rotate(
        found.webhook.webhook_id, secret, now + OLD_SECRET_S, now, by(request, found.caller)
    )
    if rotated is None:
        raise WebhookNotFound(found.webhook.webhook_id)
    return json_response({**_answer(rotated), "secret": secret}, headers=_NOT_KEPT)


@router.post(
    "/webhooks/{webhook_id}/test", status_code=202, response_model=schemas.DeliveryAnswer, responses=CHANGE_PROBLEMS
)
async def test_webhook(request: Request, webhook_id: Uuid) -> Response:
    """Send a ping, in the way in which events go; the list of deliveries tells what came of it."""
    found = await _found(request, webhook_id)
    ping = await parts_of(request).webhooks.ping(found.webhook.webhook_id, time.time())
    if ping is None:
        raise WebhookInactive(found.webhook.webhook_id, found.webhook.status)
    parts_of(request).wake_courier()
    return json_response(deliveries.answer_of(ping), 202)


@dataclass(frozen=True, slots=True)
class _Found:
    webhook: Webhook
    caller: Caller


async def _found(request: Request, webhook_id: str) -> _Found:
    """Return the webhook that a caller is about to change."""
    caller = await authenticate(request, Scope.SUBMIT)
    return _Found(await find_webhook(request, caller, webhook_id), caller)


async def _usable(request: Request, tenant_id: str, url: str) -> str:
    """Return a URL in its one spelling.

    Raises:
        InvalidRequest: nothing would be sent there.
        Unavailable: nobody tells now where its name leads.
    """
    parts = parts_of(request)
    read = await refusal_of(url, parts.webhook_targets, parts.lookups.of(tenant_id))
    if isinstance(read, Refused):
        raise InvalidRequest((FieldError("/url", read.why),))
    return read.url


def _kinds(wanted: list[schemas.EventKind]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(wanted))


def _answer(webhook: Webhook) -> dict[str, Any]:
    times = {"oldSecretUntil": webhook.old_secret_until, "failingSince": webhook.failing_since}
    return {
        "webhookId": webhook.webhook_id,
        "tenantId": webhook.tenant_id,
        "url": webhook.url,
        "kinds": list(webhook.kinds),
        "status": webhook.status.value,
        "reason": webhook.reason,
        "createdAt": iso(webhook.created_at),
        "updatedAt": iso(webhook.updated_at),
        **{name: None if at is None else iso(at) for name, at in times.items()},
    }
