"""In which order the waiting tasks of one type are granted.

Three rules, the first that tells two tickets apart decides:

1. A lower class number goes first, always (P0 before P1 before P2).
2. Inside a class, tenants share by weight: start-time fair queueing (Goyal, Vin and Cheng,
   1996) with every task of size 1. A tenant's next task starts at virtual time
   max(the class's virtual time, the tenant's last start + 1/weight); the smallest start goes
   first. With weights 3 and 1 and both waiting, any 4 grants hold 3 and 1 of them, and a
   tenant that appears waits for about one grant of each other tenant, however deep their
   backlogs are.
3. Inside a tenant, the oldest first.

Ageing: a ticket that has waited `ageing_s` counts as one class more urgent, after twice that
as two. So the class is about urgency, not about starving: with 600 s, a P2 ticket stands
among P0 after 20 minutes. `ageing_s` 0 switches it off.

A ticket whose `available_at` lies ahead is held aside until then. All operations cost
O(log n); removal is lazy and is compacted away.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flik.domain.task import Priority, Ticket

CLASSES = len(Priority)


def equal_weight(_tenant_id: str) -> int:
    """Every tenant gets the same share."""
    return 1


@dataclass(slots=True)
class _Entry:
    ticket: Ticket
    level: int | None  # None while it waits for `available_at`


@dataclass(slots=True)
class _Flow:
    """One tenant's tickets in one class: a heap of (queued_at, task_id), some of them stale."""

    waiting: list[tuple[float, str]] = field(default_factory=list)
    live: int = 0
    start: float = 0.0  # the virtual start of its next grant


class _Class:
    """One priority class: its tenants' flows, in the order of their virtual starts."""

    def __init__(self, weight_of: Callable[[str], int]) -> None:
        self._weight_of = weight_of
        self._flows: dict[str, _Flow] = {}
        self._order: list[tuple[float, int, str]] = []  # (virtual start, arrival, tenant), one per live flow
        self._finished: dict[str, float] = {}  # where tenants without tickets may go on
        self._virtual = 0.0
        self._arrivals = 0

    def __bool__(self) -> bool:
        return bool(self._flows)

    def add(self, ticket: Ticket) -> None:
        flow = self._flows.get(ticket.tenant_id)
        if flow is None:
            start = max(self._virtual, self._finished.pop(ticket.tenant_id, 0.0))
            flow = self._flows[ticket.tenant_id] = _Flow(start=start)
            self._schedule(ticket.tenant_id, flow)
        heapq.heappush(flow.waiting, (ticket.queued_at, ticket.task_id))
        flow.live += 1

    def remove(self, ticket: Ticket, is_live: Callable[[str], bool]) -> None:
        """Forget one ticket, which is no longer live; its heap entry goes when it surfaces."""
        flow = self._flows[ticket.tenant_id]
        flow.live -= 1
        if flow.live == 0:
            self._leave(ticket.tenant_id, flow.start)
        elif len(flow.waiting) > 2 * flow.live + 16:
            flow.waiting = [entry for entry in flow.waiting if is_live(entry[1])]
            heapq.heapify(flow.waiting)

    def take(self, is_live: Callable[[str], bool]) -> str:
        """Remove and return the id of the ticket that is next. The class must hold one."""
        while True:
            start, _, tenant_id = heapq.heappop(self._order)
            flow = self._flows.get(tenant_id)
            if flow is not None and flow.start == start:
                break
        self._virtual = start
        flow.start = start + 1.0 / max(1, self._weight_of(tenant_id))
        task_id = self._oldest(flow, is_live)
        flow.live -= 1
        if flow.live:
            self._schedule(tenant_id, flow)
        else:
            self._leave(tenant_id, flow.start)
        return task_id

    def _oldest(self, flow: _Flow, is_live: Callable[[str], bool]) -> str:
        while True:
            _, task_id = heapq.heappop(flow.waiting)
            if is_live(task_id):
                return task_id

    def _schedule(self, tenant_id: str, flow: _Flow) -> None:
        self._arrivals += 1
        heapq.heappush(self._order, (flow.start, self._arrivals, tenant_id))

    def _leave(self, tenant_id: str, start: float) -> None:
        del self._flows[tenant_id]
        if not self._flows:
            # An idle class has nothing to be fair about: start afresh.
            self._order.clear()
            self._finished.clear()
            self._virtual = 0.0
            return
        if start > self._virtual:
            self._finished[tenant_id] = start
        if len(self._finished) > 2 * len(self._flows) + 64:
            self._finished = {tenant: at for tenant, at in self._finished.items() if at > self._virtual}


