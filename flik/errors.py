"""Every failure Flik can raise, as one tree.

FlikError
├── RequestError              the caller can mend it
│   ├── MalformedBody         not JSON, or not a JSON Flik accepts
│   ├── InvalidRequest        well-formed, but a field breaks a rule; carries the fields
│   ├── BodyTooLarge
│   ├── UnsupportedMediaType
│   ├── Unauthenticated
│   ├── TaskNotFound
│   ├── ArtifactNotFound
│   ├── StateConflict         the task's state forbids the action
│   └── NotBuilt              the route is there, what it is for is not yet
├── Unavailable               a dependency is away; try again after `retry_after_s`
├── ProviderError             a model back end failed; says whether a retry is worth it
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
    """The root; nothing raises it directly."""

    code: ClassVar[str] = "internal"


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
    """No credential that Flik can read was sent."""

    code = "unauthenticated"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class TaskNotFound(RequestError):
    """No task with this id is visible to the caller."""

    code = "task_not_found"

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id

    def __str__(self) -> str:
        return f"no task {self.task_id}"


class ArtifactNotFound(RequestError):
    """No artifact under this key, or the link is not valid (any more)."""

    code = "artifact_not_found"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


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


class NotBuilt(RequestError):
    """The route is part of the interface, but what it is for is still to be built."""

    code = "not_implemented"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"this version does not offer {self.what}"


class Unavailable(FlikError):
    """A dependency is away. `dependency` names it: postgresql, queue, artifacts."""

    code = "unavailable"

    def __init__(self, dependency: str, retry_after_s: float = 1.0) -> None:
        super().__init__(dependency, retry_after_s)
        self.dependency = dependency
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.dependency} is not available; try again in {self.retry_after_s:g} s"


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
