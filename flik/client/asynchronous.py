"""`FlikClient`: Flik's HTTP face as async methods.

Reads, and refusals that say when to come back, are tried up to four times with growing
pauses (`flik.client.patience`). A submit goes with an idempotency key of its own, so it is tried
again whatever happened on the way, and nothing is made twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flik.client.answers import (
    TASK_ID,
    Artifact,
    Event,
    Health,
    Replayed,
    Submitted,
    Task,
    read_health,
    read_page,
    read_replayed,
    read_submitted,
    read_task,
)
from flik.client.calls import Seen, TaskWebhook, given, timestamp
from flik.client.dags import DagCalls
from flik.client.downloads import download
from flik.client.failures import FlikApiError, WaitTimedOut
from flik.client.following import Place, StreamPlace, follow
from flik.client.transport import field_errors

MAX_BATCH = 1000
LONGEST_HELD_S = 20  # below the timeout of a try

_NO_EVENTS = frozenset({404, 405, 406, 429, 501})


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One task to submit.

    `start_deadline_s`: it expires if it never started by then. `max_attempts`: how often it is tried (1 to 20).
    """

    task_type: str
    payload: Mapping[str, Any]
    priority: int = 1
    region: str | None = None
    start_deadline_s: float | None = None
    webhook: TaskWebhook | None = None
    max_attempts: int | None = None


