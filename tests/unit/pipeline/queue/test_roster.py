"""Who waits for work, and who lives."""

from __future__ import annotations

import asyncio

import pytest
from making import worker
from queue_scene import W1, W2, Scene, turn

from flik.pipeline.queue.roster import in_turn


async def test_a_worker_that_fell_silent_gets_nothing_until_it_is_heard_again(scene: Scene) -> None:
    call = await scene.ask(W1)
    scene.clock.forward(3.0)
    await scene.submit()
    assert not await scene.queue.granting.step()
    await scene.beat(W1)
    assert await scene.queue.granting.step()
    assert len((await call).grants) == 1


async def test_a_lease_call_ends_empty_after_its_wait(scene: Scene) -> None:
    reply = await scene.queue.lease(W1, 1, wait_s=0.01)
    assert (list(reply.grants), reply.draining) == ([], False)
    await scene.submit()
    assert not await scene.queue.granting.step()  # nobody waits any more


async def test_a_lease_call_whose_wait_ends_during_a_grant_waits_for_the_grant(scene: Scene) -> None:
    await scene.submit()
    call = await scene.ask(wait_s=0.02)
    scene.store.gates_after["grant"] = gate = asyncio.Event()
    granting = scene.start(scene.queue.granting.step())
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
    await scene.queue.granting.step()
    assert len((await later).grants) == 2


async def test_a_worker_that_left_gets_nothing(scene: Scene) -> None:
    call = await scene.ask(W1)
    await scene.queue.leave(W1)
    assert (await call).draining
    await scene.submit()
    assert not await scene.queue.granting.step()


async def test_a_waiter_that_was_not_heard_of_for_ten_leases_is_answered(scene: Scene) -> None:
    call = await scene.ask(W1)
    await scene.reap(after_s=31.0)
    await turn()
    assert (await call).grants == []


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


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ({}, ""),
        ({"a": 3}, "aaa"),
        ({"a": 1, "b": 3, "c": 2}, "abcbcb"),
        ({"a": 2, "b": 0}, "aa"),
    ],
)
def test_open_slots_are_dealt_in_turn(slots: dict[str, int], expected: str) -> None:
    dealt = in_turn([(worker(name), count) for name, count in slots.items()])
    assert "".join(each.worker_id for each in dealt) == expected
