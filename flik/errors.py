"""Every failure Flik can raise, as one tree.

FlikError
├── RequestError              the caller can mend it
│   ├── MalformedBody         not JSON, or not a JSON Flik accepts
│   ├── InvalidRequest        well-formed, but a field breaks a rule; carries the fields
│   │   └── InvalidParameters the same, on the routes below /api/tasks
│   ├── BodyTooLarge
│   ├── UnsupportedMediaType
│   ├── Unauthenticated       no credential, or one that opens nothing
│   ├── ScopeMissing          the credential does not allow this
│   ├── TenantMismatch        the credential speaks for another tenant
│   ├── TenantUnknown         nobody made the tenant for which a task is submitted
│   ├── TenantNotFound
│   ├── TenantExists
│   ├── KeyNotFound
│   ├── WebhookNotFound
│   ├── DeliveryNotFound
│   ├── TooManyWebhooks       the tenant has as many as it may
│   ├── WebhookInactive       it is paused or disabled, and sends nothing
│   ├── TaskNotFound
│   ├── StreamNotFound
│   ├── ArtifactNotFound
│   ├── StateConflict         the task's state forbids the action
│   ├── RateLimited           the tenant sends faster than it may; `retry_after_s`
│   ├── ExceedsBurst          one request asks for more than the tenant's limit ever grants at once
│   ├── TenantQueueFull       the tenant has as many waiting tasks as it may; `retry_after_s`
│   ├── PriorityNotAllowed    the tenant may not ask for a priority this urgent
│   ├── PayloadTooLarge       the payload is larger than the tenant may send
│   ├── IdempotencyKeyInvalid
│   ├── IdempotencyKeyReused  the key stands for another request
│   ├── IdempotencyInFlight   the first request under the key has no answer yet; `retry_after_s`
│   ├── TooManyFollowers      as many connections follow tasks as may; `retry_after_s`
│   ├── StreamMalformed       what came over a WebSocket breaks its protocol
│   ├── StreamTooLarge        a message over a WebSocket, or a part of it, is larger than Flik reads
│   ├── StreamVersionUnknown  the client speaks no version of STOMP that Flik speaks
│   ├── TooManySubscriptions  the connection follows as much as it may
│   └── NotBuilt              the route is there, what it is for is not yet
├── Unavailable               a dependency is away; try again after `retry_after_s`
│   └── GatewayStops          who follows here is to come back: this gateway is being stopped
├── QueueFull                 too much waits in the whole service; `retry_after_s`
├── ProviderError             a model back end failed; says whether a retry is worth it
│   ├── ProviderUnavailable   the back end is away, whatever it is asked for
│   └── InputError            what a step of a chain gets from its parents is of no use to it
│       └── InputGone         a file that a parent made is not there any more
├── StartupRefused            `flik up` cannot start here, and why
├── MigrationError            the database and the migration files do not fit, or one failed
└── SettingInvalid            a setting has a value Flik cannot use

Refusals that are part of a policy (retry or give up, admitted or not) are values in
`flik.domain`; what is raised here is a failure. Each class hands all its arguments to
`super().__init__` by position, so that it survives pickling across Ray, and formats
itself in `__str__`. `code` is stable: callers may branch on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: the JSON pointer (RFC 6901) of the field, and what is wrong with it."""

    pointer: str
    detail: str


class FlikError(Exception):
    """The root; nothing raises it directly. `retry_after_s`: when a repeat may work; None: not known."""

    code: ClassVar[str] = "internal"
    retry_after_s: float | None = None


class RequestError(FlikError):
    """The caller sent something that can never work as sent."""

    code = "bad_request"


class MalformedBody(RequestError):
    """The body is not JSON that Flik accepts."""

    code = "malformed_body"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidRequest(RequestError):
    """One or more fields break a rule."""

    code = "invalid_request"

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(f"{error.pointer or '/'}: {error.detail}" for error in self.errors)


class InvalidParameters(InvalidRequest):
    """The same on the routes below /api/tasks, whose callers expect a 400."""

    code = "invalid_parameters"


class BodyTooLarge(RequestError):
    """The body is larger than Flik reads."""

    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than {self.limit_bytes:,} bytes"


class UnsupportedMediaType(RequestError):
    """The body is declared as something other than JSON."""

    code = "unsupported_media_type"

    def __init__(self, content_type: str) -> None:
        super().__init__(content_type)
        self.content_type = content_type

    def __str__(self) -> str:
        return f"send application/json, not {self.content_type or 'an undeclared type'}"


