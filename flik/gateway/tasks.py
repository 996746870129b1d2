"""Routes of tasks: submit one or many, read, list, cancel, retry."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response
from uuid_utils import uuid7

from flik import schemas
from flik.catalog import TASK_TYPES
from flik.domain.task import TERMINAL, NewTask, Status, TaskFilter, TaskView
from flik.errors import FieldError, FlikError, InvalidRequest, NotBuilt, StateConflict, TaskNotFound
from flik.gateway import answers, cursor, filters, problems
from flik.gateway.body import escape, read_json, read_model
from flik.gateway.identity import authenticate
from flik.gateway.parts import Parts, base_url, parts_of
from flik.pipeline.ports import Moved

MAX_PAYLOAD_BYTES = 256 * 1024
POLL_AFTER_S = 1
MOVE_PROBLEMS = problems.responses(401, 404, 409, 422, 503)
_TASK_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_OF_ONE = problems.responses(401, 404, 422, 503)
router = APIRouter(prefix="/api/v1", tags=["tasks"])


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI fragment of a route that reads its body by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return Response(orjson.dumps(content), status, headers=dict(headers or {}), media_type="application/json")


@router.post(
    "/tasks",
    status_code=202,
    response_model=schemas.Submitted,
    responses=problems.responses(400, 401, 413, 415, 422, 503),
    openapi_extra=json_body(schemas.TaskRequest),
)
async def submit_task(request: Request) -> Response:
    """Store one task; when this answers 202 it is on disk and will reach an end."""
    started = time.monotonic()
    authenticate(request)
    parts = parts_of(request)
    task = read_task(await read_json(request), origin_of(request), parts)
    await parts.commit.commit((task,))
    answer = answers.submitted(task.task_id, task.created_at, base_url(request))
    parts.measured["flik_submit_seconds"].observe(time.monotonic() - started)
    return json_response(answer, 202, {"Location": answer["statusUrl"], "Retry-After": str(POLL_AFTER_S)})


@router.post(
    "/tasks:batch",
    status_code=207,
    response_model=schemas.BatchAnswer,
    responses=problems.responses(400, 401, 413, 415, 422, 503),
    openapi_extra=json_body(schemas.BatchRequest),
)
async def submit_batch(request: Request) -> Response:
    """Store up to 1,000 tasks in one commit; each is stored, or answered with its own problem."""
    authenticate(request)
    parts, base = parts_of(request), base_url(request)
    tasks = _batch_of(await read_json(request))
    origin = origin_of(request)
    read = [_read_or_refuse(task, f"/tasks/{index}", origin, request) for index, task in enumerate(tasks)]
    accepted = [task for task in read if isinstance(task, NewTask)]
    if accepted:
        await parts.commit.commit(accepted)
    items = [
        {"status": 202, "task": answers.submitted(item.task_id, item.created_at, base)}
        if isinstance(item, NewTask)
        else {"status": item["status"], "problem": item}
        for item in read
    ]
    return json_response({"items": items}, 207)


def _batch_of(document: Any) -> list[Any]:
    tasks = document.get("tasks") if isinstance(document, dict) else None
    if not isinstance(tasks, list):
        raise InvalidRequest((FieldError("/tasks", "must be a list of tasks"),))
    if unknown := [name for name in document if name != "tasks"]:
        raise InvalidRequest((FieldError(f"/{escape(unknown[0])}", "is not a known field"),))
    if not 1 <= len(tasks) <= schemas.MAX_BATCH:
        raise InvalidRequest((FieldError("/tasks", f"must hold 1 to {schemas.MAX_BATCH:,} tasks"),))
    return tasks


class Origin(NamedTuple):
    """The ids a task keeps of the request that brought it."""

    request_id: str
    trace_id: str | None


def origin_of(request: Request) -> Origin:
    """Return the ids of a request."""
    return Origin(problems.request_id_of(request)[:128], trace_id_of(request))


def _read_or_refuse(document: Any, pointer: str, origin: Origin, request: Request) -> NewTask | dict[str, Any]:
    try:
        return read_task(document, origin, parts_of(request), pointer)
    except FlikError as error:
        return problems.problem_of(error, request)


def read_task(document: Any, origin: Origin, parts: Parts, pointer: str = "") -> NewTask:
    """Return the task that a document asks for; `pointer` is where it stands in the body.

    Raises:
        InvalidRequest: names every field that breaks a rule.
    """
    if not isinstance(document, dict):
        raise InvalidRequest((FieldError(pointer, "must be an object"),))
    wanted = read_model(schemas.TaskRequest, document, pointer)
    filters.require_known_type(wanted.task_type, pointer)
    payload = orjson.dumps(wanted.payload)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidRequest((FieldError(f"{pointer}/payload", f"is larger than {MAX_PAYLOAD_BYTES:,} bytes"),))
    read_model(TASK_TYPES[wanted.task_type].payload, wanted.payload, f"{pointer}/payload")
    region = wanted.region or parts.region
    if region not in parts.regions:
        known = ", ".join(sorted(parts.regions))
        raise InvalidRequest((FieldError(f"{pointer}/region", f"is not a region of this service; there is {known}"),))
    task_id = uuid7()
    now = task_id.timestamp / 1000  # not another look at the clock: lists find a time by the ids of it
    deadline = None if wanted.start_deadline_s is None else now + wanted.start_deadline_s
    return NewTask(
        str(task_id), wanted.tenant_id, wanted.task_type, wanted.priority, region, payload.decode(), now, deadline,
        origin.request_id, origin.trace_id,
    )  # fmt: skip


def trace_id_of(request: Request) -> str | None:
    """Return the trace id of a W3C `traceparent` header; None without a valid one."""
    parts = request.headers.get("traceparent", "").split("-")
    if len(parts) != 4 or len(parts[1]) != 32 or parts[1] == "0" * 32:
        return None
    return parts[1] if all(digit in "0123456789abcdef" for digit in parts[1]) else None


FILTERS = ("status", "taskType", "priority", "tenantId", "createdAfter", "createdBefore")


@router.get(
    "/tasks",
    response_model=schemas.TaskPage,
    responses=problems.responses(401, 422, 503),
    openapi_extra=filters.query_parameters(FILTERS),
)
async def list_tasks(request: Request) -> Response:
    """List tasks, newest first."""
    authenticate(request)
    return await page(request, filters.read_filter(request.query_params, FILTERS))


async def page(request: Request, wanted: TaskFilter) -> Response:
    """Answer one page of tasks."""
    found = await parts_of(request).tasks.find(replace(wanted, limit=wanted.limit + 1))
    items = found[: wanted.limit]
    following = cursor.encode(items[-1].task_id) if len(found) > wanted.limit else None
    build = answers_for(request)
    return json_response({"items": [build.task(view) for view in items], "nextCursor": following})


def read_task_id(raw: str) -> str:
    """Return a task id in its canonical form.

    Raises:
        InvalidRequest: it is not a UUID.
    """
    if not _TASK_ID.fullmatch(raw):
        raise InvalidRequest((FieldError("/taskId", "is not a task id (a UUID)"),))
    return raw.lower()


@router.get("/tasks/{task_id}", response_model=schemas.TaskAnswer, responses=_OF_ONE)
async def get_task(request: Request, task_id: str) -> Response:
    """Return one task, with its result when it is completed."""
    authenticate(request)
    view = await find_task(request, read_task_id(task_id))
    headers = {} if view.status in TERMINAL else {"Retry-After": str(POLL_AFTER_S)}
    return json_response(answers_for(request).task(view), headers=headers)


@router.get("/tasks/{task_id}/result", response_model=schemas.ResultAnswer, responses=MOVE_PROBLEMS)
async def get_result(request: Request, task_id: str) -> Response:
    """Return the result alone; 409 while there is none."""
    authenticate(request)
    view = await find_task(request, read_task_id(task_id))
    if view.status != Status.COMPLETED:
        raise StateConflict(view.task_id, view.status, "read for its result")
    return json_response(answers_for(request).result(view))


@router.get("/tasks/{task_id}/events", include_in_schema=False)
async def get_events(request: Request, task_id: str) -> Response:
    """Say that live events are still to come."""
    authenticate(request)
    view = await find_task(request, read_task_id(task_id))
    raise NotBuilt(f"live events; poll /api/v1/tasks/{view.task_id} instead")


async def find_task(request: Request, task_id: str) -> TaskView:
    """Return a task from where it is fastest to be had: Redis, then PostgreSQL.

    Raises:
        TaskNotFound: there is none.
        Unavailable: it is not in Redis and PostgreSQL is away.
    """
    parts = parts_of(request)
    tier = parts.measured["flik_result_reads"]
    hot = await parts.hot.get(task_id)
    if hot is not None:
        tier.labels("HOT").inc()
        return hot
    view = await parts.tasks.get(task_id)
    if view is None:
        tier.labels("MISS").inc()
        raise TaskNotFound(task_id)
    tier.labels("WARM").inc()
    if view.status == Status.PROCESSING:
        return view._replace(progress=await parts.hot.progress(task_id))
    return view


def answers_for(request: Request) -> answers.Answers:
    """Return a builder of answers whose links suit this request."""
    parts = parts_of(request)
    return answers.Answers(base_url(request), parts.signing_key, parts.artifact_url_ttl_s, time.time())


@router.delete("/tasks/{task_id}", response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS)
@router.post("/tasks/{task_id}/cancel", response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS)
async def cancel_task(request: Request, task_id: str) -> Response:
    """Cancel a task that is not finished; once this answers 200 it will never complete."""
    authenticate(request)
    task_id = read_task_id(task_id)
    return await _answer_move(request, task_id, await parts_of(request).queue.cancel(task_id), "cancelled", 200)


@router.post("/tasks/{task_id}/retry", status_code=202, response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS)
async def retry_task(request: Request, task_id: str) -> Response:
    """Queue a failed task for another round of attempts."""
    authenticate(request)
    task_id = read_task_id(task_id)
    return await _answer_move(request, task_id, await parts_of(request).queue.retry(task_id), "retried", 202)


async def _answer_move(request: Request, task_id: str, moved: Moved | None, action: str, status: int) -> Response:
    if moved is None:
        raise TaskNotFound(task_id)
    if not moved.moved:
        raise StateConflict(task_id, moved.before, action)
    view = await parts_of(request).tasks.get(task_id)
    if view is None:
        raise TaskNotFound(task_id)
    return json_response(answers_for(request).task(view), status)
