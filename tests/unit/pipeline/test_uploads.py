"""Uploads of a worker: each file for itself, again when it fails, and the generation once. On virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from itertools import islice
from typing import Any

import pytest
import virtual_time
from making import stored_file
from worker_scene import ArtifactsFake, Stage, draw, grant, pictures

from flik.domain.task import Completed, Failed, HandedBack, Outcome, StoredArtifact, Upload, UploadStatus
from flik.errors import ProviderError, ProviderUnavailable, Unavailable
from flik.pipeline.uploads import LEAST_BYTES, Room, Uploader, Uploads, pauses_s
from flik.providers.base import Artifact, Context, Output, Request

SENT = 1_700_000_000.0
NEVER = float("inf")
STORED, FAILED, ABANDONED = UploadStatus


def begin(sink: ArtifactsFake, hard_timeout_s: float = 100.0, **bounds: int) -> Uploads:
    return Uploader(sink, now=lambda: SENT, **bounds).begin(
        grant(hard_timeout_s=hard_timeout_s), asyncio.get_running_loop().time()
    )


def now() -> float:
    return asyncio.get_running_loop().time() - 1_000.0


def test_pauses_grow_to_three_seconds() -> None:
    assert list(islice(pauses_s(), 7)) == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]


# ---- the files of one attempt


def test_what_is_stored_at_once_has_one_attempt_and_no_error() -> None:
    async def scene() -> None:
        uploads = begin(ArtifactsFake())
        await uploads.add(Artifact(0, "image/png", b"abc"))
        assert await uploads.end() == (stored_file(0),)
        assert uploads.told() == (Upload(0, STORED, 1, 3, SENT, SENT),)

    virtual_time.run(scene())


def test_no_files_are_no_uploads() -> None:
    async def scene() -> None:
        uploads = begin(ArtifactsFake())
        assert await uploads.end() == ()
        await uploads.close()
        assert uploads.told() == ()

    virtual_time.run(scene())


def test_only_the_file_that_failed_is_sent_again() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {1: 3}
        uploads = begin(sink)
        for picture in pictures(3):
            await uploads.add(picture)
        files = await uploads.end()
        assert [(round(at - 1_000, 3), index) for index, at in sink.asked] == [
            (0.0, 0), (0.0, 1), (0.0, 2), (0.2, 1), (0.6, 1), (1.4, 1)
        ]  # fmt: skip
        assert files == (stored_file(0), stored_file(1, upload_attempts=4), stored_file(2))
        first, again, last = uploads.told()
        assert (first.attempts, first.error, last.attempts, last.error) == (1, None, 1, None)
        assert (again.status, again.attempts, again.error) == (STORED, 4, "OSError: no space left")
        assert round(again.ended_at - again.started_at, 3) == 1.4

    virtual_time.run(scene())


def test_files_come_in_the_order_in_which_they_were_made_however_long_each_takes() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {0: 4, 1: 1, 2: 2}
        uploads = begin(sink)
        for picture in pictures(4):
            await uploads.add(picture)
        assert [file.index for file in await uploads.end()] == [0, 1, 2, 3]
        assert [index for _, _, index in sink.stored] == [3, 1, 2, 0]

    virtual_time.run(scene())


@pytest.mark.parametrize(("hard_timeout_s", "given_up_by"), [(20.0, 18.0), (1_000.0, 995.0)])
def test_upload_is_given_up_shortly_before_the_hard_timeout(hard_timeout_s: float, given_up_by: float) -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {1: NEVER}
        uploads = begin(sink, hard_timeout_s)
        for picture in pictures(2):
            await uploads.add(picture)
        with pytest.raises(Unavailable):
            await uploads.end()
        assert given_up_by - 3.0 <= now() < given_up_by
        assert [(each.status, each.attempts > 1) for each in uploads.told()] == [(STORED, False), (FAILED, True)]

    virtual_time.run(scene())


def test_upload_that_begins_late_is_tried_once() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        uploads = begin(sink, 20.0)
        await asyncio.sleep(19.9)
        await uploads.add(Artifact(0, "image/png", b""))
        assert await uploads.end() == (stored_file(0),)

    virtual_time.run(scene())


def test_provider_hears_of_an_upload_that_failed_with_its_next_file() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {0: NEVER}
        uploads = begin(sink, 10.0)
        await uploads.add(Artifact(0, "image/png", b""))
        await asyncio.sleep(9.5)
        with pytest.raises(Unavailable):
            await uploads.add(Artifact(1, "image/png", b""))
        await uploads.close()
        assert [each.status for each in uploads.told()] == [FAILED, ABANDONED]

    virtual_time.run(scene())


def test_what_is_called_off_is_abandoned_and_gives_its_room_back() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.gate = asyncio.Event()
        uploader = Uploader(sink, now=lambda: SENT, waiting_bytes=LEAST_BYTES)
        uploads = uploader.begin(grant(), 1_000.0)
        await uploads.add(Artifact(0, "image/png", b"abc"))
        await asyncio.sleep(2.0)
        await uploads.close()
        assert uploads.told() == (Upload(0, ABANDONED, 1, 3, SENT, SENT + 2.0),)
        sink.gate.set()
        other = uploader.begin(grant(2), 1_000.0)
        await other.add(Artifact(0, "image/png", b"abc"))
        assert await other.end() == (stored_file(0),)

    virtual_time.run(scene())


def test_an_error_that_postgresql_could_not_hold_is_made_fit() -> None:
    class Broken(ArtifactsFake):
        async def put(self, task_id: str, attempt: int, artifact: Artifact) -> StoredArtifact:
            raise ValueError("a\0b \ud800 " + "x" * 1_000 + "\nmore")

    async def scene() -> None:
        uploads = begin(Broken())
        await uploads.add(Artifact(0, "image/png", b""))
        with pytest.raises(ValueError, match="x"):
            await uploads.end()
        (told,) = uploads.told()
        assert (told.status, told.attempts) == (FAILED, 1)
        assert told.error == ("ValueError: a b ? " + "x" * 1_000)[:300]

    virtual_time.run(scene())


def test_number_of_attempts_stays_within_its_column() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {0: NEVER}
        uploads = begin(sink, 200_000.0)
        await uploads.add(Artifact(0, "image/png", b""))
        with pytest.raises(Unavailable):
            await uploads.end()
        assert uploads.told()[0].attempts == 32_767

    virtual_time.run(scene())


# ---- bounds


def test_at_most_so_many_files_are_on_their_way_and_one_that_waits_for_its_next_try_is_not() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {0: 1, 1: 1}
        sink.gate = asyncio.Event()
        uploads = begin(sink, at_a_time=2)
        for picture in pictures(6):
            await uploads.add(picture)
        await asyncio.sleep(1.0)
        assert (sink.most_at_once, len(sink.asked)) == (2, 2)
        sink.gate.set()
        assert len(await uploads.end()) == 6
        assert sink.most_at_once == 2
        assert [index for _, _, index in sink.stored] == [2, 3, 4, 5, 0, 1]

    virtual_time.run(scene())


def test_provider_is_held_back_while_too_many_bytes_wait() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.failures = {0: NEVER, 1: NEVER}
        made: list[int] = []
        uploads = begin(sink, waiting_bytes=4 * LEAST_BYTES)

        async def generate() -> None:
            for index in range(4):
                made.append(index)
                await uploads.add(Artifact(index, "video/mp4", bytes(2 * LEAST_BYTES)))

        generating = asyncio.create_task(generate())
        await asyncio.sleep(10.0)
        assert made == [0, 1, 2]
        sink.failures = {}
        await generating
        assert len(await uploads.end()) == 4

    virtual_time.run(scene())


def test_provider_that_is_held_back_to_the_end_fails_as_the_store_does() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.gate = asyncio.Event()
        uploads = begin(sink, 10.0, waiting_bytes=LEAST_BYTES)
        await uploads.add(Artifact(0, "video/mp4", b""))
        with pytest.raises(Unavailable):
            await uploads.add(Artifact(1, "video/mp4", b""))
        assert now() == pytest.approx(9.0)
        await uploads.close()

    virtual_time.run(scene())


def test_file_that_is_larger_than_all_the_room_goes_alone() -> None:
    async def scene() -> None:
        sink = ArtifactsFake()
        sink.gate = asyncio.Event()
        uploads = begin(sink, waiting_bytes=LEAST_BYTES)
        await uploads.add(Artifact(0, "video/mp4", bytes(5 * LEAST_BYTES)))
        next_one = asyncio.create_task(uploads.add(Artifact(1, "video/mp4", b"x")))
        await asyncio.sleep(1.0)
        assert (sink.at_once, next_one.done()) == (1, False)
        sink.gate.set()
        await next_one
        assert len(await uploads.end()) == 2

    virtual_time.run(scene())


def test_who_waits_longest_for_room_gets_it_first() -> None:
    async def scene() -> None:
        room = Room(4 * LEAST_BYTES)
        first = await room.take(3 * LEAST_BYTES)
        order: list[str] = []

        async def take(name: str, size_bytes: int) -> None:
            await room.take(size_bytes)
            order.append(name)

        waiting = [asyncio.create_task(take("large", 4 * LEAST_BYTES)), asyncio.create_task(take("small", 1))]
        await asyncio.sleep(1.0)
        assert order == []
        room.give_back(first)
        await asyncio.sleep(1.0)
        assert order == ["large"]
        room.give_back(4 * LEAST_BYTES)
        await asyncio.gather(*waiting)
        assert order == ["large", "small"]

    virtual_time.run(scene())


# ---- in a worker


def play(scene: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(scene)


async def ended(stage: Stage, within_s: float = 300.0) -> Outcome:
    async with asyncio.timeout(within_s):
        while not stage.queue.settled:  # noqa: ASYNC110  # virtual time
            await asyncio.sleep(0.1)
    return stage.queue.settled[0]


def summary(outcome: Outcome) -> list[tuple[int, str, int]]:
    return [(each.index, each.status, each.attempts) for each in outcome.uploads]


def test_store_that_fails_for_a_while_costs_no_second_generation() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(4))
            stage.artifacts.failures = {1: 5, 3: 2}
            stage.queue.give(grant())
            outcome = await ended(stage)
            assert isinstance(outcome, Completed)
            assert len(stage.provider.requests) == 1
            assert [file.index for file in outcome.artifacts] == [0, 1, 2, 3]
            assert [file.upload_attempts for file in outcome.artifacts] == [1, 6, 1, 3]
            assert summary(outcome) == [(0, STORED, 1), (1, STORED, 6), (2, STORED, 1), (3, STORED, 3)]
            assert sorted(index for _, _, index in stage.artifacts.stored) == [0, 1, 2, 3]
            assert len(stage.artifacts.asked) == 4 + 5 + 2

    play(scene())


def test_lease_is_renewed_while_files_wait_and_little_is_asked_of_the_store() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(1))
            stage.artifacts.fails = True
            stage.queue.give(grant(hard_timeout_s=300.0))
            await asyncio.sleep(60.5)
            assert len(stage.queue.beats) == 60
            assert stage.queue.beats[-1].held[0][:2] == ("t1", "token")
            assert len(stage.artifacts.asked) < 25
            stage.artifacts.fails = False
            stage.artifacts.failures = {}
            assert isinstance(await ended(stage), Completed)

    play(scene())


def test_store_that_stays_away_fails_the_attempt_to_be_tried_again_and_before_its_hard_timeout() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(2))
            stage.artifacts.failures = {1: NEVER}
            stage.queue.give(grant(hard_timeout_s=30.0))
            outcome = await ended(stage)
            assert isinstance(outcome, Failed)
            assert (outcome.error_code, outcome.retryable) == ("artifacts_unavailable", True)
            assert now() < 27.2
            assert [line[:2] for line in summary(outcome)] == [(0, STORED), (1, FAILED)]

    play(scene())


def test_hard_timeout_ends_uploads_with_the_attempt() -> None:
    async def film_and_hang(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Artifact(0, "video/mp4", b"0")
        yield Artifact(1, "video/mp4", b"1")
        await asyncio.Event().wait()

    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = film_and_hang
            stage.artifacts.failures = {1: NEVER}
            stage.queue.give(grant(hard_timeout_s=20.0))
            outcome = await ended(stage)
            assert isinstance(outcome, Failed)
            assert (outcome.error_code, outcome.retryable) == ("run_timeout", False)
            asked = len(stage.artifacts.asked)
            await asyncio.sleep(30.0)
            assert len(stage.artifacts.asked) == asked

    play(scene())


def test_cancelled_task_ends_its_uploads_and_reports_nothing() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(3))
            stage.artifacts.failures = {2: NEVER}
            stage.queue.give(grant())
            await asyncio.sleep(5.5)
            stage.queue.lost = ["t1"]
            await asyncio.sleep(1.0)
            asked = len(stage.artifacts.asked)
            await asyncio.sleep(30.0)
            assert len(stage.artifacts.asked) == asked
            assert stage.queue.settled == []
            assert not stage.worker._runs

    play(scene())


def test_drain_waits_for_uploads_and_hands_back_what_they_take_too_long_for() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(2))
            stage.artifacts.failures = {0: 2}
            stage.queue.give(grant(1))
            await asyncio.sleep(0.1)
            await stage.worker.drain(4.0)
            assert isinstance(stage.queue.settled[0], Completed)
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(2))
            stage.artifacts.failures = {1: NEVER}
            stage.queue.give(grant(1))
            await asyncio.sleep(0.1)
            await stage.worker.drain(4.0)
            (outcome,) = stage.queue.settled
            assert isinstance(outcome, HandedBack)
            assert [line[:2] for line in summary(outcome)] == [(0, STORED), (1, ABANDONED)]
            assert stage.artifacts.at_once == 0

    play(scene())


@pytest.mark.parametrize(
    ("error", "kind"), [(ProviderError("boom", "", True), Failed), (ProviderUnavailable("away"), HandedBack)]
)
def test_provider_that_fails_ends_the_uploads_of_what_it_made(error: Exception, kind: type[Outcome]) -> None:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Artifact(0, "image/png", b"0")
        await asyncio.sleep(1.0)
        yield Artifact(1, "image/png", b"1")
        raise error

    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = script
            stage.artifacts.failures = {1: NEVER}
            stage.queue.give(grant())
            outcome = await ended(stage)
            assert type(outcome) is kind
            assert [line[:2] for line in summary(outcome)] == [(0, STORED), (1, ABANDONED)]

    play(scene())


def test_files_of_an_attempt_that_is_superseded_are_called_off_before_its_successor_s_are_whole() -> None:
    async def scene() -> None:
        async with Stage(heartbeat_s=1.0) as stage:
            stage.provider.script = draw(*pictures(1))
            stage.artifacts.failures = {0: 3}
            stage.queue.give(grant(1, "old"))
            await asyncio.sleep(0.1)
            stage.queue.give(grant(1, "new"))
            outcome = await ended(stage)
            assert (type(outcome), outcome.lease_token) == (Completed, "new")
            assert len(stage.artifacts.stored) == 1

    play(scene())
