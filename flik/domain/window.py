"""How much of a backlog the queue holds in memory, and how it reads on.

A queue of a million tasks must not cost a million tickets. Per task type about `limit` tickets are held: the
priorities that wait have equal parts of that, and inside a priority each backlog (one tenant's tasks of one priority)
an equal share. The parts are apart so that urgent work, however little of it there is, never waits for its own pages
behind thousands of other backlogs. What is beyond a backlog's share stays in PostgreSQL and is read by pages in the
order of task ids, which is the order of submission.

What is held is not given back when shares shrink, it is worked off. Until then, and always where there are very many
backlogs, a full part still has room for `ANYWAY` tickets of a backlog if its share is so large, and `MIN_SHARE` if not:
each tenant must keep its turn. So n backlogs that are filled together hold `limit` or, if that is more, n * `MIN_SHARE`
tickets, and filled one after another at most `limit` and the sum of min(`ANYWAY`, `limit` / k) for k from 1 to n: four
times `limit` with 10,000 of them. (A priority that begins to wait later finds parts that were larger: 11/6 at most.)

A backlog that has a rest beyond its share remembers the id after which it goes on. Tickets offered with a larger id are
not held: a later page brings them. Tickets with a smaller id (retries, and tasks that another gateway committed a
moment late) are always held; there are never more of them than tasks in flight.

All operations cost the same however many backlogs there are, but for `recount` and `has_rest`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flik.domain.task import Priority, Ticket

MIN_SHARE = 2
ANYWAY = 64
PAGE_ROWS = 5_000  # of pages that are read together
BacklogKey = tuple[int, str]  # (priority, tenant)


@dataclass(slots=True)
class Backlog:
    """One tenant's waiting tasks of one priority: how many are held, and where the rest begins."""

    held: int = 0
    last_held_id: str = ""
    reads_on_after: str | None = None  # None: everything is held
    beyond: int = 0  # an estimate of the rest, for the depth that is shown
    wanted: bool = False  # its next page
    reading: bool = False
    offered_meanwhile: list[Ticket] | None = None


