"""A worker between a queue, a provider, an object store and followers of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from making import stored_file, worker

from flik.artifacts.spool import Spool
from flik.domain.task import Grant, Outcome, StoredArtifact, Worker
from flik.errors import ArtifactNotFound, Unavailable
from flik.pipeline.ports import Beat, BeatReply, LeaseReply
from flik.pipeline.work import TaskWorker
from flik.providers.base import Artifact, Context, Output, Progress, Request, Result, TextChunk

W1 = worker("w1")
Script = Callable[[Request, Context], AsyncIterator[Output]]


class QueueFake:
    """Grants what the test puts into `pending`; settles at once, unless told to fail."""

    def __init__(self) -> None:
        self.pending: list[Grant] = []
        self.asked: list[int] = []
        self.settled: list[Outcome] = []
        self.beats: list[Beat] = []
        self.lost: list[str] = []
        self.draining = False
        self.settle_failures = 0
        self.lease_failures = 0
        self.empty_replies = 0
        self.beat_failures = 0
        self.listen_failures = 0
        self.cancelled: list[tuple[str, str]] = []
        self.refuses = False
        self.changed = asyncio.Event()
        self.beat_gate: asyncio.Event | None = None
        self.revoked_at_gate: list[str] = []

    def give(self, *grants: Grant) -> None:
        self.pending += grants
        self.changed.set()

    async def lease(self, worker: Worker, slots: int, wait_s: float) -> LeaseReply:
        self.asked.append(slots)
        if self.lease_failures:
            self.lease_failures -= 1
            raise Unavailable("queue")
        if self.empty_replies:
            self.empty_replies -= 1
            return LeaseReply([])
        while not self.pending:
            self.changed.clear()
            await self.changed.wait()
        grants, self.pending = self.pending[:slots], self.pending[slots:]
        return LeaseReply(grants)

    async def beat(self, beat: Beat) -> BeatReply:
        self.beats.append(beat)
        if self.beat_failures:
            self.beat_failures -= 1
            raise Unavailable("queue")
        if self.beat_gate is not None:
            await self.beat_gate.wait()
            self.beat_gate = None
            return BeatReply(self.revoked_at_gate)
        return BeatReply(self.lost, self.draining)

    async def revoked(self, worker: Worker, wait_s: float) -> list[tuple[str, str]]:
        if self.listen_failures:
            self.listen_failures -= 1
            raise Unavailable("queue")
        while not self.cancelled:
            self.changed.clear()
            await self.changed.wait()
        cancelled, self.cancelled = self.cancelled, []
        return cancelled

    async def settle(self, outcomes: Sequence[Outcome]) -> list[bool]:
        if self.settle_failures:
            self.settle_failures -= 1
            raise Unavailable("postgresql")
        self.settled += outcomes
        return [not self.refuses] * len(outcomes)


class ProviderFake:
    """Does what the test's script says; counts how many run at a time."""

    def __init__(self) -> None:
        self.script: Script = say("hello")
        self.requests: list[Request] = []
        self.running = 0
        self.most_running = 0
        self.cancelled: list[str] = []
        self.started = asyncio.Event()

    async def generate(self, request: Request, context: Context) -> AsyncIterator[Output]:
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.started.set()
        try:
            async for output in self.script(request, context):
                yield output
        except asyncio.CancelledError:
            self.cancelled.append(request.task_id)
            raise
        finally:
            self.running -= 1


class ArtifactsFake:
    """Remembers what was stored and when it was asked; `failures` says how often each index is refused before."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int, int]] = []
        self.asked: list[tuple[int, float]] = []
        self.failures: dict[int, float] = {}
        self.at_once = self.most_at_once = 0
        self.gate: asyncio.Event | None = None
        self.fails = False
        self.files: dict[str, bytes] = {}

    async def get(self, stored: StoredArtifact) -> bytes:
        if self.fails:
            raise Unavailable("artifacts")
        if stored.key not in self.files:
            raise ArtifactNotFound("the artifact is not there (any more)")
        return self.files[stored.key]

    async def put(self, task_id: str, attempt: int, artifact: Artifact) -> StoredArtifact:
        self.asked.append((artifact.index, asyncio.get_running_loop().time()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.fails or self.failures.get(artifact.index, 0) > 0:
                self.failures[artifact.index] = self.failures.get(artifact.index, 0) - 1
                raise Unavailable("artifacts") from OSError("no space left")
        finally:
            self.at_once -= 1
        self.stored.append((task_id, attempt, artifact.index))
        return stored_file(artifact.index)


class ChunksFake:
    """Keeps what was written of each text, and how it ended."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.gate: asyncio.Event | None = None

    def begin(self, grant: Grant, payload: Mapping[str, Any]) -> ChunksFake:
        self.written.append(f"begin {grant.task_id} {payload['prompt']}")
        return self

    def add(self, text: str) -> None:
        self.written.append(text)

    async def end(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.written.append("end")

    def close(self) -> None:
        self.written.append("close")


def say(*texts: str) -> Script:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        for text in texts:
            yield TextChunk(text)
        yield Result()

    return script


def draw(*files: Artifact) -> Script:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        for file in files:
            yield file
        yield Result()

    return script


def pictures(count: int) -> tuple[Artifact, ...]:
    return tuple(Artifact(index, "image/png", str(index).encode()) for index in range(count))


def fail_with(error: BaseException) -> Script:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        yield Progress(0.1)
        raise error

    return script


def fail_with_first(error: BaseException) -> Script:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        raise error
        yield Result()

    return script


async def hang(request: Request, context: Context) -> AsyncIterator[Output]:
    yield Progress(0.25)
    await asyncio.Event().wait()


def wait_for(gate: asyncio.Event) -> Script:
    async def script(request: Request, context: Context) -> AsyncIterator[Output]:
        await gate.wait()
        yield Result("late")

    return script


def grant(number: int = 1, token: str = "token", **times: Any) -> Grant:
    times = {"soft_timeout_s": 60.0, "hard_timeout_s": 120.0, **times}
    return Grant(f"t{number}", token, "acme", "TEXT", 1, 1, '{"prompt": "x"}', **times)


class Stage:
    """A running worker between its fakes."""

    def __init__(
        self,
        slots: int = 2,
        heartbeat_s: float = 0.005,
        read_payload: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda task_type, payload: payload,
        spool: Spool | None = None,
    ) -> None:
        self.queue, self.provider, self.artifacts = QueueFake(), ProviderFake(), ArtifactsFake()
        self.chunks = ChunksFake()
        self.worker = TaskWorker(
            W1,
            self.queue,
            self.provider,
            self.artifacts,
            read_payload,
            slots=slots,
            heartbeat_s=heartbeat_s,
            chunks=self.chunks,
            spool=spool,
        )
        self.run: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Stage:
        self.run = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.run is not None
        self.run.cancel()
        runs = [run.task for run in self.worker._runs.values() if run.task is not None]
        for task in runs:
            task.cancel()
        await asyncio.gather(self.run, *runs, return_exceptions=True)

    async def outcomes(self, count: int = 1) -> list[Outcome]:
        await until(lambda: len(self.queue.settled) >= count)
        return self.queue.settled

    async def outcome(self) -> Outcome:
        return (await self.outcomes())[0]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5.0):
        while not holds():  # noqa: ASYNC110  # conditions over several fakes
            await asyncio.sleep(0.001)
