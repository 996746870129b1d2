"""A queue on a store in memory, with a clock of the test's own, driven step by step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from making import Clock, new_task, ticket_of, worker
from memory_store import MemoryStore, Row

from flik.domain.event import Event, Notice
from flik.domain.task import Completed, Failed, Grant, HandedBack, NewTask, Outcome, TaskView, Worker
from flik.pipeline.follow import Hub
from flik.pipeline.ports import Beat, BeatReply, LeaseReply
from flik.pipeline.schedule import QueuePolicy, TaskQueue

W1, W2 = worker("w1"), worker("w2")


class HotFake:
    """Hot results in a dictionary."""

    def __init__(self) -> None:
        self.results: dict[str, TaskView] = {}
        self.progress: dict[str, float] = {}

    async def put(self, tasks: Iterable[tuple[TaskView, str]]) -> None:
        self.results.update({task.task_id: task._replace(result=json.loads(result)) for task, result in tasks})

    async def get(self, task_id: str) -> TaskView | None:
        return self.results.get(task_id)

    async def put_progress(self, fractions: Mapping[str, float]) -> None:
        self.progress.update(fractions)


class FeedFake:
    """Keeps what followers were told."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def tell(self, notices: Iterable[Notice]) -> None:
        self.notices += notices

    def of(self, task_id: str) -> list[Event]:
        return [event for _, event in self.notices if event.task_id == task_id]


class Scene:
    """One queue, what it stands on, and short ways to make things happen to it."""

    def __init__(self, **policy: Any) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.hot = HotFake()
        self.feed = FeedFake()
        self.policy = QueuePolicy(**{"task_types": ("TEXT", "IMAGE"), "ageing_s": 0.0, **policy})
        self.queue = self._queue()
        self._open: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Scene:
        await self.queue.rebuild()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def restart(self) -> None:
        """Drop the queue and start another on the same store."""
        await self.__aexit__()
        self.queue = self._queue()
        await self.queue.rebuild()

    def _queue(self) -> TaskQueue:
        return TaskQueue(self.store, self.hot, self.feed, self.policy, self.clock)  # type: ignore[arg-type]  # its stand-in

    def row(self, task: NewTask | Grant) -> Row:
        return self.store.rows[task.task_id]

    # ---- callers

    async def submit(self, *, announced: bool = True, **changes: Any) -> NewTask:
        task = new_task(self.clock(), **changes)
        await self.store.insert([task])
        if announced:
            await self.queue.announce([ticket_of(task)])
        return task

    # ---- workers

    async def ask(self, who: Worker = W1, slots: int = 1, wait_s: float = 60.0) -> asyncio.Task[LeaseReply]:
        """Open a lease call; it waits."""
        call = self.start(self.queue.lease(who, slots, wait_s))
        await turn()
        return call

    async def lease(self, who: Worker = W1, slots: int = 1) -> list[Grant]:
        """Lease what can be had now."""
        call = await self.ask(who, slots)
        await self.queue.granting.step()
        await turn()
        if not call.done():
            await self.queue.leave(who)
        return list((await call).grants)

    async def lease_one(self, who: Worker = W1) -> Grant:
        (grant,) = await self.lease(who)
        return grant

    async def settle(self, *outcomes: Outcome) -> list[bool]:
        call = self.start(self.queue.settle(outcomes))
        await self.settle_all()
        answers: list[bool] = await call
        return answers

    async def beat(self, who: Worker = W1, *held: Grant, progress: float = 0.5, slots: int = 4) -> BeatReply:
        return await self.queue.beat(Beat(who, slots, [(g.task_id, g.lease_token, progress) for g in held]))

    # ---- the queue's loops

    async def settle_all(self) -> None:
        await turn()
        while self.queue.settling.gathered:
            await self.queue.settling.step()
            await turn()
        await self.queue.settling.rest()

    async def reap(self, after_s: float = 0.0) -> None:
        self.clock.forward(after_s)
        self.queue.reaping.reap(self.clock())
        await self.settle_all()

    async def sweep(self, after_s: float = 0.0) -> None:
        self.clock.forward(after_s)
        await self.queue.reaping.sweep(self.clock())
        await self.settle_all()

    async def scan(self) -> None:
        await self.queue.refilling.scan(self.clock())

    async def waiting(self, task_type: str = "TEXT") -> list[int]:
        waiting: list[int] = (await self.queue.stats())["types"][task_type]["waiting"]
        return waiting

    async def running(self, task_type: str = "TEXT") -> int:
        running: int = (await self.queue.stats())["types"][task_type]["running"]
        return running

    def start(self, call: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(call)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task


def hub_of(scene: Scene, *, live: bool = True) -> Hub:
    """A gateway's hub on what the queue stores."""
    hub = Hub(scene.store, scene.hot, scene.clock)
    hub.note_live(live)
    return hub


def pump(scene: Scene, hub: Hub) -> list[Notice]:
    """Let the hub hear what the queue told."""
    told, scene.feed.notices = scene.feed.notices, []
    hub.hear(told)
    return told


async def turn() -> None:
    """Let everything run that can run now."""
    for _ in range(12):
        await asyncio.sleep(0)


def completed(grant: Grant, text: str = "done") -> Completed:
    return Completed(grant.task_id, grant.lease_token, text)


def failed(grant: Grant, *, retryable: bool = True) -> Failed:
    return Failed(grant.task_id, grant.lease_token, "overloaded", "too much", retryable)


def handed_back(grant: Grant) -> HandedBack:
    return HandedBack(grant.task_id, grant.lease_token)
