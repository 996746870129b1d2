"""Following tasks live: what a gateway hears of events, given to its followers gapless and in order.

    async with hub.follow(task_id, since=3) as following:
        while not following.ended:
            event = await following.next(within_s=15.0)     # None: nothing happened

A follower is entered here first, then the log is read: what happens in between waits in its mailbox. From
then on the feed (`flik/live/feed.py`) brings events, and whenever a number is missing the log is read again.
The feed may lose what it likes: every `LOOK_S` the hub compares how far its followers are with how far the
logs are, a thousand tasks with one query; every `LOOK_AWAY_S` while Redis is away, and followers are told that
events come late.

A mailbox holds `MAILBOX` events. A follower that is slower gets the rest from the log: no event is lost, none
waits in memory, and only progress is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol, Self

from flik.domain.dag.log import DagHistory
from flik.domain.event import Event, History, Kind, Notice, Story, completion
from flik.domain.position import Position, Verdict
from flik.domain.task import Status, TaskView
from flik.errors import DagNotFound, FlikError, TaskNotFound, Unavailable
from flik.pipeline.coalesce import Coalesced

MAILBOX = 256
LOOK_S = 5.0
LOOK_AWAY_S = 0.5
LOOK_AGAIN_S = 1.0
MAX_POSITIONS = 1_000
_log = logging.getLogger("flik.follow")


class Histories(Protocol):
    """Where the logs of tasks and of dags are."""

    async def read(self, task_id: str) -> History | None:
        """Return all that happened to a task; None when there is none."""

    async def read_dag(self, dag_id: str) -> DagHistory | None:
        """Return all that happened to a dag; None when there is none."""

    async def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the number of the latest event of each task and each dag that there is."""


class HotTasks(Protocol):
    """Where completed tasks may be had fast."""

    async def get(self, task_id: str) -> TaskView | None:
        """Return a completed task; None when it is not there."""


