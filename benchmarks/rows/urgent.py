"""How long a real-time task takes while 5,000 background tasks wait.

The region runs with few slots, so that the backlog lasts for some seconds; each no-op task
holds a slot for no time, so what a P0 task waits is what the queue costs it. Only P0 tasks
that settled while P2 tasks still waited count. The figure is from POST to seen settled: an
upper bound of the wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from benchmarks.drive import HEADERS, batch_posts, drive, single_posts
from benchmarks.load.job import Answers, Job, Sample
from benchmarks.measurement import Measurement, Outcome, p50_p99
from benchmarks.plan import Plan
from benchmarks.region import Region
from benchmarks.settlement import settle

WORKER_CONCURRENCY = 4
RATE_PER_S = 40.0
WATCH_S = 0.1


@dataclass
class BacklogWatch:
    """Notes, ten times a second, how many P2 tasks wait."""

    region: Region
    depths: list[tuple[float, int]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._over.wait(WATCH_S):
            try:
                self.depths.append((time.monotonic(), self.region.counters().waiting.get("2", 0)))
            except httpx.HTTPError:
                continue

    def stop(self) -> None:
        self._over.set()


def measure(region: Region, plan: Plan) -> Outcome:
    """P0 tasks at 40 a second behind a backlog of P2, in as many rounds as the plan says."""
    waits_ms: list[float] = []
    violations: list[str] = []
    deepest = 0
    for _ in range(plan.urgent_rounds):
        before = region.counters()
        answers, depths = _one_round(region, plan)
        waits_ms += behind_backlog(answers.samples, depths)
        deepest = max([deepest, *(depth for _, depth in depths)])
        violations += settle(region, before, answers, plan)
    note = f"deepest backlog seen {deepest:,}"
    if not waits_ms:
        none = Measurement("urgent_p99_ms", None, "ms", f"the backlog was gone too soon, {note}")
        return Outcome((none,), tuple(violations))
    return Outcome(p50_p99("urgent", waits_ms, note), tuple(violations))


def behind_backlog(samples: Sequence[Sample], depths: Sequence[tuple[float, int]]) -> list[float]:
    """Return the times of the samples that settled before the last moment at which P2 tasks were seen waiting."""
    last_deep_at = max((at for at, depth in depths if depth > 0), default=0.0)
    return [
        sample.settled_ms
        for sample in samples
        if sample.settled_ms is not None and sample.sent_at + sample.settled_ms / 1000 <= last_deep_at
    ]


def _one_round(region: Region, plan: Plan) -> tuple[Answers, list[tuple[float, int]]]:
    watch = BacklogWatch(region)
    watching = threading.Thread(target=watch.run)
    watching.start()
    try:
        return drive(_job(region, plan)), watch.depths
    finally:
        watch.stop()
        watching.join()


def _job(region: Region, plan: Plan) -> Job:
    batches = batch_posts(plan.batch_size, priority=2)
    wanted = plan.backlog_tasks // plan.batch_size
    return Job(
        region.host,
        region.port,
        single_posts(priority=0),
        plan.urgent_tasks,
        plan.urgent_tasks / RATE_PER_S,
        rate_per_s=RATE_PER_S,
        follow=True,
        preload=[batches[number % len(batches)] for number in range(wanted)],
        headers=HEADERS,
    )
