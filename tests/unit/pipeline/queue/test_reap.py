"""What is put right: silent workers, timeouts, deadlines, grants that reached nobody."""

from __future__ import annotations

import asyncio

import pytest
from making import worker
from queue_scene import W1, W2, Scene, completed, failed, handed_back, turn

from flik.domain.task import Status
from flik.pipeline.queue import reap

W3 = worker("w3", "IMAGE")


async def test_a_task_whose_start_deadline_passed_is_not_granted_and_expires(scene: Scene) -> None:
    task = await scene.submit(start_deadline_at=scene.clock() + 10)
    in_time = await scene.submit(start_deadline_at=scene.clock() + 10.001)
    scene.clock.forward(10)
    (grant,) = await scene.lease(slots=5)
    assert grant.task_id == in_time.task_id
    await scene.sweep()
    assert scene.row(task).status is Status.EXPIRED
    assert scene.row(in_time).status is Status.PROCESSING


async def test_a_start_deadline_counts_until_the_first_start_only(scene: Scene) -> None:
    task = await scene.submit(start_deadline_at=scene.clock() + 10)
    await scene.lease_one()
    await scene.reap(after_s=20.0)  # its worker fell silent
    await scene.sweep()
    assert scene.row(task).status is Status.QUEUED
    second = await scene.lease_one(W2)
    assert second.attempt == 2
    assert await scene.settle(handed_back(second)) == [True]
    await scene.sweep(after_s=1.0)
    third = await scene.lease_one()
    assert await scene.settle(completed(third)) == [True]
    assert scene.row(task).status is Status.COMPLETED


async def test_what_expires_leaves_the_queue(scene: Scene) -> None:
    await scene.submit(start_deadline_at=scene.clock() + 10)
    assert await scene.waiting() == [0, 1, 0]
    await scene.sweep(after_s=10)
    assert await scene.waiting() == [0, 0, 0]


async def test_a_grant_whose_reply_was_lost_is_freed_and_not_counted(scene: Scene) -> None:
    task = await scene.submit()
    scene.store.fail_after = {"grant"}
    assert await scene.lease() == []
    scene.store.fail_after = set()
    assert scene.row(task).status is Status.PROCESSING
    assert await scene.lease() == []  # it is not to be had
    await scene.sweep()
    grant = await scene.lease_one()
    assert (grant.task_id, grant.attempt) == (task.task_id, 1)
    assert [outcome for _, outcome in scene.row(task).closed] == ["HANDED_BACK"]


