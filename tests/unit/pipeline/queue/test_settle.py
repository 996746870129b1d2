"""How attempts end, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from making import stored_file
from queue_scene import W1, W2, Scene, completed, failed, handed_back, turn

from flik.domain.task import Completed, Failed, Status, Upload, UploadStatus
from flik.errors import Unavailable
from flik.pipeline.queue import settle
from flik.storage.queue import Settled, Settlement


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


async def test_uploads_go_with_whatever_ends_the_attempt_and_tell_no_more_events(scene: Scene) -> None:
    seen: list[tuple[str, tuple[Upload, ...]]] = []
    store, settle_in_store = scene.store, scene.store.settle

    async def watch(settlements: Sequence[Settlement], now: float) -> list[Settled]:
        seen.extend((each.outcome, each.uploads) for each in settlements)
        return await settle_in_store(settlements, now)

    store.settle = watch  # type: ignore[method-assign]
    uploads = (Upload(0, UploadStatus.STORED, 2, 10, scene.clock(), scene.clock(), "away"),)
    task = await scene.submit()
    await scene.settle(handed_back(await scene.lease_one())._replace(uploads=uploads))
    await scene.settle(failed(await scene.lease_one())._replace(uploads=uploads))
    scene.clock.forward(60.0)
    grant = await scene.lease_one()
    before = scene.row(task).seq
    await scene.settle(Completed(grant.task_id, grant.lease_token, None, {}, (stored_file(),), uploads))
    assert seen == [("HANDED_BACK", uploads), ("FAILED", uploads), ("COMPLETED", uploads)]
    assert scene.row(task).seq == before + 2


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
    scene.queue.reaping.reap(scene.clock())
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
    monkeypatch.setattr(settle, "MAX_SETTLEMENTS", 3)
    for _ in range(8):
        await scene.submit()
    grants = await scene.lease(slots=8)
    assert await scene.settle(*map(completed, grants)) == [True] * 8
    assert scene.store.calls["settle"] == 3


async def test_what_a_queue_found_running_is_stored_but_not_hot(scene: Scene) -> None:
    task = await scene.submit()
    grant = await scene.lease_one()
    await scene.restart()
    assert await scene.settle(completed(grant)) == [True]
    assert scene.row(task).status is Status.COMPLETED
    assert scene.hot.results == {}


async def test_a_retried_task_is_hot_as_it_was_stored(scene: Scene) -> None:
    task = await scene.submit(start_deadline_at=scene.clock() + 100, request_id="r1")
    await scene.settle(failed(await scene.lease_one()))
    scene.clock.forward(5.0)
    await scene.settle(completed(await scene.lease_one(W2)))
    view = await scene.store.get(task.task_id)
    assert view is not None
    assert (view.attempt, view.worker_id, view.available_at) == (2, "w2", scene.clock())
    assert scene.hot.results[task.task_id] == view
