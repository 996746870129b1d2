"""Steps that may reuse what an earlier run made: ended without a worker, or run and remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from making import new_task, stored_file, task_id_at, ticket_of
from queue_scene import Scene, turn

from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.task import Completed, Failed, Grant, Status, Worker

W1, W2, NEWER = Worker("w1", "TEXT", "v1"), Worker("w2", "TEXT", "v1"), Worker("w3", "TEXT", "v2")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene


async def submit(scene: Scene, *prompts: str | None, reuse: bool = True, **changes: Any) -> NewDag:
    """Submit a chain of TEXT steps; one without a prompt has that of its parent's text."""
    dag_id = task_id_at(scene.clock())
    steps = tuple(
        NewStep(
            f"s{place}",
            new_task(
                scene.clock(), dag_id=dag_id, waits=place > 0, payload=json.dumps({"prompt": prompt} if prompt else {}),
                **changes,
            ),
            (place - 1,) if place else (),
            "fail",
            reuse=reuse,
        )
        for place, prompt in enumerate(prompts)
    )  # fmt: skip
    tenant = changes.get("tenant_id", "acme")
    dag = NewDag(dag_id, tenant, 1, "us-east", scene.clock(), None, None, None, None, steps)
    await scene.store.dags.insert([dag])
    await scene.queue.announce([ticket_of(dag.tasks[0])])
    return dag


def done(grant: Grant, text: str = "rain") -> Completed:
    return Completed(grant.task_id, grant.lease_token, text, {"seed": 7}, (stored_file(),))


async def run(scene: Scene, who: Worker = W1, text: str = "rain") -> Grant | None:
    """Lease what can be had and complete it; None when nothing reached the worker."""
    grants = await scene.lease(who)
    await scene.settle_all()
    await turn()
    scene.clock.forward(4.0)
    if not grants:
        return None
    assert await scene.settle(done(grants[0], text)) == [True]
    return grants[0]


def row(scene: Scene, dag: NewDag, place: int = 0) -> Any:
    return scene.store.rows[dag.tasks[place].task_id]


async def test_the_same_step_is_not_run_again(scene: Scene) -> None:
    first = await submit(scene, "rain")
    assert await run(scene) is not None
    again = await submit(scene, "rain")
    assert await run(scene, W2) is None
    ended = row(scene, again)
    assert (ended.status, ended.artifacts) == (Status.COMPLETED, row(scene, first).artifacts)
    result = json.loads(ended.result)
    assert (result["text"], result["reused"]["from"]) == ("rain", first.tasks[0].task_id)
    assert result["reused"]["saved"] == {"seconds": 4.0, "usd": "0.001"}


async def test_what_is_reused_leads_to_where_it_was_made(scene: Scene) -> None:
    first = await submit(scene, "rain")
    await run(scene)
    for _ in range(2):
        again = await submit(scene, "rain")
        await run(scene)
        assert json.loads(row(scene, again).result)["reused"]["from"] == first.tasks[0].task_id


async def test_a_chain_goes_on_from_what_is_reused(scene: Scene) -> None:
    await submit(scene, "rain", None)
    await run(scene, text="a grey day")
    await run(scene, text="a film of it")
    again = await submit(scene, "rain", None)
    assert [await run(scene), await run(scene)] == [None, None]
    assert scene.store.dags.dags[again.dag_id].status == "COMPLETED"
    other = await submit(scene, "rain", "snow")
    assert await run(scene) is None
    assert await run(scene) is not None, "its prompt is another"
    assert row(scene, other, 1).status is Status.COMPLETED


async def test_another_version_another_tenant_or_another_prompt_runs(scene: Scene) -> None:
    await submit(scene, "rain")
    await run(scene)
    await submit(scene, "rain")
    assert await run(scene, NEWER) is not None
    await submit(scene, "rain", tenant_id="globex")
    assert await run(scene) is not None
    await submit(scene, "snow")
    assert await run(scene) is not None


async def test_who_does_not_ask_for_it_gets_a_run_of_their_own_and_is_not_remembered(scene: Scene) -> None:
    await submit(scene, "rain", reuse=False)
    assert await run(scene) is not None
    await submit(scene, "rain")
    assert await run(scene) is not None
    await submit(scene, "rain", reuse=False)
    assert await run(scene) is not None


async def test_without_the_table_of_memos_steps_run(scene: Scene) -> None:
    await submit(scene, "rain")
    scene.store.fail_before = {"remember"}
    assert await run(scene) is not None
    scene.store.fail_before = {"find_made"}
    await submit(scene, "rain")
    assert await run(scene) is not None


