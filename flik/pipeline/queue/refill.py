"""Brings into memory what waits in PostgreSQL only.

Backlogs that do not fit into the window are read on, page by page, as they are worked off; small pages of many backlogs
come with one statement.
Every `SCAN_EVERY_S` it looks for tasks that nobody announced, because a gateway died or could
not reach the queue: among those submitted in the last `RECENT_S`, and by a walk over all that
waits, `WALK_ROWS` at a time. When more than `RECENT_ROWS` recent tasks wait, the next look goes
on where this one ended, so that each costs one look and none is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flik.domain.task import Ticket
from flik.domain.window import Page
from flik.errors import Unavailable
from flik.pipeline.queue.loops import pause, wait
from flik.pipeline.queue.waiting import Waiting
from flik.storage.conditions import first_id_at
from flik.storage.queue import QueueStore

SCAN_EVERY_S = 2.0
RECENT_S = 5.0
RECENT_ROWS = 4_000
WALK_ROWS = 5_000
COUNT_EVERY_S = 60.0
READERS = 2  # statements at a time; the other connections stay free for grants and settlements


class Refilling:
    """The refill loop. `wanted` wakes it."""

    def __init__(self, store: QueueStore, waiting: Waiting, now: Callable[[], float], wanted: asyncio.Event) -> None:
        self._store = store
        self._waiting = waiting
        self._now = now
        self._wanted = wanted
        self._readers = asyncio.Semaphore(READERS)
        self._looked_until: Ticket | None = None  # the last that was seen of the recent ones; None: all were
        self._walked_until: Ticket | None = None

    async def run(self) -> None:
        """Read on whenever memory was freed, and scan."""
        next_scan_at, next_count_at = 0.0, self._now() + COUNT_EVERY_S
        while True:
            await wait(self._wanted, 1.0)
            self._wanted.clear()
            now = self._now()
            try:
                await self.read_pages()
                if now >= next_scan_at:
                    next_scan_at = now + SCAN_EVERY_S
                    await self.scan(now)
                if now >= next_count_at:
                    next_count_at = now + COUNT_EVERY_S
                    await self.recount()
            except Unavailable:
                await pause()

    async def recount(self) -> None:
        """Count what waits beyond the windows anew, if anything does: the door and the metrics go by it.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        windows = self._waiting.windows
        if not any(window.has_rest for window in windows.values()):
            return
        counted: dict[str, dict[tuple[int, str], int]] = {name: {} for name in windows}
        for task_type, priority, tenant_id, rows in await self._store.backlogs():
            if task_type in counted:
                counted[task_type][priority, tenant_id] = rows
        for name, window in windows.items():
            window.recount(counted[name])

    async def scan(self, now: float) -> None:
        """Find waiting tasks that nobody announced: recent ones, and the next page of all that waits.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        await self._look_at_recent(now)
        found = await self._store.scan_waiting(self._walked_until, WALK_ROWS)
        self._walked_until = _last(found, WALK_ROWS)
        self._waiting.offer(found, counted=True)

    async def _look_at_recent(self, now: float) -> None:
        after = self._looked_until.task_id if self._looked_until else first_id_at(now - RECENT_S)
        found = await self._store.scan_recent(after, RECENT_ROWS)
        self._looked_until = _last(found, RECENT_ROWS)
        self._waiting.offer(found, counted=True)

    async def read_pages(self) -> None:
        """Read on in all backlogs of which half a share has been worked off.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        windows = list(self._waiting.windows.items()) * READERS
        while wanted := [(name, pages) for name, window in windows if (pages := window.next_pages())]:
            await asyncio.gather(*(self._read_together(name, pages) for name, pages in wanted))

    async def _read_together(self, task_type: str, pages: list[Page]) -> None:
        try:
            async with self._readers:
                found = await self._store.pages(task_type, pages)
        except Unavailable:
            for page in pages:
                self._waiting.windows[task_type].reading_failed(page)
            raise
        self._waiting.take_in_pages(task_type, zip(pages, found, strict=True))


def _last(found: list[Ticket], limit: int) -> Ticket | None:
    """Return after which ticket to go on; None when the page was not full, so that there is nothing after it."""
    return found[-1] if found and len(found) == limit else None
