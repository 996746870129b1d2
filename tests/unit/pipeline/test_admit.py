from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from flik.domain.identity import Limits
from flik.domain.pressure import Level, Load
from flik.domain.rate import Admitted, Decision, Limited, NeverFits
from flik.domain.task import DeadLetter, NewTask
from flik.errors import (
    ExceedsBurst,
    FlikError,
    PayloadTooLarge,
    PriorityNotAllowed,
    QueueFull,
    RateLimited,
    TenantQueueFull,
    Unavailable,
)
from flik.pipeline.admit import MOST_PAYMENTS, MOST_TENANT_LABELS, Admission, Quota
from flik.pipeline.levels import QueueLevels
from flik.telemetry import Metrics
from tests.making import new_task

BOUNDS = (1_250, 1_100, 1_000)
LIMITS = Limits(rate_per_s=100.0, burst=200)
PAID = Admitted(150)


class Purse:
    """Says what it is told to say, and remembers what was asked of it."""

    def __init__(self, says: Decision | Exception = PAID) -> None:
        self.says = says
        self.asked: list[tuple[str, int]] = []

    async def spend(self, tenant_id: str, cost: int, limits: Limits) -> Decision:
        self.asked.append((tenant_id, cost))
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Scene:
    def __init__(self, says: Decision | Exception = PAID, load: Load | None = None) -> None:
        self.purse = Purse(says)
        self.load = load or Load({})
        self.levels = QueueLevels(self._answer)
        self.measured = Metrics("flik_tasks_refused")
        self.door = Admission(self.purse, self.levels, BOUNDS, self.measured)

    async def _answer(self, tenants: Sequence[str]) -> Load:
        return self.load

    async def admit(self, *tasks: NewTask, limits: Limits = LIMITS) -> list[type[FlikError] | None]:
        await self.levels.ask_once()
        verdict = await self.door.admit("acme", limits, tasks)
        return [None if said is None else type(said) for said in verdict.refusals]

    def refused(self, code: str, tenant: str = "acme") -> float:
        value: float = self.measured["flik_tasks_refused"].labels(code, tenant)._value.get()
        return value


def tasks(count: int, priority: int = 1, task_type: str = "TEXT", payload: str = "{}") -> list[NewTask]:
    return [new_task(tenant_id="acme", priority=priority, task_type=task_type, payload=payload) for _ in range(count)]


async def test_what_nothing_speaks_against_is_admitted_and_paid_for_once() -> None:
    scene = Scene()

    assert await scene.admit(*tasks(3)) == [None, None, None]
    assert scene.purse.asked == [("acme", 3)]
    assert scene.levels.level("TEXT").waiting == 3


async def test_priority_more_urgent_than_allowed_is_refused_alone() -> None:
    scene = Scene()

    said = await scene.admit(*tasks(1, 0), *tasks(1, 1), *tasks(1, 2), limits=Limits(highest_priority=1))

    assert said == [PriorityNotAllowed, None, None]
    assert scene.purse.asked == [("acme", 2)]


@pytest.mark.parametrize(
    ("payload", "refused"), [("x" * 100, False), ("x" * 101, True), ("é" * 50, False), ("é" * 51, True)]
)
async def test_payload_is_measured_in_bytes(payload: str, refused: bool) -> None:
    said = await Scene().admit(*tasks(1, payload=payload), limits=Limits(max_payload_bytes=100))

    assert said == [PayloadTooLarge if refused else None]


async def test_full_queue_refuses_background_first_and_costs_no_token() -> None:
    scene = Scene(load=Load({"TEXT": Level(1_050, 10.0), "IMAGE": Level(0, 0.0)}))

    said = await scene.admit(*tasks(1, 2), *tasks(1, 1), *tasks(1, 0), *tasks(1, 2, "IMAGE"))

    assert said == [QueueFull, None, None, None]
    assert scene.purse.asked == [("acme", 3)]
    assert scene.refused("queue_full") == 1