@dataclass(slots=True)
class _Level:
    """The backlogs of one priority, and their sums."""

    backlogs: dict[str, Backlog] = field(default_factory=dict)  # by tenant
    held: int = 0
    asked: int = 0  # rows of pages that are being read
    beyond: int = 0
    wanted: deque[str] = field(default_factory=deque)  # tenants whose next page is wanted, some of them no more


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
        self._part = limit  # of each priority
        self._levels = tuple(_Level() for _ in Priority)

    @property
    def held(self) -> int:
        """How many tickets are held."""
        return sum(level.held for level in self._levels)

    def share(self, priority: int) -> int:
        """Return how many tickets one backlog of this priority may hold now."""
        return max(MIN_SHARE, self._part // max(1, len(self._levels[priority].backlogs)))

    def beyond(self, priority: int) -> int:
        """Return about how many tasks of this priority wait in PostgreSQL only."""
        return self._levels[priority].beyond

    def waiting_of(self, tenant_id: str, priority: int) -> int:
        """Return about how many tasks of a tenant wait, in memory or in PostgreSQL only."""
        backlog = self._levels[priority].backlogs.get(tenant_id)
        return backlog.held + backlog.beyond if backlog else 0

    @property
    def has_rest(self) -> bool:
        """Whether some backlog waits in PostgreSQL only."""
        return any(backlog.reads_on_after is not None for level in self._levels for backlog in level.backlogs.values())

    def recount(self, rows: Mapping[BacklogKey, int]) -> None:
        """Correct what is beyond the window by a count of all that waits: cancelled tasks were not noticed there."""
        for priority, level in enumerate(self._levels):
            for tenant_id, backlog in level.backlogs.items():
                if backlog.reads_on_after is not None:
                    _set_beyond(level, backlog, rows.get((priority, tenant_id), 0) - backlog.held)

    def admits(self, ticket: Ticket, *, counted: bool = False) -> bool:
        """Decide about a ticket that is offered; when True, the caller must hold it.

        `counted` says that it comes from a scan: it may be in the rest's estimate already, and will be offered again.
        """
        level, backlog = self._backlog_of(ticket.priority, ticket.tenant_id)
        is_newest = backlog.reads_on_after is None and ticket.task_id > backlog.last_held_id
        if is_newest and self._room(ticket.priority, backlog) <= 0:
            backlog.reads_on_after = backlog.last_held_id
        if backlog.reads_on_after is None or ticket.task_id <= backlog.reads_on_after:
            _count(level, backlog, ticket)
            return True
        if not backlog.reading:
            _set_beyond(level, backlog, backlog.beyond + (not counted))
        elif not counted:
            if backlog.offered_meanwhile is None:
                backlog.offered_meanwhile = []
            backlog.offered_meanwhile.append(ticket)
        return False

    def left(self, ticket: Ticket) -> None:
        """Note that a held ticket was granted, cancelled or expired."""
        self.left_together((ticket,))

    def left_together(self, tickets: Iterable[Ticket]) -> None:
        """Note that held tickets were granted."""
        for (priority, tenant_id), count in Counter((each.priority, each.tenant_id) for each in tickets).items():
            level = self._levels[priority]
            backlog = level.backlogs.get(tenant_id)
            if backlog is not None:
                backlog.held -= count
                level.held -= count
                self._look_at(priority, tenant_id, backlog)

    def start_reading(self, key: BacklogKey, rows: int) -> None:
        """Note a backlog that was found in PostgreSQL; it is read from its start, whatever of it was offered before."""
        priority, tenant_id = key
        level, backlog = self._backlog_of(priority, tenant_id)
        if backlog.reads_on_after is None:
            backlog.reads_on_after = ""
            _set_beyond(level, backlog, rows)
            self._look_at(priority, tenant_id, backlog)

    def next_pages(self, rows: int = PAGE_ROWS) -> list[Page]:
        """Return pages to read now, of the most urgent first: of `rows` together, if not one alone is larger.

        `page_read` or `reading_failed` must be called for each of them.
        """
        pages: list[Page] = []
        for priority, level in enumerate(self._levels):
            while level.wanted and rows > 0:
                tenant_id = level.wanted.popleft()
                backlog = level.backlogs.get(tenant_id)
                if backlog is None or not backlog.wanted:
                    continue
                backlog.wanted = False
                limit = self._room(priority, backlog)
                if backlog.reads_on_after is not None and limit > 0:  # else it is looked at when something leaves
                    backlog.reading = True
                    level.asked += limit
                    rows -= limit
                    pages.append(Page((priority, tenant_id), backlog.reads_on_after, limit))
        return pages

    def page_read(self, page: Page, tickets: Iterable[Ticket], *, complete: bool) -> list[Ticket]:
        """Take in a page (`complete`: it was full, so there may be more); return the tickets to hold.

        The caller reports each returned ticket that it held already with `left`.
        """
        level, backlog, meanwhile = self._end_reading(page)
        held = list(tickets)
        for ticket in held:
            _count(level, backlog, ticket)
        backlog.reads_on_after = held[-1].task_id if held and complete else None
        _set_beyond(level, backlog, 0 if backlog.reads_on_after is None else backlog.beyond - len(held))
        held += [ticket for ticket in meanwhile if self.admits(ticket)]
        self._look_at(*page.key, backlog)
        return held

    def reading_failed(self, page: Page) -> None:
        """Note that a page could not be read; it is asked for again."""
        level, backlog, meanwhile = self._end_reading(page)
        _set_beyond(level, backlog, backlog.beyond + len(meanwhile))
        self._look_at(*page.key, backlog)

    def _end_reading(self, page: Page) -> tuple[_Level, Backlog, list[Ticket]]:
        """Note that a page is no longer being read; return with its backlog what was offered meanwhile."""
        priority, tenant_id = page.key
        level = self._levels[priority]
        backlog = level.backlogs[tenant_id]
        level.asked -= page.limit
        backlog.reading = False
        meanwhile, backlog.offered_meanwhile = backlog.offered_meanwhile or [], None
        return level, backlog, meanwhile

    def _room(self, priority: int, backlog: Backlog) -> int:
        """Return how many tickets more a backlog may hold; negative when its share has shrunk."""
        level, share = self._levels[priority], self.share(priority)
        return max(min(share, ANYWAY) - backlog.held, min(share - backlog.held, self._part - level.held - level.asked))

    def _look_at(self, priority: int, tenant_id: str, backlog: Backlog) -> None:
        """Forget a backlog of which nothing waits; want the next page of one that has worked off half of its share."""
        level = self._levels[priority]
        if backlog.reads_on_after is None:
            if backlog.held <= 0:
                level.held -= backlog.held
                del level.backlogs[tenant_id]
                if not level.backlogs:
                    self._divide()
        elif not (backlog.reading or backlog.wanted) and backlog.held <= self.share(priority) // 2:
            backlog.wanted = True
            level.wanted.append(tenant_id)

    def _backlog_of(self, priority: int, tenant_id: str) -> tuple[_Level, Backlog]:
        level = self._levels[priority]
        backlog = level.backlogs.get(tenant_id)
        if backlog is None:
            backlog = level.backlogs[tenant_id] = Backlog()
            if len(level.backlogs) == 1:
                self._divide()
        return level, backlog

    def _divide(self) -> None:
        """Give each priority that waits its part."""
        self._part = self._limit // max(1, sum(bool(level.backlogs) for level in self._levels))


def _count(level: _Level, backlog: Backlog, ticket: Ticket) -> None:
    backlog.held += 1
    level.held += 1
    backlog.last_held_id = max(backlog.last_held_id, ticket.task_id)


def _set_beyond(level: _Level, backlog: Backlog, rows: int) -> None:
    """Note about how many rows of a backlog are beyond the window."""
    level.beyond -= backlog.beyond
    backlog.beyond = max(0, rows)
    level.beyond += backlog.beyond
