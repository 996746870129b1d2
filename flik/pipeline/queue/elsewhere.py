"""What callers had moved here of other regions: their queues are told, so that they need not find it by looking."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from flik.domain.news import News
from flik.domain.task import Requeued, Ticket
from flik.errors import Unavailable
from flik.pipeline.queue.loops import in_background
from flik.storage.queue import Ended

_log = logging.getLogger("flik.queue")
Tell = Callable[[str, News], Awaitable[None]]


class Elsewhere:
    """Sorts out what belongs to other regions and tells these, in the background; `tell` None: there are none."""

    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell

    def take_out(self, requeued: Iterable[Requeued]) -> Sequence[Ticket]:
        """Tell other regions of their tasks that wait again; return the tickets of this one."""
        ours: list[Ticket] = []
        theirs: dict[str, list[Ticket]] = defaultdict(list)
        for each in requeued:
            (ours if each.elsewhere is None else theirs[each.elsewhere]).append(each.ticket)
        for region, tickets in theirs.items():
            self._send(region, News(waiting=tickets))
        return ours

    def note_cancelled(self, ended: Iterable[Ended]) -> None:
        """Tell other regions which of their tasks were cancelled."""
        theirs: dict[str, list[str]] = defaultdict(list)
        for each in ended:
            if each.elsewhere is not None:
                theirs[each.elsewhere].append(each.task_id)
        for region, task_ids in theirs.items():
            self._send(region, News(cancelled=task_ids))

    def _send(self, region: str, news: News) -> None:
        if self._tell is not None:
            in_background(self._told(self._tell, region, news))

    async def _told(self, tell: Tell, region: str, news: News) -> None:
        try:
            await tell(region, news)
        except Unavailable:
            _log.warning("the region %s was not told; it will find what was moved", region)
