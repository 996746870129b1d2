"""The wire: what callers send and get. Shared by the gateway, its OpenAPI description and clients' tests.

Requests are read through these models, strictly: an unknown field or a wrong JSON type is
refused. Answers are built as plain dictionaries on the hot path; a test holds them against
the models here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from flik.domain.dag.plan import MAX_STEPS
from flik.domain.identity import MAX_TENANT_ID_CHARS, TENANT_ID
from flik.domain.webhook.signature import FORM as SECRET_FORM

MAX_BATCH = 1_000
MAX_PAGE = 100
MAX_REPLAY = 10_000
TenantId = Annotated[str, Field(min_length=1, max_length=MAX_TENANT_ID_CHARS, pattern=TENANT_ID)]
TENANT_ID_SCHEMA: dict[str, Any] = TypeAdapter(TenantId).json_schema()
TaskTypeName = Annotated[str, Field(max_length=32, description="TEXT, IMAGE or VIDEO; the catalog lists them.")]
Region = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9][a-z0-9-]*$")]


# What the description says of texts that are stored; a NUL is refused before a model is asked (flik.gateway.body).
STORABLE: dict[str, Any] = {"pattern": r"^[^\u0000]*$"}


def _whole(value: Any) -> Any:
    """Return 1 for 1.0: to JSON Schema both are the same integer, and some languages write it so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)  # stands after the bounds, else pydantic leaves them out of the JSON schema
Whole = Annotated[int, WHOLE]
Priority = Annotated[int, Field(ge=0, le=2), WHOLE]
Count = Annotated[int, Field(ge=0, le=10**9), WHOLE]
Attempts = Annotated[int, Field(ge=1, le=20), WHOLE]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"}, description="ISO 8601.")]
Name = Annotated[str, Field(max_length=200, description="For people.", json_schema_extra=STORABLE)]
ScopeName = Literal["submit", "read", "admin"]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _Request(_Wire):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)


TaskEventKind = Literal[
    "pending", "queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired"
]
DagEventKind = Literal["dagStep", "dagCompleted", "dagFailed", "dagCancelled"]
EventKind = Literal[  # both; as a union of them a wrong one would be refused in the words of each
    "pending", "queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired",
    "dagStep", "dagCompleted", "dagFailed", "dagCancelled",
]  # fmt: skip
EventKinds = Annotated[
    list[EventKind],
    Field(min_length=1, max_length=13, description="What it wants to hear of."),
]
ENDS: list[EventKind] = ["completed", "failed", "cancelled", "expired"]
WebhookUrl = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2_048,
        description="https, to a public address; it is looked at again at each sending.",
        json_schema_extra={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
    ),
]


class _OwnWebhook(_Request):
    url: WebhookUrl
    secret: str = Field(
        pattern=SECRET_FORM,
        description="What its messages are signed with: `whsec_` and the base64 of 24 to 64 random bytes. "
        "It may be the same for all that a receiver is told of, and is shown nowhere.",
    )


class TaskWebhook(_OwnWebhook):
    """Where this task is told of, beside the tenant's webhooks."""

    kinds: Annotated[list[TaskEventKind], Field(min_length=1, max_length=9)] = [
        "completed", "failed", "cancelled", "expired",
    ]  # fmt: skip


class DagWebhook(_OwnWebhook):
    """Where this dag is told of, beside the tenant's webhooks."""

    kinds: Annotated[list[DagEventKind], Field(min_length=1, max_length=4)] = [
        "dagCompleted", "dagFailed", "dagCancelled",
    ]  # fmt: skip


class TaskRequest(_Request):
    """A task to do."""

    tenant_id: TenantId | None = Field(default=None, description="Whose task it is; by default the key's tenant.")
    task_type: TaskTypeName
    priority: Whole = Field(default=1, ge=0, le=2, description="0 real-time, 1 interactive, 2 background.")
    payload: dict[str, Any] = Field(description="The input; its fields depend on the task type.")
    region: Region | None = Field(default=None, description="Where to run; by default here.")
    start_deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="EXPIRED when it has not started within this many seconds; further attempts may start later.",
    )
    max_attempts: Attempts | None = Field(
        default=None, description="How often it is tried before it is FAILED; by default as this service tries all."
    )
    webhook: TaskWebhook | None = None


class BatchRequest(_Request):
    """Tasks to do. The gateway reads them one by one, so that one that is wrong does not take the others down."""

    tasks: list[TaskRequest] = Field(min_length=1, max_length=MAX_BATCH)


