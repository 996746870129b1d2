"""What it costs that tasks follow one another, and what chains that wait hold in memory.

`measure` sends 1,000 chains of three no-op steps, and in turn with them 1,000 batches of three plain tasks: the same
clients, requests and tasks, so what is left is the price of following. Both clocks run until all have settled.
`measure_waiting` has chains wait (their tenant may run none), first some, then many, and reads what the gateway and
the queue hold more; then it lets them run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.drive import HEADERS, batch_posts, chain_posts, drive
from benchmarks.load.job import Answers, Job, Post
from benchmarks.measurement import Measurement, Outcome
from benchmarks.plan import Plan
from benchmarks.region import GATEWAY, KNOWN_WITHIN_S, QUEUE, Region
from benchmarks.settlement import check, settle, wait_settled

STEPS = 3
TENANT = "bench-chains"


def measure(region: Region, plan: Plan) -> Outcome:
    """Chains in turn with batches of as many plain tasks."""
    seconds: dict[str, list[float]] = {"chains": [], "batches": []}
    violations: list[str] = []
    posts = {"batches": batch_posts(STEPS), "chains": chain_posts(STEPS)}
    for turn in range(plan.chain_rounds + 1):
        for name, sent in posts.items():
            before = region.counters()
            answers = drive(_job(region, plan, sent, plan.chains))
            settled_at = wait_settled(region, before, answers, plan)
            violations += check(region, before, answers, plan, STEPS)
            if settled_at is not None and turn > 0:  # the first turn is to warm up
                seconds[name].append((settled_at - answers.started_at) / max(1, answers.accepted))
    rates = {name: len(found) / sum(found) if found else None for name, found in seconds.items()}
    chained, plain = rates["chains"], rates["batches"]
    note = f"{plan.chain_rounds} times {plan.chains:,} requests with {STEPS} tasks each, {plan.connections} connections"
    share = None if chained is None or not plain else 100 * chained / plain
    return Outcome(
        (
            Measurement("chains_steps_per_s", chained, "steps/s", note),
            Measurement("chains_plain_tasks_per_s", plain, "tasks/s", note),
            Measurement("chains_share", share, "%", "steps/s of chains, of tasks/s without"),
        ),
        tuple(violations),
    )


def measure_waiting(region: Region, plan: Plan) -> Outcome:
    """Memory of the gateway and the queue with few and with many chains that wait."""
    region.limit(TENANT, maxRunning=0, maxQueued=10 * STEPS * plan.waiting_chains)
    time.sleep(KNOWN_WITHIN_S)
    before = region.counters()
    posts = chain_posts(STEPS, TENANT)
    few = drive(_job(region, plan, posts, plan.few_waiting_chains))
    at_first = region.held_bytes(GATEWAY, QUEUE)
    many = drive(_job(region, plan, posts, plan.waiting_chains - plan.few_waiting_chains))
    time.sleep(KNOWN_WITHIN_S)  # the queue reads on
    at_last = region.held_bytes(GATEWAY, QUEUE)
    region.limit(TENANT, maxRunning=10_000)
    violations = settle(region, before, _together(few, many), plan)
    grown_mb = None if at_first is None or at_last is None else (at_last - at_first) / 1e6
    waiting = len(many.task_ids) // STEPS + len(few.task_ids) // STEPS
    note = f"{len(few.task_ids) // STEPS:,} chains wait, then {waiting:,}"
    if at_first is not None and at_last is not None:
        note += f"; {at_first / 1e6:.0f} MB, then {at_last / 1e6:.0f} MB"
    return Outcome(
        (Measurement("chains_waiting_mb", grown_mb, "MB", note if region.group else "needs --pid"),), violations
    )


def _together(one: Answers, other: Answers) -> Answers:
    """Return what was accepted and what stayed unknown of two loads."""
    return Answers(
        one.started_at, other.elapsed_s, other.statuses, other.refused, STEPS * (one.unknown + other.unknown),
        [*one.task_ids, *other.task_ids], (), (), (),
    )  # fmt: skip


def _job(region: Region, plan: Plan, posts: Sequence[Post], count: int) -> Job:
    return Job(region.host, region.port, posts, count, plan.settle_within_s, plan.connections, headers=HEADERS)
