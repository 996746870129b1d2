"""How much of a backlog is held in memory, and that none of it is ever lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import ticket

from flik.domain.lane import Lane
from flik.domain.task import Ticket
from flik.domain.window import ANYWAY, MIN_SHARE, PAGE_ROWS, Page, Window

KEY = (1, "acme")
LIMIT = 64


def offer(window: Window, *numbers: int) -> list[int]:
    return [n for n in numbers if window.admits(ticket(n))]


def full_window() -> Window:
    """The tickets 0..63 are held, of which 100 were offered."""
    window = Window(LIMIT)
    assert offer(window, *range(100)) == list(range(LIMIT))
    return window


def test_a_backlog_beyond_its_share_is_not_held() -> None:
    assert full_window().beyond(1) == 100 - LIMIT


def test_the_share_is_divided_between_backlogs_but_never_below_the_minimum() -> None:
    window = Window(1000)
    shares = []
    for tenant in range(1000):
        window.admits(ticket(tenant, tenant=f"tenant{tenant}"))
        shares.append(window.share(1))
    assert shares[:4] == [1000, 500, 333, 250]
    assert shares[-1] == MIN_SHARE


def test_a_late_ticket_with_a_smaller_id_is_held_even_when_the_share_is_full() -> None:
    window = Window(LIMIT)
    offer(window, *range(10, 200))
    assert offer(window, 5) == [5]


def test_nothing_is_read_before_half_of_the_share_is_worked_off() -> None:
    window = full_window()
    for n in range(LIMIT // 2 - 1):
        window.left(ticket(n))
    assert window.next_pages() == []
    window.left(ticket(40))
    assert window.next_pages() == [Page(KEY, f"t{LIMIT - 1:06}", LIMIT // 2)]
    assert window.next_pages() == []  # asked for already


def test_a_page_that_was_not_full_ends_the_rest() -> None:
    window = full_window()
    for n in range(LIMIT):
        window.left(ticket(n))
    (page,) = window.next_pages()
    rest = [ticket(n) for n in range(LIMIT, 100)]
    assert window.page_read(page, rest, complete=False) == rest
    assert window.beyond(1) == 0
    assert offer(window, 100) == [100]


def test_a_full_page_leaves_a_rest() -> None:
    window = Window(LIMIT)
    window.start_reading(KEY, 1000)
    (page,) = window.next_pages()
    window.page_read(page, [ticket(n) for n in range(LIMIT)], complete=True)
    assert window.beyond(1) == 1000 - LIMIT
    assert offer(window, 500) == []


def test_what_is_offered_while_a_page_is_read_is_decided_afterwards() -> None:
    window = Window(LIMIT)
    window.start_reading(KEY, 10)
    (page,) = window.next_pages()
    assert offer(window, 50, 51) == []
    held = window.page_read(page, [ticket(n) for n in range(10)], complete=False)
    assert [each.task_id for each in held] == [ticket(n).task_id for n in [*range(10), 50, 51]]


def test_a_failed_page_is_asked_for_again_and_loses_nothing() -> None:
    window = Window(LIMIT)
    window.start_reading(KEY, 10)
    (page,) = window.next_pages()
    offer(window, 50)
    window.reading_failed(page)
    assert window.beyond(1) == 11
    assert window.next_pages() == [page]


def test_a_scan_that_meets_the_rest_again_does_not_count_it_again() -> None:
    window = full_window()
    for _ in range(5):
        assert not window.admits(ticket(90), counted=True)
    assert window.beyond(1) == 100 - LIMIT


def test_a_backlog_of_which_something_was_announced_before_it_was_found_is_read_from_its_start() -> None:
    window = Window(LIMIT)
    assert offer(window, 999) == [999]
    window.start_reading(KEY, 1000)
    assert window.next_pages() == [Page(KEY, "", LIMIT - 1)]
    assert offer(window, 500) == []


def test_an_empty_backlog_is_forgotten() -> None:
    window = Window(1000)
    for n in range(5):
        window.admits(ticket(n, tenant=f"tenant{n}"))
    for n in range(5):
        window.left(ticket(n, tenant=f"tenant{n}"))
    assert window.share(1) == 1000
    window.start_reading(KEY, 0)
    (page,) = window.next_pages()
    assert window.page_read(page, [], complete=False) == []
    assert window.share(1) == 1000


def test_urgent_work_has_a_part_of_its_own_however_many_backlogs_of_other_work_there_are() -> None:
    window = Window(1000)
    for n in range(20_000):
        window.admits(ticket(n, tenant=f"tenant{n % 5000}", priority=2))
    assert sum(window.admits(ticket(n, tenant="urgent", priority=0)) for n in range(20_000, 30_000)) == 500
    for n in range(20_000, 20_500):
        window.left(ticket(n, tenant="urgent", priority=0))
    (page, *_) = window.next_pages()
    assert (page.key, page.limit) == ((0, "urgent"), 500)


def test_a_tenant_that_works_nothing_off_leaves_room_for_those_that_come_after_it() -> None:
    window = Window(1000)
    assert sum(window.admits(ticket(n, tenant="at its cap")) for n in range(5000)) == 1000
    assert sum(window.admits(ticket(n, tenant="late")) for n in range(5000, 9000)) == ANYWAY


def fill(window: Window, tenants: int, tasks: int, *, one_by_one: bool) -> None:
    """Offer so many tasks of each tenant: one tenant after another, or a task of each in turn."""
    numbers = ((t, n) for t in range(tenants) for n in range(tasks))
    if not one_by_one:
        numbers = ((t, n) for n in range(tasks) for t in range(tenants))
    for number, (tenant, _) in enumerate(numbers):
        window.admits(ticket(number, tenant=f"tenant{tenant}"))


@pytest.mark.parametrize(("tenants", "tasks"), [(10, 4000), (100, 400), (5000, 8), (40_000, 1)])
def test_backlogs_that_grow_together_share_the_limit(tenants: int, tasks: int) -> None:
    window = Window(1000)
    fill(window, tenants, tasks, one_by_one=False)
    assert window.held <= max(1000, tenants * MIN_SHARE)
    assert window.held + window.beyond(1) == tenants * tasks


@pytest.mark.parametrize(("tenants", "tasks"), [(10, 4000), (100, 400), (1000, 100)])
def test_backlogs_that_grow_one_after_another_hold_little_more(tenants: int, tasks: int) -> None:
    window = Window(1000)
    fill(window, tenants, tasks, one_by_one=True)
    assert window.held <= 1000 + sum(min(ANYWAY, max(MIN_SHARE, 1000 // k)) for k in range(1, tenants + 1))
    assert window.held + window.beyond(1) == tenants * tasks


def test_a_rebuild_holds_no_more_and_reads_together_what_fits_into_one_statement() -> None:
    window = Window(1000)
    for n in range(20_000):
        window.start_reading((1, f"tenant{n}"), 50)
    statements = 0
    while pages := window.next_pages():
        statements += 1
        assert sum(page.limit for page in pages) <= PAGE_ROWS
        for page in pages:
            window.page_read(page, [ticket(n, tenant=page.key[1]) for n in range(page.limit)], complete=True)
    assert statements == 20_000 * MIN_SHARE // PAGE_ROWS
    assert window.held == 20_000 * MIN_SHARE
    assert window.beyond(1) == 20_000 * (50 - MIN_SHARE)


# ---- a backlog in a database, a window and a lane, under random operations


class Backlogs:
    """What the queue does with a window, in miniature; `database` is the truth."""

    def __init__(self, limit: int) -> None:
        self.database: dict[str, Ticket] = {}
        self.lane = Lane()
        self.window = Window(limit)
        self.pages: list[tuple[Page, list[Ticket]]] = []  # read, but not taken in yet
        self._number = 1000

    def submit(self, tenant: str, *, announced: bool, late: bool, count: int = 1) -> None:
        for _ in range(count):
            self._number += 1
            new = ticket(self._number - (300 if late else 0), tenant=tenant)
            if new.task_id not in self.database:
                self.database[new.task_id] = new
                if announced:
                    self.offer(new)

    def offer(self, each: Ticket, *, counted: bool = False) -> None:
        if each.task_id not in self.lane and self.window.admits(each, counted=counted):
            assert self.lane.add(each, 0)

    def scan(self) -> None:
        for each in sorted(self.database.values()):
            self.offer(each, counted=True)

    def grant(self, limit: int) -> None:
        for each in self.lane.take(limit, 0):
            self.window.left(each)
            self.database.pop(each.task_id, None)  # a page may have brought one that was granted meanwhile

    def cancel(self, index: int) -> None:
        if self.database:
            each = list(self.database.values())[index % len(self.database)]
            del self.database[each.task_id]
            if self.lane.remove(each.task_id):
                self.window.left(each)

    def ask_pages(self) -> None:
        for page in self.window.next_pages():
            mine = sorted(t for t in self.database.values() if (t.priority, t.tenant_id) == page.key)
            self.pages.append((page, [t for t in mine if t.task_id > page.after][: page.limit]))

    def take_in_page(self, *, failed: bool) -> None:
        if not self.pages:
            return
        page, tickets = self.pages.pop(0)
        if failed:
            self.window.reading_failed(page)
            return
        for each in self.window.page_read(page, tickets, complete=len(tickets) == page.limit):
            if not self.lane.add(each, 0):
                self.window.left(each)

    def held_counts_agree(self) -> bool:
        by_backlog = sum(each.held for level in self.window._levels for each in level.backlogs.values())
        return self.window.held == by_backlog == len(self.lane)


OPERATIONS: dict[str, Callable[[Backlogs, int], None]] = {
    "submit": lambda b, n: b.submit("ab"[n % 2], announced=True, late=False),
    "submit many": lambda b, n: b.submit("ab"[n % 2], announced=True, late=False, count=n),
    "submit unannounced": lambda b, n: b.submit("ab"[n % 2], announced=False, late=False),
    "submit late": lambda b, n: b.submit("ab"[n % 2], announced=n % 3 > 0, late=True),
    "grant": lambda b, n: b.grant(n),
    "cancel": lambda b, n: b.cancel(n),
    "ask pages": lambda b, n: b.ask_pages(),
    "take in page": lambda b, n: b.take_in_page(failed=False),
    "fail page": lambda b, n: b.take_in_page(failed=True),
    "scan": lambda b, n: b.scan(),
}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 12)), max_size=60),
    st.integers(0, 30),
    st.booleans(),
)
def test_a_window_never_loses_a_ticket(steps: list[tuple[str, int]], found: int, restarted: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flik.domain.window.MIN_SHARE", 4)
        backlogs = Backlogs(limit=8)
        for n in range(found):
            backlogs.database[ticket(n).task_id] = ticket(n)
        if restarted:
            backlogs.window.start_reading(KEY, found)
        for what, number in steps:
            OPERATIONS[what](backlogs, number)
            assert backlogs.held_counts_agree()
            assert all(backlogs.window.beyond(priority) >= 0 for priority in range(3))
        _grant_all(backlogs)
        assert backlogs.database == {}


def _grant_all(backlogs: Backlogs) -> None:
    for _ in range(200):
        backlogs.take_in_page(failed=False)
        backlogs.scan()
        backlogs.ask_pages()
        backlogs.grant(3)


def test_memory_is_bounded_however_large_the_backlog_is() -> None:
    backlogs = Backlogs(limit=LIMIT)
    for n in range(5000):
        backlogs.submit("acme", announced=n % 50 > 0, late=False)
    most = 0
    while backlogs.database:
        backlogs.scan()
        backlogs.ask_pages()
        backlogs.take_in_page(failed=False)
        most = max(most, len(backlogs.lane))
        backlogs.grant(20)
    assert most <= LIMIT * 1.1  # and the few that nobody announced


def test_tickets_that_leave_together_are_the_same_as_one_by_one() -> None:
    together, singly = full_window(), full_window()
    leaving = [ticket(n) for n in range(40)] + [ticket(900, tenant="unknown")]
    together.left_together(leaving)
    for each in leaving:
        singly.left(each)
    assert together.next_pages() == singly.next_pages() != []
    assert together.share(1) == singly.share(1)
