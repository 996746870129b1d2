"""How much of a backlog the queue holds in memory, and how it reads on.

A queue of a million tasks must not cost a million tickets. Per task type at most about
`limit` tickets are held; each backlog (one tenant's tasks of one priority) has an equal
share of that, at least `MIN_SHARE`. What is beyond a backlog's share stays in PostgreSQL
and is read by pages in the order of task ids, which is the order of submission.

A backlog that has such a rest remembers the id after which it goes on. Tickets offered with
a larger id are not held: a later page brings them. Tickets with a smaller id (retries, and
tasks that another gateway committed a moment late) are always held; there are never more of
them than tasks in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flik.domain.task import Ticket

MIN_SHARE = 64
BacklogKey = tuple[int, str]  # (priority, tenant)


@dataclass(slots=True)
class Backlog:
    """One tenant's waiting tasks of one priority: how many are held, and where the rest begins."""

    held: int = 0
    last_held_id: str = ""
    reads_on_after: str | None = None  # None: everything is held
    beyond: int = 0  # an estimate of the rest, for the depth that is shown
    reading: bool = False
    offered_meanwhile: list[Ticket] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Page:
    """The next rows to read of a backlog: ids after `after`, at most `limit`."""

    key: BacklogKey
    after: str
    limit: int


class Window:
    """Decides, for one task type, which tickets are held in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._backlogs: dict[BacklogKey, Backlog] = {}

    def share(self) -> int:
        """Return how many tickets one backlog may hold now."""
        return max(MIN_SHARE, self._limit // max(1, len(self._backlogs)))

    def beyond(self, priority: int) -> int:
        """Return about how many tasks of this priority wait in PostgreSQL only."""
        return sum(backlog.beyond for (level, _), backlog in self._backlogs.items() if level == priority)

    def waiting_of(self, tenant_id: str, priority: int) -> int:
        """Return about how many tasks of a tenant wait, in memory or in PostgreSQL only."""
        backlog = self._backlogs.get((priority, tenant_id))
        return backlog.held + backlog.beyond if backlog else 0

    @property
    def has_rest(self) -> bool:
        """Whether some backlog waits in PostgreSQL only."""
        return any(backlog.reads_on_after is not None for backlog in self._backlogs.values())

    def recount(self, rows: Mapping[BacklogKey, int]) -> None:
        """Correct what is beyond the window by a count of all that waits: cancelled tasks were not noticed there."""
        for key, backlog in self._backlogs.items():
            if backlog.reads_on_after is not None:
                backlog.beyond = max(0, rows.get(key, 0) - backlog.held)

    def admits(self, ticket: Ticket, *, counted: bool = False) -> bool:
        """Decide about a ticket that is offered; when True, the caller must hold it.

        `counted` says that it comes from a scan: it may be in the rest's estimate already, and will be offered again.
        """
        key = _key(ticket)
        backlog = self._backlogs.get(key)
        if backlog is None:
            backlog = self._backlogs[key] = Backlog()
        if backlog.reads_on_after is None and ticket.task_id > backlog.last_held_id and backlog.held >= self.share():
            backlog.reads_on_after = backlog.last_held_id
        if backlog.reads_on_after is None or ticket.task_id <= backlog.reads_on_after:
            self._count(backlog, ticket)
            return True
        if not backlog.reading:
            backlog.beyond += not counted
        elif not counted:
            backlog.offered_meanwhile.append(ticket)
        return False

    def left(self, ticket: Ticket) -> None:
        """Note that a held ticket was granted, cancelled or expired."""
        self.left_together((ticket,))

    def left_together(self, tickets: Iterable[Ticket]) -> None:
        """Note that held tickets were granted."""
        for key, count in Counter(map(_key, tickets)).items():
            backlog = self._backlogs.get(key)
            if backlog is None:
                continue
            backlog.held -= count
            if backlog.held <= 0 and backlog.reads_on_after is None:
                del self._backlogs[key]

    def start_reading(self, key: BacklogKey, rows: int) -> None:
        """Note a backlog that was found in PostgreSQL; it is read from its start, whatever of it was offered before."""
        backlog = self._backlogs.setdefault(key, Backlog())
        if backlog.reads_on_after is None:
            backlog.reads_on_after = ""
            backlog.beyond = rows

    def next_pages(self) -> list[Page]:
        """Return the pages to read now; `page_read` must be called for each of them."""
        share = self.share()
        pages = []
        for key, backlog in self._backlogs.items():
            if backlog.reads_on_after is not None and not backlog.reading and backlog.held <= share // 2:
                backlog.reading = True
                pages.append(Page(key, backlog.reads_on_after, share - backlog.held))
        return pages

    def page_read(self, page: Page, tickets: Iterable[Ticket], *, complete: bool) -> list[Ticket]:
        """Take in a page (`complete`: it was full, so there may be more); return the tickets to hold.

        The caller reports each returned ticket that it held already with `left`.
        """
        backlog = self._backlogs[page.key]
        held = list(tickets)
        for ticket in held:
            self._count(backlog, ticket)
        backlog.beyond = max(0, backlog.beyond - len(held))
        backlog.reading = False
        backlog.reads_on_after = held[-1].task_id if held and complete else None
        meanwhile, backlog.offered_meanwhile = backlog.offered_meanwhile, []
        if backlog.reads_on_after is None:
            backlog.beyond = 0
        held += [ticket for ticket in meanwhile if self.admits(ticket)]
        if backlog.held <= 0 and backlog.reads_on_after is None:
            self._backlogs.pop(page.key, None)
        return held

    def reading_failed(self, page: Page) -> None:
        """Note that a page could not be read; it is asked for again."""
        backlog = self._backlogs[page.key]
        backlog.reading = False
        backlog.beyond += len(backlog.offered_meanwhile)
        backlog.offered_meanwhile.clear()

    def _count(self, backlog: Backlog, ticket: Ticket) -> None:
        backlog.held += 1
        backlog.last_held_id = max(backlog.last_held_id, ticket.task_id)


def _key(ticket: Ticket) -> BacklogKey:
    return (ticket.priority, ticket.tenant_id)
