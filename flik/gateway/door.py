"""How routes ask whether tasks may come in: the door of `flik/pipeline/admit.py`, for the tenant of a request.

Whatever it says, the answer tells what is left of the tenant's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from starlette.requests import Request

from flik.domain.identity import Caller, Tenant
from flik.domain.task import DeadLetter, NewTask, TaskFilter
from flik.errors import FlikError, RequestError
from flik.gateway import headers
from flik.gateway.identity import tenant_of
from flik.gateway.parts import parts_of
from flik.pipeline.admit import Verdict


async def admit(request: Request, tenant: Tenant, tasks: Sequence[NewTask]) -> Verdict:
    """Return what becomes of tasks that are submitted. Raises as `Admission.admit`."""
    return _noted(request, await parts_of(request).admission.admit(tenant.tenant_id, tenant.limits, tasks))


async def readmit(request: Request, caller: Caller, task: DeadLetter) -> None:
    """Let a failed task in again, or raise why not.

    Raises:
        RequestError: the tenant's limits do not allow it.
        QueueFull: no more work of this priority is taken now.
        Unavailable: the limiter is away.
    """
    refused = (await _readmitted(request, caller, task.tenant_id, (task,)))[0]
    if refused is not None:
        raise refused


async def replay(request: Request, caller: Caller, wanted: TaskFilter) -> tuple[int, bool]:
    """Queue up to `wanted.limit` dead letters that match, the oldest first; return how many, and whether more match.

    Raises:
        FlikError: the first refusal, when all are refused: then nothing has changed.
        Unavailable: PostgreSQL, the limiter or the queue is away.
    """
    found = await parts_of(request).tasks.dead_letters(replace(wanted, limit=wanted.limit + 1))
    of_tenant: dict[str, list[DeadLetter]] = {}
    for task in found[: wanted.limit]:
        of_tenant.setdefault(task.tenant_id, []).append(task)
    let_in: list[str] = []
    refusal: FlikError | None = None
    for tenant_id, tasks in of_tenant.items():
        said = await _readmitted(request, caller, tenant_id, tasks)
        let_in += [task.task_id for task, refused in zip(tasks, said, strict=True) if refused is None]
        refusal = refusal or next((refused for refused in said if refused is not None), None)
    if refusal is not None and not let_in:
        raise refusal
    replayed = await parts_of(request).queue.replay(let_in) if let_in else 0
    return replayed, refusal is not None or len(found) > wanted.limit


async def _readmitted(
    request: Request, caller: Caller, tenant_id: str, tasks: Sequence[DeadLetter]
) -> Sequence[FlikError | None]:
    try:
        tenant = await tenant_of(request, caller, tenant_id)
    except RequestError as error:  # one that nobody made keeps no other tenant's tasks out
        return [error] * len(tasks)
    verdict = await parts_of(request).admission.readmit(tenant_id, tenant.limits, tasks)
    return _noted(request, verdict).refusals


def _noted(request: Request, verdict: Verdict) -> Verdict:
    if verdict.quota is not None:
        headers.note_quota(request.scope, verdict.quota)
    return verdict
