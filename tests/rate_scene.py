"""Regions, gateways and tenants on a virtual clock, with the real script on a real server; and what may go wrong.

Redis's clock is `loop.time() + CLOCK_AHEAD_S`: nobody may compare it with their own. Calls take 0.2 to 3 ms
each way. What is killed answers no more, and what waited for it is told.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeVar

from redis import Redis

from flik.domain.identity import Limits
from flik.domain.rate import Admitted, Ask, Contact, Decision, Limited, Loan, Standing
from flik.errors import Unavailable
from flik.live import buckets
from flik.pipeline.allowances import Allowances
from flik.pipeline.limit import RegionLimiter
from flik.telemetry import Metrics

CLOCK_AHEAD_S = 1_700_000_000.0
T = TypeVar("T")
_NAMES = count()


class Said(NamedTuple):
    """One answer a tenant got."""

    at: float
    tenant_id: str
    cost: int
    admitted: bool
    limited: bool


def overdraft(said: Iterable[Said], limits: Limits) -> float:
    """Return by how much some window admitted more than rate * W + burst, at worst; 0 or less: none did.

    A bucket that is replayed overdraws if and only if there is such a window.
    """
    level, at, worst = float(limits.burst), 0.0, -float(limits.burst)
    for each in said:
        if each.admitted:
            level = min(limits.burst, level + limits.rate_per_s * (each.at - at)) - each.cost
            at = each.at
            worst = max(worst, -level)
    return worst


@dataclass
class SharedRedis:
    """The server, which can be emptied, frozen, killed and started again."""

    server: Redis
    random: random.Random
    script: str = buckets.SCRIPT
    run: str = "first"
    alive: bool = True
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    _kept: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.server.flushall()
        self._run_script = self.server.register_script(self.script)
        self.thawed.set()

    async def lag(self) -> None:
        await asyncio.sleep(self.random.uniform(0.0002, 0.003))

    def flush(self) -> None:
        self.server.flushall()

    async def freeze(self, seconds: float) -> None:
        self.thawed.clear()
        await asyncio.sleep(seconds)
        self.thawed.set()

    async def restart(self, seconds: float) -> None:
        self.alive = False
        await asyncio.sleep(seconds)
        self.flush()
        self.run = f"after-{asyncio.get_running_loop().time()}"
        self.alive = True

    async def contact(self, contact: Contact) -> Standing:
        """What was sent is done even if its sender left."""
        doing = asyncio.create_task(self._do(contact))
        self._kept.add(doing)
        doing.add_done_callback(self._forget)
        return await asyncio.shield(doing)

    def _forget(self, doing: asyncio.Task[Standing]) -> None:
        self._kept.discard(doing)
        if not doing.cancelled():
            doing.exception()

    async def _do(self, contact: Contact) -> Standing:
        await self.lag()
        await self.thawed.wait()
        if not self.alive:
            raise Unavailable("redis")
        self.calls += 1
        now = asyncio.get_running_loop().time() + CLOCK_AHEAD_S
        raw = self._run_script(buckets.key_names(contact), buckets.arguments(contact, self.run, now))
        await self.lag()
        if not self.alive:
            raise Unavailable("redis")
        return buckets.standing_of(raw)


class LimiterActor:
    """A limiter that can be killed and comes back empty."""

    def __init__(self, redis: SharedRedis, region: str, share: float) -> None:
        self._redis = redis
        self._region = region
        self._share = share
        self._running: asyncio.Task[None] | None = None
        self._dead: asyncio.Future[None] | None = None
        self.start()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.limiter = RegionLimiter(
            self._redis, self._region, self._share, holder=f"limiter-{next(_NAMES)}", clock=loop.time
        )
        self._running = asyncio.create_task(self.limiter.run())
        self._dead = loop.create_future()

    def stop(self) -> None:
        assert self._running is not None and self._dead is not None
        self._running.cancel()
        self._dead.set_result(None)

    async def kill(self, away_s: float) -> None:
        self.stop()
        await asyncio.sleep(away_s)
        self.start()

    async def lend(self, ask: Ask) -> Loan:
        assert self._dead is not None
        if self._dead.done():
            raise Unavailable("limiter")
        return await self._or_dead(self._lend(ask), self._dead)

    async def _lend(self, ask: Ask) -> Loan:
        await self._redis.lag()
        loan = await self.limiter.lend(ask)
        await self._redis.lag()
        return loan

    async def _or_dead(self, work: Awaitable[T], dead: asyncio.Future[None]) -> T:
        doing = asyncio.ensure_future(work)
        await asyncio.wait({doing, dead}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        doing.cancel()
        raise Unavailable("limiter")


@dataclass
class Scene:
    """`shares` has the share of each region; each has `gateways_each` gateways."""

    server: Redis
    seed: int
    shares: tuple[float, ...] = (0.5, 0.5)
    gateways_each: int = 4
    script: str = buckets.SCRIPT
    history: list[Said] = field(default_factory=list)

    async def open(self) -> Scene:
        self.random = random.Random(self.seed)
        self.redis = SharedRedis(self.server, self.random, self.script)
        self.limiters = [LimiterActor(self.redis, f"region-{n}", share) for n, share in enumerate(self.shares)]
        self.gateways = [self._gateway(limiter) for limiter in self.limiters for _ in range(self.gateways_each)]
        return self

    def _gateway(self, limiter: LimiterActor) -> Allowances:
        clock = asyncio.get_running_loop().time
        measured = Metrics("flik_rate_*")
        return Allowances(limiter.lend, holder=f"gateway-{next(_NAMES)}", clock=clock, measured=measured).open()

    async def close(self) -> None:
        for gateway in self.gateways:
            await gateway.close()
        for limiter in self.limiters:
            limiter.stop()

    async def kill_gateway(self, number: int) -> None:
        """What it held is gone; another takes its place."""
        old = self.gateways[number]
        self.gateways[number] = self._gateway(self.limiters[number // self.gateways_each])
        await old.close()

    async def send(self, tenant_id: str, cost: int, limits: Limits, gateway: int | None = None) -> Decision | None:
        """Return what a gateway said, a random one by default; None when it could not tell."""
        loop = asyncio.get_running_loop()
        chosen = self.gateways[self.random.randrange(len(self.gateways)) if gateway is None else gateway]
        decision: Decision | None
        try:
            async with asyncio.timeout(5):
                decision = await chosen.spend(tenant_id, cost, limits)
        except (Unavailable, TimeoutError):
            decision = None
        admitted, limited = isinstance(decision, Admitted), isinstance(decision, Limited)
        self.history.append(Said(loop.time(), tenant_id, cost, admitted, limited))
        return decision

    async def traffic(
        self, tenant_id: str, limits: Limits, factor: float, until: float, costs: tuple[int, ...] = (1,)
    ) -> None:
        """Send `factor` times the rate, at random moments."""
        loop = asyncio.get_running_loop()
        mean_cost = sum(costs) / len(costs)
        async with asyncio.TaskGroup() as sending:
            while loop.time() < until:
                await asyncio.sleep(self.random.expovariate(factor * limits.rate_per_s / mean_cost))
                sending.create_task(self.send(tenant_id, self.random.choice(costs), limits))

    def of(self, tenant_id: str) -> list[Said]:
        return [each for each in self.history if each.tenant_id == tenant_id]

    def by_tenant(self) -> dict[str, list[Said]]:
        found: dict[str, list[Said]] = defaultdict(list)
        for each in self.history:
            found[each.tenant_id].append(each)
        return found
