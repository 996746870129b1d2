"""Routes of tasks that were submitted: read, list, cancel, retry."""

from __future__ import annotations

import time
from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.requests import HTTPConnection
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import Caller, Scope
from flik.domain.task import TERMINAL, DeadLetter, Status, TaskFilter, TaskView
from flik.errors import StateConflict, StepOfDag, TaskNotFound
from flik.gateway import answers, cursor, door, filters, headers, pages, paths, prefer, problems
from flik.gateway.identity import authenticate
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_response
from flik.pipeline.ports import Moved

MOVE_PROBLEMS = problems.responses(401, 404, 409, 422, 503)
RETRY_PROBLEMS = problems.responses(401, 404, 409, StepOfDag, 422, 503, *problems.READMITTING)
_OF_ONE = problems.responses(401, 404, 422, 503)
router = APIRouter(prefix="/api/v1", tags=["tasks"])


FILTERS = ("status", "taskType", "priority", "tenantId", "createdAfter", "createdBefore")


@router.get(
    "/tasks",
    response_model=schemas.TaskPage,
    responses=problems.responses(401, 422, 503),
    openapi_extra=filters.query_parameters(FILTERS),
)
async def list_tasks(request: Request) -> Response:
    """List tasks, newest first."""
    caller = await authenticate(request, Scope.READ)
    return await page(request, caller.narrow(filters.read_filter(request.query_params, FILTERS)))


async def page(request: Request, wanted: TaskFilter | None) -> Response:
    """Answer one page of tasks; an empty one for None."""
    if wanted is None:
        return pages.nothing()
    find = parts_of(request).tasks.find
    return await pages.answer(
        lambda limit: find(replace(wanted, limit=limit)),
        wanted.limit,
        answers_for(request).task,
        lambda view: cursor.encode(view.task_id),
    )


def read_task_id(raw: str) -> str:
    """Return a task id in its canonical form.

    Raises:
        InvalidRequest: it is not a UUID.
    """
    return paths.read_id(raw, "taskId", "is not a task id")


@router.get(
    "/tasks/{task_id}",
    response_model=schemas.TaskAnswer,
    responses={
        **_OF_ONE,
        200: headers.told("Retry-After"),  # while it has not ended
        202: {"model": schemas.TaskAnswer, "description": "It has not ended within the time of `Prefer: wait`."},
    },
    openapi_extra={"parameters": [prefer.PARAMETER]},
)
async def get_task(request: Request, task_id: Uuid) -> Response:
    """Return one task, with its result when it is completed."""
    caller = await authenticate(request, Scope.READ)
    view = await find_task(request, caller, read_task_id(task_id))
    waited_s = prefer.wait_s(request)
    if waited_s and view.status not in TERMINAL:
        following = parts_of(request).hub.follow(view.task_id)
        await prefer.has_ended(request, caller, following, waited_s)
        view = await find_task(request, caller, view.task_id)
    look_again = {} if view.status in TERMINAL else answers.LOOK_AGAIN
    in_vain = waited_s and view.status not in TERMINAL
    answer = json_response(answers_for(request).task(view), 202 if in_vain else 200, look_again)
    if waited_s:
        prefer.note_applied(answer, waited_s)
    return answer


@router.get("/tasks/{task_id}/result", response_model=schemas.ResultAnswer, responses=MOVE_PROBLEMS)
async def get_result(request: Request, task_id: Uuid) -> Response:
    """Return the result alone; 409 while there is none."""
    caller = await authenticate(request, Scope.READ)
    view = await find_task(request, caller, read_task_id(task_id))
    if view.status != Status.COMPLETED:
        raise StateConflict(view.task_id, view.status, "read for its result")
    return json_response(answers_for(request).result(view))


