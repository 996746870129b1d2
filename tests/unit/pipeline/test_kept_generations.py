"""A generation that is whole outlives its attempt, its replica and an object store that stays away. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import virtual_time
from making import stored_file
from worker_scene import Stage, draw, fail_with_first, grant, pictures, until

from flik.artifacts.spool import Spool
from flik.domain.task import Completed, Failed, HandedBack, Outcome, UploadStatus
from flik.providers.base import Artifact, Context, Output, Request, Result

NEVER = float("inf")


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would not wait for them."""

    async def at_once(work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    monkeypatch.setattr(asyncio, "to_thread", at_once)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


async def described(request: Request, context: Context) -> AsyncIterator[Output]:
    for picture in pictures(3):
        yield picture
    yield Result("three pictures", {"seed": 7})


async def ended(stage: Stage) -> Outcome:
    async with asyncio.timeout(3_600.0):
        while not stage.queue.settled:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0.1)
    return stage.queue.settled[0]


async def kept(spool: Spool) -> None:
    """Leave behind what a replica leaves that is killed while its second picture waits for the store."""
    async with Stage(heartbeat_s=1.0, spool=spool) as stage:
        stage.provider.script = described
        stage.artifacts.failures = {1: NEVER}
        stage.queue.give(grant(1, "killed", hard_timeout_s=10_000.0))
        await asyncio.sleep(2.0)
        assert stage.queue.settled == []
        assert await spool.find("t1", "v1") is not None


def test_generation_of_a_killed_replica_is_taken_up_by_another_one(spool: Spool) -> None:
    async def scene() -> None:
        await kept(spool)
        async with Stage(heartbeat_s=1.0, spool=spool) as other:
            other.provider.script = fail_with_first(RuntimeError("generated again"))
            other.artifacts.files = {"key/0": b"0", "key/2": b"2"}
            other.queue.give(grant(1, "next"))
            outcome = await ended(other)
            assert isinstance(outcome, Completed)
            assert (outcome.text, outcome.metadata, outcome.made_by) == ("three pictures", {"seed": 7}, "killed")
            assert outcome.artifacts == (stored_file(0), stored_file(1), stored_file(2))
            assert other.provider.requests == []
            assert [index for _, _, index in other.artifacts.stored] == [1]
            assert [(each.index, each.status) for each in outcome.uploads] == [(1, UploadStatus.STORED)]
            await asyncio.sleep(0.5)
            assert await spool.find("t1", "v1") is None

    virtual_time.run(scene())


def test_store_that_is_away_beyond_the_hard_timeout_costs_no_second_generation(spool: Spool) -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0, spool=spool) as stage:
            stage.provider.script = described
            stage.artifacts.failures = {1: NEVER}
            stage.queue.give(grant(1, "first", hard_timeout_s=30.0))
            outcome = await ended(stage)
            assert isinstance(outcome, Failed)
            assert (outcome.error_code, outcome.retryable) == ("artifacts_unavailable", True)
            stage.queue.settled.clear()
            stage.artifacts.failures = {}
            stage.artifacts.files = {"key/0": b"0", "key/2": b"2"}
            stage.queue.give(grant(1, "second"))
            outcome = await ended(stage)
            assert isinstance(outcome, Completed)
            assert outcome.made_by == "first"
            assert len(stage.provider.requests) == 1

    virtual_time.run(scene())


def test_generation_that_ends_late_is_kept_though_its_upload_has_one_try(spool: Spool) -> None:
    async def late(request: Request, context: Context) -> AsyncIterator[Output]:
        await asyncio.sleep(28.0)
        yield Artifact(0, "image/png", b"0")
        yield Result()

    async def scene() -> None:
        async with Stage(heartbeat_s=1.0, spool=spool) as stage:
            stage.provider.script = late
            stage.artifacts.failures = {0: NEVER}
            stage.queue.give(grant(1, hard_timeout_s=30.0))
            outcome = await ended(stage)
            assert isinstance(outcome, Failed)
            assert (outcome.error_code, outcome.retryable) == ("artifacts_unavailable", True)
            assert await spool.find("t1", "v1") is not None

    virtual_time.run(scene())


async def test_what_is_handed_back_whole_is_kept_at_once(spool: Spool) -> None:
    async with Stage(spool=spool) as stage:
        stage.provider.script = draw(*pictures(2))
        stage.artifacts.gate = asyncio.Event()
        stage.queue.give(grant())
        await until(lambda: stage.artifacts.at_once == 2)
        await stage.worker.drain(0.0)
        assert [type(outcome) for outcome in stage.queue.settled] == [HandedBack]
        made = await spool.find("t1", "v1")
        assert made is not None
        assert len(made.files) == 2


async def test_what_is_handed_back_half_made_or_taken_away_is_not_kept(spool: Spool) -> None:
    async def half(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Artifact(0, "image/png", b"0")
        await asyncio.Event().wait()

    async with Stage(spool=spool) as stage:
        stage.artifacts.gate = asyncio.Event()
        stage.provider.script = draw(*pictures(1))
        stage.queue.give(grant(1))
        await until(lambda: stage.artifacts.at_once == 1)
        stage.queue.lost = ["t1"]
        await until(lambda: not stage.worker._runs)
        stage.provider.script = half
        stage.queue.give(grant(2))
        await until(lambda: stage.artifacts.at_once == 1)
        await stage.worker.drain(0.0)
        assert [type(outcome) for outcome in stage.queue.settled] == [HandedBack]
        assert await spool.find("t1", "v1") is None
        assert await spool.find("t2", "v1") is None


async def test_what_is_stored_soon_is_never_kept(tmp_path: Path) -> None:
    async with Stage(spool=Spool(tmp_path / "spool")) as stage:
        stage.provider.script = draw(*pictures(2))
        stage.queue.give(grant())
        assert isinstance(await stage.outcome(), Completed)
        assert not (tmp_path / "spool").exists()


def test_kept_generation_whose_files_are_gone_is_made_again(spool: Spool) -> None:
    async def scene() -> None:
        await kept(spool)
        async with Stage(heartbeat_s=1.0, spool=spool) as other:
            other.provider.script = draw(*pictures(1))
            other.queue.give(grant(1, "next"))  # the store has lost what was stored
            outcome = await ended(other)
            assert isinstance(outcome, Failed)
            assert (outcome.error_code, outcome.retryable) == ("artifacts_unavailable", True)
            await asyncio.sleep(0.5)
            assert await spool.find("t1", "v1") is None
            other.queue.settled.clear()
            other.queue.give(grant(1, "last"))
            outcome = await ended(other)
            assert isinstance(outcome, Completed)
            assert outcome.made_by is None

    virtual_time.run(scene())


def test_outcome_that_is_refused_leaves_what_was_kept_to_who_has_the_lease(spool: Spool) -> None:
    async def scene() -> None:
        await kept(spool)
        async with Stage(heartbeat_s=1.0, spool=spool) as other:
            other.artifacts.files = {"key/0": b"0", "key/2": b"2"}
            other.queue.refuses = True
            other.queue.give(grant(1, "stale"))
            assert isinstance(await ended(other), Completed)
            await asyncio.sleep(5.0)
            assert await spool.find("t1", "v1") is not None

    virtual_time.run(scene())
