"""Routes below /api/tasks, in the manner of an earlier job system: one submission route a family, snake_case.

A thin layer over the native routes: the same tasks, keys, limits and idempotency, in other words.

- A family is a task type: POST /api/tasks/image/generate submits an IMAGE task. `parameters` is
  its payload, in snake_case or camelCase.
- Priorities are 1 to 10, 10 the most urgent: 8 to 10 are Flik's 0, 4 to 7 its 1, 1 to 3 its 2. Flik
  keeps its own number, so an answer shows 9, 5 or 2.
- Status words are pending (PENDING, QUEUED), running (PROCESSING), completed, and failed
  (FAILED, CANCELLED, EXPIRED).
- A broken rule is answered with 400 instead of 422. Pages are numbered, and reach back over the
  newest 1,000 tasks; /api/v1/tasks reads on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_snake
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from flik.catalog import TASK_TYPES
from flik.domain.identity import Scope
from flik.domain.task import NewTask, Status, TaskFilter, TaskView
from flik.errors import FieldError, InvalidParameters, InvalidRequest, StateConflict
from flik.gateway import family_models as models
from flik.gateway import family_pages, headers, idempotency, problems, service
from flik.gateway.answers import iso
from flik.gateway.body import read_json, read_model
from flik.gateway.family_words import SHOWN_PRIORITY, WORD_OF, WORDS, in_their_words, priority_of
from flik.gateway.identity import authenticate
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_response
from flik.gateway.submit import submit
from flik.gateway.tasks import answers_for, cancel, find_task, read_task_id, retry

_SHARED = (InvalidParameters, 401, 403, 503)
_MOVE = problems.responses(*_SHARED, 404, StateConflict)


class _FamilyRoute(APIRoute):
    """Answers a broken rule with 400, as the callers of these routes expect."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_in_their_manner(request: Request) -> Response:
            try:
                return await handle(request)
            except InvalidRequest as error:
                raise InvalidParameters(tuple(map(_of_the_path, error.errors))) from None

        return handle_in_their_manner


def _of_the_path(field: FieldError) -> FieldError:
    return FieldError("/task_id", field.detail) if field.pointer == "/taskId" else field


class _TaskIdConvertor(StringConvertor):
    """The id of a task in a place where words can stand: /api/tasks/list is a list and cannot be deleted."""

    regex = "(?!(?:list|pending|failed|health)$)[^/]+"


register_url_convertor("family_task", _TaskIdConvertor())
router = APIRouter(prefix="/api/tasks", tags=["families"], route_class=_FamilyRoute)


# ---- submit


async def _generate(request: Request, task_type: str) -> Response:
    caller = await authenticate(request, Scope.SUBMIT)
    wanted = read_model(models.TaskSubmitRequest, await read_json(request))
    document = {
        "tenantId": wanted.tenant_id,
        "taskType": task_type,
        "priority": int(priority_of(wanted.priority)),
        "payload": wanted.parameters,
    }
    try:
        return await submit(request, caller, document, partial(_submitted, request))
    except InvalidRequest as error:
        raise InvalidRequest(tuple(in_their_words(field, wanted.parameters) for field in error.errors)) from None


def _submitted(request: Request, task: NewTask) -> Response:
    url = f"{base_url(request)}/api/tasks/status/{task.task_id}"
    answer = {
        "task_id": task.task_id,
        "task_type": task.task_type.lower(),
        "status": WORD_OF[Status.QUEUED],
        "priority": SHOWN_PRIORITY[task.priority],
        "created_at": iso(task.created_at),
        "status_url": url,
    }
    return json_response(answer, 202, {"Location": url})


def _add_families() -> None:
    for name, task_type in TASK_TYPES.items():
        schema = models.submission_schema(task_type.payload)
        router.add_api_route(
            f"/{name.lower()}/generate",
            _route_of(name),
            name=f"generate_{name.lower()}",
            methods=["POST"],
            status_code=202,
            summary=f"Submit {'an' if name[0] in 'AEIOU' else 'a'} {name} task",
            response_model=models.TaskSubmitResponse,
            responses={
                **problems.responses(*(each for each in problems.SUBMITTING if each != 422), InvalidParameters),
                202: headers.told("Location", "Idempotency-Replayed"),
            },
            openapi_extra={
                "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
                "parameters": [idempotency.PARAMETER],
            },
        )


