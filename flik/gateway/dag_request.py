"""From the body of a request to a dag that can be stored, or to every rule that it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from uuid_utils import uuid7

from flik import schemas
from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.dag.plan import MAX_NAMED, Plan, PlannedStep, StepSpec, plan
from flik.domain.identity import Caller
from flik.domain.task import NewTask
from flik.errors import FieldError, InvalidRequest
from flik.gateway import filters, own_webhooks
from flik.gateway.body import read_model
from flik.gateway.identity import named_tenant
from flik.gateway.parts import Parts
from flik.gateway.step_payload import read_step_payload
from flik.gateway.submit import MAX_PAYLOAD_BYTES, Origin, read_region

MAX_METADATA_BYTES = 16 * 1024


class _Common(NamedTuple):
    """What the tasks of all steps have in common."""

    dag_id: str
    tenant_id: str
    region: str
    priority: int
    now: float
    deadline_at: float | None
    origin: Origin


def read_dag(document: Any, caller: Caller, origin: Origin, parts: Parts) -> NewDag:
    """Return the dag that a document asks for.

    Raises:
        InvalidRequest: names every field that breaks a rule.
    """
    if not isinstance(document, dict):
        raise InvalidRequest((FieldError("", "must be an object"),))
    wanted = read_model(schemas.DagRequest, document)
    tenant_id, region = named_tenant(caller, wanted.tenant_id), read_region(wanted.region, parts)
    metadata = None if wanted.metadata is None else orjson.dumps(wanted.metadata)
    if metadata is not None and len(metadata) > MAX_METADATA_BYTES:
        raise InvalidRequest((FieldError("/metadata", f"is larger than {MAX_METADATA_BYTES:,} bytes"),))
    payloads = [orjson.dumps(step.payload) for step in wanted.steps]
    planned = _plan_of(wanted.steps, payloads)
    hook = None if wanted.webhook is None else own_webhooks.read(wanted.webhook, tenant_id, parts.webhook_targets, "")

    dag_id = uuid7()
    now = dag_id.timestamp / 1000
    deadline_at = None if wanted.deadline_s is None else now + wanted.deadline_s
    common = _Common(str(dag_id), tenant_id, region, wanted.priority, now, deadline_at, origin)
    return NewDag(
        common.dag_id, tenant_id, wanted.priority, region, now, deadline_at,
        None if metadata is None else metadata.decode(), origin.request_id, origin.trace_id,
        tuple(_step_of(step, payload.decode(), common) for step, payload in zip(planned.steps, payloads, strict=True)),
        hook,
    )  # fmt: skip


def _step_of(step: PlannedStep, payload: str, common: _Common) -> NewStep:
    spec, task_id, waits = step.spec, uuid7(), bool(step.parents)
    bounds = [common.deadline_at, None if spec.start_deadline_s is None else common.now + spec.start_deadline_s]
    starts_by = None if waits else min((at for at in bounds if at is not None), default=None)
    priority = common.priority if spec.priority is None else spec.priority
    task = NewTask(
        str(task_id), common.tenant_id, spec.task_type, priority, common.region, payload, task_id.timestamp / 1000,
        starts_by, common.origin.request_id, common.origin.trace_id, None, common.dag_id, waits, spec.max_attempts,
    )  # fmt: skip
    return NewStep(step.step_id, task, step.parents, spec.on_failure, spec.start_deadline_s, spec.reuse)


# ---- rules


def _plan_of(steps: Sequence[schemas.DagStep], payloads: Sequence[bytes]) -> Plan:
    for place, step in enumerate(steps):
        filters.require_known_type(step.task_type, f"/steps/{place}")
    planned = plan([_spec_of(step) for step in steps])
    broken = [
        error
        for place, (step, payload) in enumerate(zip(planned.steps, payloads, strict=True))
        for error in _broken(step, len(payload), f"/steps/{place}/payload")
    ]
    if broken:
        raise InvalidRequest(tuple(broken[:MAX_NAMED]))
    return planned


def _spec_of(step: schemas.DagStep) -> StepSpec:
    depends_on = None if step.depends_on is None else tuple(step.depends_on)
    return StepSpec(
        step.id, step.task_type, step.payload, depends_on, step.priority, step.start_deadline_s, step.max_attempts,
        step.on_failure, step.reuse,
    )  # fmt: skip


def _broken(step: PlannedStep, payload_bytes: int, pointer: str) -> Sequence[FieldError]:
    """Return the rules that a payload breaks."""
    if payload_bytes > MAX_PAYLOAD_BYTES:
        return [FieldError(pointer, f"is larger than {MAX_PAYLOAD_BYTES:,} bytes")]
    try:
        read_step_payload(step.spec.task_type, step.spec.payload, pointer, has_parents=bool(step.parents))
    except InvalidRequest as error:
        return error.errors
    return ()