class Lane:
    """The waiting tickets of one task type.

    Not thread-safe: it lives on one event loop.
    """

    def __init__(self, *, ageing_s: float = 0.0, weight_of: Callable[[str], int] = equal_weight) -> None:
        self._ageing_s = ageing_s
        self._entries: dict[str, _Entry] = {}
        self._classes = [_Class(weight_of) for _ in range(CLASSES)]
        self._delayed: list[tuple[float, str]] = []
        self._ageing: list[tuple[float, str, int]] = []  # (when, task, the class it leaves)
        self._depth = [0] * CLASSES

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._entries

    def __iter__(self) -> Iterator[Ticket]:
        return (entry.ticket for entry in self._entries.values())

    def depth(self, priority: int) -> int:
        """Return how many tickets were submitted with this priority, aged and delayed ones included."""
        return self._depth[priority]

    def add(self, ticket: Ticket, now: float) -> bool:
        """Hold a ticket; return False, changing nothing, when its task is held already."""
        if ticket.task_id in self._entries:
            return False
        entry = self._entries[ticket.task_id] = _Entry(ticket, None)
        self._depth[ticket.priority] += 1
        if ticket.available_at > now:
            heapq.heappush(self._delayed, (ticket.available_at, ticket.task_id))
            self._compact_delayed()
        else:
            self._enter(entry, now)
        return True

    def remove(self, task_id: str) -> Ticket | None:
        """Drop a ticket, wherever it stands; None when it is not held."""
        entry = self._entries.pop(task_id, None)
        if entry is None:
            return None
        self._depth[entry.ticket.priority] -= 1
        if entry.level is not None:
            self._classes[entry.level].remove(entry.ticket, self._live_at(entry.level))
        return entry.ticket

    def take(self, limit: int, now: float) -> list[Ticket]:
        """Remove and return up to `limit` tickets in the order in which they are to be granted."""
        self._advance(now)
        taken: list[Ticket] = []
        for level, tenants in enumerate(self._classes):
            is_live = self._live_at(level)
            while tenants and len(taken) < limit:
                entry = self._entries.pop(tenants.take(is_live))
                self._depth[entry.ticket.priority] -= 1
                taken.append(entry.ticket)
        return taken

    def ready(self, now: float) -> bool:
        """Return whether `take` would return anything."""
        self._advance(now)
        return any(self._classes)

    def wakes_at(self, now: float) -> float | None:
        """Return when the next delayed ticket becomes available, later than `now`; None without one."""
        self._advance(now)
        while self._delayed and not self._is_delayed(self._delayed[0][1]):
            heapq.heappop(self._delayed)
        return self._delayed[0][0] if self._delayed else None

    def _is_delayed(self, task_id: str) -> bool:
        entry = self._entries.get(task_id)
        return entry is not None and entry.level is None

    def _live_at(self, level: int) -> Callable[[str], bool]:
        entries = self._entries

        def is_live(task_id: str) -> bool:
            entry = entries.get(task_id)
            return entry is not None and entry.level == level

        return is_live

    def _advance(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            _, task_id = heapq.heappop(self._delayed)
            # A ticket that left and came back may be due later than this entry says.
            if self._is_delayed(task_id) and self._entries[task_id].ticket.available_at <= now:
                self._enter(self._entries[task_id], now)
        while self._ageing and self._ageing[0][0] <= now:
            _, task_id, level = heapq.heappop(self._ageing)
            entry = self._entries.get(task_id)
            if entry is not None and entry.level == level:
                entry.level = None
                self._classes[level].remove(entry.ticket, self._live_at(level))
                self._enter(entry, now)

    def _enter(self, entry: _Entry, now: float) -> None:
        """Put an available ticket into the class that its priority and age give it."""
        ticket = entry.ticket
        lifted = int((now - ticket.queued_at) // self._ageing_s) if self._ageing_s and now > ticket.queued_at else 0
        entry.level = level = max(0, ticket.priority - lifted)
        self._classes[level].add(ticket)
        if self._ageing_s and level:
            steps = ticket.priority - level + 1
            heapq.heappush(self._ageing, (ticket.queued_at + steps * self._ageing_s, ticket.task_id, level))
            self._compact_ageing()

    # Tickets that left keep their entries until these surface; a busy lane would gather `ageing_s` seconds of them.

    def _compact_delayed(self) -> None:
        if len(self._delayed) > 2 * len(self._entries) + 64:
            self._delayed = list({entry for entry in self._delayed if self._is_delayed(entry[1])})
            heapq.heapify(self._delayed)

    def _compact_ageing(self) -> None:
        if len(self._ageing) > 2 * len(self._entries) + 64:
            self._ageing = list({entry for entry in self._ageing if self._live_at(entry[2])(entry[1])})
            heapq.heapify(self._ageing)
