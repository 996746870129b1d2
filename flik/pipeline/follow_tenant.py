"""Following all that happens to a tenant's tasks, from now on.

Of each task that was submitted since, a follower gets every event once and in order, as who follows that task does:
where a number is missing its log is read. Of an older one it gets what is heard. A tenant has no log of its own: what
may have been missed, while Redis was away or because the follower was too slow, is told by a `reset` without a task,
with the tenant's newest tasks as they stand. Who comes back with a number is told the same: it fits nothing here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from flik.domain.event import Event, Kind, completion
from flik.domain.position import Position, Verdict
from flik.domain.task import Status, TaskFilter, TaskView
from flik.errors import Unavailable
from flik.pipeline.follow import Follower, Hub, Mailbox
from flik.storage.conditions import first_id_at

SHOWN = 100
"""How many tasks a `reset` shows."""
KEPT = 1_000
"""Of how many tasks is known how far the follower is."""
Find = Callable[[TaskFilter], Awaitable[list[TaskView]]]


class TenantFollowing(Follower):
    """One follower of one tenant; `resumes`: it followed before, and may have missed something since.

    Entering it raises `Unavailable` when it resumes and PostgreSQL is away.
    """

    def __init__(self, hub: Hub, find: Find, tenant_id: str, *, resumes: bool = False) -> None:
        super().__init__(hub, Mailbox(), tenant_id=tenant_id)
        self._find = find
        self._tenant_id = tenant_id
        self._resumes = resumes
        self._positions: OrderedDict[str, Position] = OrderedDict()  # what was heard of least lately comes first
        self._known_from = first_id_at(hub.now())  # of tasks with greater ids everything is known, or in the log

    async def _begin(self) -> None:
        if not self._hub.live:
            self._ready.append(self._hub.state_event())
        if self._resumes:
            self._ready.append(await self._reset())

    async def _take(self) -> None:
        try:
            await self._take_one()
        except Unavailable:
            self._look_later()

    async def _take_one(self) -> None:
        """Turn the next of what is in the mailbox into events for the follower.

        Raises:
            Unavailable: what is in PostgreSQL only cannot be read.
        """
        if self._mailbox.take_look():
            self._ready.append(await self._reset())
            return
        event = self._mailbox.take()
        if event is None:
            return
        if event.kind in (Kind.LIVE, Kind.DELAYED):
            self._ready.append(event)
            if event.kind == Kind.LIVE:  # what happened meanwhile was told to nobody
                self._mailbox.ask_to_look()
        elif not event.is_durable:
            self._pass_on(event)
        else:
            await self._tell(event)

    async def _reset(self) -> Event:
        """Return the event that shows how things stand."""
        newest = await self._find(TaskFilter(tenant_id=self._tenant_id, limit=SHOWN))
        return Event("", 0, Kind.RESET, self._hub.now(), tasks=tuple(newest))

    def _pass_on(self, event: Event) -> None:
        position = self._positions.get(event.task_id)
        if position is None or position.judge(event) is Verdict.DELIVER:
            self._ready.append(event)

    async def _tell(self, event: Event) -> None:
        """Deliver a durable event, with what of its task comes before it and was not heard."""
        task_id, position = event.task_id, self._positions.get(event.task_id)
        if position is None and task_id > self._known_from:
            position = self._note(task_id, Position(0))
        events = await self._completion(event) if event.kind == Kind.COMPLETED else [event]
        if position is None:
            position = self._note(task_id, Position(events[0].seq - 1))
        self._positions.move_to_end(task_id)
        if events[0].seq > position.seq + 1 and (story := await self._hub.read(task_id)) is not None:
            events = story.events()
        self._ready += position.pass_over(events)

    async def _completion(self, event: Event) -> list[Event]:
        """Return the events of a completed task's files and its end; they are HOT, or else in the log."""
        task = await self._hub.completed(event.task_id)
        if task is None or task.status != Status.COMPLETED:
            story = await self._hub.read(event.task_id)
            if story is None or story.task.status != Status.COMPLETED:
                return [event]
            task = story.task
        return completion(task, event.seq)

    def _note(self, task_id: str, position: Position) -> Position:
        """Keep how far the follower is in a task's log; what was forgotten for it is as if it were older."""
        self._positions[task_id] = position
        if len(self._positions) > KEPT:
            forgotten, _ = self._positions.popitem(last=False)
            self._known_from = max(self._known_from, forgotten)
        return position
