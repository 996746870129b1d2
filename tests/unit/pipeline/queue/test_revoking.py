"""Workers hear of cancels while they listen."""

from __future__ import annotations

import asyncio

from queue_scene import W1, W2, Scene, turn


async def test_a_worker_that_listens_hears_of_a_cancel_at_once_and_only_of_its_own(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one(W1)
    mine, others = scene.start(scene.queue.revoked(W1, 60.0)), scene.start(scene.queue.revoked(W2, 60.0))
    await turn()
    await scene.queue.cancel(grant.task_id)
    assert await mine == [(grant.task_id, grant.lease_token)]
    assert not others.done()


async def test_cancels_at_one_moment_are_told_together(scene: Scene) -> None:
    grants = [(await scene.submit(), await scene.lease_one(W1))[1] for _ in range(2)]
    listening = scene.start(scene.queue.revoked(W1, 60.0))
    await turn()
    for grant in grants:
        lease = scene.queue.leases.get(grant.task_id, grant.lease_token)
        assert lease is not None
        scene.queue.revoking.tell(lease)
    assert await listening == [(grant.task_id, grant.lease_token) for grant in grants]


async def test_who_does_not_listen_learns_it_by_its_beat(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one(W1)
    assert await scene.queue.revoked(W1, wait_s=0.001) == []
    await scene.queue.cancel(grant.task_id)
    assert (await scene.beat(W1, grant)).revoked == [grant.task_id]


async def test_a_wait_that_was_given_up_ends_empty_and_the_later_one_hears(scene: Scene) -> None:
    await scene.submit()
    grant = await scene.lease_one(W1)
    earlier, later = scene.start(scene.queue.revoked(W1, 60.0)), scene.start(scene.queue.revoked(W1, 60.0))
    await turn()
    assert await earlier == []
    await asyncio.sleep(0)
    await scene.queue.cancel(grant.task_id)
    assert await later == [(grant.task_id, grant.lease_token)]
