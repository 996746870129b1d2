"""The queue as its callers see it, on a store in memory and a clock of the test's own, one step at a time."""

from __future__ import annotations

import asyncio

import pytest
from making import new_task
from queue_scene import W1, W2, Scene, completed, failed, turn

from flik.domain.task import NewTask, Status
from flik.errors import Unavailable
from flik.pipeline.ports import Moved
from flik.pipeline.queue import loops

# ---- cancelling


async def test_a_waiting_task_is_cancelled_and_never_granted(scene: Scene) -> None:
    task = await scene.submit()
    assert await scene.queue.cancel(task.task_id) == Moved("QUEUED", True)
    assert await scene.waiting() == [0, 0, 0]
    assert await scene.lease() == []
    assert await scene.queue.cancel(task.task_id) == Moved("CANCELLED", False)


async def test_cancelling_what_is_unknown_or_finished_changes_nothing(scene: Scene) -> None:
    assert await scene.queue.cancel(new_task().task_id) is None
    task = await scene.submit()
    await scene.settle(completed(await scene.lease_one()))
    assert await scene.queue.cancel(task.task_id) == Moved("COMPLETED", False)
    assert scene.row(task).status is Status.COMPLETED


async def test_the_worker_of_a_cancelled_task_is_told_at_its_next_beat(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    assert (await scene.beat(W1, grant)).revoked == []
    assert await scene.queue.cancel(task.task_id) == Moved("PROCESSING", True)
    assert (await scene.beat(W1, grant)).revoked == [task.task_id]
    assert await scene.settle(completed(grant)) == [False]
    assert scene.row(task).status is Status.CANCELLED


async def test_cancelling_a_task_that_waits_for_its_retry_takes_it_out(scene: Scene) -> None:
    task = await scene.submit()
    await scene.settle(failed(await scene.lease_one()))
    assert await scene.queue.cancel(task.task_id) == Moved("QUEUED", True)
    scene.clock.forward(60)
    assert await scene.lease() == []


async def test_a_cancel_while_postgresql_is_away_is_reported_and_may_be_repeated(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.store.fail_after = {"cancel"}
    with pytest.raises(Unavailable):
        await scene.queue.cancel(task.task_id)
    scene.store.fail_after = set()
    assert await scene.settle(completed(grant)) == [False]
    assert await scene.queue.cancel(task.task_id) == Moved("CANCELLED", False)


# ---- retrying by hand


async def test_a_failed_task_gets_another_round(scene: Scene) -> None:
    task = await scene.submit(start_deadline_at=scene.clock() + 10)
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    scene.clock.forward(100)
    assert await scene.queue.retry(task.task_id) == Moved("FAILED", True)
    for attempt, delay_s in zip((2, 3, 4), (5.0, 15.0, 60.0), strict=True):
        grant = await scene.lease_one()
        assert grant.attempt == attempt
        await scene.settle(failed(grant))
        scene.clock.forward(delay_s)
    grant = await scene.lease_one()
    assert await scene.settle(completed(grant)) == [True]
    assert (scene.row(task).attempt, scene.row(task).max_attempts) == (5, 5)


async def test_only_a_failed_task_can_be_retried(scene: Scene) -> None:
    task = await scene.submit()
    assert await scene.queue.retry(task.task_id) == Moved("QUEUED", False)
    assert await scene.queue.retry(new_task().task_id) is None
    assert await scene.waiting() == [0, 1, 0]


async def test_replay_queues_the_dead_letters_that_are_named(scene: Scene) -> None:
    tasks = [await scene.submit() for _ in range(4)]
    for _ in tasks:
        await scene.settle(failed(await scene.lease_one(), retryable=False))
    assert await scene.queue.replay([tasks[0].task_id, tasks[1].task_id, new_task().task_id]) == 2
    assert [scene.row(task).status.value for task in tasks] == ["QUEUED", "QUEUED", "FAILED", "FAILED"]
    assert len(await scene.lease(slots=5)) == 2


@pytest.mark.parametrize("call", ["retry", "replay"])
async def test_a_retry_whose_reply_was_lost_is_found_by_the_scan(scene: Scene, call: str) -> None:
    task = await scene.submit()
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    scene.store.fail_after = {call}
    with pytest.raises(Unavailable):
        await (scene.queue.retry(task.task_id) if call == "retry" else scene.queue.replay([task.task_id]))
    scene.store.fail_after = set()
    await scene.scan()
    assert (await scene.lease_one()).task_id == task.task_id


# ---- starting again


async def test_a_new_queue_learns_what_waits_and_what_runs(scene: Scene) -> None:
    waiting = [await scene.submit(priority=priority) for priority in (0, 1, 2)]
    grant = await scene.lease_one()
    await scene.restart()
    assert await scene.waiting() == [0, 1, 1]
    assert await scene.running() == 1
    assert (await scene.beat(W1, grant)).revoked == []
    assert await scene.settle(completed(grant)) == [True]
    assert [g.task_id for g in await scene.lease(slots=5)] == [task.task_id for task in waiting[1:]]


async def test_a_new_queue_keeps_a_retry_s_time(scene: Scene) -> None:
    await scene.submit()
    await scene.settle(failed(await scene.lease_one()))
    await scene.restart()
    scene.clock.forward(4.999)
    assert await scene.lease() == []
    scene.clock.forward(0.001)
    assert len(await scene.lease()) == 1


async def test_a_new_queue_gives_running_attempts_a_longer_first_lease(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    scene.clock.forward(100)
    await scene.restart()
    await scene.reap(after_s=4.4)
    assert scene.row(grant).status is Status.PROCESSING
    await scene.reap(after_s=0.2)
    assert scene.row(grant).status is Status.QUEUED


async def test_a_new_queue_still_knows_the_hard_timeout(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    scene.clock.forward(1799.0)
    await scene.restart()
    await scene.reap(after_s=1.0)
    assert scene.row(grant).error_code == "run_timeout"


@pytest.mark.parametrize("call", ["running", "backlogs", "pages"])
async def test_rebuilding_while_postgresql_is_away_may_be_repeated(scene: Scene, call: str) -> None:
    task = await scene.submit()
    scene.queue = scene._queue()
    scene.store.fail_before = {call}
    with pytest.raises(Unavailable):
        await scene.queue.rebuild()
    assert not (await scene.queue.stats())["ready"]
    scene.store.fail_before = set()
    await scene.queue.rebuild()
    assert (await scene.queue.stats())["ready"]
    assert (await scene.lease_one()).task_id == task.task_id


async def test_beats_and_outcomes_wait_until_the_queue_knows_what_runs(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    scene.queue = scene._queue()
    beat, settling = scene.start(scene.beat(W1, grant)), scene.start(scene.queue.settle([completed(grant)]))
    await turn()
    assert not beat.done()
    assert not settling.done()
    await scene.queue.rebuild()
    assert (await beat).revoked == []
    await scene.settle_all()
    assert await settling == [True]


# ---- draining


async def test_draining_answers_who_waits_grants_nothing_more_and_lets_the_rest_finish(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one(W1)
    call = await scene.ask(W2)
    assert await scene.queue.drain() == 1
    assert (await call).draining
    task = await scene.submit()
    assert (await scene.queue.lease(W2, 1, 60.0)).draining
    assert not await scene.queue.granting.step()
    assert (await scene.beat(W1, grant)).draining
    assert await scene.settle(completed(grant)) == [True]
    assert await scene.queue.drain() == 0
    assert scene.row(task).status is Status.QUEUED


# ---- what it tells


async def test_metrics_tell_what_happened(scene: Scene) -> None:
    tasks: list[NewTask] = [await scene.submit() for _ in range(5)]
    await scene.settle(completed(await scene.lease_one()))
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    await scene.queue.cancel(tasks[2].task_id)
    grant = await scene.lease_one()
    await scene.settle(completed(grant._replace(lease_token="0")))
    text = await scene.queue.metrics()
    for line in (
        'flik_tasks_submitted_total{priority="1",task_type="TEXT"} 5.0',
        'flik_tasks_completed_total{task_type="TEXT",version="v1"} 1.0',
        'flik_tasks_failed_total{error_code="overloaded",task_type="TEXT"} 1.0',
        'flik_tasks_cancelled_total{task_type="TEXT"} 1.0',
        'flik_attempts_total{attempt="1",outcome="COMPLETED",task_type="TEXT"} 1.0',
        'flik_stale_settlements_total{task_type=""} 1.0',
        'flik_queue_depth{priority="1",task_type="TEXT"} 1.0',
        'flik_tasks_running{task_type="TEXT"} 1.0',
    ):
        assert line in text


# ---- the loops


async def test_the_loops_carry_a_task_from_announcement_to_completion() -> None:
    scene = Scene()
    running = asyncio.create_task(scene.queue.run())
    call = asyncio.create_task(scene.queue.lease(W1, 1, 5.0))
    task = await scene.submit()
    (grant,) = (await call).grants
    assert await scene.queue.settle([completed(grant)]) == [True]
    assert scene.row(task).status is Status.COMPLETED
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_queue_starts_as_soon_as_postgresql_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "PAUSE_S", 0.0)
    scene = Scene()
    scene.store.fail_before = {"*"}
    running = asyncio.create_task(scene.queue.run())
    await turn()
    assert not running.done()
    scene.store.fail_before = set()
    await turn()
    assert (await scene.queue.stats())["ready"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_loop_that_breaks_takes_the_queue_down(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(scene.store, "grant", broken)
    await scene.submit()
    running = asyncio.create_task(scene.queue.run())
    call = scene.start(scene.queue.lease(W1, 1, 60.0))
    with pytest.raises(ExceptionGroup):
        await running
    call.cancel()