def _route_of(task_type: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def generate(request: Request) -> Response:
        """Store one task; when this answers 202 it is on disk and will reach an end."""
        return await _generate(request, task_type)

    return generate


_add_families()


# ---- read


@router.get(
    "/status/{task_id}",
    name="get_family_task",
    response_model=models.TaskStatusResponse,
    responses=problems.responses(*_SHARED, 404),
)
async def get_status(request: Request, task_id: Uuid) -> Response:
    """Return one task, with its result when it is completed."""
    caller = await authenticate(request, Scope.READ)
    return json_response(shown(request, await find_task(request, caller, read_task_id(task_id))))


def shown(request: Request, view: TaskView) -> dict[str, Any]:
    """Return one task in the words of these routes; what does not apply is left out."""
    answer: dict[str, Any] = {
        "task_id": view.task_id,
        "task_type": view.task_type.lower(),
        "tenant_id": view.tenant_id,
        "status": WORD_OF[view.status],
        "state": view.status,
        "priority": SHOWN_PRIORITY[view.priority],
        "attempts": view.attempt,
        "max_attempts": view.max_attempts,
        "created_at": iso(view.created_at),
    }
    extras = {
        "started_at": view.started_at and iso(view.started_at),
        "completed_at": view.completed_at and iso(view.completed_at),
        "worker_id": view.worker_id,
        "progress": view.progress,
        "error_code": view.error_code,
        "error_message": view.error_message,
        "result": _result(request, view) if view.status == Status.COMPLETED else None,
    }
    return answer | {name: value for name, value in extras.items() if value is not None}


def _result(request: Request, view: TaskView) -> dict[str, Any]:
    made = answers_for(request).result(view)
    artifacts = [{to_snake(name): value for name, value in each.items()} for each in made["artifacts"]]
    return {**made, "artifacts": artifacts}


# ---- lists


@router.get(
    "/list",
    name="list_family_tasks",
    response_model=models.TaskListResponse,
    responses=problems.responses(*_SHARED),
    openapi_extra=family_pages.described(with_status=True),
)
async def list_tasks(request: Request) -> Response:
    """List tasks, newest first."""
    return await _page(request)


@router.get(
    "/pending",
    name="list_pending_family_tasks",
    response_model=models.TaskListResponse,
    responses=problems.responses(*_SHARED),
    openapi_extra=family_pages.described(with_status=False),
)
async def list_pending(request: Request) -> Response:
    """List tasks that wait, newest first."""
    return await _page(request, "pending")


@router.get(
    "/failed",
    name="list_failed_family_tasks",
    response_model=models.TaskListResponse,
    responses=problems.responses(*_SHARED),
    openapi_extra=family_pages.described(with_status=False),
)
async def list_failed(request: Request) -> Response:
    """List tasks that failed, were cancelled or expired, newest first."""
    return await _page(request, "failed")


async def _page(request: Request, word: str | None = None) -> Response:
    """Answer a page of the tasks that `word` stands for; without one, of those that the query names."""
    caller = await authenticate(request, Scope.READ)
    asked = family_pages.read(request.query_params, with_status=word is None)
    end = asked.page * asked.page_size
    wanted = caller.narrow(TaskFilter(tenant_id=asked.tenant_id, limit=end + 1))
    found = [] if wanted is None else await _newest(request, wanted, word or asked.word)
    return json_response({
        "tasks": [shown(request, view) for view in found[end - asked.page_size : end]],
        "page": asked.page,
        "page_size": asked.page_size,
        "has_more": len(found) > end,
    })  # fmt: skip


async def _newest(request: Request, wanted: TaskFilter, word: str | None) -> list[TaskView]:
    """Return the newest tasks that a word stands for: those of each of its states, merged."""
    statuses = [None] if word is None else [status.value for status in WORDS[word]]
    find = parts_of(request).tasks.find
    found = await asyncio.gather(*(find(replace(wanted, status=status)) for status in statuses))
    merged = sorted((view for views in found for view in views), key=lambda view: view.task_id, reverse=True)
    return merged[: wanted.limit]


# ---- health and moves


@router.get(
    "/health",
    name="get_family_health",
    response_model=models.HealthResponse,
    responses={503: {"model": models.HealthResponse, **headers.told("Retry-After")}},
    openapi_extra={"security": []},
)
async def get_health(request: Request) -> Response:
    """Say whether tasks can be taken and done; asks for no key, as /health does."""
    up, components = await service.look(parts_of(request))
    words = {name: "healthy" if well else "unhealthy" for name, well in components.items()}
    if up:
        return json_response({"status": "healthy", "components": words})
    return json_response({"status": "unhealthy", "components": words}, 503, {"Retry-After": "1"})


@router.delete(
    "/{task_id:family_task}", name="cancel_family_task", response_model=models.TaskStatusResponse, responses=_MOVE
)
async def cancel_one(request: Request, task_id: Uuid) -> Response:
    """Cancel a task that is not finished; once this answers 200 it will never complete."""
    return json_response(shown(request, await cancel(request, task_id)))


@router.post(
    "/{task_id}/retry",
    name="retry_family_task",
    status_code=202,
    response_model=models.TaskStatusResponse,
    responses=problems.responses(*_SHARED, 404, StateConflict, *problems.READMITTING),
)
async def retry_one(request: Request, task_id: Uuid) -> Response:
    """Queue a failed task for another round of attempts; it passes the door as one that is submitted."""
    return json_response(shown(request, await retry(request, task_id)), 202)
