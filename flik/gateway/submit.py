"""Routes that submit: from a document to tasks that are on disk, or to the reason why not.

What a submission meets, in this order: who sends it (`identity`), whether it can be read (`body`,
the catalog), whose tasks they are (`identity`), whether it was answered before (`idempotency`),
where its own webhook leads (`own_webhooks`), the door (`flik/pipeline/admit.py`), and the commit.
Up to the commit nothing is stored, so whatever is refused has changed nothing; a replay comes
before the door, so it costs no quota.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from uuid_utils import uuid7

from flik import schemas
from flik.catalog import TASK_TYPES
from flik.domain import trace
from flik.domain.identity import Caller, Scope, Tenant
from flik.domain.task import NewTask
from flik.errors import FieldError, FlikError, InvalidRequest, RequestError
from flik.gateway import answers, door, filters, headers, idempotency, own_webhooks, prefer, problems
from flik.gateway.body import escape, read_json, read_model
from flik.gateway.identity import authenticate, named_tenant, tenant_of
from flik.gateway.parts import Parts, base_url, parts_of
from flik.gateway.responses import json_body, json_response
from flik.gateway.tasks import answers_for

MAX_PAYLOAD_BYTES = 256 * 1024
PROBLEMS = problems.responses(*problems.SUBMITTING)
Item = NewTask | FlikError
router = APIRouter(prefix="/api/v1", tags=["tasks"])


@router.post(
    "/tasks",
    status_code=202,
    response_model=schemas.Submitted,
    responses={
        **PROBLEMS,
        200: {"model": schemas.TaskAnswer, "description": "It has ended, with `Prefer: wait`."},
        202: headers.told("Location", "Retry-After", "Idempotency-Replayed"),
    },
    openapi_extra={**json_body(schemas.TaskRequest), "parameters": [idempotency.PARAMETER, prefer.PARAMETER]},
)
async def submit_task(request: Request) -> Response:
    """Store one task; when this answers 202 it is on disk and will reach an end."""
    started = time.monotonic()
    caller = await authenticate(request, Scope.SUBMIT)
    stored = await submit(request, caller, await read_json(request), partial(_accepted, request))
    parts_of(request).measured["flik_submit_seconds"].observe(time.monotonic() - started)
    return await _when_ended(request, caller, stored) if prefer.wait_s(request) else stored


async def _when_ended(request: Request, caller: Caller, stored: Response) -> Response:
    parts, task_id = parts_of(request), orjson.loads(stored.body)["taskId"]

    async def whole() -> Response | None:
        view = await parts.tasks.get(task_id)
        return json_response(answers_for(request).task(view)) if view else None

    return await prefer.when_ended(request, caller, stored, parts.hub.follow(task_id), whole)


def _accepted(request: Request, task: NewTask) -> Response:
    answer = answers.submitted(task.task_id, task.created_at, base_url(request))
    return json_response(answer, 202, {"Location": answer["statusUrl"], **answers.LOOK_AGAIN})


async def submit(request: Request, caller: Caller, document: Any, answer_to: Callable[[NewTask], Response]) -> Response:
    """Store the task that a document asks for, and return `answer_to` it; under an idempotency key only once.

    Raises:
        RequestError: the document, the caller, the key or the tenant's limits do not allow it.
        QueueFull: no more work of this priority is taken now.
        Unavailable: PostgreSQL, the limiter or a name server is away.
    """
    key = idempotency.key_of(request)
    task = read_task(document, caller, origin_of(request), parts_of(request))
    tenant = await tenant_of(request, caller, task.tenant_id)
    asked = idempotency.keyed_request(request, key, task.tenant_id, document)
    replay = await idempotency.replay_of(request, asked)
    if replay is not None:
        return replay
    for nowhere in (await own_webhooks.refusals(request, {"": task})).values():
        raise nowhere
    refused = (await door.admit(request, tenant, (task,))).refusals[0]
    if refused is not None:
        raise refused
    return await idempotency.store(request, (task,), asked, answer_to(task))


@router.post(
    "/tasks:batch",
    status_code=207,
    response_model=schemas.BatchAnswer,
    responses={**PROBLEMS, 207: headers.told("Idempotency-Replayed")},
    openapi_extra={**json_body(schemas.BatchRequest), "parameters": [idempotency.PARAMETER]},
)
async def submit_batch(request: Request) -> Response:
    """Store up to 1,000 tasks in one commit; each is stored, or answered with its own problem.

    Refused as a whole, with 429 or 503, when that is what every one of them would be told.
    """
    caller = await authenticate(request, Scope.SUBMIT)
    key = idempotency.key_of(request)
    document = await read_json(request)
    origin, parts = origin_of(request), parts_of(request)
    items = [_read(task, f"/tasks/{index}", caller, origin, parts) for index, task in enumerate(_batch_of(document))]
    readable = next((item for item in items if isinstance(item, NewTask)), None)
    tenants = await _tenants_of(request, caller, items)
    items = [_unless_refused(item, tenants) for item in items]
    asked = None
    if readable and any(isinstance(item, NewTask) for item in items):
        # Whoever speaks for every tenant has no keys of its own: they are those of the first task that can be read,
        # which is the same one whenever the request comes again.
        asked = idempotency.keyed_request(request, key, caller.tenant_id or readable.tenant_id, document)
        replay = await idempotency.replay_of(request, asked)
        if replay is not None:
            return replay
        items = await _led_somewhere(request, items)
        items = await _admitted(request, tenants, items)
        _raise_if_all_must_wait(items)
    answer = json_response({"items": _shown(request, items)}, 207)
    accepted = [item for item in items if isinstance(item, NewTask)]
    return await idempotency.store(request, accepted, asked, answer) if accepted else answer


def _batch_of(document: Any) -> list[Any]:
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, list):
        raise InvalidRequest((FieldError("/tasks", "must be a list of tasks"),))
    if unknown := [name for name in document if name != "tasks"]:
        raise InvalidRequest((FieldError(f"/{escape(unknown[0])}", "is not a known field"),))
    if not 1 <= len(tasks) <= schemas.MAX_BATCH:
        raise InvalidRequest((FieldError("/tasks", f"must hold 1 to {schemas.MAX_BATCH:,} tasks"),))
    return tasks


def _read(document: Any, pointer: str, caller: Caller, origin: Origin, parts: Parts) -> Item:
    try:
        return read_task(document, caller, origin, parts, pointer)
    except RequestError as error:
        return error


async def _tenants_of(request: Request, caller: Caller, items: Sequence[Item]) -> dict[str, Tenant | BaseException]:
    """Return the tenants of a batch; in the place of one that the caller does not speak for, or nobody made, why."""
    tenant_ids = {item.tenant_id for item in items if isinstance(item, NewTask)}
    asked = (tenant_of(request, caller, tenant_id) for tenant_id in tenant_ids)
    found = await asyncio.gather(*asked, return_exceptions=True)
    for outcome in found:
        if isinstance(outcome, BaseException) and not isinstance(outcome, RequestError):
            raise outcome
    return dict(zip(tenant_ids, found, strict=True))


def _unless_refused(item: Item, tenants: Mapping[str, Tenant | BaseException]) -> Item:
    if isinstance(item, NewTask) and isinstance(refused := tenants[item.tenant_id], FlikError):
        return refused
    return item


async def _led_somewhere(request: Request, items: list[Item]) -> list[Item]:
    """Return the items with a refusal in the place of each task whose own webhook keeps it out."""
    placed = {f"/tasks/{index}": item for index, item in enumerate(items)}
    tasks = {pointer: item for pointer, item in placed.items() if isinstance(item, NewTask)}
    return list({**placed, **await own_webhooks.refusals(request, tasks)}.values())


async def _admitted(request: Request, tenants: Mapping[str, Any], items: list[Item]) -> list[Item]:
    """Return the items with a refusal in the place of each task that the door turns away."""
    said: dict[str, FlikError | None] = {}
    for tenant_id, tenant in tenants.items():
        tasks = [item for item in items if isinstance(item, NewTask) and item.tenant_id == tenant_id]
        if tasks:
            verdict = await door.admit(request, tenant, tasks)
            said.update((task.task_id, refused) for task, refused in zip(tasks, verdict.refusals, strict=True))
    return [said[item.task_id] or item if isinstance(item, NewTask) else item for item in items]


def _raise_if_all_must_wait(items: Sequence[Item]) -> None:
    """Raise what every item is told, when that is to come back later: then the whole batch may be sent again."""
    first = items[0]
    if not isinstance(first, FlikError) or first.retry_after_s is None:
        return
    if all(isinstance(item, FlikError) and item.code == first.code for item in items):
        raise first


def _shown(request: Request, items: Sequence[Item]) -> list[dict[str, Any]]:
    base = base_url(request)
    shown: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, NewTask):
            shown.append({"status": 202, "task": answers.submitted(item.task_id, item.created_at, base)})
        else:
            problem = problems.problem_of(item, request)
            shown.append({"status": problem["status"], "problem": problem})
    return shown


class Origin(NamedTuple):
    """The ids a task keeps of the request that brought it."""

    request_id: str
    trace_id: str | None


def origin_of(request: Request) -> Origin:
    """Return the ids of a request."""
    return Origin(problems.request_id_of(request)[:128], trace.read(request.headers.getlist("traceparent")))


def read_task(document: Any, caller: Caller, origin: Origin, parts: Parts, pointer: str = "") -> NewTask:
    """Return the task that a document asks for; `pointer` is where it stands in the body.

    One that names no tenant is of the caller's.

    Raises:
        InvalidRequest: names every field that breaks a rule.
    """
    if not isinstance(document, dict):
        raise InvalidRequest((FieldError(pointer, "must be an object"),))
    wanted = read_model(schemas.TaskRequest, document, pointer)
    tenant_id = named_tenant(caller, wanted.tenant_id, pointer)
    filters.require_known_type(wanted.task_type, pointer)
    payload = orjson.dumps(wanted.payload)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidRequest((FieldError(f"{pointer}/payload", f"is larger than {MAX_PAYLOAD_BYTES:,} bytes"),))
    read_model(TASK_TYPES[wanted.task_type].payload, wanted.payload, f"{pointer}/payload")
    region = read_region(wanted.region, parts, pointer)
    hook = None
    if wanted.webhook is not None:
        hook = own_webhooks.read(wanted.webhook, tenant_id, parts.webhook_targets, pointer)
    task_id = uuid7()
    now = task_id.timestamp / 1000  # not another look at the clock: lists find a time by the ids of it
    deadline = None if wanted.start_deadline_s is None else now + wanted.start_deadline_s
    return NewTask(
        str(task_id), tenant_id, wanted.task_type, wanted.priority, region, payload.decode(), now, deadline,
        origin.request_id, origin.trace_id, hook, max_attempts=wanted.max_attempts,
    )  # fmt: skip


def read_region(wanted: str | None, parts: Parts, pointer: str = "") -> str:
    """Return where a request is to run; by default here. `pointer` is where its object stands in the body.

    Raises:
        InvalidRequest: it is no region of this service.
    """
    region = wanted or parts.region
    if region not in parts.regions:
        known = ", ".join(sorted(parts.regions))
        raise InvalidRequest((FieldError(f"{pointer}/region", f"is not a region of this service; there is {known}"),))
    return region
