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

A tenant may be at its cap of running tasks: then it is passed over, and gains nothing by it; when it may run
again it goes on from where its class is by then.

A ticket whose `available_at` lies ahead is held aside until then. All operations cost
O(log n), and O(1) for a tenant's tickets that arrive in the order of their age, as nearly all
do; removal is lazy and is compacted away.

There may be a million tenants with a ticket each, so what is kept of a ticket and of a tenant is small: a ticket's
place in the order, (queued_at, task_id), is one object for its flow and for its ageing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flik.domain.task import Priority, Ticket

CLASSES = len(Priority)
_Place = tuple[float, str]  # (queued_at, task_id)


def equal_weight(_tenant_id: str) -> int:
    """Every tenant gets the same share."""
    return 1


@dataclass(slots=True)
class _Entry:
    ticket: Ticket
    level: int | None  # None while it waits for `available_at`


class _Flow:
    """One tenant's tickets in one class, the oldest first, some of them stale."""

    __slots__ = ("_gone", "_late", "_ordered", "live", "start")

    def __init__(self, start: float, first: _Place) -> None:
        self._ordered = [first]
        self._gone = 0  # how many of these were popped
        self._late: list[_Place] | None = None  # a heap: what arrived after a younger one
        self.live = 1
        self.start = start  # the virtual start of its next grant

    def __len__(self) -> int:
        return len(self._ordered) - self._gone + len(self._late or ())

    def push(self, place: _Place) -> None:
        if self._gone < len(self._ordered) and place < self._ordered[-1]:
            if self._late is None:
                self._late = []
            heapq.heappush(self._late, place)
        else:
            self._ordered.append(place)
        self.live += 1

    def pop(self, is_live: Callable[[str], bool]) -> str:
        """Remove and return the oldest that is live; there must be one."""
        has_stale = self.live < len(self)
        while True:
            _, task_id = self._pop()
            if not has_stale or is_live(task_id):
                self.live -= 1
                return task_id

    def _pop(self) -> _Place:
        late, ordered, gone = self._late, self._ordered, self._gone
        if late and (gone == len(ordered) or late[0] < ordered[gone]):
            return heapq.heappop(late)
        self._gone += 1
        if self._gone > 32 and 2 * self._gone > len(ordered):
            self._ordered, self._gone = ordered[self._gone :], 0
        return ordered[gone]

    def drop_stale(self, is_live: Callable[[str], bool]) -> None:
        self._ordered = [place for place in self._ordered[self._gone :] if is_live(place[1])]
        self._gone = 0
        self._late = [place for place in self._late or () if is_live(place[1])]
        heapq.heapify(self._late)


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

    def add(self, tenant_id: str, place: _Place) -> None:
        flow = self._flows.get(tenant_id)
        if flow is not None:
            flow.push(place)
            return
        start = max(self._virtual, self._finished.pop(tenant_id, 0.0))
        flow = self._flows[tenant_id] = _Flow(start, place)
        self._schedule(tenant_id, flow)

    def remove(self, ticket: Ticket, is_live: Callable[[str], bool]) -> None:
        """Forget one ticket, which is no longer live; its heap entry goes when it surfaces."""
        flow = self._flows[ticket.tenant_id]
        flow.live -= 1
        if flow.live == 0:
            self._leave(ticket.tenant_id, flow.start)
        elif len(flow) > 2 * flow.live + 16:
            flow.drop_stale(is_live)

    def take(
        self, is_live: Callable[[str], bool], spare: Callable[[str], bool] | None, passed_over: set[str]
    ) -> str | None:
        """Remove and return the id of the next ticket of a tenant that has room; None when there is none.

        Tenants without room are noted in `passed_over`; `resume` must follow.
        """
        while (tenant_id := self._next_tenant()) is not None:
            if tenant_id in passed_over:
                continue  # a ticket that left and came back left a second entry
            if spare is None or spare(tenant_id):
                return self._take_from(tenant_id, is_live)
            passed_over.add(tenant_id)
        return None

    def resume(self, passed_over: set[str]) -> None:
        """Put tenants that were passed over back in their order; the time they missed earns them nothing."""
        for tenant_id in passed_over:
            flow = self._flows[tenant_id]
            flow.start = max(flow.start, self._virtual)
            self._schedule(tenant_id, flow)

    def _next_tenant(self) -> str | None:
        while self._order:
            start, _, tenant_id = heapq.heappop(self._order)
            flow = self._flows.get(tenant_id)
            if flow is not None and flow.start == start:
                return tenant_id
        return None

    def _take_from(self, tenant_id: str, is_live: Callable[[str], bool]) -> str:
        flow = self._flows[tenant_id]
        self._virtual = flow.start
        flow.start += 1.0 / max(1, self._weight_of(tenant_id))
        task_id = flow.pop(is_live)
        if flow.live:
            self._schedule(tenant_id, flow)
        else:
            self._leave(tenant_id, flow.start)
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
        # Heaps by (priority, the class they leave): all of one leave so many `ageing_s` after they were queued.
        self._ageing: dict[tuple[int, int], list[_Place]] = {
            (priority, level): [] for priority in Priority for level in range(1, priority + 1)
        }
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
        entry = _Entry(ticket, None)
        if self._entries.setdefault(ticket.task_id, entry) is not entry:
            return False
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

    def take(self, limit: int, now: float, spare: Callable[[str], bool] | None = None) -> list[Ticket]:
        """Remove and return up to `limit` tickets in the order in which they are to be granted.

        `spare` is asked before each: whether its tenant may have one more running, and if so, to count it.
        """
        self._advance(now)
        taken: list[Ticket] = []
        for level, tenants in enumerate(self._classes):
            is_live, passed_over = self._live_at(level), set[str]()
            # One at a time: what was taken must not be live any more when the next one is looked for.
            while len(taken) < limit and (task_id := tenants.take(is_live, spare, passed_over)) is not None:
                entry = self._entries.pop(task_id)
                self._depth[entry.ticket.priority] -= 1
                taken.append(entry.ticket)
            tenants.resume(passed_over)
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
        for (priority, level), ageing in self._ageing.items():
            after_s = (priority - level + 1) * self._ageing_s
            while ageing and ageing[0][0] + after_s <= now:
                _, task_id = heapq.heappop(ageing)
                entry = self._entries.get(task_id)
                if entry is not None and entry.level == level:
                    entry.level = None
                    self._classes[level].remove(entry.ticket, self._live_at(level))
                    self._enter(entry, now, level - 1)

    def _enter(self, entry: _Entry, now: float, at_most: int = CLASSES) -> None:
        """Put an available ticket into the class that its priority and age give it."""
        ticket = entry.ticket
        lifted = int((now - ticket.queued_at) // self._ageing_s) if self._ageing_s and now > ticket.queued_at else 0
        entry.level = level = min(max(0, ticket.priority - lifted), at_most)
        place = (ticket.queued_at, ticket.task_id)
        self._classes[level].add(ticket.tenant_id, place)
        if self._ageing_s and level:
            heapq.heappush(self._ageing[ticket.priority, level], place)
            self._compact_ageing(ticket.priority, level)

    # Tickets that left keep their entries until these surface; a busy lane would gather `ageing_s` seconds of them.

    def _compact_delayed(self) -> None:
        if len(self._delayed) > 2 * len(self._entries) + 64:
            self._delayed = list({entry for entry in self._delayed if self._is_delayed(entry[1])})
            heapq.heapify(self._delayed)

    def _compact_ageing(self, priority: int, level: int) -> None:
        ageing, entries = self._ageing[priority, level], self._entries
        if len(ageing) > 2 * len(entries) + 64:
            live = {place for place in ageing if (held := entries.get(place[1])) and held.level == level}
            ageing[:] = sorted(live)  # a sorted list is a heap
