"""What tenants may do with workers: shares and caps that change while the queue runs."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from making import worker
from queue_scene import W1, Scene, completed, turn

from flik.domain.identity import WorkLimits
from flik.domain.pressure import Level
from flik.errors import Unavailable
from flik.pipeline.housekeeping import SWEEP_EVERY_S, SWEEP_ROWS, Housekeeping
from flik.pipeline.queue import loops
from flik.pipeline.queue.limits import TenantLimits


def cap(tenant: str, most: int) -> WorkLimits:
    return WorkLimits(tenant, None, most)


async def test_no_more_of_a_tenant_s_tasks_run_than_its_cap_whatever_their_type(scene: Scene) -> None:
    scene.queue.waiting.limits_are([cap("acme", 2)])
    for _ in range(4):
        await scene.submit(tenant_id="acme")
    await scene.submit(tenant_id="other")

    grants = await scene.lease(W1, slots=5)
    assert Counter(grant.tenant_id for grant in grants) == {"acme": 2, "other": 1}

    done = next(grant for grant in grants if grant.tenant_id == "acme")
    await scene.settle(completed(done))
    assert len(await scene.lease(W1, slots=5)) == 1


async def test_a_cap_counts_what_ran_already_when_the_queue_started(scene: Scene) -> None:
    for _ in range(3):
        await scene.submit(tenant_id="acme")
    await scene.lease(W1, slots=2)
    await scene.restart()
    scene.queue.waiting.limits_are([cap("acme", 2)])

    assert await scene.lease(W1, slots=5) == []


async def test_a_cap_of_zero_stops_a_tenant_and_its_end_lets_it_go_on(scene: Scene) -> None:
    scene.queue.waiting.limits_are([cap("acme", 0)])
    await scene.submit(tenant_id="acme")
    assert await scene.lease(W1) == []

    scene.queue.waiting.limits_are([])
    assert len(await scene.lease(W1)) == 1


async def test_cancelling_a_running_task_makes_room_under_the_cap(scene: Scene) -> None:
    scene.queue.waiting.limits_are([cap("acme", 1)])
    first = await scene.submit(tenant_id="acme")
    second = await scene.submit(tenant_id="acme")
    await scene.lease(W1)

    await scene.queue.cancel(first.task_id)

    assert [grant.task_id for grant in await scene.lease(W1)] == [second.task_id]


async def test_a_share_that_changes_holds_from_the_next_grant_on(scene: Scene) -> None:
    for _ in range(40):
        await scene.submit(tenant_id="a")
        await scene.submit(tenant_id="b")
    scene.queue.waiting.limits_are([WorkLimits("a", 3, None)])

    grants = Counter(grant.tenant_id for grant in await scene.lease(W1, slots=40))

    assert abs(grants["a"] - 30) <= 2


def test_the_table_goes_before_the_settings_and_the_settings_come_back() -> None:
    limits = TenantLimits({"big": 3})

    assert limits.replace([WorkLimits("big", 5, None), WorkLimits("new", 2, 4)])
    assert (limits.weight_of("big"), limits.weight_of("new"), limits.weight_of("else")) == (5, 2, 1)
    assert limits.caps == {"new": 4}
    assert not limits.replace([WorkLimits("new", None, 4)])
    assert (limits.weight_of("big"), limits.weight_of("new")) == (3, 1)


async def test_load_tells_what_waits_how_fast_it_goes_and_whose_it_is(scene: Scene) -> None:
    for _ in range(6):
        await scene.submit(tenant_id="acme")
    await scene.submit(tenant_id="other", priority=2)
    await scene.submit(tenant_id="acme", task_type="IMAGE")
    assert (await scene.queue.load([])).levels["TEXT"] == Level(7, 0.0)

    await scene.lease(W1, slots=2)
    load = await scene.queue.load(["acme", "other", "nobody"])

    assert load.levels["TEXT"].waiting == 5
    assert load.levels["TEXT"].drained_per_s > 0
    assert load.queued == {"acme": 5, "other": 1, "nobody": 0}


class House:
    """A table of limits and a heap of expired answers."""

    def __init__(self, expired: int = 0) -> None:
        self.limits: list[WorkLimits] | Exception = []
        self.taken_over: list[list[WorkLimits]] = []
        self.expired = expired
        self.now = 1_000.0
        self.keeping = Housekeeping(
            self.read, lambda limits: self.taken_over.append(list(limits)), self.forget, lambda: self.now
        )

    async def read(self) -> list[WorkLimits]:
        if isinstance(self.limits, Exception):
            raise self.limits
        return self.limits

    async def forget(self, now: float, limit: int) -> int:
        assert now == self.now
        gone = min(limit, self.expired)
        self.expired -= gone
        return gone


async def test_house_is_kept_limits_each_time_and_expired_answers_now_and_then() -> None:
    house = House(expired=2 * SWEEP_ROWS + 5)
    house.limits = [cap("acme", 1)]

    await house.keeping.step()
    assert (house.taken_over, house.expired) == ([[cap("acme", 1)]], 2 * SWEEP_ROWS + 5)

    house.now += SWEEP_EVERY_S
    left = []
    for _ in range(4):
        await house.keeping.step()
        left.append(house.expired)
    assert left == [SWEEP_ROWS + 5, 5, 0, 0]
    assert len(house.taken_over) == 5  # a long sweep holds up no change of limits


async def test_while_postgresql_is_away_the_last_limits_hold() -> None:
    house = House()
    house.limits = Unavailable("postgresql")

    await house.keeping.step()

    assert house.taken_over == []


async def test_limits_are_known_before_the_first_grant_however_long_postgresql_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "PAUSE_S", 0.0)
    house = House()
    house.limits = Unavailable("postgresql")
    beginning = asyncio.create_task(house.keeping.begin())
    await turn()
    assert not beginning.done()

    house.limits = [cap("acme", 1)]
    await beginning
    assert house.taken_over == [[cap("acme", 1)]]


async def test_of_a_tenant_s_cap_no_type_gets_it_all() -> None:
    async with Scene() as scene:
        scene.queue.waiting.limits_are([cap("acme", 1)])
        await scene.submit(tenant_id="acme", task_type="IMAGE")
        for _ in range(6):
            await scene.submit(tenant_id="acme")
        granted = []
        for _ in range(3):
            calls = [await scene.ask(W1), await scene.ask(worker("w9", "IMAGE"))]
            await scene.queue.granting.step()
            await turn()
            grants = [grant for call in calls if call.done() for grant in (await call).grants]
            granted += [grant.task_type for grant in grants]
            await scene.settle(*(completed(grant) for grant in grants))
        assert "IMAGE" in granted


async def test_load_is_not_told_before_the_queue_knows_it() -> None:
    scene = Scene()
    asked = asyncio.create_task(scene.queue.load([]))
    await turn()
    assert not asked.done()

    await scene.queue.rebuild()
    assert (await asked).levels["TEXT"] == Level(0, 0.0)


async def test_tasks_cancelled_beyond_the_window_are_counted_out_in_time() -> None:
    async with Scene(window=100) as scene:
        tasks = [await scene.submit() for _ in range(200)]
        before = (await scene.queue.load(["acme"])).queued["acme"]
        for task in tasks[-50:]:
            await scene.queue.cancel(task.task_id)

        await scene.queue.refilling.recount()

        assert before == 200
        assert (await scene.queue.load(["acme"])).queued["acme"] == 150
