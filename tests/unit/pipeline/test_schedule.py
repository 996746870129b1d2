"""The queue, on a store in memory and a clock of the test's own, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from making import new_task, stored_file, ticket_of, worker
from queue_scene import W1, W2, Scene, completed, failed, handed_back, turn

from flik.domain.task import Completed, Failed, NewTask, Status, TaskFilter
from flik.errors import Unavailable
from flik.pipeline import schedule
from flik.pipeline.ports import Moved


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(schedule, "_PAUSE_S", 0.0)
    async with Scene() as scene:
        yield scene


# ---- granting


async def test_a_waiting_worker_gets_what_is_announced(scene: Scene) -> None:
    call = await scene.ask()
    task = await scene.submit(payload='{"prompt": "é"}', request_id="r1", trace_id="t1")
    assert await scene.queue.grant_step()
    (grant,) = (await call).grants
    assert (grant.task_id, grant.payload, grant.attempt) == (task.task_id, '{"prompt": "é"}', 1)
    assert (grant.tenant_id, grant.task_type, grant.priority) == ("acme", "TEXT", 1)
    assert (grant.soft_timeout_s, grant.hard_timeout_s) == (1500.0, 1800.0)
    assert (grant.request_id, grant.trace_id) == ("r1", "t1")
    row = scene.row(task)
    assert (row.status, row.lease_token, row.worker) == (Status.PROCESSING, grant.lease_token, W1)
    assert not await scene.queue.grant_step()


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
    await scene.queue.grant_step()
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


async def test_a_worker_that_fell_silent_gets_nothing_until_it_is_heard_again(scene: Scene) -> None:
    call = await scene.ask(W1)
    scene.clock.forward(3.0)
    await scene.submit()
    assert not await scene.queue.grant_step()
    await scene.beat(W1)
    assert await scene.queue.grant_step()
    assert len((await call).grants) == 1


async def test_a_lease_call_ends_empty_after_its_wait(scene: Scene) -> None:
    reply = await scene.queue.lease(W1, 1, wait_s=0.01)
    assert (list(reply.grants), reply.draining) == ([], False)
    await scene.submit()
    assert not await scene.queue.grant_step()  # nobody waits any more


async def test_a_lease_call_whose_wait_ends_during_a_grant_waits_for_the_grant(scene: Scene) -> None:
    await scene.submit()
    call = await scene.ask(wait_s=0.02)
    scene.store.gates_after["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.grant_step())
    await asyncio.sleep(0.05)
    assert not call.done()
    gate.set()
    await granting
    assert len((await call).grants) == 1


async def test_a_later_lease_call_of_a_worker_supersedes_the_earlier_one(scene: Scene) -> None:
    earlier = await scene.ask(W1, slots=1)
    later = await scene.ask(W1, slots=2)
    assert (await earlier).grants == []
    for _ in range(3):
        await scene.submit()
    await scene.queue.grant_step()
    assert len((await later).grants) == 2


async def test_a_worker_that_left_gets_nothing(scene: Scene) -> None:
    call = await scene.ask(W1)
    await scene.queue.leave(W1)
    assert (await call).draining
    await scene.submit()
    assert not await scene.queue.grant_step()


async def test_a_waiter_that_was_not_heard_of_for_ten_leases_is_answered(scene: Scene) -> None:
    call = await scene.ask(W1)
    await scene.reap(after_s=31.0)
    await turn()
    assert (await call).grants == []


async def test_a_task_whose_start_deadline_passed_is_not_granted_and_expires(scene: Scene) -> None:
    task = await scene.submit(start_deadline_at=scene.clock() + 10)
    in_time = await scene.submit(start_deadline_at=scene.clock() + 10.001)
    scene.clock.forward(10)
    (grant,) = await scene.lease(slots=5)
    assert grant.task_id == in_time.task_id
    await scene.sweep()
    assert scene.row(task).status is Status.EXPIRED
    assert scene.row(in_time).status is Status.PROCESSING


async def test_what_expires_leaves_the_queue(scene: Scene) -> None:
    await scene.submit(start_deadline_at=scene.clock() + 10)
    assert await scene.waiting() == [0, 1, 0]
    await scene.sweep(after_s=10)
    assert await scene.waiting() == [0, 0, 0]


async def test_wakes_for_a_retry_that_falls_due_and_does_not_spin_while_nobody_asks(scene: Scene) -> None:
    await scene.submit()
    await scene.settle(failed(await scene.lease_one()))
    assert scene.queue._until_next_ticket() == 1.0
    scene.clock.forward(4.5)
    assert scene.queue._until_next_ticket() == pytest.approx(0.5)
    scene.clock.forward(1.0)
    assert scene.queue._until_next_ticket() == 1.0


# ---- PostgreSQL away during a grant


async def test_a_grant_that_failed_is_made_again(scene: Scene) -> None:
    task = await scene.submit()
    scene.store.fail_before = {"grant"}
    assert await scene.lease() == []
    scene.store.fail_before = set()
    assert (await scene.lease_one()).task_id == task.task_id
    assert scene.row(task).attempt == 1


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
    granting = scene.start(scene.queue.grant_step())
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
    granting = asyncio.create_task(scene.queue.grant_step())
    await turn()
    await scene.restart()
    await scene.sweep()
    gate.set()
    await granting
    assert scene.row(task).status is Status.PROCESSING
    await scene.sweep(after_s=schedule.LOOK_S)
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


# ---- settling


async def test_a_completed_task_is_stored_and_hot(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    outcome = Completed(grant.task_id, grant.lease_token, "é", {"tokens": 3}, (stored_file(),))
    scene.clock.forward(2.0)
    assert await scene.settle(outcome) == [True]
    row = scene.row(task)
    assert (row.status, row.completed_at, row.artifacts) == (Status.COMPLETED, scene.clock(), (stored_file(),))
    hot = scene.hot.results[task.task_id]
    assert hot == await scene.store.get(task.task_id)
    assert hot.result == {"text": "é", "metadata": {"tokens": 3}}
    assert await scene.running() == 0


async def test_an_outcome_counts_once(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    assert await scene.settle(completed(grant)) == [True]
    assert await scene.settle(completed(grant)) == [False]


async def test_the_same_outcome_twice_in_one_call_counts_once(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one()
    assert await scene.settle(completed(grant), completed(grant)) == [True, False]


async def test_an_old_token_beside_the_current_one_is_refused(scene: Scene) -> None:
    task = await scene.submit()
    old = await scene.lease_one(W1)
    await scene.reap(after_s=3.0)
    new = await scene.lease_one(W2)
    answers = await scene.settle(completed(new, "new"), completed(old, "old"))
    assert answers == [True, False]
    assert scene.hot.results[task.task_id].result == {"text": "new", "metadata": {}}
    assert '"new"' in (scene.row(task).result or "")


async def test_an_outcome_that_races_the_reaper_is_hot_as_it_was_stored(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.clock.forward(3.0)
    settling = scene.start(scene.queue.settle([completed(grant)]))
    await turn()
    scene.queue.reap_step(scene.clock())
    await scene.settle_all()
    assert await settling == [True]
    assert scene.row(task).status is Status.COMPLETED
    assert scene.hot.results[task.task_id] == await scene.store.get(task.task_id)


async def test_a_stale_token_changes_nothing(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    stale = grant._replace(lease_token="00000000-0000-4000-8000-000000000000")
    assert await scene.settle(completed(stale)) == [False]
    assert await scene.settle(failed(stale, retryable=False)) == [False]
    assert await scene.settle(handed_back(stale)) == [False]
    assert scene.row(task).status is Status.PROCESSING
    assert await scene.running() == 1


async def test_failures_are_tried_again_after_5_15_and_60_s_and_then_failed(scene: Scene) -> None:
    task = await scene.submit()
    for attempt, delay_s in enumerate([5.0, 15.0, 60.0], start=1):
        grant = await scene.lease_one()
        assert grant.attempt == attempt
        await scene.settle(failed(grant))
        assert scene.row(task).status is Status.QUEUED
        scene.clock.forward(delay_s - 0.001)
        assert await scene.lease() == []
        scene.clock.forward(0.001)
    await scene.settle(failed(await scene.lease_one()))
    row = scene.row(task)
    assert (row.status, row.attempt, row.error_code, row.error_message) == (Status.FAILED, 4, "overloaded", "too much")


async def test_a_permanent_error_fails_at_once(scene: Scene) -> None:
    task = await scene.submit()
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    assert (scene.row(task).status, scene.row(task).attempt) == (Status.FAILED, 1)


async def test_what_is_handed_back_waits_again_and_is_not_counted(scene: Scene) -> None:
    task = await scene.submit()
    for _ in range(10):
        grant = await scene.lease_one()
        assert grant.attempt == 1
        assert await scene.settle(handed_back(grant)) == [True]
    assert scene.row(task).status is Status.QUEUED
    assert await scene.waiting() == [0, 1, 0]


async def test_settling_while_postgresql_is_away_is_asked_again(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.store.fail_before = {"settle"}
    with pytest.raises(Unavailable):
        await scene.settle(completed(grant))
    assert await scene.running() == 1
    scene.store.fail_before = set()
    assert await scene.settle(completed(grant)) == [True]
    assert scene.row(task).status is Status.COMPLETED


async def test_a_settlement_whose_reply_was_lost_is_refused_the_second_time(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.store.fail_after = {"settle"}
    with pytest.raises(Unavailable):
        await scene.settle(completed(grant))
    scene.store.fail_after = set()
    assert await scene.settle(completed(grant, "other")) == [False]
    assert '"done"' in (scene.row(task).result or "")
    assert await scene.running() == 0


@pytest.mark.parametrize(
    ("text", "metadata"), [("a\0b", {}), ("\ud800", {}), ("", {"n": 2**70}), ("", {"o": object()}), ("", {"k\0": 1})]
)
async def test_a_result_that_cannot_be_stored_fails_its_task_and_no_other(
    scene: Scene, text: str, metadata: dict[str, object]
) -> None:
    bad, good = await scene.submit(), await scene.submit()
    grants = {grant.task_id: grant for grant in await scene.lease(slots=2)}
    outcome = Completed(bad.task_id, grants[bad.task_id].lease_token, text, metadata)
    assert await scene.settle(outcome, completed(grants[good.task_id])) == [True, True]
    assert (scene.row(bad).status, scene.row(bad).error_code) == (Status.FAILED, "result_not_storable")
    assert scene.row(good).status is Status.COMPLETED
    assert bad.task_id not in scene.hot.results


async def test_an_error_message_that_cannot_be_stored_still_fails_its_task(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    assert await scene.settle(Failed(grant.task_id, grant.lease_token, "broken", "a\0b", True)) == [True]
    assert scene.row(task).status is Status.FAILED


async def test_more_settlements_than_fit_into_a_statement_go_in_several(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "MAX_SETTLEMENTS", 3)
    for _ in range(8):
        await scene.submit()
    grants = await scene.lease(slots=8)
    assert await scene.settle(*map(completed, grants)) == [True] * 8
    assert scene.store.calls["settle"] == 3


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


async def test_a_cancel_that_commits_before_the_grant_wins(scene: Scene) -> None:
    task = await scene.submit()
    call = await scene.ask()
    scene.store.gates_before["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.grant_step())
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
    granting = scene.start(scene.queue.grant_step())
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
    granting = scene.start(scene.queue.grant_step())
    await turn()
    await scene.queue.cancel(task.task_id)
    gate.set()
    await granting
    assert await scene.waiting() == [0, 0, 0]


async def test_a_cancel_while_postgresql_is_away_is_reported_and_may_be_repeated(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    scene.store.fail_after = {"cancel"}
    with pytest.raises(Unavailable):
        await scene.queue.cancel(task.task_id)
    scene.store.fail_after = set()
    assert await scene.settle(completed(grant)) == [False]
    assert await scene.queue.cancel(task.task_id) == Moved("CANCELLED", False)


# ---- lost workers and timeouts


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
    scene.queue.reap_step(scene.clock())  # the lease is gone, the row still has the token
    await turn()
    scene.queue._settling.clear()
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


async def test_replay_queues_dead_letters_that_match_oldest_first(scene: Scene) -> None:
    tasks = [await scene.submit(tenant_id=tenant) for tenant in ("acme", "acme", "globex", "acme")]
    for _ in tasks:
        await scene.settle(failed(await scene.lease_one(), retryable=False))
    assert await scene.queue.replay(TaskFilter(tenant_id="acme", limit=2)) == 2
    assert [scene.row(task).status.value for task in tasks] == ["QUEUED", "QUEUED", "FAILED", "FAILED"]
    assert len(await scene.lease(slots=5)) == 2


@pytest.mark.parametrize("call", ["retry", "replay"])
async def test_a_retry_whose_reply_was_lost_is_found_by_the_scan(scene: Scene, call: str) -> None:
    task = await scene.submit()
    await scene.settle(failed(await scene.lease_one(), retryable=False))
    scene.store.fail_after = {call}
    with pytest.raises(Unavailable):
        await (scene.queue.retry(task.task_id) if call == "retry" else scene.queue.replay(TaskFilter()))
    scene.store.fail_after = set()
    await scene.scan()
    assert (await scene.lease_one()).task_id == task.task_id


# ---- finding what nobody announced, and starting again


async def test_a_task_that_nobody_announced_is_found(scene: Scene) -> None:
    task = await scene.submit(announced=False)
    assert await scene.lease() == []
    await scene.scan()
    assert (await scene.lease_one()).task_id == task.task_id


async def test_the_walk_finds_an_old_task_page_by_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "SCAN_ROWS", 2)
    monkeypatch.setattr(schedule, "RECENT_ROWS", 0)
    for _ in range(5):
        await scene.submit(announced=False)
    found = []
    for _ in range(3):
        await scene.scan()
        found.append((await scene.waiting())[1])
    assert found == [2, 4, 5]


async def test_a_scan_while_postgresql_is_away_says_so(scene: Scene) -> None:
    for call in ("scan_recent", "scan_waiting"):
        scene.store.fail_before = {call}
        with pytest.raises(Unavailable):
            await scene.scan()


async def test_depth_is_right_with_a_rest_beyond_the_window_however_often_it_is_scanned() -> None:
    async with Scene(window=100) as scene:
        for _ in range(300):
            await scene.submit()
        for _ in range(3):
            await scene.scan()
        assert await scene.waiting() == [0, 300, 0]
        assert (await scene.queue.stats())["types"]["TEXT"]["inMemory"] == 100


async def test_a_backlog_beyond_the_window_is_granted_to_its_end_in_order() -> None:
    async with Scene(window=100) as scene:
        tasks = [await scene.submit() for _ in range(300)]
        granted = []
        while grants := await scene.lease(slots=30):
            granted += [grant.task_id for grant in grants]
            await scene.queue._read_pages()
        assert granted == [task.task_id for task in tasks]


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


@pytest.mark.parametrize("call", ["running", "backlogs", "page"])
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


async def test_a_backlog_is_read_whole_when_something_of_it_was_announced_before_the_rebuild() -> None:
    async with Scene(window=100) as scene:
        tasks = [await scene.submit(announced=False) for _ in range(300)]
        scene.queue = scene._queue()
        await scene.queue.announce([ticket_of(tasks[-1])])
        await scene.queue.rebuild()
        assert (await scene.queue.stats())["types"]["TEXT"]["inMemory"] <= 100
        assert len(await _grant_all(scene)) == 300


async def _grant_all(scene: Scene) -> set[str]:
    granted: set[str] = set()
    while grants := await scene.lease(slots=30):
        granted |= {grant.task_id for grant in grants}
        await scene.queue._read_pages()
    return granted


async def test_few_pages_are_read_at_a_time_however_many_backlogs_there_are(scene: Scene) -> None:
    for n in range(20):
        await scene.submit(announced=False, tenant_id=f"tenant{n}")
    scene.store.gates_before["page"] = gate = asyncio.Event()
    scene.queue = scene._queue()
    rebuilding = scene.start(scene.queue.rebuild())
    await turn()
    assert scene.store.calls["page"] == schedule.READERS
    gate.set()
    await rebuilding
    assert await scene.waiting() == [0, 20, 0]


# ---- draining


async def test_draining_answers_who_waits_grants_nothing_more_and_lets_the_rest_finish(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one(W1)
    call = await scene.ask(W2)
    assert await scene.queue.drain() == 1
    assert (await call).draining
    task = await scene.submit()
    assert (await scene.queue.lease(W2, 1, 60.0)).draining
    assert not await scene.queue.grant_step()
    assert (await scene.beat(W1, grant)).draining
    assert await scene.settle(completed(grant)) == [True]
    assert await scene.queue.drain() == 0
    assert scene.row(task).status is Status.QUEUED


# ---- what it tells


async def test_stats_count_workers_heard_of_within_a_lease_and_their_slots(scene: Scene) -> None:
    await scene.beat(W1, slots=4)
    scene.clock.forward(2.0)
    await scene.beat(W2, slots=3)
    image = worker("w3", "IMAGE")
    await scene.beat(image, slots=2)
    types = (await scene.queue.stats())["types"]
    assert (types["TEXT"]["workers"], types["TEXT"]["slots"], types["IMAGE"]["slots"]) == (2, 7, 2)
    scene.clock.forward(1.0)
    types = (await scene.queue.stats())["types"]
    assert (types["TEXT"]["workers"], types["TEXT"]["slots"]) == (1, 3)


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
    monkeypatch.setattr(schedule, "_PAUSE_S", 0.0)
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
