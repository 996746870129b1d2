"""The part of `FlikClient` that is about dags: chains and graphs of tasks, submitted as one.

    dag = await client.run_dag(
        [
            StepSpec("describe", "TEXT", {"prompt": "a harbour in the morning fog"}),
            StepSpec("draw", "IMAGE"),  # follows the one before, whose text is its prompt
            StepSpec("film", "VIDEO", {"prompt": {"$from": "describe"}}),
        ],
        wait=True,
    )
    dag.task("film").artifacts

`run_dag` also takes what Ray's `bind()` makes of `flik.dags.step`; Ray is imported then, not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flik.client.answers import TASK_ID, Dag, read_dag, read_dag_page
from flik.client.calls import Calls, Seen, TaskWebhook, given, timestamp
from flik.client.failures import WaitTimedOut
from flik.domain.dag.plan import StepSpec

PATH = "/api/v1/dags"


class DagCalls(Calls):
    """A caller's hand on dags."""

    async def submit_dag(
        self,
        steps: Sequence[StepSpec | Mapping[str, Any]],
        *,
        priority: int | None = None,
        region: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        webhook: TaskWebhook | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Dag:
        """Submit a dag; when this returns, all of it is safe with Flik.

        Steps are `StepSpec`s, or objects as they are sent (`taskType`, `dependsOn` ...); so is the `webhook`. Nothing
        of it starts later than `deadline_s` from now. Sent again under the same `idempotency_key` it is answered, and
        not made again; without one, each call makes a new dag, once whatever happens on the way.
        """
        body = given(
            tenantId=self.access.tenant,
            priority=priority,
            region=region,
            metadata=None if metadata is None else dict(metadata),
            deadlineS=deadline_s,
            webhook=webhook.as_json() if isinstance(webhook, TaskWebhook) else webhook,
            steps=[_wire(step) for step in steps],
        )
        answer = await self._transport.call("POST", PATH, body=body, once=True, key=idempotency_key)
        return self._as(read_dag, answer)

    async def run_dag(
        self,
        dag: Any,
        *inputs: Any,
        priority: int | None = None,
        region: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        webhook: TaskWebhook | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        wait: bool = False,
        timeout_s: float | None = None,
        on_change: Callable[[Dag], None] | None = None,
    ) -> Dag:
        """Submit a graph of Ray's (its last node, or a `MultiOutputNode`), or steps, and return the dag.

        `inputs` are for the graph's `InputNode`: one object whose fields it reads, or values that it reads by place.
        With `wait` the dag is returned when it has ended, as `wait_dag` does it.

        Raises:
            ValueError: the graph is none that Flik can run, or lacks an input.
            WaitTimedOut: after `timeout_s`; the dag goes on.
        """
        submitted = await self.submit_dag(
            _steps_of(dag, inputs),
            priority=priority,
            region=region,
            metadata=metadata,
            deadline_s=deadline_s,
            webhook=webhook,
            idempotency_key=idempotency_key,
        )
        return await self.wait_dag(submitted.dag_id, timeout_s, on_change) if wait else submitted

    async def dag(self, dag_id: str) -> Dag:
        """Return the dag as it is now, with its steps."""
        found, _ = await self._look_at_dag(dag_id)
        return found

    def dags(
        self,
        *,
        status: str | None = None,
        tenant: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Dag]:
        """Yield dags without their steps, newest first, page by page; at most `limit`."""
        filters = given(
            status=status,
            tenantId=tenant,
            createdAfter=timestamp(created_after),
            createdBefore=timestamp(created_before),
        )
        return self._items(PATH, filters, limit, read_dag_page)

    async def wait_dag(
        self, dag_id: str, timeout_s: float | None = None, on_change: Callable[[Dag], None] | None = None
    ) -> Dag:
        """Return the dag once it has ended, whatever its end.

        It is looked at after 0.1 s, then ever more seldom up to once a second, or as the gateway asks. `on_change` is
        called with the first look and with each that differs from the one before. A gateway that goes away meanwhile
        is waited for, about half a minute.

        Raises:
            WaitTimedOut: after `timeout_s`; the dag goes on.
        """
        seen = Seen(on_change)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until_end(lambda: self._look_at_dag(dag_id), seen)
        except TimeoutError:
            raise WaitTimedOut(dag_id, timeout_s or 0.0, seen.status, "dag") from None

    async def cancel_dag(self, dag_id: str) -> Dag:
        """Cancel all of the dag that has not ended; a dag that has is refused with 409."""
        return self._as(read_dag, await self._transport.call("POST", f"{_path(dag_id)}/cancel"))

    async def resume_dag(self, dag_id: str) -> Dag:
        """Run a failed dag again from where it failed: what completed is kept. Any other is refused with 409."""
        return self._as(read_dag, await self._transport.call("POST", f"{_path(dag_id)}/resume"))

    async def _look_at_dag(self, dag_id: str) -> tuple[Dag, float | None]:
        answer = await self._transport.call("GET", _path(dag_id))
        return self._as(read_dag, answer), answer.retry_after_s


def _steps_of(dag: Any, inputs: Sequence[Any]) -> Sequence[StepSpec | Mapping[str, Any]]:
    if not isinstance(dag, Sequence):
        from flik.dags import steps_of  # noqa: PLC0415  # Ray takes a second; only who built a graph with it needs it

        return steps_of(dag, *inputs)
    if inputs:
        raise ValueError("inputs are for a graph that reads them; steps have what they need in their payloads")
    return dag


def _wire(step: StepSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(step, StepSpec):
        return step
    return given(
        id=step.step_id,
        taskType=step.task_type,
        payload=dict(step.payload) or None,
        dependsOn=None if step.depends_on is None else list(step.depends_on),
        priority=step.priority,
        startDeadlineS=step.start_deadline_s,
        maxAttempts=step.max_attempts,
        onFailure=None if step.on_failure == "fail" else step.on_failure,
        reuse=step.reuse or None,
    )


def _path(dag_id: str) -> str:
    """Return the path of a dag; what could not be an id would change it."""
    if not TASK_ID.fullmatch(dag_id):
        raise ValueError(f"{dag_id!r} is not the id of a dag")
    return f"{PATH}/{dag_id}"