async def test_a_step_that_cannot_run_is_left_to_its_worker(scene: Scene) -> None:
    dag = await submit(scene, "rain")
    broken = scene.store.rows[dag.tasks[0].task_id]
    broken.task = broken.task._replace(payload='{"prompt": "rain", "maxWords": -1}')
    grant = await run(scene)
    assert grant is not None
    assert grant.task_id == dag.tasks[0].task_id
    assert not scene.store.memos


# ---- what was found reaches no worker, so its attempt cannot be lost


async def test_what_was_found_is_taken_back_uncounted_when_it_could_not_be_stored(scene: Scene) -> None:
    await submit(scene, "rain")
    await run(scene)
    again = await submit(scene, "rain", max_attempts=1)
    scene.store.fail_before = {"settle", "dags_of"}
    assert await scene.lease(W2) == []
    await scene.settle_all()
    assert row(scene, again).status is Status.PROCESSING
    await scene.reap(3.1)  # its lease lapses while PostgreSQL is away, and lapses again
    await scene.reap(2000.0)  # beyond the hard timeout, too
    scene.store.fail_before = set()
    await scene.reap()
    assert (row(scene, again).status, row(scene, again).attempt) == (Status.QUEUED, 0)
    assert await run(scene, W2) is None
    ended = row(scene, again)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 1)
    assert [outcome for _, outcome in ended.closed] == ["HANDED_BACK", "COMPLETED"]


@pytest.mark.parametrize("dies", ["before it is looked up", "before it is settled"])
async def test_a_queue_that_restarts_ends_what_the_one_before_had_found(scene: Scene, dies: str) -> None:
    await submit(scene, "rain", None)
    await run(scene, text="a grey day")
    await run(scene, text="a film of it")
    again = await submit(scene, "rain", None, max_attempts=1)
    assert await run(scene) is None
    gate = scene.store.gates_before["find_made" if dies == "before it is looked up" else "settle"] = asyncio.Event()
    await scene.ask(W2)
    dying = asyncio.ensure_future(scene.queue.granting.step())
    await turn()
    dying.cancel()
    scene.store.gates_before.clear()
    await scene.restart()
    gate.set()
    await scene.settle_all()
    ended = row(scene, again, 1)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 1)
    assert json.loads(ended.result)["text"] == "a film of it"
    assert scene.store.dags.dags[again.dag_id].status == "COMPLETED"
    await scene.reap(10.0)
    assert [outcome for _, outcome in ended.closed] == ["COMPLETED"]


async def test_a_running_step_of_a_queue_that_restarts_goes_on_when_nothing_is_found(scene: Scene) -> None:
    dag = await submit(scene, "rain")
    (grant,) = await scene.lease(W1)
    await scene.restart()
    assert (await scene.beat(W1, grant)).revoked == []
    assert await scene.settle(done(grant)) == [True]
    assert row(scene, dag).status is Status.COMPLETED


# ---- what was remembered is not there any more


async def test_a_file_that_is_gone_is_made_anew_when_its_dag_is_resumed_and_for_all_who_reuse_it_later(
    scene: Scene,
) -> None:
    first = await submit(scene, "rain", None)
    await run(scene, text="a grey day")
    await run(scene, text="a film of it")
    again = await submit(scene, "rain", "of it")
    assert await run(scene) is None
    (grant,) = await scene.lease(W1)
    await scene.settle(Failed(grant.task_id, grant.lease_token, "input_gone", "resume it", retryable=False))
    assert scene.store.dags.dags[again.dag_id].status == "FAILED"

    await scene.queue.resume_dag(again.dag_id)
    anew = await run(scene)
    assert anew is not None, "what is gone is not reused"
    assert await run(scene) is not None
    dag = scene.store.dags.dags[again.dag_id]
    assert (dag.status, dag.task_ids[0]) == ("COMPLETED", anew.task_id)
    later = await submit(scene, "rain")
    assert await run(scene) is None
    assert json.loads(row(scene, later).result)["reused"]["from"] == anew.task_id != first.tasks[0].task_id


async def test_other_failures_leave_what_is_remembered(scene: Scene) -> None:
    await submit(scene, "rain")
    await run(scene)
    await submit(scene, "rain", "of it")
    await run(scene)
    (grant,) = await scene.lease(W1)
    await scene.settle(Failed(grant.task_id, grant.lease_token, "input_unusable", "", retryable=False))
    await submit(scene, "rain")
    assert await run(scene) is None


async def test_a_step_that_ran_is_remembered_in_the_place_of_what_cannot_be_found_any_more(scene: Scene) -> None:
    await submit(scene, "rain")
    await run(scene)
    (place,) = scene.store.memos
    scene.store.memos[place] = task_id_at(scene.clock())  # of a task that is gone
    second = await submit(scene, "rain")
    assert await run(scene) is not None
    assert scene.store.memos == {place: second.tasks[0].task_id}
