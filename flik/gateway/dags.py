"""Routes of dags: submit, read, list, cancel, resume.

A dag is submitted as a task is (`flik/gateway/submit.py`): it passes the same door, with all of its steps or none,
and is stored in one commit with the tasks of its steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import errors, schemas
from flik.domain.dag.graph import DagFilter, DagView
from flik.domain.dag.progress import DagStatus, ready_again
from flik.domain.identity import Caller, Scope, Tenant
from flik.domain.task import NewTask
from flik.errors import DagNotFound, DagStateConflict
from flik.gateway import (
    answers,
    cursor,
    dag_answers,
    door,
    filters,
    headers,
    idempotency,
    own_webhooks,
    pages,
    paths,
    prefer,
    problems,
)
from flik.gateway.body import read_json
from flik.gateway.dag_request import read_dag
from flik.gateway.identity import authenticate, tenant_of
from flik.gateway.parts import base_url, parts_of
from flik.gateway.paths import Uuid
from flik.gateway.responses import json_body, json_response
from flik.gateway.submit import PROBLEMS, origin_of
from flik.gateway.tasks import answers_for
from flik.pipeline.ports import Moved

FILTERS = ("status", "tenantId", "createdAfter", "createdBefore")
_OF_ONE = problems.responses(401, errors.DagNotFound, 422, 503)
_MOVES = problems.responses(401, errors.DagNotFound, errors.DagStateConflict, 422, 503)
router = APIRouter(prefix="/api/v1", tags=["dags"])


# ---- submit


@router.post(
    "/dags",
    status_code=202,
    response_model=schemas.DagStarted,
    responses={
        **PROBLEMS,
        200: {"model": schemas.DagAnswer, "description": "It has ended, with `Prefer: wait`."},
        202: headers.told("Location", "Retry-After", "Idempotency-Replayed"),
    },
    openapi_extra={**json_body(schemas.DagRequest), "parameters": [idempotency.PARAMETER, prefer.PARAMETER]},
)
async def submit_dag(request: Request) -> Response:
    """Store a dag; when this answers 202 it is on disk and will reach an end."""
    caller = await authenticate(request, Scope.SUBMIT)
    stored = await _submit(request, caller)
    return await _when_ended(request, caller, stored) if prefer.wait_s(request) else stored


async def _submit(request: Request, caller: Caller) -> Response:
    key = idempotency.key_of(request)
    document = await read_json(request)
    dag = read_dag(document, caller, origin_of(request), parts_of(request))
    tenant = await tenant_of(request, caller, dag.tenant_id)
    asked = idempotency.keyed_request(request, key, dag.tenant_id, document)
    replay = await idempotency.replay_of(request, asked)
    if replay is not None:
        return replay
    for nowhere in (await own_webhooks.refusals(request, {"": dag})).values():
        raise nowhere
    await _let_in(request, tenant, dag.tasks)
    started = dag_answers.started(dag, base_url(request))
    answer = json_response(started, 202, {"Location": started["statusUrl"], **answers.LOOK_AGAIN})
    return await idempotency.store(request, dag.tasks, asked, answer, dag)


async def _when_ended(request: Request, caller: Caller, stored: Response) -> Response:
    parts, dag_id = parts_of(request), orjson.loads(stored.body)["dagId"]

    async def whole() -> Response | None:
        view = await parts.dags.get(dag_id)
        return _answer(request, view) if view else None

    return await prefer.when_ended(request, caller, stored, parts.hub.follow_dag(dag_id), whole)


async def _let_in(request: Request, tenant: Tenant, tasks: Sequence[NewTask]) -> None:
    """Let all of the tasks in, or raise why not."""
    verdict = await door.admit(request, tenant, tasks)
    refused = next((each for each in verdict.refusals if each is not None), None)
    if refused is not None:
        raise refused


# ---- read


@router.get(
    "/dags",
    response_model=schemas.DagPage,
    responses=problems.responses(401, 422, 503),
    openapi_extra=filters.query_parameters(FILTERS, statuses=tuple(DagStatus)),
)
async def list_dags(request: Request) -> Response:
    """List dags, newest first."""
    caller = await authenticate(request, Scope.READ)
    wanted = caller.narrow(_read_filter(request))
    if wanted is None:
        return pages.nothing()
    find = parts_of(request).dags.find
    return await pages.answer(
        lambda limit: find(replace(wanted, limit=limit)),
        wanted.limit,
        answers.dag_summary,
        lambda view: cursor.encode(view.dag_id),
    )


def _read_filter(request: Request) -> DagFilter:
    read = filters.read_filter(request.query_params, FILTERS, statuses=tuple(DagStatus))
    return DagFilter(
        read.tenant_id, read.status, read.created_from, read.created_until, before_id=read.before_id, limit=read.limit
    )


@router.get(
    "/dags/{dag_id}",
    response_model=schemas.DagAnswer,
    responses={
        **_OF_ONE,
        200: headers.told("Retry-After"),  # while it has not ended
        202: {"model": schemas.DagAnswer, "description": "It has not ended within the time of `Prefer: wait`."},
    },
    openapi_extra={"parameters": [prefer.PARAMETER]},
)
async def get_dag(request: Request, dag_id: Uuid) -> Response:
    """Return one dag with its steps, and what each has made."""
    caller = await authenticate(request, Scope.READ)
    view = await find_dag(request, caller, dag_id)
    waited_s = prefer.wait_s(request)
    if not waited_s:
        return _answer(request, view)
    if view.status == DagStatus.RUNNING:
        await prefer.has_ended(request, caller, parts_of(request).hub.follow_dag(view.dag_id), waited_s)
        view = await find_dag(request, caller, view.dag_id)
    answer = _answer(request, view, 202 if view.status == DagStatus.RUNNING else 200)
    prefer.note_applied(answer, waited_s)
    return answer


def _answer(request: Request, view: DagView, status: int = 200) -> Response:
    look_again = answers.LOOK_AGAIN if view.status == DagStatus.RUNNING else {}
    return json_response(dag_answers.whole(view, answers_for(request)), status, look_again)


async def find_dag(request: Request, caller: Caller, raw_id: str) -> DagView:
    """Return a dag.

    Raises:
        InvalidRequest: the id is none.
        DagNotFound: there is none that the caller sees.
        Unavailable: PostgreSQL is away.
    """
    dag_id = paths.read_dag_id(raw_id)
    view = await parts_of(request).dags.get(dag_id)
    if view is None or not caller.sees(view.tenant_id):
        raise DagNotFound(dag_id)
    return view


# ---- move


@router.delete("/dags/{dag_id}", operation_id="deleteDag", response_model=schemas.DagAnswer, responses=_MOVES)
@router.post("/dags/{dag_id}/cancel", response_model=schemas.DagAnswer, responses=_MOVES)
async def cancel_dag(request: Request, dag_id: Uuid) -> Response:
    """Cancel all steps of a dag that have not ended; once this answers 200 none of them will complete."""
    view = await find_dag(request, await authenticate(request, Scope.SUBMIT), dag_id)
    return await _moved(request, view, await parts_of(request).queue.cancel_dag(view.dag_id), "cancelled")


@router.post(
    "/dags/{dag_id}/resume",
    status_code=202,
    response_model=schemas.DagAnswer,
    responses={**_MOVES, **problems.responses(422, 503, errors.ExceedsBurst, *problems.READMITTING)},
)
async def resume_dag(request: Request, dag_id: Uuid) -> Response:
    """Run the steps of a failed dag again that did not complete, as new tasks; the others keep what they made.

    A step that failed as `input_gone` takes those before it along: a file that one of them made is not there any more.
    """
    caller = await authenticate(request, Scope.SUBMIT)
    view = await find_dag(request, caller, dag_id)
    if view.status != DagStatus.FAILED:
        raise DagStateConflict(view.status, "resumed")
    again = [view.steps[place].task for place in ready_again([step.state for step in view.steps])]
    now = time.time()
    tenant = await tenant_of(request, caller, view.tenant_id)
    await _let_in(
        request,
        tenant,
        [NewTask(each.task_id, each.tenant_id, each.task_type, each.priority, each.region, "", now) for each in again],
    )
    return await _moved(request, view, await parts_of(request).queue.resume_dag(view.dag_id), "resumed", 202)


async def _moved(request: Request, view: DagView, moved: Moved | None, action: str, status: int = 200) -> Response:
    if moved is None:
        raise DagNotFound(view.dag_id)
    if not moved.moved:
        raise DagStateConflict(moved.before, action)
    return _answer(request, await parts_of(request).dags.get(view.dag_id) or view, status)