class FlikClient(DagCalls):
    """A caller's hand on one gateway; an async context manager.

    What is not given comes from `FLIK_URL`, `FLIK_API_KEY`, `FLIK_TENANT` and defaults
    (`flik.client.access`). `timeout_s` bounds each try, not the wait for a task.

    Every method raises `FlikApiError` when the gateway refuses, `FlikUnreachable` when no
    answer comes, `UnreadableAnswer` when it is not Flik's, and `ValueError` for arguments
    that cannot be sent. Those for dags are in `flik.client.dags`.
    """

    async def submit(
        self,
        task_type: str,
        payload: Mapping[str, Any],
        *,
        priority: int = 1,
        region: str | None = None,
        start_deadline_s: float | None = None,
        webhook: TaskWebhook | None = None,
        max_attempts: int | None = None,
    ) -> Submitted:
        """Submit one task; when this returns, the task is safe with Flik."""
        request = TaskRequest(task_type, payload, priority, region, start_deadline_s, webhook, max_attempts)
        answer = await self._transport.call("POST", "/api/v1/tasks", body=self._wire(request), once=True)
        return self._as(read_submitted, answer)

    async def submit_many(self, requests: Sequence[TaskRequest]) -> tuple[Submitted | FlikApiError, ...]:
        """Submit up to 1000 tasks in one call. The answers are in order; a refused task is its error."""
        if not 1 <= len(requests) <= MAX_BATCH:
            raise ValueError(f"a batch holds 1 to {MAX_BATCH} tasks, not {len(requests)}")
        body = {"tasks": [self._wire(request) for request in requests]}
        answer = await self._transport.call("POST", "/api/v1/tasks:batch", body=body, once=True)
        outcomes = self._as(_read_batch, answer)
        if len(outcomes) != len(requests):
            raise self._unreadable(f"{len(outcomes)} answers to {len(requests)} tasks")
        return outcomes

    async def get(self, task_id: str) -> Task:
        """Return the task as it is now."""
        task, _ = await self._look(task_id)
        return task

    def list(
        self,
        *,
        status: str | None = None,
        task_type: str | None = None,
        priority: int | None = None,
        tenant: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Task]:
        """Yield tasks, newest first, page by page; at most `limit`. Without `tenant`: all the key may see."""
        filters = _filters(task_type, tenant, created_after, created_before, status=status, priority=priority)
        return self._items("/api/v1/tasks", filters, limit, read_page)

    def dead_letters(
        self,
        *,
        task_type: str | None = None,
        priority: int | None = None,
        tenant: str | None = None,
        error_code: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Task]:
        """Yield tasks that failed for good, newest first, page by page; at most `limit`."""
        filters = _filters(task_type, tenant, created_after, created_before, priority=priority, errorCode=error_code)
        return self._items("/api/v1/dead-letters", filters, limit, read_page)

    async def wait(
        self,
        task_id: str,
        timeout_s: float | None = None,
        on_change: Callable[[Task], None] | None = None,
    ) -> Task:
        """Return the task once it has ended, whatever its end.

        The gateway is asked to answer when it has (`Prefer: wait`), or with `on_change`, followed by its
        events; one that can neither is looked at after 0.1 s, then ever more seldom up to once a
        second, or as it asks. `on_change` is called with the first look and with each that differs from the
        one before. A gateway that goes away meanwhile is waited for, about half a minute.

        Raises:
            WaitTimedOut: after `timeout_s`; the task goes on.
        """
        seen = Seen(on_change)
        try:
            async with asyncio.timeout(timeout_s):
                watched = None if on_change is None else await self._watch(task_id, seen)
                return watched or await self._until_end(lambda: self._look(task_id, wait_s=LONGEST_HELD_S), seen)
        except TimeoutError:
            raise WaitTimedOut(task_id, timeout_s or 0.0, seen.status) from None

    def events(self, task_id: str, since: int = 0, *, chunks: bool = False) -> AsyncIterator[Event]:
        """Yield what happens to the task, after the event number `since`, as it happens, up to its end.

        With `chunks` its text comes too, as it is written; after a `restart` the chunks so far do not hold. A
        connection that breaks is made again where it broke, so no numbered event and no chunk is missing or comes
        twice; a gateway that goes away meanwhile is waited for, about half a minute.
        """
        place = Place(_checked(task_id), since, chunks=chunks)
        return follow(self._transport, self.access.base_url, place, self._sleep)

    def stream(self, key: str, payload: Mapping[str, Any] | None = None) -> AsyncIterator[Event]:
        """Yield what happens to the stream of this name, from its beginning, with its text chunk by chunk.

        When there is none, it is started with `payload`, that of a TEXT task, once however many callers ask at one
        moment; without a payload it is refused with 404.
        """
        place = StreamPlace(quote(key, safe=""), self.access.tenant, payload)
        return follow(self._transport, self.access.base_url, place, self._sleep)

    async def cancel(self, task_id: str) -> Task:
        """Cancel the task; a finished one is refused with 409."""
        return await self._act(f"/api/v1/tasks/{_checked(task_id)}/cancel")

    async def retry(self, task_id: str) -> Task:
        """Queue a failed task again; any other is refused with 409."""
        return await self._act(f"/api/v1/tasks/{_checked(task_id)}/retry")

    async def replay(self, task_id: str) -> Task:
        """Take one task out of the dead letters and queue it again."""
        return await self._act(f"/api/v1/dead-letters/{_checked(task_id)}/replay")

    async def replay_many(
        self,
        *,
        task_type: str | None = None,
        tenant: str | None = None,
        error_code: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> Replayed:
        """Queue dead letters that match again (without a filter: any), the oldest first.

        At most `limit`, by default 1,000, and no more than the tenant's rate and the queue allow; the answer says
        whether more match.
        """
        filters = _filters(task_type, tenant, created_after, created_before, errorCode=error_code)
        body = filters or {"all": True}
        if limit is not None:
            body["limit"] = limit
        answer = await self._transport.call("POST", "/api/v1/dead-letters:replay", body=body)
        return self._as(read_replayed, answer)

    async def download(self, artifact: Artifact, path: Path | str) -> Path:
        """Fetch an artifact into `path`, checked against its size and SHA-256, whole or not at all.

        Raises:
            DownloadRefused: it did not arrive as announced; nothing was left on disk.
        """
        return await download(self._transport, artifact, Path(path))

    async def health(self) -> Health:
        """Return what the gateway says of itself; being DOWN is an answer, not an error."""
        return self._as(read_health, await self._transport.call("GET", "/health", also_good=(503,)))

    async def _watch(self, task_id: str, seen: Seen[Task]) -> Task | None:
        """Follow the task's events to its end; None when the gateway has none to offer."""
        task, _ = await self._look(task_id)
        seen.update(task)
        if task.is_terminal:
            return task
        try:
            async for event in self.events(task_id):
                if event.kind == "progress":
                    raw = {**task.raw, "progress": event.progress}
                    seen.update(replace(task, progress=event.progress, raw=raw))
                elif (event.status, event.attempt or task.attempt) != (task.status, task.attempt):
                    task, _ = await self._look(task_id)
                    seen.update(task)
                if task.is_terminal:
                    return task
        except FlikApiError as error:
            if error.status not in _NO_EVENTS:
                raise
        return None

    async def _look(self, task_id: str, wait_s: int = 0) -> tuple[Task, float | None]:
        answer = await self._transport.call("GET", f"/api/v1/tasks/{_checked(task_id)}", wait_s=wait_s)
        return self._as(read_task, answer), answer.retry_after_s

    async def _act(self, path: str) -> Task:
        return self._as(read_task, await self._transport.call("POST", path))

    def _wire(self, request: TaskRequest) -> dict[str, Any]:
        return given(
            tenantId=self.access.tenant,
            taskType=request.task_type,
            priority=request.priority,
            payload=dict(request.payload),
            region=request.region,
            startDeadlineS=request.start_deadline_s,
            maxAttempts=request.max_attempts,
            webhook=request.webhook and request.webhook.as_json(),
        )


def _checked(task_id: str) -> str:
    """Refuse what could not be an id: it would change the path of the call."""
    if not TASK_ID.fullmatch(task_id):
        raise ValueError(f"{task_id!r} is not a task id")
    return task_id


def _filters(
    task_type: str | None,
    tenant: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    **others: Any,
) -> dict[str, Any]:
    return given(
        taskType=task_type,
        tenantId=tenant,
        createdAfter=timestamp(created_after),
        createdBefore=timestamp(created_before),
        **others,
    )


def _read_batch(raw: Any) -> tuple[Submitted | FlikApiError, ...]:
    items = raw.get("items") if isinstance(raw, Mapping) else None
    if not isinstance(items, list):
        raise ValueError("`items` is not a list")
    return tuple(_read_batch_item(item) for item in items)


def _read_batch_item(item: Any) -> Submitted | FlikApiError:
    if not isinstance(item, Mapping):
        raise ValueError("an item is not a JSON object")
    if isinstance(item.get("task"), Mapping):
        return read_submitted(item["task"])
    problem = item["problem"] if isinstance(item.get("problem"), Mapping) else {}
    status = item.get("status")
    return FlikApiError(
        status if isinstance(status, int) else 500,
        str(problem.get("code") or "unknown"),
        str(problem.get("detail") or problem.get("title") or "refused without a reason"),
        field_errors(problem),
    )