async def test_tasks_of_one_batch_count_against_the_bound_together() -> None:
    scene = Scene(load=Load({"TEXT": Level(990, 10.0)}))

    said = await scene.admit(*tasks(8, 0), *tasks(3, 2))

    assert said == [None] * 8 + [QueueFull] * 3


async def test_queue_s_retry_after_follows_from_its_pace() -> None:
    scene = Scene(load=Load({"TEXT": Level(1_000, 3.0)}))
    await scene.levels.ask_once()

    (said,) = (await scene.door.admit("acme", LIMITS, tasks(1, 2))).refusals

    assert isinstance(said, QueueFull)
    assert said.retry_after_s == pytest.approx(7.0)


async def test_tenant_has_no_more_waiting_than_it_may() -> None:
    scene = Scene(load=Load({"TEXT": Level(500, 5.0)}, {"acme": 8}))
    limits = Limits(max_queued=10)

    assert await scene.admit(*tasks(2), limits=limits) == [None, None]
    assert await scene.admit(*tasks(3), limits=limits) == [TenantQueueFull] * 3
    assert scene.purse.asked == [("acme", 2)]


async def test_what_was_sent_since_the_queue_was_asked_counts_as_waiting() -> None:
    scene = Scene(load=Load({}, {"acme": 8}))
    await scene.levels.queued_by("acme")
    await scene.levels.ask_once()
    limits = Limits(max_queued=10)

    first = await scene.door.admit("acme", limits, tasks(2))
    second = await scene.door.admit("acme", limits, tasks(1))

    assert first.refusals == [None, None]
    assert [type(said) for said in second.refusals] == [TenantQueueFull]


async def test_tenant_without_tokens_is_told_when_to_come_back() -> None:
    scene = Scene(Limited(2.5, 1))

    verdict = await scene.door.admit("acme", LIMITS, tasks(4))

    assert [type(said) for said in verdict.refusals] == [RateLimited] * 4
    assert verdict.quota == Quota(100.0, 200, 1, 2.5)
    assert scene.levels.level("TEXT").waiting == 0
    assert scene.refused("rate_limited") == 4


async def test_batch_larger_than_the_burst_is_told_that_it_never_fits() -> None:
    scene = Scene(NeverFits(200))

    assert await scene.admit(*tasks(201)) == [ExceedsBurst] * 201


async def test_quota_tells_what_is_left_and_when_it_is_whole_again() -> None:
    verdict = await Scene(Admitted(150)).door.admit("acme", LIMITS, tasks(1))

    assert verdict.quota == Quota(100.0, 200, 150, 0.5)


async def test_while_the_limiter_is_away_nothing_is_admitted_and_nothing_counted() -> None:
    scene = Scene(Unavailable("limiter"))

    with pytest.raises(Unavailable):
        await scene.door.admit("acme", LIMITS, tasks(1))
    assert scene.levels.level("TEXT").waiting == 0


async def test_tenants_in_the_metrics_are_bounded() -> None:
    scene = Scene(Limited(1.0, 0))

    for number in range(MOST_TENANT_LABELS + 5):
        await scene.door.admit(f"tenant-{number}", LIMITS, tasks(1))

    assert scene.refused("rate_limited", "tenant-0") == 1
    assert scene.refused("rate_limited", "other") == 5


async def test_room_is_taken_before_the_tokens_are_waited_for_and_given_back_without_them() -> None:
    scene = Scene(load=Load({}, {"acme": 0}))
    await scene.levels.queued_by("acme")
    limits = Limits(max_queued=10)
    gate = asyncio.Event()
    says = scene.purse.spend

    async def slowly(tenant_id: str, cost: int, limits: Limits) -> Decision:
        await gate.wait()
        return await says(tenant_id, cost, limits)

    scene.purse.spend = slowly  # type: ignore[method-assign]
    together = [asyncio.create_task(scene.door.admit("acme", limits, tasks(1))) for _ in range(50)]
    await asyncio.sleep(0)
    gate.set()
    admitted = sum(verdict.refusals == [None] for verdict in await asyncio.gather(*together))
    assert admitted == 10

    scene.purse.says = Limited(1.0, 0)
    await scene.door.admit("acme", Limits(), tasks(1))
    assert await scene.levels.queued_by("acme") == 10


