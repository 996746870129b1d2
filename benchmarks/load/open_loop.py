"""At a fixed rate, like people: a request starts at each tick whatever became of the ones before.

Latency counts from the moment of sending; since no request waits for an earlier answer,
a stall of the server shows in every request that it meets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from benchmarks.load.connection import encode
from benchmarks.load.job import Job, Sample
from benchmarks.load.pool import Cut, Pool

SETTLED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "EXPIRED"})


@dataclass
class OpenLoop:
    """Runs one job with a rate; what it saw is in its fields afterwards."""

    job: Job
    pool: Pool
    statuses: list[int] = field(default_factory=list)
    task_ids: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    unknown: int = 0

    async def run(self, requests: Sequence[bytes]) -> None:
        """Send them all at their ticks and wait for the answers."""
        assert self.job.rate_per_s is not None
        start = time.monotonic()
        running = []
        for number in range(self.job.count):
            await asyncio.sleep(start + number / self.job.rate_per_s - time.monotonic())
            running.append(asyncio.create_task(self._one(requests[number % len(requests)])))
        await asyncio.gather(*running)

    async def _one(self, request: bytes) -> None:
        sent_at = time.monotonic()
        try:
            status, body = await asyncio.wait_for(self.pool.exchange(request), self.job.give_up_s)
        except (Cut, OSError, TimeoutError):
            self.unknown += 1
            return
        submit_ms = (time.monotonic() - sent_at) * 1000
        self.statuses.append(status)
        if status == 202:
            self.task_ids.append(orjson.loads(body)["taskId"])
        if 200 <= status < 300:
            settled_ms = await self._settled_ms(self.task_ids[-1], sent_at) if self.job.follow else None
            self.samples.append(Sample(sent_at, submit_ms, settled_ms))

    async def _settled_ms(self, task_id: str, sent_at: float) -> float | None:
        path = f"{self.job.posts[0].path}/{task_id}"
        request = encode("GET", path, self.job.host, self.job.headers)
        while time.monotonic() - sent_at < self.job.give_up_s:
            if await self._has_settled(request):
                return (time.monotonic() - sent_at) * 1000
            await asyncio.sleep(self.job.poll_s)
        return None

    async def _has_settled(self, request: bytes) -> bool:
        try:
            status, body = await asyncio.wait_for(self.pool.exchange(request), self.job.give_up_s)
        except (Cut, OSError, TimeoutError):
            return False
        return status == 200 and orjson.loads(body)["status"] in SETTLED
