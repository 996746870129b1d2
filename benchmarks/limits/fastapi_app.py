"""A FastAPI route that validates a task and answers, and does nothing else.

The same application runs bare under uvicorn and inside Ray Serve.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class NewTask(BaseModel):
    """The body of Flik's own route."""

    tenantId: str  # noqa: N815
    taskType: Literal["TEXT", "IMAGE", "VIDEO"]  # noqa: N815
    priority: Literal[0, 1, 2]
    payload: dict[str, Any]


@app.post("/api/v1/tasks")
async def submit(task: NewTask) -> dict[str, str]:
    return {"tenantId": task.tenantId, "status": "QUEUED", "createdAt": "2026-01-01T00:00:00.000Z"}