OnFailure = Literal["fail", "skip"]
StepId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class DagStep(_Request):
    """One step of a dag: a task that runs when its parents have completed."""

    id: StepId | None = Field(default=None, description="By default step-1, step-2 ..., by its place.")
    task_type: TaskTypeName
    payload: dict[str, Any] = Field(
        default={},
        description='The input. A value may be what a parent made: `{"$from": "<step id>", "path": "text"}`.',
    )
    depends_on: list[StepId] | None = Field(
        default=None,
        max_length=MAX_STEPS,
        description="Its parents. When no step has this, each depends on the one before it.",
    )
    priority: Priority | None = Field(default=None, description="By default that of the dag.")
    start_deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="EXPIRED when it has not started so long after its parents; further attempts may start later.",
    )
    max_attempts: Attempts | None = Field(default=None, description="As of a task.")
    reuse: bool = Field(
        default=False,
        description="Take what an earlier step of the tenant made of the same: version, parameters, seed and inputs.",
    )
    on_failure: OnFailure = Field(
        default="fail", description="fail: without it the dag fails. skip: what depends on it is left out."
    )


class DagRequest(_Request):
    """Tasks that depend on one another."""

    tenant_id: TenantId | None = Field(default=None, description="Whose dag it is; by default the key's tenant.")
    priority: Whole = Field(default=1, ge=0, le=2, description="0 real-time, 1 interactive, 2 background.")
    region: Region | None = Field(default=None, description="Where to run; by default here.")
    deadline_s: float | None = Field(
        default=None,
        gt=0,
        le=30 * 86_400,
        description="No step starts later than so many seconds from now, but for further attempts of one that had.",
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Kept and shown; up to 16 KiB.")
    webhook: DagWebhook | None = None
    steps: list[DagStep] = Field(min_length=1, max_length=MAX_STEPS)


_REPLAY_FILTERS = ("taskType", "tenantId", "priority", "errorCode", "createdAfter", "createdBefore")


def _with(name: str, value: Any = None) -> dict[str, Any]:
    """Return the JSON schema of an object that has such a value under a name; by default one that is not null."""
    return {"required": [name], "properties": {name: value or {"not": {"type": "null"}}}}


class ReplayRequest(_Request):
    """Which dead letters to queue again; at least one filter, or `all`."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [*map(_with, _REPLAY_FILTERS), _with("all", {"const": True})]}
    )

    task_type: TaskTypeName | None = None
    tenant_id: TenantId | None = None
    priority: Priority | None = None
    error_code: str | None = Field(default=None, max_length=64, json_schema_extra=STORABLE)
    created_after: Time | None = None
    created_before: Time | None = None
    all: bool = False
    limit: Whole = Field(default=1_000, ge=1, le=MAX_REPLAY)


class TenantLimits(_Request):
    """What one tenant may use; a field that is null or missing follows the service's default."""

    rate_per_s: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False, description="Tasks a second.")
    burst: Annotated[int, Field(ge=1, le=10**9), WHOLE] | None = Field(
        default=None, description="Tasks at once, after a pause."
    )
    max_running: Count | None = Field(default=None, description="Tasks that run at the same time.")
    max_queued: Count | None = Field(default=None, description="Tasks that wait.")
    weight: Annotated[int, Field(ge=1, le=10**6), WHOLE] | None = Field(
        default=None, description="Its share beside other tenants."
    )
    highest_priority: Priority | None = Field(
        default=None, description="The most urgent priority it may ask for; 2: background only."
    )
    max_payload_bytes: Annotated[int, Field(ge=2, le=256 * 1024), WHOLE] | None = None


class NewTenant(_Request):
    """A tenant to make."""

    tenant_id: TenantId
    name: Name = ""
    limits: TenantLimits = TenantLimits()


class TenantChange(_Request):
    """What to change of a tenant; what is not named stays, a limit that is null follows the default again."""

    name: Name = ""
    limits: TenantLimits = TenantLimits()


class NewKey(_Request):
    """A key to make. `kind` is for people: both kinds work alike."""

    tenant_id: TenantId
    name: Name = ""
    scopes: list[ScopeName] = Field(default=["submit", "read"], min_length=1, max_length=3)
    expires_at: Time | None = Field(default=None, description="ISO 8601, in the future; without it the key stays.")
    kind: Literal["live", "test"] = "live"


class NewWebhook(_Request):
    """Where a tenant wants to hear of its tasks. Without `tenantId` it is the caller's."""

    tenant_id: TenantId | None = None
    url: WebhookUrl
    kinds: EventKinds = ENDS


class WebhookChange(_Request):
    """What to change of a webhook; what is not named, or null, stays. ACTIVE takes the reason of a stop away."""

    url: WebhookUrl | None = None
    kinds: EventKinds | None = None
    status: Literal["ACTIVE", "PAUSED"] | None = None


class Submitted(_Wire):
    """A task that is stored, and where to follow it."""

    task_id: str
    status: str
    created_at: datetime
    status_url: str
    result_url: str
    cancel_url: str
    events_url: str