async def find_task(request: Request, caller: Caller, task_id: str) -> TaskView:
    """Return a task from where it is fastest to be had: Redis, then PostgreSQL.

    Raises:
        TaskNotFound: there is none that the caller sees.
        Unavailable: it is not in Redis and PostgreSQL is away.
    """
    parts = parts_of(request)
    tier = parts.measured["flik_result_reads"]
    hot = await parts.hot.get(task_id)
    if hot is not None:
        if not caller.sees(hot.tenant_id):
            raise TaskNotFound(task_id)
        tier.labels("HOT").inc()
        return hot
    view = await parts.tasks.get(task_id)
    if view is None or not caller.sees(view.tenant_id):
        tier.labels("MISS").inc()
        raise TaskNotFound(task_id)
    tier.labels("WARM").inc()
    if view.status == Status.PROCESSING:
        return view._replace(progress=await parts.hot.progress(task_id))
    return view


def answers_for(request: HTTPConnection) -> answers.Answers:
    """Return a builder of answers whose links suit this request."""
    parts = parts_of(request)
    return answers.Answers(base_url(request), parts.signing_key, parts.artifact_url_ttl_s, time.time())


@router.delete(
    "/tasks/{task_id}", operation_id="deleteTask", response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS
)
@router.post("/tasks/{task_id}/cancel", response_model=schemas.TaskAnswer, responses=MOVE_PROBLEMS)
async def cancel_task(request: Request, task_id: Uuid) -> Response:
    """Cancel a task that is not finished; once this answers 200 it will never complete."""
    return json_response(answers_for(request).task(await cancel(request, task_id)))


@router.post("/tasks/{task_id}/retry", status_code=202, response_model=schemas.TaskAnswer, responses=RETRY_PROBLEMS)
async def retry_task(request: Request, task_id: Uuid) -> Response:
    """Queue a failed task for another round of attempts; it passes the door as one that is submitted."""
    return json_response(answers_for(request).task(await retry(request, task_id)), 202)


async def cancel(request: Request, raw_id: str) -> TaskView:
    """Cancel a task for the caller, and return what became of it.

    Raises:
        TaskNotFound: it is not there, or another tenant's.
        StateConflict: it had ended.
        Unavailable: the queue or PostgreSQL is away.
    """
    task_id = await movable(request, raw_id)
    return await _moved(request, task_id, await parts_of(request).queue.cancel(task_id), "cancelled")


async def retry(request: Request, raw_id: str) -> TaskView:
    """Queue a failed task again for the caller, and return what became of it.

    Raises:
        TaskNotFound: it is not there, or another tenant's.
        StepOfDag: it is a step of a dag.
        StateConflict: it has not failed.
        RequestError: the tenant's limits do not allow it.
        QueueFull: no more work of its priority is taken now.
        Unavailable: the queue, PostgreSQL or the limiter is away.
    """
    caller = await authenticate(request, Scope.SUBMIT)
    view = await _own(request, caller, read_task_id(raw_id))
    if view.dag_id is not None:
        raise StepOfDag(view.dag_id)
    if view.status != Status.FAILED:
        raise StateConflict(view.task_id, view.status, "retried")
    await door.readmit(request, caller, DeadLetter(view.task_id, view.tenant_id, view.task_type, view.priority))
    return await _moved(request, view.task_id, await parts_of(request).queue.retry(view.task_id), "retried")


async def movable(request: Request, raw: str) -> str:
    """Return the id of a task that the caller may move. A task never changes its tenant, so this holds until the move.

    Raises:
        TaskNotFound: it is not there, or another tenant's.
    """
    caller = await authenticate(request, Scope.SUBMIT)
    task_id = read_task_id(raw)
    if not caller.is_operator:
        await _own(request, caller, task_id)
    return task_id


async def _own(request: Request, caller: Caller, task_id: str) -> TaskView:
    view = await parts_of(request).tasks.get(task_id)
    if view is None or not caller.sees(view.tenant_id):
        raise TaskNotFound(task_id)
    return view


async def _moved(request: Request, task_id: str, moved: Moved | None, action: str) -> TaskView:
    if moved is None:
        raise TaskNotFound(task_id)
    if not moved.moved:
        raise StateConflict(task_id, moved.before, action)
    view = await parts_of(request).tasks.get(task_id)
    if view is None:
        raise TaskNotFound(task_id)
    return view