class Unauthenticated(RequestError):
    """No credential was sent, or one that opens nothing; which of its faults it has is not said."""

    code = "unauthenticated"

    def __init__(self, detail: str, token_sent: bool = False) -> None:
        super().__init__(detail, token_sent)
        self.detail = detail
        self.token_sent = token_sent

    def __str__(self) -> str:
        return self.detail


class ScopeMissing(RequestError):
    """The credential is good, but not for this."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(scope)
        self.scope = scope

    def __str__(self) -> str:
        return f"this takes a key with the scope {self.scope}"


class TenantMismatch(RequestError):
    """The task is for another tenant than the one that the credential speaks for."""

    code = "tenant_mismatch"

    def __init__(self, tenant_id: str) -> None:
        super().__init__(tenant_id)
        self.tenant_id = tenant_id

    def __str__(self) -> str:
        return f"this key does not speak for {self.tenant_id}"


class TenantUnknown(RequestError):
    """An operator submits for a tenant that nobody made."""

    code = "tenant_unknown"

    def __init__(self, tenant_id: str) -> None:
        super().__init__(tenant_id)
        self.tenant_id = tenant_id

    def __str__(self) -> str:
        return f"there is no tenant {self.tenant_id}; POST /api/v1/tenants makes one"


class TenantNotFound(RequestError):
    """There is no tenant with this id."""

    code = "tenant_not_found"

    def __init__(self, tenant_id: str) -> None:
        super().__init__(tenant_id)
        self.tenant_id = tenant_id

    def __str__(self) -> str:
        return f"no tenant {self.tenant_id}"


class TenantExists(RequestError):
    """There is a tenant with this id already."""

    code = "tenant_exists"

    def __init__(self, tenant_id: str) -> None:
        super().__init__(tenant_id)
        self.tenant_id = tenant_id

    def __str__(self) -> str:
        return f"there is a tenant {self.tenant_id} already"


class KeyNotFound(RequestError):
    """There is no key with this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"no key {self.key_id}"


class WebhookNotFound(RequestError):
    """No webhook with this id is visible to the caller."""

    code = "webhook_not_found"

    def __init__(self, webhook_id: str) -> None:
        super().__init__(webhook_id)
        self.webhook_id = webhook_id

    def __str__(self) -> str:
        return f"no webhook {self.webhook_id}"


class DeliveryNotFound(RequestError):
    """The webhook has no delivery with this id."""

    code = "delivery_not_found"

    def __init__(self, delivery_id: str) -> None:
        super().__init__(delivery_id)
        self.delivery_id = delivery_id

    def __str__(self) -> str:
        return f"no delivery {self.delivery_id}"


class TooManyWebhooks(RequestError):
    """The tenant has as many webhooks as it may."""

    code = "too_many_webhooks"

    def __init__(self, tenant_id: str, limit: int) -> None:
        super().__init__(tenant_id, limit)
        self.tenant_id = tenant_id
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.tenant_id} has {self.limit} webhooks, which is the most; delete one first"


class WebhookInactive(RequestError):
    """The webhook is paused or disabled, so that nothing can be sent to it."""

    code = "webhook_inactive"

    def __init__(self, webhook_id: str, status: str) -> None:
        super().__init__(webhook_id, status)
        self.webhook_id = webhook_id
        self.status = status

    def __str__(self) -> str:
        return f"the webhook is {self.status}; PATCH its status to ACTIVE first"


class TaskNotFound(RequestError):
    """No task with this id is visible to the caller."""

    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"no task {self.task_id}"


class StreamNotFound(RequestError):
    """There is no stream of this name (any more)."""

    code = "stream_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"no stream {self.key}; it was not started, or is over"


class ArtifactNotFound(RequestError):
    """No artifact under this key, or the link is not valid (any more)."""

    code = "artifact_not_found"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class DagNotFound(RequestError):
    """No dag with this id is visible to the caller."""

    code = "dag_not_found"

    def __init__(self, dag_id: str) -> None:
        super().__init__(dag_id)
        self.dag_id = dag_id

    def __str__(self) -> str:
        return f"no dag {self.dag_id}"


class DagStateConflict(RequestError):
    """The dag's state forbids the action, for instance resuming one that has not failed."""

    code = "dag_state_conflict"

    def __init__(self, status: str, action: str) -> None:
        super().__init__(status, action)
        self.status = status
        self.action = action

    def __str__(self) -> str:
        return f"a dag that is {self.status} cannot be {self.action}"


class StepOfDag(RequestError):
    """The task is a step, which is not tried again without its dag."""

    code = "step_of_dag"

    def __init__(self, dag_id: str) -> None:
        super().__init__(dag_id)
        self.dag_id = dag_id

    def __str__(self) -> str:
        return f"the task is a step of the dag {self.dag_id}; resume that"


