"""What one process tells, all that listen hear; a Redis that is away is noticed and come back to."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from making import EPOCH
from redis.asyncio.client import PubSub

from flik.domain.event import Event, Kind, Notice
from flik.embedded import EmbeddedValkey
from flik.live import keys
from flik.live.feed import MAX_GATHERED, FeedReader, FeedWriter, pack, unpack
from flik.telemetry import Metrics

SOON_S = 10.0
UNREADABLE = (
    b"", b"{", b"7", b"[7]", b"[[]]", b'[["acme"]]', b'{"a":1}', b'[["a","t",1,"queued",2.0' + b",1" * 40 + b"]]",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="flik-test-") as folder:
        server = EmbeddedValkey(Path(folder) / "data")
        server.start()
        yield server
        server.stop()


@dataclass
class Listener:
    """Keeps what it hears."""

    heard: list[Notice] = field(default_factory=list)
    live: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    changes: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, notices: Sequence[Notice]) -> None:
        self.heard += notices
        self.changes.set()

    def note_live(self, live: bool) -> None:
        self.live = live
        self.changes.set()

    async def until(self, *, live: bool | None = None, heard: int = 0) -> None:
        async with asyncio.timeout(SOON_S):
            while len(self.heard) < heard or live not in (None, self.live):
                self.changes.clear()
                await self.changes.wait()


@pytest.fixture
async def listener(server: EmbeddedValkey) -> AsyncIterator[Listener]:
    listener = Listener()
    listening = asyncio.create_task(FeedReader(server._url(), listener.hear, listener.note_live).run())
    await listener.until(live=True)
    yield listener
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert not listener.live


@pytest.fixture
def measured() -> Metrics:
    return Metrics("flik_events_*")


@pytest.fixture
async def writer(server: EmbeddedValkey, measured: Metrics) -> AsyncIterator[FeedWriter]:
    writer = FeedWriter(server._url(), measured).open()
    yield writer
    await writer.close()


def notice(seq: int = 1, tenant: str = "acme") -> Notice:
    return Notice(tenant, Event("t1", seq, Kind.PROCESSING, EPOCH, 1, "w1", "v1"))


def count(measured: Metrics, name: str) -> float:
    return measured.registry.get_sample_value(f"flik_events_{name}_total") or 0.0


async def test_what_is_told_is_heard_in_order(writer: FeedWriter, listener: Listener, measured: Metrics) -> None:
    told = [notice(seq) for seq in range(1, 5_001)]
    writer.tell(told)
    await listener.until(heard=5_000)
    assert listener.heard == told
    assert count(measured, "told") == 5_000


async def test_every_gateway_hears_what_any_region_tells(server: EmbeddedValkey, writer: FeedWriter) -> None:
    listeners = [Listener(), Listener()]
    readers = [FeedReader(server._url(), each.hear, each.note_live) for each in listeners]
    running = [asyncio.create_task(reader.run()) for reader in readers]
    other = FeedWriter(server._url()).open()
    for each in listeners:
        await each.until(live=True)
    writer.tell([notice(1)])
    other.tell([notice(2)])
    for each in listeners:
        await each.until(heard=2)
        assert sorted(told.event.seq for told in each.heard) == [1, 2]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await other.close()


async def test_what_nobody_wants_is_not_unpacked(server: EmbeddedValkey, writer: FeedWriter) -> None:
    listener, wanted = Listener(), [False]
    asked = asyncio.Event()

    def is_wanted() -> bool:
        asked.set()
        return wanted[0]

    reader = FeedReader(server._url(), listener.hear, listener.note_live, is_wanted)
    running = asyncio.create_task(reader.run())
    await listener.until(live=True)
    writer.tell([notice(1)])
    await asyncio.wait_for(asked.wait(), SOON_S)
    wanted[0] = True
    writer.tell([notice(2)])
    await listener.until(heard=1)
    assert listener.heard == [notice(2)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_cancel_that_the_client_swallows_counts(
    server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_message = PubSub.get_message

    async def swallowing(pubsub: PubSub, **options: Any) -> Any:
        with suppress(asyncio.CancelledError):
            return await get_message(pubsub, **options)

    monkeypatch.setattr(PubSub, "get_message", swallowing)
    listener = Listener()
    running = asyncio.create_task(FeedReader(server._url(), listener.hear, listener.note_live).run())
    await listener.until(live=True)
    running.cancel()
    _, late = await asyncio.wait([running], timeout=SOON_S)
    assert not late


async def test_a_killed_redis_is_noticed_and_heard_again(
    server: EmbeddedValkey, writer: FeedWriter, listener: Listener, measured: Metrics
) -> None:
    psutil.Process(server.pid).kill()
    await listener.until(live=False)
    writer.tell([notice(1)])
    server.stop()
    server.start()
    await listener.until(live=True)
    writer.tell([notice(2)])
    await listener.until(heard=1)
    assert listener.heard[-1] == notice(2)


async def test_a_frozen_redis_is_noticed_and_heard_again(
    server: EmbeddedValkey, writer: FeedWriter, listener: Listener
) -> None:
    frozen = psutil.Process(server.pid)
    frozen.suspend()
    try:
        await listener.until(live=False)
    finally:
        frozen.resume()
    await listener.until(live=True)
    writer.tell([notice(3)])
    async with asyncio.timeout(SOON_S):
        while notice(3) not in listener.heard:
            writer.tell([notice(3)])  # what was on its way into the frozen one may be dropped
            await listener.until(heard=len(listener.heard) + 1)


async def test_while_redis_is_away_memory_is_bounded(measured: Metrics) -> None:
    writer = FeedWriter("unix:///nowhere/redis.sock", measured)
    writer.tell([notice(1)] * (MAX_GATHERED + 10_000))
    writer.open()
    async with asyncio.timeout(SOON_S):
        while not count(measured, "dropped"):  # noqa: ASYNC110  # a counter has no event
            await asyncio.sleep(0.01)
    assert len(writer._gathered) < MAX_GATHERED
    await writer.close()


async def test_what_another_version_tells_is_passed_over(
    server: EmbeddedValkey, writer: FeedWriter, listener: Listener
) -> None:
    with redis.Redis.from_url(server._url()) as other:
        for message in UNREADABLE:
            other.publish(keys.EVENTS, message)
    writer.tell([notice()])
    await listener.until(heard=1)
    assert listener.heard == [notice()]


texts = st.none() | st.text(max_size=5)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
events = st.builds(
    Event, st.text(min_size=1), st.integers(0, 10**9), st.sampled_from(list(Kind)).map(str),
    st.floats(0, 1e10), st.none() | st.integers(0, 99), texts, texts, texts, numbers, texts, texts, numbers, texts,
    st.none(), st.none(), st.none() | st.integers(0, 10**9), st.none(), st.none(),
)  # fmt: skip


@given(st.lists(st.builds(Notice, st.text(), events)))
def test_what_is_packed_is_unpacked_as_it_was(notices: list[Notice]) -> None:
    assert unpack(pack(notices)) == notices
