"""A courier on a clock that jumps: what is sent when, in which order, and what it does when something breaks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import virtual_time
from making import task_id_at
from memory_webhooks import MemoryDeliveries

from flik.domain.webhook.attempt import DELAYS_S, MAX_ATTEMPTS, Answered, Outcome, Unreached
from flik.domain.webhook.message import Message
from flik.domain.webhook.record import DeliveryState
from flik.domain.webhook.signature import verify
from flik.pipeline.deliver import BUSY_S, IDLE_S, Courier

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
START = 1_000.0  # where the clock starts
Says = Callable[[str, int], Outcome | float]  # (webhook, how often it was asked) -> an answer, or: silent for so long


@dataclass
class Sending:
    """Stands in for the network; checks every signature."""

    says: Says = lambda webhook, count: Answered(200)
    sent: list[tuple[float, str, str]] = field(default_factory=list)  # when, webhook, type and number
    under_way: int = 0
    most: int = 0

    async def send(self, tenant_id: str, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        now = asyncio.get_running_loop().time()
        assert verify(headers, body, [SECRET], now) is None
        webhook = url.removeprefix("https://").partition(".")[0]
        document = json.loads(body)
        assert headers["ce-type"] == f"flik.{document['type']}"
        self.sent.append((now - START, webhook, f"{document['type']} {document['data'].get('seq')}"))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            says = self.says(webhook, sum(each[1] == webhook for each in self.sent))
            if isinstance(says, float):
                await asyncio.sleep(says)
                return Unreached("no answer within 5 s")
            await asyncio.sleep(0.01)
            return says
        finally:
            self.under_way -= 1


def event(
    webhook: str, seq: int = 1, task: str | None = None, kind: str = "completed", tenant: str = "acme"
) -> Message:
    task_id = task or task_id_at(START)
    return Message(f"{task_id}-{seq}-{webhook}", webhook, tenant, task_id, seq, kind, START, {"attempt": 1})


def courier(store: MemoryDeliveries, sending: Sending, slots: int = 16) -> Courier:
    return Courier(store, sending, slots=slots, now=asyncio.get_running_loop().time, chance=lambda: 0.0)


def running(
    store: MemoryDeliveries, sending: Sending, work: Callable[[Courier], Awaitable[None]], slots: int = 16
) -> None:
    """Run a courier while `work` runs."""

    async def both() -> None:
        mine = courier(store, sending, slots)
        task = asyncio.create_task(mine.run())
        await work(mine)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert sending.under_way == 0

    virtual_time.run(both())


def lasting(seconds: float) -> Callable[[Courier], Awaitable[None]]:
    async def work(_: Courier) -> None:
        await asyncio.sleep(seconds)

    return work


def states(store: MemoryDeliveries) -> list[DeliveryState]:
    return [row.state for row in store.rows]


def test_event_is_delivered_within_a_second() -> None:
    store, sending = MemoryDeliveries(SECRET), Sending()

    async def work(_: Courier) -> None:
        await asyncio.sleep(10.5)
        store.outbox.append(event("a"))
        await asyncio.sleep(IDLE_S)

    running(store, sending, work)
    assert [what for _, *what in sending.sent] == [["a", "task.completed 1"]]
    assert states(store) == [DeliveryState.DELIVERED]
    assert store.rows[0].log[0]["status"] == 200


def test_waking_it_sends_at_once() -> None:
    store, sending = MemoryDeliveries(SECRET), Sending()

    async def work(mine: Courier) -> None:
        await asyncio.sleep(10.5)
        store.outbox.append(event("a"))
        mine.wake()
        await asyncio.sleep(0.02)

    running(store, sending, work)
    assert [at for at, *_ in sending.sent] == [10.5]


def test_failure_is_tried_again_after_the_pauses_of_the_table_and_then_given_up() -> None:
    store, sending = MemoryDeliveries(SECRET, [event("a")]), Sending(lambda *_: Answered(500))
    running(store, sending, lasting(26 * 3_600))
    assert states(store) == [DeliveryState.GIVEN_UP]
    at = [at for at, *_ in sending.sent]
    assert len(at) == MAX_ATTEMPTS
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    for pause, planned in zip(pauses, DELAYS_S, strict=True):
        assert planned <= pause <= planned + 1.1
    assert {entry["error"] for entry in store.rows[0].log} == {"the receiver answered 500"}


def test_order_within_a_task_holds_through_failures() -> None:
    task, other = task_id_at(START), task_id_at(START)
    kinds = ("queued", "processing", "completed")
    store = MemoryDeliveries(SECRET, [event("a", n, each, kind) for each in (task, other)
                                      for n, kind in enumerate(kinds, 1)])  # fmt: skip
    sending = Sending(lambda _, count: Answered(200 if count > 2 else 503))
    running(store, sending, lasting(60))
    assert states(store) == [DeliveryState.DELIVERED] * 6
    first = [what.split()[1] for _, _, what in sending.sent]
    assert first == ["1", "1", "1", "1", "2", "2", "3", "3"]


def test_dead_receiver_slows_nobody_else() -> None:
    store = MemoryDeliveries(SECRET, [event("dead") for _ in range(60)])
    sending = Sending(lambda webhook, _: 5.0 if webhook == "dead" else Answered(200))

    async def work(mine: Courier) -> None:
        for _ in range(40):
            store.outbox.append(event("alive"))
            mine.wake()
            await asyncio.sleep(1)

    running(store, sending, work, slots=6)
    alive = [at for at, webhook, _ in sending.sent if webhook == "alive"]
    assert len(alive) == 40
    assert all(at - round(at) < 2 * BUSY_S for at in alive)
    assert sum(webhook == "dead" for _, webhook, _ in sending.sent) < 20  # held: not all that is due


def test_dead_receivers_of_one_tenant_slow_no_other_tenant() -> None:
    store = MemoryDeliveries(SECRET, [event(f"dead{n}") for n in range(1_000)])
    sending = Sending(lambda webhook, _: 5.0 if webhook.startswith("dead") else Answered(200))

    async def work(mine: Courier) -> None:
        for _ in range(20):
            store.outbox.append(event("alive", tenant="other"))
            mine.wake()
            await asyncio.sleep(1)
            assert sending.under_way == store.share

    running(store, sending, work, slots=32)
    alive = [at for at, webhook, _ in sending.sent if webhook == "alive"]
    assert len(alive) == 20
    assert all(at - round(at) < 2 * BUSY_S for at in alive)


def test_slots_bound_what_is_under_way() -> None:
    store = MemoryDeliveries(SECRET, [event(f"w{n}") for n in range(40)])
    sending = Sending(lambda *_: 5.0)
    running(store, sending, lasting(3), slots=7)
    assert sending.most == 7


def test_courier_that_is_stopped_waits_for_nobody() -> None:
    store, sending = MemoryDeliveries(SECRET, [event("a")]), Sending(lambda *_: 5.0)

    async def started_and_stopped() -> float:
        task = asyncio.create_task(courier(store, sending).run())
        await asyncio.sleep(1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert sending.under_way == 0
        return asyncio.get_running_loop().time() - START

    assert virtual_time.run(started_and_stopped()) == pytest.approx(1.0)
    assert states(store) == [DeliveryState.WAITING]


def test_receiver_that_is_gone_gets_no_more() -> None:
    store = MemoryDeliveries(SECRET, [event("a") for _ in range(20)], each=1)
    sending = Sending(lambda *_: Answered(410))
    running(store, sending, lasting(30))
    assert len(sending.sent) == 1
    assert store.disabled == {"a"}
    assert store.rows[0].state is DeliveryState.GIVEN_UP


def test_it_goes_on_when_postgresql_is_back() -> None:
    store, sending = MemoryDeliveries(SECRET, [event("a")]), Sending()
    store.away = True

    async def work(_: Courier) -> None:
        await asyncio.sleep(100)
        assert not sending.sent
        store.away = False
        await asyncio.sleep(3)

    running(store, sending, work)
    assert states(store) == [DeliveryState.DELIVERED]


def test_what_could_not_be_written_down_is_sent_again_when_its_lease_is_over() -> None:
    store, sending = MemoryDeliveries(SECRET, [event("a")]), Sending()

    async def work(_: Courier) -> None:
        await asyncio.sleep(0.005)
        store.away = True
        await asyncio.sleep(5)
        store.away = False
        await asyncio.sleep(30)

    running(store, sending, work)
    assert states(store) == [DeliveryState.DELIVERED]
    (first, *_), (second, *_) = sending.sent
    assert store.lease_s <= second - first <= store.lease_s + 1.1


def test_two_couriers_share_the_work() -> None:
    store = MemoryDeliveries(SECRET, [event(f"w{n % 9}") for n in range(90)])
    one, two = Sending(), Sending()

    async def work(_: Courier) -> None:
        task = asyncio.create_task(courier(store, two).run())
        await asyncio.sleep(60)
        task.cancel()

    running(store, one, work)
    assert states(store) == [DeliveryState.DELIVERED] * 90
    assert len(one.sent) + len(two.sent) == 90
    assert two.sent


def test_fault_of_ours_is_logged_and_counts_as_an_attempt(caplog: pytest.LogCaptureFixture) -> None:
    def faulty(webhook: str, count: int) -> Outcome:
        if webhook == "bad" and count == 1:
            raise RuntimeError("what went wrong")
        return Answered(200)

    store, sending = MemoryDeliveries(SECRET, [event("bad"), event("good")]), Sending(faulty)
    running(store, sending, lasting(10))
    assert states(store) == [DeliveryState.DELIVERED] * 2
    assert [entry["error"] for entry in store.rows[0].log] == ["a fault in Flik", None]
    assert "a webhook was not sent" in caplog.text
    assert SECRET not in caplog.text


def test_what_is_old_is_swept_once_a_minute() -> None:
    store, sending = MemoryDeliveries(SECRET), Sending()
    running(store, sending, lasting(185))
    assert [round(at - START) for at in store.swept] == [60, 120, 180]
