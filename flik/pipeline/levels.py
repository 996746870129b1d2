"""How full the queue is, as a gateway knows it: asked every half second, plus what it sent since.

So a full queue is refused without a call a request. Between two answers each gateway counts
its own submissions only; with several of them a bound may be passed by what the others take
in that half second. While the queue does not answer (it restarts) the last level holds, and
what is sent is added to it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from flik.domain.pressure import EMPTY, Level, Load
from flik.errors import Unavailable

ASK_EVERY_S = 0.5
FORGET_AFTER = 20  # answers without a submission of the tenant
_log = logging.getLogger("flik.gateway")


class QueueLevels:
    """The last known load. Not thread-safe: it lives on one event loop. `run` must run while it is used."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Load]]) -> None:
        self._ask = ask
        self._load = Load({})
        self._sent: Counter[str] = Counter()  # by task type, since the last question
        self._sent_by: Counter[str] = Counter()  # by tenant, likewise
        self._asked_about: dict[str, int] = {}  # tenant -> answers left until it is forgotten

    def level(self, task_type: str) -> Level:
        """Return how full the queue of a task type is."""
        known = self._load.levels.get(task_type, EMPTY)
        return Level(known.waiting + self._sent[task_type], known.drained_per_s)

    async def queued_by(self, tenant_id: str) -> int:
        """Return how many tasks of a tenant wait; the first time the queue is asked, from then on it tells."""
        self._asked_about[tenant_id] = FORGET_AFTER
        if tenant_id not in self._load.queued:
            await self.ask_once()
        return self._load.queued.get(tenant_id, 0) + self._sent_by[tenant_id]

    def note_sent(self, task_type: str, tenant_id: str, count: int = 1) -> None:
        """Note tasks that were admitted."""
        self._sent[task_type] += count
        self._sent_by[tenant_id] += count

    def take_back(self, task_type: str, tenant_id: str, count: int = 1) -> None:
        """Note tasks that were not admitted after all."""
        self._sent[task_type] -= count
        self._sent_by[tenant_id] -= count

    async def run(self) -> None:
        """Ask the queue until cancelled."""
        while True:
            try:
                await self.ask_once()
            except Exception:  # a gateway that never asks again would in the end refuse everything
                _log.exception("asking how full the queue is failed")
            await asyncio.sleep(ASK_EVERY_S)

    async def ask_once(self) -> None:
        """Ask the queue for its load; when it does not answer, keep what is known."""
        before, before_by = self._sent.copy(), self._sent_by.copy()
        try:
            self._load = await self._ask(tuple(self._asked_about))
        except Unavailable:
            return
        # What was sent meanwhile may or may not be in the answer: count it.
        self._sent = +Counter({name: count - before[name] for name, count in self._sent.items()})
        self._sent_by = +Counter({name: count - before_by[name] for name, count in self._sent_by.items()})
        self._asked_about = {tenant: left - 1 for tenant, left in self._asked_about.items() if left > 1}