class ArtifactAnswer(_Wire):
    """One file of a result. `url` is signed and expires."""

    url: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    status: Literal["STORED"]


class StoredArtifactAnswer(ArtifactAnswer):
    """One file of a result, and how often it was sent to the object store until it lay there."""

    upload_attempts: int = Field(ge=1)


class Saved(_Wire):
    """What a step did not need that reused what an earlier one made: seconds of a replica, US dollars."""

    seconds: float
    usd: str


class ResultAnswer(_Wire):
    """What a completed task made. `url` is that of the first artifact; `reusedFrom` names the task that made it."""

    url: str | None
    text: str | None = None
    artifacts: list[StoredArtifactAnswer]
    metadata: dict[str, Any]
    reused_from: str | None = None
    saved: Saved | None = None


class TaskError(_Wire):
    """Why the latest attempt failed."""

    code: str
    message: str


class TaskAnswer(_Wire):
    """All that is shown of one task; fields that do not apply are left out."""

    task_id: str
    tenant_id: str
    status: str
    task_type: str
    priority: int
    region: str
    attempt: int
    max_attempts: int
    dag_id: str | None = None
    created_at: datetime
    available_at: datetime | None = None
    start_deadline_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    version: str | None = None
    request_id: str | None = None
    progress: float | None = None
    error: TaskError | None = None
    result: ResultAnswer | None = None


class TaskPage(_Wire):
    """One page of tasks, newest first; `nextCursor` is null on the last."""

    items: list[TaskAnswer]
    next_cursor: str | None


class StepStarted(_Wire):
    """One step of a dag that is stored. `parentTaskId` is the first of `parentTaskIds`."""

    task_id: str
    step_id: str
    task_type: str
    status: str
    depends_on: list[str]
    parent_task_id: str | None = None
    parent_task_ids: list[str] | None = None


class DagStarted(_Wire):
    """A dag that is stored, and where to follow it."""

    dag_id: str
    status: str
    created_at: datetime
    tasks: list[StepStarted]
    status_url: str
    cancel_url: str
    resume_url: str
    events_url: str


class StepAnswer(StepStarted):
    """All that is shown of one step; fields that do not apply are left out."""

    priority: int
    on_failure: OnFailure
    attempt: int
    max_attempts: int
    created_at: datetime
    available_at: datetime | None = None
    start_deadline_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    version: str | None = None
    error: TaskError | None = None
    result: ResultAnswer | None = None


class DagError(TaskError):
    """Why a dag failed: the step that is to blame."""

    step_id: str


class StepCounts(_Wire):
    """How many steps there are, how many have completed, and how many have not ended."""

    total: int
    completed: int
    open: int


class DagSummary(_Wire):
    """What is shown of one dag in a list; fields that do not apply are left out."""

    dag_id: str
    tenant_id: str
    status: Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    priority: int
    region: str
    created_at: datetime
    completed_at: datetime | None = None
    deadline_at: datetime | None = None
    metadata: dict[str, Any] | None = None
    error: DagError | None = None
    steps: StepCounts


class DagAnswer(DagSummary):
    """All that is shown of one dag; its steps are in the caller's order."""

    tasks: list[StepAnswer]


class DagPage(_Wire):
    """One page of dags, newest first; `nextCursor` is null on the last."""

    items: list[DagSummary]
    next_cursor: str | None


class Ticket(_Wire):
    """What opens one stream or WebSocket, once."""

    ticket: str
    expires_at: datetime


class EventAnswer(_Wire):
    """One thing that happened to a task; fields that do not apply are left out.

    Those with a `seq` are numbered 1, 2, 3 ... and are kept; the others pass by. Chunks of text have an `index`, 0, 1,
    2 ...; a `restart` says that the text shown so far does not hold.
    """

    task_id: str | None = None
    seq: int | None = None
    event: Literal[
        "pending", "queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired",
        "progress", "chunk", "restart", "reset", "delayed", "live",
    ]  # fmt: skip
    status: str | None = None
    timestamp: datetime
    attempt: int | None = None
    worker_id: str | None = None
    version: str | None = None
    reason: str | None = None
    available_at: datetime | None = None
    error: TaskError | None = None
    progress: float | None = None
    text: str | None = None
    index: int | None = None
    artifact: ArtifactAnswer | None = None
    result: ResultAnswer | None = None
    task: TaskAnswer | None = None


class EventPage(_Wire):
    """Events of a task after a number. `ended`: there will be no more, unless the task is retried."""

    events: list[EventAnswer]
    last_seq: int
    ended: bool
    last_chunk: int | None = Field(default=None, description="With `chunks=true`: the number of the last chunk.")
    live: bool = Field(description="False: Redis is away, events come late and progress not at all.")


class StepEnd(_Wire):
    """How a step of a dag ended."""

    step_id: str
    task_id: str
    status: str
    error: TaskError | None = None


