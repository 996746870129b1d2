"""Routes of dead letters: tasks that failed for good, and how to give them another chance."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import Scope
from flik.domain.task import Status, TaskFilter
from flik.errors import FieldError, InvalidRequest
from flik.gateway import door, problems
from flik.gateway.body import read_json, read_model
from flik.gateway.filters import query_parameters, read_filter, read_time, require_known_type
from flik.gateway.identity import authenticate
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_body, json_response
from flik.gateway.tasks import RETRY_PROBLEMS, page, retry_task

router = APIRouter(prefix="/api/v1", tags=["dead letters"])
_FILTERS = ("taskType", "priority", "tenantId", "errorCode", "createdAfter", "createdBefore")


@router.get(
    "/dead-letters",
    response_model=schemas.TaskPage,
    responses=problems.responses(401, 422, 503),
    openapi_extra=query_parameters(_FILTERS),
)
async def list_dead_letters(request: Request) -> Response:
    """List tasks that failed for good, newest first."""
    caller = await authenticate(request, Scope.READ)
    wanted = replace(read_filter(request.query_params, _FILTERS), status=Status.FAILED)
    return await page(request, caller.narrow(wanted))


@router.post(
    "/dead-letters/{task_id}/replay", status_code=202, response_model=schemas.TaskAnswer, responses=RETRY_PROBLEMS
)
async def replay_one(request: Request, task_id: Uuid) -> Response:
    """Queue one dead letter for another round of attempts; it passes the door as a task that is submitted."""
    return await retry_task(request, task_id)


@router.post(
    "/dead-letters:replay",
    response_model=schemas.Replayed,
    responses=problems.responses(400, 401, 413, 415, 422, 503, *problems.READMITTING),
    openapi_extra=json_body(schemas.ReplayRequest),
)
async def replay_many(request: Request) -> Response:
    """Queue dead letters that match, the oldest first: as many as `limit` says and the door of their tenants lets in.

    Answers how many, and whether more match; when there is not even room or a token for one, 429 or 503.
    """
    caller = await authenticate(request, Scope.SUBMIT)
    wanted = read_model(schemas.ReplayRequest, await read_json(request))
    require_known_type(wanted.task_type)
    chosen = TaskFilter(
        tenant_id=wanted.tenant_id,
        task_type=wanted.task_type,
        priority=wanted.priority,
        error_code=wanted.error_code,
        created_from=read_time(wanted.created_after, "createdAfter"),
        created_until=read_time(wanted.created_before, "createdBefore"),
        limit=wanted.limit,
    )
    if not wanted.all and replace(chosen, limit=50) == TaskFilter():
        raise InvalidRequest((FieldError("", 'name at least one filter, or send "all": true'),))
    reached = caller.narrow(chosen)
    if reached is None:
        return json_response({"replayed": 0, "more": False})
    replayed, more = await door.replay(request, caller, reached)
    return json_response({"replayed": replayed, "more": more})
