"""The wire of the routes below /api/tasks: snake_case, with the status words and priorities of those routes.

The routes are the ones of an earlier job system whose callers Flik took over; see
`flik.gateway.family_tasks` for what they do.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flik.schemas import WHOLE, TenantId

Word = Literal["pending", "running", "completed", "failed"]
DEFAULT_PRIORITY = 5


class TaskSubmitRequest(BaseModel):
    """A task of a family. The family's route tells what `parameters` may hold."""

    model_config = ConfigDict(extra="forbid", strict=True)

    parameters: dict[str, Any]
    priority: Annotated[int, Field(ge=1, le=10, description="10 is the most urgent."), WHOLE] = DEFAULT_PRIORITY
    tenant_id: TenantId | None = Field(default=None, description="By default the tenant of the key.")


class TaskSubmitResponse(BaseModel):
    """A task that is stored, and where to follow it."""

    task_id: str
    task_type: str
    status: Word
    priority: int
    created_at: datetime
    status_url: str


class TaskStatusResponse(BaseModel):
    """All that is shown of one task; fields that do not apply are left out. `state` is Flik's own word for its status.

    A task that was cancelled or expired counts as failed; `state` tells which.
    """

    task_id: str
    task_type: str
    tenant_id: str
    status: Word
    state: str
    priority: int
    attempts: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    progress: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    result: dict[str, Any] | None = None


class TaskListResponse(BaseModel):
    """One page of tasks, newest first."""

    tasks: list[TaskStatusResponse]
    page: int
    page_size: int
    has_more: bool


class HealthResponse(BaseModel):
    """Whether tasks can be taken and done."""

    status: Literal["healthy", "unhealthy"]
    components: dict[str, Literal["healthy", "unhealthy"]]


def submission_schema(payload: type[BaseModel]) -> Any:
    """Return the JSON schema of a submission whose `parameters` are such a payload, without references."""
    schema = TaskSubmitRequest.model_json_schema()
    parameters = payload.model_json_schema(by_alias=False)
    definitions = parameters.pop("$defs", {})
    schema["properties"]["parameters"] = parameters

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolve(definitions[part["$ref"].rpartition("/")[2]])
        return {name: resolve(each) for name, each in part.items()}

    return resolve(schema)
