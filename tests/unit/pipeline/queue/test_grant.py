"""What waits meets who waits for it."""

from __future__ import annotations

import asyncio

import pytest
from making import ticket_of, worker
from queue_scene import W1, W2, Scene, failed, turn

from flik.domain.task import Status
from flik.pipeline.ports import Moved


async def test_a_waiting_worker_gets_what_is_announced(scene: Scene) -> None:
    call = await scene.ask()
    task = await scene.submit(payload='{"prompt": "é"}', request_id="r1", trace_id="t1")
    assert await scene.queue.granting.step()
    (grant,) = (await call).grants
    assert (grant.task_id, grant.payload, grant.attempt) == (task.task_id, '{"prompt": "é"}', 1)
    assert (grant.tenant_id, grant.task_type, grant.priority) == ("acme", "TEXT", 1)
    assert (grant.soft_timeout_s, grant.hard_timeout_s) == (1500.0, 1800.0)
    assert (grant.request_id, grant.trace_id) == ("r1", "t1")
    row = scene.row(task)
    assert (row.status, row.lease_token, row.worker) == (Status.PROCESSING, grant.lease_token, W1)
    assert not await scene.queue.granting.step()


async def test_a_grant_has_the_timeouts_of_its_type() -> None:
    async with Scene(soft_timeout_s=40.0, hard_timeout_s=50.0, type_timeouts_s={"IMAGE": (5.0, 20.0)}) as scene:
        for task_type in ("TEXT", "IMAGE"):
            await scene.submit(task_type=task_type)
        text, image = await scene.lease_one(W1), await scene.lease_one(worker("w2", "IMAGE"))
        assert (text.soft_timeout_s, text.hard_timeout_s) == (40.0, 50.0)
        assert (image.soft_timeout_s, image.hard_timeout_s) == (5.0, 20.0)


async def test_a_worker_gets_no_more_than_its_slots_and_only_its_type(scene: Scene) -> None:
    for _ in range(5):
        await scene.submit()
    assert len(await scene.lease(slots=3)) == 3
    assert await scene.lease(worker("w9", "IMAGE"), slots=3) == []
    assert len(await scene.lease(slots=3)) == 2


async def test_tasks_are_dealt_to_waiting_workers_in_turn(scene: Scene) -> None:
    calls = [await scene.ask(worker(f"w{n}"), slots=4) for n in range(3)]
    for _ in range(5):
        await scene.submit()
    await scene.queue.granting.step()
    assert [len((await call).grants) for call in calls[:2]] == [2, 2]
    assert len((await calls[2]).grants) == 1


async def test_every_grant_has_a_token_of_its_own(scene: Scene) -> None:
    for _ in range(20):
        await scene.submit()
    grants = await scene.lease(slots=20)
    assert len({grant.lease_token for grant in grants}) == 20


async def test_tasks_announced_twice_are_granted_once(scene: Scene) -> None:
    task = await scene.submit()
    await scene.queue.announce([ticket_of(task)] * 3)
    assert len(await scene.lease(slots=5)) == 1
    await scene.queue.announce([ticket_of(task)])
    assert await scene.lease(W2) == []
    assert scene.row(task).attempt == 1


async def test_a_type_that_the_queue_does_not_know_is_left_alone(scene: Scene) -> None:
    task = await scene.submit(task_type="AUDIO")
    await scene.scan()
    assert await scene.lease(worker("w1", "AUDIO")) == []
    assert scene.row(task).status is Status.QUEUED


async def test_wakes_for_a_retry_that_falls_due_and_does_not_spin_while_nobody_asks(scene: Scene) -> None:
    await scene.submit()
    await scene.settle(failed(await scene.lease_one()))
    assert scene.queue.granting.until_next_ticket() == 1.0
    scene.clock.forward(4.5)
    assert scene.queue.granting.until_next_ticket() == pytest.approx(0.5)
    scene.clock.forward(1.0)
    assert scene.queue.granting.until_next_ticket() == 1.0


async def test_a_grant_that_failed_is_made_again(scene: Scene) -> None:
    task = await scene.submit()
    scene.store.fail_before = {"grant"}
    assert await scene.lease() == []
    scene.store.fail_before = set()
    assert (await scene.lease_one()).task_id == task.task_id
    assert scene.row(task).attempt == 1


async def test_a_cancel_that_commits_before_the_grant_wins(scene: Scene) -> None:
    task = await scene.submit()
    call = await scene.ask()
    scene.store.gates_before["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.granting.step())
    await turn()
    assert await scene.queue.cancel(task.task_id) == Moved("QUEUED", True)
    gate.set()
    await granting
    assert (await call).grants == []
    assert await scene.running() == 0


async def test_a_cancel_that_commits_between_the_grant_and_its_reply_wins(scene: Scene) -> None:
    task, other = await scene.submit(), await scene.submit()
    call = await scene.ask(slots=2)
    scene.store.gates_after["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.granting.step())
    await turn()
    assert await scene.queue.cancel(task.task_id) == Moved("PROCESSING", True)
    gate.set()
    await granting
    assert [grant.task_id for grant in (await call).grants] == [other.task_id]
    assert await scene.running() == 1


async def test_a_cancel_during_a_grant_that_fails_is_not_offered_again(scene: Scene) -> None:
    task = await scene.submit()
    await scene.ask()
    scene.store.gates_before["grant"] = gate = asyncio.Event()
    scene.store.fail_before = {"grant"}
    granting = scene.start(scene.queue.granting.step())
    await turn()
    await scene.queue.cancel(task.task_id)
    gate.set()
    await granting
    assert await scene.waiting() == [0, 0, 0]
