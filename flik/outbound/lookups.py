"""Lookups of names that are under way: a bounded number, of which each tenant has a share.

The system can be asked for a name but not be stopped: where a name server does not answer, a lookup holds its thread
for half a minute, whether anybody still waits for it or not. So a tenant has four under way at most: names of its own
that never answer hold up what else it names, and nobody else. A name that is being looked up for a tenant is not asked
for again: who wants it too waits for the same answer.

Nobody waits longer than 5 s. That no answer came by then says nothing about the name: it is a name server that is away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

from flik.errors import Unavailable
from flik.outbound.resolve import THREADS, Lookup, look_up

WITHIN_S = 5.0
EACH = 4  # under way for one tenant; an honest name server answers in milliseconds
MAX_ASKERS = 512  # who wait for one tenant's names: a share of the requests that a gateway has at a time
AGAIN_AFTER_S = 5.0
NAME_SERVER = "name server"


@dataclass(slots=True)
class _Share:
    under_way: dict[str, asyncio.Task[list[str]]] = field(default_factory=dict)
    askers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake who waits for a place."""
        self.changed.set()
        self.changed = asyncio.Event()


class Lookups:
    """Those of one process. `ask` may take as long as it likes; `within_s` is how long anybody waits."""

    def __init__(
        self, ask: Lookup = look_up, *, places: int = THREADS, each: int = EACH, within_s: float = WITHIN_S
    ) -> None:
        self._ask = ask
        self._places = places
        self._each = each
        self._within_s = within_s
        self._shares: dict[str, _Share] = {}
        self._under_way = 0

    def of(self, tenant_id: str) -> Lookup:
        """Return the lookup of names that a tenant gave: see `find`."""
        return partial(self.find, tenant_id)

    async def find(self, tenant_id: str, host: str) -> list[str]:
        """Return the addresses of a host that a tenant named, in the order in which the system prefers them.

        Raises:
            OSError: it has none, or nobody can tell.
            Unavailable: no answer came in time, or there was no place to ask from.
        """
        share = self._shares.setdefault(tenant_id, _Share())
        if share.askers >= MAX_ASKERS:
            raise Unavailable(NAME_SERVER, AGAIN_AFTER_S)
        share.askers += 1
        try:
            async with asyncio.timeout(self._within_s):
                return await asyncio.shield(await self._asked(tenant_id, share, host))
        except TimeoutError:
            raise Unavailable(NAME_SERVER, AGAIN_AFTER_S) from None
        finally:
            share.askers -= 1
            self._forget(tenant_id, share)

    async def _asked(self, tenant_id: str, share: _Share, host: str) -> asyncio.Task[list[str]]:
        """Return the lookup of a host: the one that is under way, or a new one as soon as there is a place for it."""
        while (found := share.under_way.get(host)) is None:
            if len(share.under_way) < self._each and self._under_way < self._places:
                return self._start(tenant_id, share, host)
            await share.changed.wait()
        return found

    def _start(self, tenant_id: str, share: _Share, host: str) -> asyncio.Task[list[str]]:
        async def ask() -> list[str]:
            return await self._ask(host)

        def ended(task: asyncio.Task[list[str]]) -> None:
            del share.under_way[host]
            waiting = self._shares.values() if self._under_way == self._places else (share,)
            self._under_way -= 1
            for each in waiting:
                each.tell()
            self._forget(tenant_id, share)
            if not task.cancelled():
                task.exception()  # nobody may be left to hear of it

        task = share.under_way[host] = asyncio.create_task(ask())
        self._under_way += 1
        task.add_done_callback(ended)
        share.tell()
        return task

    def _forget(self, tenant_id: str, share: _Share) -> None:
        if not share.askers and not share.under_way:
            self._shares.pop(tenant_id, None)
