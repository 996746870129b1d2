"""Routes of deliveries: what a webhook, a tenant's or a task's or dag's own, was sent, and sending it again."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import errors, schemas
from flik.domain.dag.log import WEBHOOK_KINDS
from flik.domain.identity import Caller, Scope
from flik.domain.webhook.record import Delivery, Webhook
from flik.errors import DeliveryNotFound, WebhookInactive, WebhookNotFound
from flik.gateway import cursor, filters, pages, paths, problems
from flik.gateway.answers import iso
from flik.gateway.dags import find_dag
from flik.gateway.identity import authenticate
from flik.gateway.parts import parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_response
from flik.gateway.tasks import find_task, read_task_id

OF_ONE = problems.responses(401, 403, errors.WebhookNotFound, 422, 503)
OF_TASK = problems.responses(401, 403, errors.TaskNotFound, 422, 503)
CHANGE_PROBLEMS = problems.responses(401, 403, errors.WebhookNotFound, errors.WebhookInactive, 422, 503)
router = APIRouter(prefix="/api/v1", tags=["webhooks"])


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    response_model=schemas.DeliveryPage,
    responses=OF_ONE,
    openapi_extra=filters.query_parameters(()),
)
async def list_deliveries(request: Request, webhook_id: Uuid) -> Response:
    """List what a webhook was sent and is to be sent, newest first; what ended is kept for a week."""
    caller = await authenticate(request, Scope.READ)
    webhook = await find_webhook(request, caller, webhook_id)
    wanted = filters.read_filter(request.query_params, ())
    find = parts_of(request).webhooks.deliveries
    return await pages.answer(
        lambda limit: find(webhook.webhook_id, before_id=wanted.before_id, limit=limit),
        wanted.limit,
        answer_of,
        lambda delivery: cursor.encode(delivery.delivery_id),
    )


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=schemas.DeliveryAnswer,
    responses=problems.responses(
        401, 403, errors.WebhookNotFound, errors.DeliveryNotFound, errors.WebhookInactive, 422, 503
    ),
)
async def redeliver_event(request: Request, webhook_id: Uuid, delivery_id: Uuid) -> Response:
    """Send a delivery again, now: one that ended gets a new round of attempts, one that waits does not wait longer."""
    caller = await authenticate(request, Scope.SUBMIT)
    webhook = await find_webhook(request, caller, webhook_id)
    wanted = _id(delivery_id, "deliveryId", "delivery")
    store = parts_of(request).webhooks
    again = await store.redeliver(webhook.webhook_id, wanted, time.time())
    if again is None:
        if await store.has_delivery(webhook.webhook_id, wanted):
            raise WebhookInactive(webhook.webhook_id, webhook.status)
        raise DeliveryNotFound(wanted)
    parts_of(request).wake_courier()
    return json_response(answer_of(again), 202)


@router.get(
    "/tasks/{task_id}/deliveries",
    response_model=schemas.DeliveryPage,
    responses=OF_TASK,
    openapi_extra=filters.query_parameters(()),
)
async def list_task_deliveries(request: Request, task_id: Uuid) -> Response:
    """List what a task's own webhook was sent and is to be sent, newest first; what ended is kept for a week."""
    caller = await authenticate(request, Scope.READ)
    task = await find_task(request, caller, read_task_id(task_id))
    return await _own(request, task.task_id)


@router.post(
    "/tasks/{task_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=schemas.DeliveryAnswer,
    responses=problems.responses(401, 403, errors.TaskNotFound, errors.DeliveryNotFound, 422, 503),
)
async def redeliver_task_event(request: Request, task_id: Uuid, delivery_id: Uuid) -> Response:
    """Send a delivery of a task's own webhook again, now, as `/webhooks/{id}/deliveries/{id}/redeliver` does."""
    caller = await authenticate(request, Scope.SUBMIT)
    task = await find_task(request, caller, read_task_id(task_id))
    return await _redeliver_own(request, task.task_id, delivery_id)


@router.get(
    "/dags/{dag_id}/deliveries",
    response_model=schemas.DeliveryPage,
    responses=problems.responses(401, 403, errors.DagNotFound, 422, 503),
    openapi_extra=filters.query_parameters(()),
)
async def list_dag_deliveries(request: Request, dag_id: Uuid) -> Response:
    """List what a dag's own webhook was sent and is to be sent, newest first; what ended is kept for a week."""
    caller = await authenticate(request, Scope.READ)
    dag = await find_dag(request, caller, dag_id)
    return await _own(request, dag.dag_id)


@router.post(
    "/dags/{dag_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=schemas.DeliveryAnswer,
    responses=problems.responses(401, 403, errors.DagNotFound, errors.DeliveryNotFound, 422, 503),
)
async def redeliver_dag_event(request: Request, dag_id: Uuid, delivery_id: Uuid) -> Response:
    """Send a delivery of a dag's own webhook again, now, as `/webhooks/{id}/deliveries/{id}/redeliver` does."""
    caller = await authenticate(request, Scope.SUBMIT)
    dag = await find_dag(request, caller, dag_id)
    return await _redeliver_own(request, dag.dag_id, delivery_id)


async def _own(request: Request, owner: str) -> Response:
    """Answer a page of the deliveries of a task's or a dag's own webhook."""
    wanted = filters.read_filter(request.query_params, ())
    find = parts_of(request).webhooks.own_deliveries
    return await pages.answer(
        lambda limit: find(owner, before_id=wanted.before_id, limit=limit),
        wanted.limit,
        answer_of,
        lambda delivery: cursor.encode(delivery.delivery_id),
    )


async def _redeliver_own(request: Request, owner: str, delivery_id: str) -> Response:
    wanted = _id(delivery_id, "deliveryId", "delivery")
    again = await parts_of(request).webhooks.redeliver_own(owner, wanted, time.time())
    if again is None:
        raise DeliveryNotFound(wanted)
    parts_of(request).wake_courier()
    return json_response(answer_of(again), 202)


async def find_webhook(request: Request, caller: Caller, raw_id: str) -> Webhook:
    """Return a webhook.

    Raises:
        InvalidRequest: it is not the id of one.
        WebhookNotFound: there is none that the caller sees.
    """
    webhook_id = _id(raw_id, "webhookId", "webhook")
    found = await parts_of(request).webhooks.get(webhook_id)
    if found is None or not caller.sees(found.tenant_id):
        raise WebhookNotFound(webhook_id)
    return found


def answer_of(delivery: Delivery) -> dict[str, Any]:
    """Return what is shown of a delivery."""
    is_of_dag = delivery.kind in WEBHOOK_KINDS.values()
    times = {"nextAt": delivery.next_at, "createdAt": delivery.created_at, "endedAt": delivery.ended_at}
    return {
        "deliveryId": delivery.delivery_id,
        "webhookId": delivery.webhook_id,
        "taskId": None if is_of_dag else delivery.task_id,
        "dagId": delivery.task_id if is_of_dag else None,
        "seq": delivery.seq,
        "kind": delivery.kind,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        **{name: None if at is None else iso(at) for name, at in times.items()},
        "log": [{**entry, "at": iso(entry["at"])} for entry in delivery.log],
    }


def _id(raw: str, name: str, what: str) -> str:
    return paths.read_id(raw, name, f"is not the id of a {what}")
