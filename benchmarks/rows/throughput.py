"""Tasks a second from POST to settled, and what each costs in CPU: one a request, or a hundred.

The clock runs from the first request to the moment the region's own counter says that all
accepted tasks completed, so a queue that grows is not mistaken for speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.drive import HEADERS, batch_posts, drive, single_posts
from benchmarks.load.job import Answers, Job, Post
from benchmarks.measurement import Measurement, Outcome
from benchmarks.plan import Plan
from benchmarks.region import Region
from benchmarks.settlement import check, wait_settled


@dataclass(frozen=True)
class Shape:
    """How tasks are sent: `requests` in all, each with `tasks_a_request` tasks."""

    name: str
    posts: Sequence[Post]
    requests: int
    connections: int
    tasks_a_request: int = 1


def measure_single(region: Region, plan: Plan) -> Outcome:
    """One task a request over 256 connections."""
    warm_up(region, plan)
    return _measure(region, plan, Shape("single", single_posts(), plan.single_tasks, plan.connections))


def measure_batch(region: Region, plan: Plan) -> Outcome:
    """A hundred tasks a request over 8 connections."""
    requests = plan.batched_tasks // plan.batch_size
    posts = batch_posts(plan.batch_size)
    return _measure(region, plan, Shape("batch", posts, requests, plan.batch_connections, plan.batch_size))


def warm_up(region: Region, plan: Plan) -> None:
    """Let connections, prepared statements and statistics come up; not timed."""
    before = region.counters()
    answers = drive(_job(region, plan, Shape("warm-up", single_posts(), plan.warm_up_tasks, plan.connections)))
    region.wait_completed(before.completed + answers.accepted, plan.settle_within_s)


def _measure(region: Region, plan: Plan, shape: Shape) -> Outcome:
    before = region.counters()
    cpu_before_s = region.group.cpu_s() if region.group else None
    answers = drive(_job(region, plan, shape))
    settled_at = wait_settled(region, before, answers, plan)
    cpu_s = region.group.cpu_s() - cpu_before_s if region.group and cpu_before_s is not None else None
    seconds = settled_at - answers.started_at if settled_at else None
    violations = check(region, before, answers, plan, shape.tasks_a_request)
    cost_note = "" if region.group else "needs --pid with --url"
    return Outcome(
        (
            Measurement(f"{shape.name}_tasks_per_s", _rate(answers, seconds), "tasks/s", _note(answers)),
            Measurement(f"{shape.name}_cpu_us", _cost(answers, cpu_s), "us/task", cost_note),
        ),
        violations,
    )


def _job(region: Region, plan: Plan, shape: Shape) -> Job:
    return Job(region.host, region.port, shape.posts, shape.requests, plan.load_s, shape.connections, headers=HEADERS)


def _rate(answers: Answers, seconds: float | None) -> float | None:
    return answers.accepted / seconds if seconds and answers.accepted else None


def _cost(answers: Answers, cpu_s: float | None) -> float | None:
    return cpu_s / answers.accepted * 1e6 if cpu_s is not None and answers.accepted else None


def _note(answers: Answers) -> str:
    refused = {status: count for status, count in answers.statuses.items() if not status.startswith("2")}
    parts = [f"{answers.accepted:,} tasks, accepted in {answers.elapsed_s:.1f} s"]
    parts += [f"{count:,} x {status}" for status, count in {**refused, **answers.refused}.items()]
    parts += [f"{answers.unknown} without an answer"] if answers.unknown else []
    return ", ".join(parts)
