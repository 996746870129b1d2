"""What the queue does when a dag goes on: what was released waits at once, followers are told, all is counted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from making import new_task, task_id_at, ticket_of
from queue_scene import Scene, completed, failed

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.task import Status


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as opened:
        yield opened


async def submit_chain(scene: Scene, steps: int = 3) -> NewDag:
    now = scene.clock()
    dag_id = task_id_at(now)
    chain = tuple(
        NewStep(f"s{n}", new_task(now, dag_id=dag_id, waits=n > 0), (n - 1,) if n else (), "fail") for n in range(steps)
    )
    dag = NewDag(dag_id, "acme", 1, "us-east", now, None, None, None, None, chain)
    await scene.store.dags.insert([dag])
    await scene.queue.announce([ticket_of(chain[0].task)])
    return dag


def kinds_of(scene: Scene, dag: NewDag) -> list[list[str]]:
    return [[event.kind for event in scene.feed.of(task.task_id)] for task in dag.tasks]


async def test_a_released_step_waits_for_a_worker_at_once_and_is_counted(scene: Scene) -> None:
    dag = await submit_chain(scene)
    for place in range(3):
        grant = await scene.lease_one()
        assert grant.task_id == dag.tasks[place].task_id
        await scene.settle(completed(grant))
    assert kinds_of(scene, dag) == [["queued", "processing", "completed"]] * 3
    text = await scene.queue.metrics()
    assert 'flik_tasks_submitted_total{priority="1",task_type="TEXT"} 3.0' in text
    assert 'flik_tasks_completed_total{task_type="TEXT",version="v1"} 3.0' in text


async def test_a_step_that_never_runs_is_told_and_counted(scene: Scene) -> None:
    dag = await submit_chain(scene)
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    assert kinds_of(scene, dag) == [["queued", "processing", "failed"], ["cancelled"], ["cancelled"]]
    assert 'flik_tasks_cancelled_total{task_type="TEXT"} 2.0' in await scene.queue.metrics()
    assert await scene.waiting() == [0, 0, 0]


async def test_a_resumed_step_waits_for_a_worker_at_once_and_is_counted(scene: Scene) -> None:
    dag = await submit_chain(scene, 2)
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    moved = await scene.queue.resume_dag(dag.dag_id)
    assert moved is not None
    assert moved.moved
    for _ in range(2):
        await scene.settle(completed(await scene.lease_one()))
    assert [scene.store.rows[task_id].status for task_id in scene.store.dags.dags[dag.dag_id].task_ids] == [
        Status.COMPLETED, Status.COMPLETED,
    ]  # fmt: skip
    assert 'flik_tasks_submitted_total{priority="1",task_type="TEXT"} 3.0' in await scene.queue.metrics()