async def test_what_waits_of_a_tenant_is_asked_for_before_its_first_task_is_let_in() -> None:
    scene = Scene(load=Load({}, {"acme": 1_000}))

    verdict = await scene.door.admit("acme", Limits(max_queued=1_000), tasks(1))

    assert [type(said) for said in verdict.refusals] == [TenantQueueFull]


# ---- what failed and is to be queued again


def dead(count: int, priority: int = 1, task_type: str = "TEXT") -> list[DeadLetter]:
    return [DeadLetter(f"task-{number}", "acme", task_type, priority) for number in range(count)]


async def readmitted(scene: Scene, *tasks: DeadLetter, limits: Limits = LIMITS) -> list[type[FlikError] | None]:
    await scene.levels.ask_once()
    verdict = await scene.door.readmit("acme", limits, tasks)
    return [None if said is None else type(said) for said in verdict.refusals]


class Few(Purse):
    """Has so many tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    async def spend(self, tenant_id: str, cost: int, limits: Limits) -> Decision:
        self.asked.append((tenant_id, cost))
        if cost > self.tokens:
            return Limited(2.0, self.tokens)
        self.tokens -= cost
        return Admitted(self.tokens)


async def test_as_many_come_back_from_the_front_as_there_are_tokens_for() -> None:
    scene = Scene()
    scene.purse = scene.door._allowances = Few(3)  # type: ignore[assignment]

    verdict = await scene.door.readmit("acme", LIMITS, dead(5))

    assert [said and said.code for said in verdict.refusals] == [None] * 3 + ["rate_limited"] * 2
    assert verdict.quota == Quota(100.0, 200, 0, 2.0)
    assert (scene.levels.level("TEXT").waiting, scene.refused("rate_limited")) == (3, 2)


async def test_more_than_a_burst_come_back_when_the_rate_brings_the_tokens() -> None:
    scene = Scene()
    scene.purse = scene.door._allowances = Few(450)  # type: ignore[assignment]

    assert await readmitted(scene, *dead(500)) == [None] * 450 + [RateLimited] * 50
    assert scene.purse.asked[:2] == [("acme", 200), ("acme", 200)]


async def test_one_replay_pays_a_bounded_number_of_times() -> None:
    scene = Scene()

    said = await readmitted(scene, *dead(100), limits=Limits(rate_per_s=1e9, burst=1))

    assert said == [None] * MOST_PAYMENTS + [RateLimited] * (100 - MOST_PAYMENTS)


async def test_as_many_come_back_as_the_queue_has_room_for_by_priority() -> None:
    scene = Scene(load=Load({"TEXT": Level(997, 10.0)}))

    said = await readmitted(scene, *dead(2, 2), *dead(2, 1), *dead(2, 2), *dead(1, 2, "IMAGE"))

    assert said == [None, QueueFull, None, None, QueueFull, QueueFull, None]  # two of P1 first, then one of P2
    assert scene.purse.asked == [("acme", 4)]


async def test_as_many_come_back_as_the_tenant_may_have_waiting() -> None:
    scene = Scene(load=Load({}, {"acme": 8}))

    assert await readmitted(scene, *dead(4), limits=Limits(max_queued=10)) == [None, None] + [TenantQueueFull] * 2
    scene.load = Load({}, {"acme": 12})
    assert await readmitted(scene, *dead(1), limits=Limits(max_queued=10)) == [TenantQueueFull]


async def test_what_is_too_urgent_by_now_does_not_come_back() -> None:
    scene = Scene()

    assert await readmitted(scene, *dead(1, 0), *dead(1, 1), limits=Limits(highest_priority=1)) == [
        PriorityNotAllowed, None,
    ]  # fmt: skip
    assert scene.purse.asked == [("acme", 1)]
