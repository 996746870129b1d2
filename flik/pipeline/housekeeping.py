"""What the queue's process does beside the queue: reads the tenants' limits, sweeps what expired.

Limits are read every `LIMITS_EVERY_S`, so that a share or a cap that changed holds within 5 s;
answers under idempotency keys that expired are deleted every `SWEEP_EVERY_S`, `SWEEP_ROWS` at a
time, and as many with each look while there are more. While PostgreSQL is away the last limits
hold and nothing is swept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from flik.domain.identity import WorkLimits
from flik.errors import Unavailable
from flik.pipeline.queue.loops import until_available

LIMITS_EVERY_S = 2.0
SWEEP_EVERY_S = 10.0
SWEEP_ROWS = 5_000


class Housekeeping:
    """The loop. `forget(now, limit)` deletes up to `limit` expired answers and returns how many."""

    def __init__(
        self,
        read_limits: Callable[[], Awaitable[Iterable[WorkLimits]]],
        take_over: Callable[[Iterable[WorkLimits]], None],
        forget: Callable[[float, int], Awaitable[int]],
        now: Callable[[], float],
    ) -> None:
        self._read_limits = read_limits
        self._take_over = take_over
        self._forget = forget
        self._now = now
        self._next_sweep_at = now() + SWEEP_EVERY_S

    async def run(self) -> None:
        """Keep house until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(LIMITS_EVERY_S)

    async def begin(self) -> None:
        """Return when the limits are known: without them a tenant would run beyond its cap."""
        self._take_over(await until_available(self._read))

    async def _read(self) -> Iterable[WorkLimits]:
        return await self._read_limits()

    async def step(self) -> None:
        """Read the limits; sweep if it is time."""
        try:
            self._take_over(await self._read_limits())
            if self._now() >= self._next_sweep_at:
                swept = await self._forget(self._now(), SWEEP_ROWS)
                self._next_sweep_at = self._now() + (0.0 if swept == SWEEP_ROWS else SWEEP_EVERY_S)
        except Unavailable:
            return
