"""A chain that waits costs the queue one ticket: no task of asyncio, no thread, no process."""

from __future__ import annotations

import asyncio
import threading

import psutil
import pytest
from making import new_task, task_id_at, ticket_of
from queue_scene import W1, Scene, turn

from flik.domain.dag.graph import NewDag, NewStep


async def submit_chain(scene: Scene) -> None:
    now = scene.clock()
    dag_id = task_id_at(now)
    tasks = [new_task(now, dag_id=dag_id, waits=place > 0) for place in range(3)]
    steps = tuple(NewStep(f"s{n}", task, (n - 1,) if n else (), "fail") for n, task in enumerate(tasks))
    await scene.store.dags.insert([NewDag(dag_id, "acme", 1, "us-east", now, None, None, None, None, steps)])
    await scene.queue.announce([ticket_of(tasks[0])])


async def cost_of(chains: int) -> tuple[int, int, int, int]:
    """Return how many tasks, threads, processes and tickets there are while so many chains wait.

    Of half of them the first step runs and the others wait for it, of the other half all wait.
    """
    async with Scene() as scene:
        running = asyncio.create_task(scene.queue.run())
        await turn()
        for _ in range(chains):
            await submit_chain(scene)
        asking = await scene.ask(W1, slots=chains // 2)
        async with asyncio.timeout(10):
            assert len((await asking).grants) == chains // 2
        await turn()
        found = (
            len(asyncio.all_tasks()), threading.active_count(), len(psutil.Process().children(recursive=True)),
            len(scene.queue.waiting),
        )  # fmt: skip
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return found


@pytest.mark.timeout(60)
async def test_a_thousand_chains_that_wait_take_as_many_tasks_and_processes_as_ten() -> None:
    *few, tickets_of_few = await cost_of(10)
    *many, tickets_of_many = await cost_of(1_000)
    assert many == few
    assert (tickets_of_few, tickets_of_many) == (5, 500), "of a chain its first step alone is held, until it runs"