class DagEventAnswer(_Wire):
    """One thing that happened to a dag; fields that do not apply are left out.

    Those with a `seq` are numbered 1, 2, 3 ... and are kept; the others pass by.
    """

    dag_id: str | None = None
    seq: int | None = None
    event: Literal["running", "step", "resumed", "completed", "failed", "cancelled", "reset", "delayed", "live"]
    status: str | None = None
    timestamp: datetime
    step: StepEnd | None = None
    error: DagError | None = None
    dag: DagSummary | None = None


class DagEventPage(_Wire):
    """Events of a dag after a number. `ended`: there will be no more, unless the dag is resumed."""

    events: list[DagEventAnswer]
    last_seq: int
    ended: bool
    live: bool = Field(description="False: Redis is away, events come late.")


class FieldProblem(_Wire):
    """One broken rule."""

    pointer: str
    detail: str


class Problem(_Wire):
    """Any error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem] = []
    request_id: str
    retryable: bool
    retry_after_ms: int | None = None


class BatchItem(_Wire):
    """What became of one task of a batch."""

    status: int
    task: Submitted | None = None
    problem: Problem | None = None


class BatchAnswer(_Wire):
    """What became of each task, in the order in which they were sent."""

    items: list[BatchItem]


class Replayed(_Wire):
    """How many dead letters are queued again, and whether more match that are not."""

    replayed: int
    more: bool


class ServiceStatus(_Wire):
    """What this is, and where to go on."""

    service: str
    version: str
    region: str
    links: dict[str, str]


class Health(_Wire):
    """Whether Flik can do its work."""

    status: Literal["UP", "DOWN"]
    components: dict[str, Literal["UP", "DOWN"]]
    auth: Literal["keys", "open"] = Field(description="open: every bearer token may do everything.")


class KeyAnswer(_Wire):
    """A key, without the key: `prefix` is how it begins."""

    key_id: str
    tenant_id: str
    name: str
    prefix: str
    scopes: list[ScopeName]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyMade(KeyAnswer):
    """A new key. `key` is shown here and never again."""

    key: str


class KeyPage(_Wire):
    """One page of keys, newest first; `nextCursor` is null on the last."""

    items: list[KeyAnswer]
    next_cursor: str | None


class TenantAnswer(_Wire):
    """A tenant. `limits` are those set for it, null where it follows the default; `effectiveLimits` are what holds."""

    tenant_id: str
    name: str
    created_at: datetime
    updated_at: datetime
    limits: TenantLimits
    effective_limits: TenantLimits


class TenantPage(_Wire):
    """One page of tenants, in the order of their ids; `nextCursor` is null on the last."""

    items: list[TenantAnswer]
    next_cursor: str | None


class AuditEntryAnswer(_Wire):
    """One thing an operator did. `actor` is a key's id, `jwt:` and a token's subject, `anyone` or `flik`."""

    entry_id: str
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    request_id: str | None


class AuditPage(_Wire):
    """One page of the audit log, newest first; `nextCursor` is null on the last."""

    items: list[AuditEntryAnswer]
    next_cursor: str | None


class WebhookAnswer(_Wire):
    """A webhook. `reason` says why Flik disabled it; `failingSince`: no delivery got through since then."""

    webhook_id: str
    tenant_id: str
    url: str
    kinds: list[EventKind]
    status: Literal["ACTIVE", "PAUSED", "DISABLED"]
    reason: str | None
    created_at: datetime
    updated_at: datetime
    old_secret_until: datetime | None
    failing_since: datetime | None


class WebhookMade(WebhookAnswer):
    """A new webhook, or one with a new secret. `secret` is shown here and never again."""

    secret: str


class WebhookPage(_Wire):
    """One page of webhooks, newest first; `nextCursor` is null on the last."""

    items: list[WebhookAnswer]
    next_cursor: str | None


class DeliveryAttempt(_Wire):
    """One attempt. `status` null: there was no answer; `error` null: it got through."""

    at: datetime
    status: int | None
    error: str | None
    duration_ms: int


class DeliveryAnswer(_Wire):
    """One event on its way to one webhook; `deliveryId` is the header `webhook-id`.

    It is about a task, a dag or, as a ping, about neither. `webhookId` null: the webhook is the task's or dag's own.
    """

    delivery_id: str
    webhook_id: str | None
    task_id: str | None
    dag_id: str | None
    seq: int
    kind: str
    state: Literal["WAITING", "DELIVERED", "GIVEN_UP"]
    attempts: int
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None
    log: list[DeliveryAttempt]


class DeliveryPage(_Wire):
    """One page of deliveries, newest first; `nextCursor` is null on the last."""

    items: list[DeliveryAnswer]
    next_cursor: str | None