class StateConflict(RequestError):
    """The task's state forbids the action, for instance cancelling what is finished."""

    code = "state_conflict"

    def __init__(self, task_id: str, status: str, action: str) -> None:
        super().__init__(task_id, status, action)
        self.task_id = task_id
        self.status = status
        self.action = action

    def __str__(self) -> str:
        return f"a task that is {self.status} cannot be {self.action}"


class RateLimited(RequestError):
    """The tenant sends more tasks a second than its limit."""

    code = "rate_limited"

    def __init__(self, tenant_id: str, retry_after_s: float, limit_per_s: float) -> None:
        super().__init__(tenant_id, retry_after_s, limit_per_s)
        self.tenant_id = tenant_id
        self.retry_after_s: float = retry_after_s
        self.limit_per_s = limit_per_s

    def __str__(self) -> str:
        return f"{self.tenant_id} may send {self.limit_per_s:g} tasks a second; try again in {self.retry_after_s:.3g} s"


class ExceedsBurst(RequestError):
    """One request costs more than the tenant's burst, so that no waiting would let it through."""

    code = "exceeds_burst"

    def __init__(self, cost: int, burst: int) -> None:
        super().__init__(cost, burst)
        self.cost = cost
        self.burst = burst

    def __str__(self) -> str:
        return f"a request of {self.cost:,} tasks can never pass a limit of {self.burst:,} at once; send fewer"


class TenantQueueFull(RequestError):
    """The tenant has as many tasks waiting as its limit allows."""

    code = "tenant_queue_full"

    def __init__(self, tenant_id: str, limit: int, retry_after_s: float) -> None:
        super().__init__(tenant_id, limit, retry_after_s)
        self.tenant_id = tenant_id
        self.limit = limit
        self.retry_after_s: float = retry_after_s

    def __str__(self) -> str:
        return (
            f"{self.tenant_id} may have {self.limit:,} tasks waiting, and has; try again in {self.retry_after_s:.3g} s"
        )


class PriorityNotAllowed(RequestError):
    """The tenant may not ask for a priority this urgent."""

    code = "priority_not_allowed"

    def __init__(self, priority: int, highest: int) -> None:
        super().__init__(priority, highest)
        self.priority = priority
        self.highest = highest

    def __str__(self) -> str:
        return f"priority {self.priority} is more urgent than this tenant may ask for, which is {self.highest}"


class PayloadTooLarge(RequestError):
    """The payload is larger than the tenant may send."""

    code = "payload_too_large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"the payload has {self.size:,} bytes; this tenant may send {self.limit:,}"


class IdempotencyKeyInvalid(RequestError):
    """The Idempotency-Key header cannot be read."""

    code = "idempotency_key_invalid"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"Idempotency-Key: {self.detail}"


