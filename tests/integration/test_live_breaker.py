"""Redis is left alone while it is away, and used again as soon as it answers."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from flik.embedded import EmbeddedValkey
from flik.live import keys
from flik.live.results import LiveResults
from flik.telemetry import Metrics

BACK_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    server = EmbeddedValkey(folder / "data")
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def measured() -> Metrics:
    return Metrics("flik_breaker_*")


@pytest.fixture
async def live(server: EmbeddedValkey, measured: Metrics) -> AsyncIterator[LiveResults]:
    live = LiveResults(server._url(), ttl_s=60, measured=measured).open()
    await live.put_progress({"t1": 0.5})
    assert await live.progress("t1") == 0.5
    yield live
    await live.close()


def count(measured: Metrics, name: str) -> float:
    return measured.registry.get_sample_value(f"flik_breaker_{name}", {"process": "", "dependency": "redis"}) or 0.0


async def until_closed(measured: Metrics) -> None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while count(measured, "state"):  # noqa: ASYNC110  # a gauge has no event
            await asyncio.sleep(0.02)


async def test_frozen_redis_costs_the_first_reader_a_second_and_the_others_nothing(
    server: EmbeddedValkey, live: LiveResults, measured: Metrics
) -> None:
    frozen = psutil.Process(server.pid)
    frozen.suspend()
    try:
        assert await live.progress("t1") is None
        started = time.monotonic()
        for _ in range(100):
            assert await live.progress("t1") is None
            assert await live.get("t1") is None
        assert count(measured, "refused_total") == 200  # no command was sent
        assert time.monotonic() - started < 1.0
    finally:
        frozen.resume()
    await until_closed(measured)
    assert await live.progress("t1") == 0.5


async def test_killed_redis_is_missed_by_nobody_and_used_again_once_it_is_back(
    server: EmbeddedValkey, live: LiveResults, measured: Metrics
) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.poll() is None:  # noqa: ASYNC110  # a process has no event
        await asyncio.sleep(0.01)
    await live.put_progress({"t1": 0.9})
    assert await live.progress("t1") is None
    assert not await live.ping()
    server.start()
    await until_closed(measured)
    await live.put_progress({"t1": 0.75})
    assert await live.progress("t1") == 0.75


async def test_ping_finds_out_at_once_that_redis_is_back(
    server: EmbeddedValkey, live: LiveResults, measured: Metrics
) -> None:
    frozen = psutil.Process(server.pid)
    frozen.suspend()
    try:
        assert not await live.ping()
    finally:
        frozen.resume()
    async with asyncio.timeout(BACK_WITHIN_S):
        while not await live.ping():  # noqa: ASYNC110  # a probe of the frozen server may still be under way
            await asyncio.sleep(0.02)
    assert await live.progress("t1") == 0.5


async def test_errors_that_redis_sends_are_answers(
    server: EmbeddedValkey, live: LiveResults, measured: Metrics
) -> None:
    with redis.Redis.from_url(server._url()) as client:
        client.rpush(keys.progress("t2"), "not a number")
    for _ in range(20):
        assert await live.progress("t2") is None
    assert count(measured, "opened_total") == 0
    assert await live.progress("t1") == 0.5
