"""Routes of dead letters: tasks that failed for good, and how to give them another chance."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import Scope
from flik.domain.task import Status, TaskFilter
from flik.errors import FieldError, InvalidRequest
from flik.gateway import problems
from flik.gateway.body import read_json, read_model
from flik.gateway.filters import query_parameters, read_filter, read_time, require_known_type
from flik.gateway.identity import authenticate
from flik.gateway.parts import parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_body, json_response
from flik.gateway.tasks import MOVE_PROBLEMS, page, retry_task

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
    "/dead-letters/{task_id}/replay", status_code=202, response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS
)
async def replay_one(request: Request, task_id: Uuid) -> Response:
    """Queue one dead letter for another round of attempts."""
    return await retry_task(request, task_id)


@router.post(
    "/dead-letters:replay",
    response_model=schemas.Replayed,
    responses=problems.responses(400, 401, 413, 415, 422, 503),
    openapi_extra=json_body(schemas.ReplayRequest),
)
async def replay_many(request: Request) -> Response:
    """Queue all dead letters that match, the oldest first; answers how many."""
    caller = await authenticate(request, Scope.SUBMIT)
    wanted = read_model(schemas.ReplayRequest, await read_json(request))
    require_known_type(wanted.task_type)
    chosen = TaskFilter(
        tenant_id=wanted.tenant_id,
        status=Status.FAILED,
        task_type=wanted.task_type,
        priority=wanted.priority,
        error_code=wanted.error_code,
        created_from=read_time(wanted.created_after, "createdAfter"),
        created_until=read_time(wanted.created_before, "createdBefore"),
        limit=wanted.limit,
    )
    if not wanted.all and replace(chosen, status=None, limit=50) == TaskFilter():
        raise InvalidRequest((FieldError("", 'name at least one filter, or send "all": true'),))
    reached = caller.narrow(chosen)
    return json_response({"replayed": await parts_of(request).queue.replay(reached) if reached else 0})
