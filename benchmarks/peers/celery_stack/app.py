"""The HTTP face: validate, make an id, put the task into Redis, answer 202; poll for the result.

`async def` with the blocking publish inside: the publish takes well under a millisecond and
a hop to a thread costs more (measured, see the README of this folder).
"""

import uuid
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel

from .tasks import celery, process

app = FastAPI()


class NewTask(BaseModel):
    tenantId: str  # noqa: N815
    taskType: Literal["TEXT", "IMAGE", "VIDEO"]  # noqa: N815
    priority: Literal[0, 1, 2]
    payload: dict[str, Any]


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "UP"}


@app.post("/api/v1/tasks", status_code=202)
async def submit(task: NewTask) -> dict[str, str]:
    task_id = str(uuid.uuid4())
    process.apply_async((task.taskType, task.payload), task_id=task_id)
    return {"taskId": task_id, "status": "QUEUED"}


@app.get("/api/v1/tasks/{task_id}")
def status(task_id: str) -> dict[str, str]:
    state = celery.AsyncResult(task_id).state
    return {"taskId": task_id, "status": "COMPLETED" if state == "SUCCESS" else state}
