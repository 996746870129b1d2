"""What waits: the lane of each task type, and the window that says how much of its backlogs is held.

A ticket is in exactly one place: in its lane, in a grant that is under way, or, as a lease,
with a worker. So a task that is offered while it is being granted or runs is not held again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from flik.domain.identity import WorkLimits
from flik.domain.lane import Lane
from flik.domain.lease import Leases
from flik.domain.pressure import Level, Load, Pace
from flik.domain.task import Priority, Ticket
from flik.domain.window import Page, Window
from flik.pipeline.queue.limits import TenantLimits
from flik.pipeline.queue.policy import QueuePolicy


class Waiting:
    """The tickets in memory. `grant_wanted` is set whenever one arrives.

    `in_grant` holds the tasks whose grant is under way (task -> tenant): they wait no longer and run not yet.
    """

    def __init__(
        self, policy: QueuePolicy, leases: Leases, now: Callable[[], float], grant_wanted: asyncio.Event
    ) -> None:
        self._limits = TenantLimits(policy.tenant_weights or {})
        self.lanes = {
            name: Lane(ageing_s=policy.ageing_s, weight_of=self._limits.weight_of) for name in policy.task_types
        }
        self.windows = {name: Window(policy.window) for name in policy.task_types}
        self._paces = {name: Pace() for name in policy.task_types}
        self.in_grant: dict[str, str] = {}
        self._leases = leases
        self._now = now
        self._grant_wanted = grant_wanted

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def offer(self, tickets: Iterable[Ticket], *, counted: bool = False) -> None:
        """Hold those tickets that are new and for which there is room; for `counted` see `Window.admits`."""
        now = self._now()
        for ticket in tickets:
            lane = self.lanes.get(ticket.task_type)
            if lane is None or ticket.task_id in lane or self.is_busy(ticket.task_id):
                continue
            if self.windows[ticket.task_type].admits(ticket, counted=counted) and lane.add(ticket, now):
                self._grant_wanted.set()

    def take(self, task_type: str, limit: int, now: float) -> list[Ticket]:
        """Remove and return the next tickets of a type that are due; `end_grant` must follow for each."""
        tickets = self.lanes[task_type].take(limit, now, self._spare() if self._limits.caps else None)
        if tickets:
            self.windows[task_type].left_together(tickets)
            self.in_grant.update((ticket.task_id, ticket.tenant_id) for ticket in tickets)
        return tickets

    def note_pace(self, granted: Iterable[str]) -> None:
        """Note the types of tasks that left for good."""
        now = self._now()
        for task_type, count in Counter(granted).items():
            self._paces[task_type].note(count, now)

    def _spare(self) -> Callable[[str], bool]:
        """Return what tells, for one round, whether a tenant may have another task running, and counts it."""
        taken = Counter(self.in_grant.values())
        caps, running_of = self._limits.caps, self._leases.running_of

        def spare(tenant_id: str) -> bool:
            most = caps.get(tenant_id)
            if most is not None and running_of(tenant_id) + taken[tenant_id] >= most:
                return False
            taken[tenant_id] += 1
            return True

        return spare

    def limits_are(self, limits: Iterable[WorkLimits]) -> None:
        """Take over the tenants' limits from the next grant on."""
        if self._limits.replace(limits):
            self._grant_wanted.set()

    def end_grant(self, task_ids: Iterable[str]) -> None:
        """Note that a grant is over: what it brought is leased by now, the rest may be offered again."""
        for task_id in task_ids:
            self.in_grant.pop(task_id, None)

    def take_in_pages(self, task_type: str, read: Iterable[tuple[Page, list[Ticket]]]) -> None:
        """Hold what was read of backlogs beyond the window."""
        window, lane, now = self.windows[task_type], self.lanes[task_type], self._now()
        for page, tickets in read:
            for ticket in window.page_read(page, tickets, complete=len(tickets) == page.limit):
                if self.is_busy(ticket.task_id) or not lane.add(ticket, now):
                    window.left(ticket)
        self._grant_wanted.set()

    def forget(self, task_id: str) -> Ticket | None:
        """Drop a ticket, whatever its type; None when it is not held."""
        for name, lane in self.lanes.items():
            ticket = lane.remove(task_id)
            if ticket is not None:
                self.windows[name].left(ticket)
                return ticket
        return None

    def is_busy(self, task_id: str) -> bool:
        """Return whether a task is being granted or runs."""
        return task_id in self.in_grant or task_id in self._leases

    def depth(self, task_type: str, priority: int) -> int:
        """Return how many tasks wait, in memory or beyond; what is beyond the window is an estimate."""
        return self.lanes[task_type].depth(priority) + self.windows[task_type].beyond(priority)

    def depths(self, task_type: str) -> list[int]:
        """Return the depth of each priority."""
        return [self.depth(task_type, priority) for priority in Priority]

    def load(self, tenant_ids: Iterable[str]) -> Load:
        """Return how full the queue is, and how many tasks of each of these tenants wait."""
        now = self._now()
        levels = {name: Level(sum(self.depths(name)), pace.per_s(now)) for name, pace in self._paces.items()}
        queued = {
            tenant_id: sum(
                window.waiting_of(tenant_id, priority) for window in self.windows.values() for priority in Priority
            )
            for tenant_id in tenant_ids
        }
        return Load(levels, queued)

    def next_at(self) -> float | None:
        """Return when the next ticket that is held back (for its retry) falls due; None without one."""
        now = self._now()
        return min((at for lane in self.lanes.values() if (at := lane.wakes_at(now)) is not None), default=None)
