"""Checks that every accepted task settled exactly once. What it finds is an error, however slow the machine.

A request without an answer may have been accepted or not, so it widens what is allowed by
one batch; it never counts as a failure.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from benchmarks.load.job import Answers
from benchmarks.plan import Plan
from benchmarks.region import QUIET_S, Counters, Region


def wait_settled(region: Region, before: Counters, answers: Answers, plan: Plan) -> float | None:
    """Wait until as many tasks completed as `answers` say were accepted.

    Returns the moment (monotonic), None when it did not come in the plan's time.
    """
    return region.wait_completed(before.completed + answers.accepted, plan.settle_within_s)


def check(region: Region, before: Counters, answers: Answers, plan: Plan, tasks_a_request: int = 1) -> tuple[str, ...]:
    """Compare counts, and ask for a sample of the accepted ids; return what is wrong."""
    time.sleep(QUIET_S)
    ids = [*answers.preloaded, *answers.task_ids]
    statuses = Counter(region.status(task_id) for task_id in spread(ids, plan.checked_tasks))
    return (
        *judge_counts(before, region.counters(), ids, answers.unknown * tasks_a_request),
        *judge_statuses(statuses),
    )


def settle(region: Region, before: Counters, answers: Answers, plan: Plan) -> tuple[str, ...]:
    """Wait until all accepted tasks settled, then check them; return what is wrong."""
    wait_settled(region, before, answers, plan)
    return check(region, before, answers, plan)


def judge_counts(before: Counters, after: Counters, ids: Sequence[str], unknown: int) -> list[str]:
    """Compare what was accepted with what the region counted; `unknown` tasks may be there or not."""
    accepted = len(ids)
    violations = []
    if len(set(ids)) != accepted:
        violations.append(f"{accepted - len(set(ids))} task ids were given twice")
    for word, counted in (
        ("submitted", after.submitted - before.submitted),
        ("completed", after.completed - before.completed),
    ):
        if not accepted <= counted <= accepted + unknown:
            allowance = f" (and {unknown} without an answer)" if unknown else ""
            violations.append(f"{accepted} tasks got a 202{allowance}, but {counted} were counted as {word}")
    return violations


def judge_statuses(statuses: Counter[str]) -> list[str]:
    """Name every status in the sample that is not COMPLETED."""
    return [f"{count} accepted tasks are {status}" for status, count in statuses.items() if status != "COMPLETED"]


def spread(ids: Sequence[str], count: int) -> Sequence[str]:
    """Return at most `count` of `ids`, evenly spread, the last one included."""
    step = max(1, -(-len(ids) // count))
    return ids[::-1][::step]