async def test_a_grant_in_the_making_is_no_orphan(scene: Scene) -> None:
    await scene.submit()
    call = await scene.ask()
    scene.store.gates_after["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.granting.step())
    await turn()
    await scene.sweep(after_s=2.0)
    await scene.sweep(after_s=2.0)
    await scene.sweep(after_s=2.0)
    gate.set()
    await granting
    (grant,) = (await call).grants
    assert await scene.settle(completed(grant)) == [True]


async def test_a_grant_that_commits_after_its_queue_died_is_found_by_the_next_one(scene: Scene) -> None:
    task = await scene.submit()
    await scene.ask()
    scene.store.gates_before["grant"] = gate = asyncio.Event()
    granting = asyncio.create_task(scene.queue.granting.step())
    await turn()
    await scene.restart()
    await scene.sweep()
    gate.set()
    await granting
    assert scene.row(task).status is Status.PROCESSING
    await scene.sweep(after_s=reap.LOOK_S)
    grant = await scene.lease_one()
    assert (grant.task_id, grant.attempt) == (task.task_id, 1)


async def test_a_sweep_while_postgresql_is_away_forgets_nothing(scene: Scene) -> None:
    task = await scene.submit()
    scene.store.fail_after = {"grant"}
    await scene.lease()
    scene.store.fail_after = set()
    for call in ("expire", "running", "settle"):
        scene.store.fail_before = {call}
        await scene.sweep(after_s=1.0)
        assert scene.row(task).status is Status.PROCESSING
    scene.store.fail_before = set()
    await scene.sweep(after_s=1.0)
    assert scene.row(task).status is Status.QUEUED


async def test_a_worker_that_beats_keeps_its_tasks(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    for _ in range(20):
        scene.clock.forward(1.0)
        assert (await scene.beat(W1, grant)).revoked == []
        await scene.reap()
    assert scene.row(grant).status is Status.PROCESSING
    assert scene.hot.progress == {grant.task_id: 0.5}


async def test_a_lost_worker_s_task_is_queued_again_and_counted(scene: Scene) -> None:
    task = await scene.submit()
    first = await scene.lease_one()
    await scene.reap(after_s=2.999)
    assert scene.row(task).status is Status.PROCESSING
    await scene.reap(after_s=0.001)
    assert (scene.row(task).status, scene.row(task).error_code) == (Status.QUEUED, "worker_lost")
    second = await scene.lease_one(W2)
    assert second.attempt == 2
    assert (await scene.beat(W1, first)).revoked == [task.task_id]
    assert await scene.settle(completed(first)) == [False]
    assert await scene.settle(completed(second)) == [True]


async def test_a_task_that_loses_every_worker_fails_for_good(scene: Scene) -> None:
    task = await scene.submit()
    for _ in range(4):
        await scene.lease_one()
        await scene.reap(after_s=3.0)
    assert (scene.row(task).status, scene.row(task).attempt) == (Status.FAILED, 4)
    assert [outcome for _, outcome in scene.row(task).closed] == ["LOST"] * 4


async def test_a_lost_worker_is_noted_when_postgresql_is_back(scene: Scene) -> None:
    task = await scene.submit()
    await scene.lease_one()
    scene.store.fail_before = {"settle"}
    await scene.reap(after_s=3.0)
    await scene.reap(after_s=1.0)
    scene.store.fail_before = set()
    await scene.reap(after_s=1.0)
    assert [outcome for _, outcome in scene.row(task).closed] == ["LOST"]
    assert scene.row(task).status is Status.QUEUED


async def test_a_failure_of_the_last_attempt_never_waits_for_an_attempt_that_may_not_be(scene: Scene) -> None:
    task = await scene.submit()
    for _ in range(3):
        await scene.lease_one()
        await scene.reap(after_s=3.0)
    grant = await scene.lease_one()
    scene.clock.forward(3.0)
    scene.queue.reaping.reap(scene.clock())  # the lease is gone, the row still has the token
    await turn()
    scene.queue.settling.gathered.clear()
    await scene.settle(failed(grant))
    assert scene.row(task).status is Status.FAILED


async def test_an_attempt_beyond_the_hard_timeout_fails_for_good(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    for _ in range(1799):
        scene.clock.forward(1.0)
        await scene.beat(W1, grant)
    await scene.reap()
    assert scene.row(task).status is Status.PROCESSING
    await scene.reap(after_s=1.0)
    assert (scene.row(task).status, scene.row(task).error_code) == (Status.FAILED, "run_timeout")
    assert [outcome for _, outcome in scene.row(task).closed] == ["TIMED_OUT"]
    assert (await scene.beat(W1, grant)).revoked == [task.task_id]


@pytest.mark.parametrize("restarted", [False, True], ids=["", "by the next queue"])
async def test_an_attempt_is_ended_at_the_hard_timeout_of_its_type(*, restarted: bool) -> None:
    async with Scene(hard_timeout_s=50.0, type_timeouts_s={"IMAGE": (5.0, 20.0)}) as scene:
        text, image = await scene.submit(), await scene.submit(task_type="IMAGE")
        grants = {W1: await scene.lease_one(W1), W3: await scene.lease_one(W3)}
        if restarted:
            await scene.restart()
        ended: dict[str, int] = {}
        for second in range(60):
            for who, grant in grants.items():
                await scene.beat(who, grant)
            await scene.reap()
            for task in (text, image):
                if scene.row(task).status is Status.FAILED:
                    ended.setdefault(task.task_type, second)
            scene.clock.forward(1.0)
        assert ended == {"IMAGE": 20, "TEXT": 50}
        assert "hard timeout of 20 s" in (scene.row(image).error_message or "")


async def test_a_timed_out_attempt_fails_also_when_postgresql_was_away(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.clock.forward(1800.0)
    await scene.beat(W1, grant)
    scene.store.fail_before = {"settle"}
    await scene.reap()
    scene.store.fail_before = set()
    await scene.reap(after_s=0.25)
    assert scene.row(task).status is Status.FAILED
