"""How long one caller waits at 20 requests a second: for the 202, and for the task to settle.

Settling is seen by asking every 2 ms, so it reads up to one asking too long.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.drive import HEADERS, drive, single_posts
from benchmarks.load.job import Job
from benchmarks.measurement import Outcome, p50_p99
from benchmarks.plan import RATE_PER_S, Plan
from benchmarks.region import Region
from benchmarks.settlement import settle


def measure_submit(region: Region, plan: Plan) -> Outcome:
    """From sending the request to the last byte of its 202."""
    before = region.counters()
    answers = drive(_job(region, plan))
    return Outcome(p50_p99("submit", answers.latencies_ms), settle(region, before, answers, plan))


def measure_settled(region: Region, plan: Plan) -> Outcome:
    """From sending the request to an answer that shows the task settled."""
    before = region.counters()
    answers = drive(replace(_job(region, plan), follow=True))
    settled_ms = [sample.settled_ms for sample in answers.samples if sample.settled_ms is not None]
    return Outcome(p50_p99("settled", settled_ms), settle(region, before, answers, plan))


def _job(region: Region, plan: Plan) -> Job:
    seconds = plan.paced_requests / RATE_PER_S
    return Job(
        region.host, region.port, single_posts(), plan.paced_requests, seconds, rate_per_s=RATE_PER_S, headers=HEADERS
    )
