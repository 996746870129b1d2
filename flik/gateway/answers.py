"""Tasks as JSON: what a caller sees of one, with links that work from where they called."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from flik.artifacts import link
from flik.domain.dag.graph import DagView
from flik.domain.event import STATUS_AFTER, DagNote, Event, Kind
from flik.domain.task import TERMINAL, Status, StoredArtifact, TaskView

LOOK_AGAIN: Mapping[str, str] = {"Retry-After": "1"}
"""The header of an answer about a task that has not ended: whoever polls may come back after a second."""


@lru_cache(maxsize=1024)  # the tasks of a batch share a few milliseconds
def iso(at: float) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds and a Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def submitted(task_id: str, created_at: float, base: str) -> dict[str, Any]:
    """Return the answer to a submit."""
    url = f"{base}/api/v1/tasks/{task_id}"
    return {
        "taskId": task_id,
        "status": Status.QUEUED.value,
        "createdAt": iso(created_at),
        "statusUrl": url,
        "resultUrl": f"{url}/result",
        "cancelUrl": f"{url}/cancel",
        "eventsUrl": f"{url}/events",
    }


def dag_summary(view: DagView) -> dict[str, Any]:
    """Return a dag without its steps; what does not apply is left out."""
    answer: dict[str, Any] = {
        "dagId": view.dag_id,
        "tenantId": view.tenant_id,
        "status": view.status,
        "priority": view.priority,
        "region": view.region,
        "createdAt": iso(view.created_at),
    }
    for name, at in (("completedAt", view.completed_at), ("deadlineAt", view.deadline_at)):
        if at is not None:
            answer[name] = iso(at)
    if view.metadata is not None:
        answer["metadata"] = view.metadata
    if view.error_code is not None:
        answer["error"] = {
            "code": view.error_code, "message": view.error_message or "", "stepId": view.error_step or ""
        }  # fmt: skip
    answer["steps"] = {
        "total": sum(view.counts.values()),
        "completed": view.counts.get(Status.COMPLETED, 0),
        "open": sum(count for status, count in view.counts.items() if status not in TERMINAL),
    }
    return answer


class Answers:
    """Builds answers whose artifact links are signed and expire after `ttl_s`."""

    def __init__(self, base: str, signing_key: bytes, ttl_s: int, now: float) -> None:
        self._base = base
        self._signing_key = signing_key
        self._expires_at = int(now) + ttl_s

    def task(self, view: TaskView) -> dict[str, Any]:
        """Return one task; what does not apply is left out."""
        answer = self.standing(view)
        if view.status == Status.COMPLETED:
            answer["result"] = self.result(view)
        return answer

    def standing(self, view: TaskView) -> dict[str, Any]:
        """Return one task without what it made."""
        answer: dict[str, Any] = {
            "taskId": view.task_id,
            "tenantId": view.tenant_id,
            "status": view.status,
            "taskType": view.task_type,
            "priority": view.priority,
            "region": view.region,
            "attempt": view.attempt,
            "maxAttempts": view.max_attempts,
            "createdAt": iso(view.created_at),
        }
        if view.dag_id is not None:
            answer["dagId"] = view.dag_id
        if view.status == Status.QUEUED and view.attempt:
            answer["availableAt"] = iso(view.available_at)
        for name, at in (
            ("startDeadlineAt", view.start_deadline_at),
            ("startedAt", view.started_at),
            ("completedAt", view.completed_at),
        ):
            if at is not None:
                answer[name] = iso(at)
        extras = {"workerId": view.worker_id, "version": view.version, "requestId": view.request_id}
        answer |= {name: value for name, value in extras.items() if value is not None}
        if view.progress is not None:
            answer["progress"] = view.progress
        if view.error_code is not None:
            answer["error"] = {"code": view.error_code, "message": view.error_message or ""}
        return answer

    def event(self, event: Event) -> dict[str, Any]:
        """Return one event; what does not apply is left out."""
        if event.dag is not None:
            return self._dag_event(event, event.dag)
        answer: dict[str, Any] = {"taskId": event.task_id} if event.task_id else {}
        if event.seq:
            answer["seq"] = event.seq
        answer["event"] = event.kind
        status = event.task.status if event.task else STATUS_AFTER.get(Kind(event.kind))
        if status is not None:
            answer["status"] = status
        answer["timestamp"] = iso(event.at)
        extras = {
            "attempt": event.attempt, "workerId": event.worker_id, "version": event.version, "reason": event.reason,
            "progress": event.progress, "text": event.text, "index": event.chunk_index,
        }  # fmt: skip
        answer |= {name: value for name, value in extras.items() if value is not None}
        if event.available_at is not None:
            answer["availableAt"] = iso(event.available_at)
        if event.error_code is not None:
            answer["error"] = {"code": event.error_code, "message": event.error_message or ""}
        if event.artifact is not None:
            answer["artifact"] = self._artifact(event.artifact)
        if event.task is not None:
            answer |= (
                {"task": self.task(event.task)} if event.kind == Kind.RESET else {"result": self.result(event.task)}
            )
        if event.tasks is not None:
            answer["tasks"] = [self.standing(task) for task in event.tasks]
        return answer

    def _dag_event(self, event: Event, note: DagNote) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "dagId": event.task_id, "seq": event.seq, "event": event.kind, "status": note.status,
            "timestamp": iso(event.at),
        }  # fmt: skip
        error = None
        if event.error_code is not None:
            error = {"code": event.error_code, "message": event.error_message or ""}
        if event.kind == Kind.STEP:
            answer["step"] = {"stepId": note.step_id, "taskId": note.task_id, "status": note.step_status}
            if error is not None:
                answer["step"]["error"] = error
        elif error is not None:
            answer["error"] = {**error, "stepId": note.step_id or ""}
        if note.view is not None:
            answer["dag"] = dag_summary(note.view)
        return answer

    def result(self, view: TaskView) -> dict[str, Any]:
        """Return what a completed task made."""
        made = view.result or {}
        artifacts = [
            {**self._artifact(artifact), "uploadAttempts": artifact.upload_attempts} for artifact in view.artifacts
        ]
        answer: dict[str, Any] = {"url": artifacts[0]["url"] if artifacts else None}
        if made.get("text") is not None:
            answer["text"] = made["text"]
        answer |= {"artifacts": artifacts, "metadata": made.get("metadata") or {}}
        if (reused := made.get("reused")) is not None:
            answer |= {"reusedFrom": reused["from"], "saved": reused["saved"]}
        return answer

    def _artifact(self, artifact: StoredArtifact) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "url": self._base + link.sign(artifact.key, self._expires_at, self._signing_key),
            "contentType": artifact.content_type,
            "sizeBytes": artifact.size_bytes,
            "sha256": artifact.sha256,
        }
        sizes = {"width": artifact.width, "height": artifact.height, "durationS": artifact.duration_s}
        answer |= {name: value for name, value in sizes.items() if value is not None}
        return {**answer, "status": "STORED"}