class Mailbox:
    """What came for one follower and was not taken yet. `seq` is how far it is, for the hub to compare."""

    __slots__ = ("_error", "_events", "_look", "_waiting", "seq", "wants_text")

    def __init__(self, *, wants_text: bool = False) -> None:
        self.seq = 0
        self.wants_text = wants_text
        self._events: deque[Event] = deque()
        self._look = False
        self._error: FlikError | None = None
        self._waiting: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Leave an event; when there is no room, all are dropped and the log must be read."""
        if len(self._events) >= MAILBOX:
            self._events.clear()
            self._look = True
        else:
            self._events.append(event)
        self._wake()

    def ask_to_look(self) -> None:
        """Have the follower read the log."""
        self._look = True
        self._wake()

    def stop(self, error: FlikError) -> None:
        """Have the follower end with an error."""
        self._error = error
        self._wake()

    def take(self) -> Event | None:
        """Return the next event; None when there is none."""
        return self._events.popleft() if self._events else None

    def take_look(self) -> bool:
        """Return whether the log must be read, and note that it will be."""
        look, self._look = self._look, False
        return look

    async def wait(self, within_s: float) -> bool:
        """Return when there is something to take; False when nothing came within the time.

        Raises:
            FlikError: it was told to stop.
        """
        if self._has_something() or within_s <= 0:
            return self._has_something()
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._waiting
        finally:
            self._waiting = None
        return self._has_something()

    def _has_something(self) -> bool:
        if self._error is not None:
            raise self._error
        return bool(self._events or self._look)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Hub:
    """All followers of one gateway. Not thread-safe: it lives on one event loop. `run` must run while it is used."""

    def __init__(self, histories: Histories, hot: HotTasks, now: Callable[[], float] = time.time) -> None:
        self.read = Coalesced(histories.read)  # a thousand who follow one task ask for its log at one moment
        self.read_dag = Coalesced(histories.read_dag)
        self.completed = Coalesced(hot.get)
        self.now = now
        self._histories = histories
        self.live = False
        self._of_one: dict[str, set[Mailbox]] = {}  # by the id of a task or a dag
        self._of_tenant: dict[str, set[Mailbox]] = {}
        self._look_wanted = asyncio.Event()

    # ---- what the feed says

    def hear(self, notices: Sequence[Notice]) -> None:
        """Give events to those who follow them."""
        of_one, of_tenant = self._of_one, self._of_tenant
        for tenant_id, event in notices:
            if event.kind == Kind.MOVED:
                for mailbox in of_one.get(event.task_id, ()):
                    mailbox.ask_to_look()
                continue
            is_of_text = event.is_of_text
            for mailbox in of_one.get(event.task_id, ()):
                if not is_of_text or mailbox.wants_text:
                    mailbox.put(event)
            if not is_of_text:
                for mailbox in of_tenant.get(tenant_id, ()):
                    mailbox.put(event)

    def note_live(self, live: bool) -> None:
        """Note whether everything that happens will be heard, and tell the followers."""
        if live == self.live:
            return
        self.live = live
        for mailbox in self._mailboxes():
            mailbox.put(self.state_event())
        self._look_wanted.set()

    def state_event(self) -> Event:
        """Return the event that says whether followers hear of things as they happen."""
        return Event("", 0, Kind.LIVE if self.live else Kind.DELAYED, self.now())

    # ---- its own looks

    async def run(self) -> None:
        """Look for what the feed lost until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self.live else LOOK_AWAY_S):
                    await self._look_wanted.wait()
            self._look_wanted.clear()
            with suppress(Unavailable):
                await self.look()

    async def look(self) -> None:
        """Have those read the log who are behind it.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        followed = list(self._of_one)
        for start in range(0, len(followed), MAX_POSITIONS):
            positions = await self._histories.positions(followed[start : start + MAX_POSITIONS])
            for followed_id, seq in positions.items():
                for mailbox in self._of_one.get(followed_id, ()):
                    if mailbox.seq < seq:
                        mailbox.ask_to_look()

    # ---- followers

    def follow(self, task_id: str, since: int = 0) -> Following:
        """Follow a task from the event after number `since` on; to be entered."""
        return Following(self, task_id, since)

    def follow_dag(self, dag_id: str, since: int = 0) -> DagFollowing:
        """Follow a dag from the event after number `since` on; to be entered."""
        return DagFollowing(self, dag_id, since)

    def is_followed(self) -> bool:
        """Return whether there are any followers."""
        return bool(self._of_one or self._of_tenant)

    @property
    def followers(self) -> int:
        """How many there are."""
        return sum(1 for _ in self._mailboxes())

    @contextmanager
    def entered(self, mailbox: Mailbox, *, followed_id: str = "", tenant_id: str = "") -> Iterator[None]:
        """Give a mailbox what is heard of a task or a dag, or of a tenant, in here."""
        book, key = (self._of_one, followed_id) if followed_id else (self._of_tenant, tenant_id)
        book.setdefault(key, set()).add(mailbox)
        try:
            yield
        finally:
            book[key].discard(mailbox)
            if not book[key]:
                del book[key]

    def _mailboxes(self) -> Iterator[Mailbox]:
        return itertools.chain(*self._of_one.values(), *self._of_tenant.values())


class Follower(ABC):
    """Somebody who is entered with a hub, then asks for one event after the other."""

    def __init__(self, hub: Hub, mailbox: Mailbox, *, followed_id: str = "", tenant_id: str = "") -> None:
        self._hub = hub
        self._mailbox = mailbox
        self._ready: deque[Event] = deque()
        self._entered = hub.entered(mailbox, followed_id=followed_id, tenant_id=tenant_id)

    async def __aenter__(self) -> Self:
        self._entered.__enter__()
        try:
            await self._begin()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._entered.__exit__(None, None, None)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return False

    async def next(self, within_s: float) -> Event | None:
        """Return the next event; None when nothing happened within the time.

        Raises:
            FlikError: what is followed is gone, or it was told to stop.
        """
        until = asyncio.get_running_loop().time() + within_s
        while not self._ready:
            if not await self._mailbox.wait(until - asyncio.get_running_loop().time()):
                return None
            await self._take()
        return self._ready.popleft()

    @abstractmethod
    async def _begin(self) -> None:
        """Make what is told first."""

    @abstractmethod
    async def _take(self) -> None:
        """Turn what is in the mailbox into events for the follower."""

    def _look_later(self) -> None:
        """Have it look in a while: PostgreSQL is away."""
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._mailbox.ask_to_look)


class Following(Follower):
    """One follower of one task. `ended`: the last event that it was given is its end.

    Entering it raises `TaskNotFound` when there is no such task, and `Unavailable`.
    """

    def __init__(self, hub: Hub, followed_id: str, since: int, *, wants_text: bool = False) -> None:
        super().__init__(hub, Mailbox(wants_text=wants_text), followed_id=followed_id)
        self._id = followed_id
        self._position = Position(since)
        self.tenant_id = ""  # known once it is entered

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come: the task has ended, and the follower was told so."""
        return self._position.ended and not self._ready

    @property
    def live(self) -> bool:
        """Whether it hears of things as they happen; if not, up to `LOOK_AWAY_S` later."""
        return self._hub.live

    @property
    def seq(self) -> int:
        """The number of the last event that was read."""
        return self._position.seq

    async def gather(self, within_s: float) -> list[Event]:
        """Return the events there are now, or when there are none, the first that come within the time.

        What passes by is left out, but for chunks of text: a follower who wants them misses none.
        """
        events: list[Event] = []
        until = asyncio.get_running_loop().time() + within_s
        while not events and not self.ended:
            event = await self.next(until - asyncio.get_running_loop().time())
            if event is None:
                break
            while event is not None:
                if event.is_durable or event.is_of_text or event.kind == Kind.RESET:
                    events.append(event)
                event = self.next_now()
        return events

    async def until_ended(self, within_s: float) -> bool:
        """Return when the task has ended; False when it has not within the time."""
        until = asyncio.get_running_loop().time() + within_s
        while not self.ended:
            if await self.next(until - asyncio.get_running_loop().time()) is None:
                return False
        return True

    def stop(self, error: FlikError) -> None:
        """End with an error: the next wait raises it."""
        self._mailbox.stop(error)

    def not_found(self) -> FlikError:
        """Return what is raised when there is nothing to follow."""
        return TaskNotFound(self._id)

    def next_now(self) -> Event | None:
        """Return the next event if it is there already."""
        return self._ready.popleft() if self._ready else None

    async def _begin(self) -> None:
        story = await self._read()
        self.tenant_id = story.tenant_id
        if not self._hub.live:
            self._ready.append(self._hub.state_event())
        if self._position.seq > story.seq:
            self._position = Position(story.seq)
            self._ready.append(story.reset(self._hub.now()))
        await self._take_in(story)

    async def _take(self) -> None:
        if self._mailbox.take_look():
            await self._look()
            return
        event = self._mailbox.take()
        if event is None:
            return
        if event.kind in (Kind.LIVE, Kind.DELAYED):
            self._ready.append(event)
        elif event.kind == Kind.COMPLETED and event.seq > self._position.seq:
            await self._complete(event.seq)
        else:
            await self._judge(event)

    async def _complete(self, seq: int) -> None:
        """Deliver a completed task's files and its end; they are HOT, or else in the log."""
        task = await self._hub.completed(self._id)
        if task is None or task.status != Status.COMPLETED:
            await self._look()
            return
        for event in completion(task, seq):
            await self._judge(event)

    async def _judge(self, event: Event) -> None:
        verdict = self._position.judge(event)
        if verdict is Verdict.DELIVER:
            await self._deliver(event)
        elif verdict is Verdict.READ_LOG:
            await self._look()

    async def _deliver(self, event: Event) -> None:
        if event.is_durable:
            self._position.note(event)
            self._mailbox.seq = self._position.seq
        await self._give([event])

    async def _give(self, events: list[Event]) -> None:
        self._ready += events

    async def _look(self) -> None:
        try:
            await self._take_in(await self._read())
        except Unavailable:
            self._look_later()

    async def _take_in(self, story: Story) -> None:
        fresh = self._position.pass_over(story.events())
        self._mailbox.seq = self._position.seq
        await self._give(fresh)

    async def _read(self) -> Story:
        story = await self._find()
        if story is None:
            raise self.not_found()
        return story

    async def _find(self) -> Story | None:
        return await self._hub.read(self._id)


class DagFollowing(Following):
    """One follower of one dag; what the feed says of it is only that its log has grown.

    Entering it raises `DagNotFound` when there is no such dag, and `Unavailable`.
    """

    def not_found(self) -> FlikError:
        """Return what is raised when there is no such dag."""
        return DagNotFound(self._id)

    async def _find(self) -> Story | None:
        return await self._hub.read_dag(self._id)