class IdempotencyKeyReused(RequestError):
    """The key was used for a request with another body or route."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f'the idempotency key "{self.key}" stands for another request; take a new key for a new request'


class IdempotencyInFlight(RequestError):
    """A request under the same key is being worked on."""

    code = "idempotency_in_flight"

    def __init__(self, key: str, retry_after_s: float = 1.0) -> None:
        super().__init__(key, retry_after_s)
        self.key = key
        self.retry_after_s: float = retry_after_s

    def __str__(self) -> str:
        return f'the first request with the idempotency key "{self.key}" has no answer yet; send this one again'


class StreamMalformed(RequestError):
    """What came over a WebSocket breaks the rules of its protocol; the connection ends."""

    code = "stream_malformed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class StreamTooLarge(RequestError):
    """What came over a WebSocket is larger than Flik reads; the connection ends. `limit` is in the unit `unit`."""

    code = "stream_too_large"

    def __init__(self, what: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(what, limit, unit)
        self.what = what
        self.limit = limit
        self.unit = unit

    def __str__(self) -> str:
        return f"{self.what} has more than {self.limit:,} {self.unit}"


class StreamVersionUnknown(RequestError):
    """The client named no version of STOMP that Flik speaks. `offered` are those it does."""

    code = "stream_version_unknown"

    def __init__(self, offered: tuple[str, ...]) -> None:
        super().__init__(offered)
        self.offered = offered

    def __str__(self) -> str:
        return f"the versions of STOMP spoken here are {', '.join(self.offered)}"


class TooManySubscriptions(RequestError):
    """The connection has as many subscriptions as it may have."""

    code = "too_many_subscriptions"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"a connection may have {self.limit:,} subscriptions, and has; end one, or open another connection"


class StreamIdle(RequestError):
    """A WebSocket followed nothing that goes on for `idle_s` seconds; the connection ends."""

    code = "stream_idle"

    def __init__(self, idle_s: float) -> None:
        super().__init__(idle_s)
        self.idle_s = idle_s

    def __str__(self) -> str:
        return f"nothing that goes on was followed for {self.idle_s:g} s; open a connection when there is something"


class NotBuilt(RequestError):
    """The route is part of the interface, but what it is for is still to be built."""

    code = "not_implemented"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"this version does not offer {self.what}"


class TooManyFollowers(RequestError):
    """As many connections follow tasks as may. `whose` they are: those of the credential, or of the gateway.

    `what` is counted: connections, or streams and subscriptions together.
    """

    code = "too_many_followers"

    def __init__(self, whose: str, most: int, what: str = "connections", retry_after_s: float = 5.0) -> None:
        super().__init__(whose, most, what, retry_after_s)
        self.whose = whose
        self.most = most
        self.what = what
        self.retry_after_s: float = retry_after_s

    def __str__(self) -> str:
        return f"{self.whose} follows tasks with {self.most:,} {self.what}, which is the most; close some, or poll"


class Unavailable(FlikError):
    """A dependency is away. `dependency` names it: postgresql, queue, artifacts, issuer, name server."""

    code = "unavailable"

    def __init__(self, dependency: str, retry_after_s: float = 1.0) -> None:
        super().__init__(dependency, retry_after_s)
        self.dependency = dependency
        self.retry_after_s: float = retry_after_s

    def __str__(self) -> str:
        return f"{self.dependency} is not available; try again in {self.retry_after_s:g} s"


class GatewayStops(Unavailable):
    """This gateway is being stopped: who follows tasks here is to come back, to another one or the next."""

    code = "gateway_stops"

    def __str__(self) -> str:
        return f"{self.dependency} is being stopped; come back in {self.retry_after_s:g} s"


class TooManyStrangers(Unavailable):
    """As many WebSockets are open whose client has not said who it is as may be. `dependency` is the gateway."""

    code = "too_many_strangers"

    def __init__(self, dependency: str, most: int, retry_after_s: float = 1.0) -> None:
        super().__init__(dependency, retry_after_s)
        self.args = (dependency, most, retry_after_s)
        self.most = most

    def __str__(self) -> str:
        return (
            f"{self.dependency} has {self.most:,} WebSockets open whose client has not said who it is, which is the"
            f" most; try again in {self.retry_after_s:g} s, or show a key or a ticket in the handshake"
        )


class QueueFull(FlikError):
    """As much waits as Flik takes on. `what` names it, for instance "the queue of priority 2"."""

    code = "queue_full"

    def __init__(self, what: str, retry_after_s: float) -> None:
        super().__init__(what, retry_after_s)
        self.what = what
        self.retry_after_s: float = retry_after_s

    def __str__(self) -> str:
        return f"{self.what} is full; try again in {self.retry_after_s:.3g} s"


class ProviderError(FlikError):
    """A model back end failed. `error_code` is the provider's own stable word for it."""

    code = "provider_error"

    def __init__(self, error_code: str, message: str, retryable: bool) -> None:
        super().__init__(error_code, message, retryable)
        self.error_code = error_code
        self.message = message
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.error_code}: {self.message}"


class ProviderUnavailable(ProviderError):
    """The back end is away: nothing is wrong with the task, which is not counted as tried."""

    code = "provider_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__("provider_unavailable", message, True)
        self.args = (message,)  # what pickling hands to this constructor


class InputError(ProviderError):
    """What a generation is to start from leads nowhere, is not there, or cannot be read; no retry mends that."""

    code = "input_unusable"

    def __init__(self, message: str) -> None:
        super().__init__(self.code, message, False)
        self.args = (message,)  # what pickling hands to this constructor


class InputGone(InputError):
    """A file that a generation is to start from is not there as it was stored: who made it has to run again."""

    code = "input_gone"


class StartupRefused(FlikError):
    """Flik cannot start here. The reason is one sentence that says what to do."""

    code = "startup_refused"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MigrationError(FlikError):
    """A migration cannot be applied. `migration` is its file's name without `.sql`."""

    code = "migration_failed"

    def __init__(self, migration: str, reason: str) -> None:
        super().__init__(migration, reason)
        self.migration = migration
        self.reason = reason

    def __str__(self) -> str:
        return f"migration {self.migration}: {self.reason}"


class SettingInvalid(FlikError):
    """A setting has a value that Flik cannot use."""

    code = "setting_invalid"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"
