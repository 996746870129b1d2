"""What Flik must reach, what would be bold, and which lines each figure stands beside.

A goal judges with what was measured: without the peer in the run, the figure alone counts. Where it is known how fast
the machine was that the bounds were set on, they are also judged scaled to this one, by what both do at their limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Reached = Literal["bold", "must", "below", "-"]


@dataclass(frozen=True)
class Line:
    """What a figure is compared with: the sum of measured metrics, each taken `times` times."""

    title: str
    parts: Mapping[str, float]

    def value(self, measured: Mapping[str, float]) -> float | None:
        """Return the sum, None when a part was not measured in this run."""
        if any(part not in measured for part in self.parts):
            return None
        return sum(measured[part] * times for part, times in self.parts.items())


@dataclass(frozen=True)
class Goal:
    """One row of the table. `must_ratio` and `bold_ratio` are multiples of the first line."""

    metric: str
    title: str
    must: float
    bold: float
    higher_is_better: bool
    beside: Sequence[Line] = ()
    must_ratio: float | None = None
    bold_ratio: float | None = None
    limit: Line | None = None  # what physics allows
    limit_there: float | None = None  # on the machine that the bounds were set on

    def reached(self, measured: Mapping[str, float]) -> Reached:
        """Judge the figure; "-" when it was not measured."""
        if self.metric not in measured:
            return "-"
        if self._meets(self.bold, self.bold_ratio, measured):
            return "bold"
        return "must" if self._meets(self.must, self.must_ratio, measured) else "below"

    def scaled(self, measured: Mapping[str, float]) -> Goal | None:
        """Return the goal with its bounds scaled to this machine; None when it is not known how."""
        here = self.limit.value(measured) if self.limit else None
        if here is None or self.limit_there is None:
            return None
        factor = here / self.limit_there
        return replace(self, must=self.must * factor, bold=self.bold * factor, limit=None)

    def is_complete(self, measured: Mapping[str, float]) -> bool:
        """Tell whether the peer that the goal speaks of was measured; true for a goal without one."""
        return self.must_ratio is None or self.beside[0].value(measured) is not None

    def _meets(self, bound: float, ratio: float | None, measured: Mapping[str, float]) -> bool:
        value = measured[self.metric]
        peer = self.beside[0].value(measured) if ratio is not None else None
        if peer is not None and ratio is not None and value < ratio * peer:
            return False
        return value >= bound if self.higher_is_better else value <= bound


CELERY = Line("FastAPI + Celery + Redis", {"celery_tasks_per_s": 1})
CELERY_DURABLE = Line("the same, flushed at once", {"celery_durable_tasks_per_s": 1})
SERVE = Line("Ray Serve no-op POST", {"serve_posts_per_s": 1})
UNNEST = Line("UNNEST into PostgreSQL", {"unnest_rows_per_s": 1})
ONE_FLUSH = Line("fsync + Serve no-op", {"fsync_p50_ms": 1, "serve_p50_ms": 1})
TWO_FLUSHES = Line("2 fsyncs + Serve no-op", {"fsync_p50_ms": 2, "serve_p50_ms": 1})
CELERY_CPU = Line("FastAPI + Celery + Redis", {"celery_cpu_us": 1})
SERVE_CPU = Line("Ray Serve no-op POST", {"serve_cpu_us": 1})

GOALS = (
    Goal(
        "single_tasks_per_s",
        "POST to settled, one task a request, 256 connections (tasks/s)",
        1_200,
        2_500,
        higher_is_better=True,
        beside=(CELERY, CELERY_DURABLE, SERVE),
        must_ratio=2.0,
        bold_ratio=4.0,
        limit=SERVE,
        limit_there=3_100,
    ),
    Goal(
        "batch_tasks_per_s",
        "tasks:batch of 100 to settled (tasks/s)",
        10_000,
        20_000,
        higher_is_better=True,
        beside=(UNNEST,),
        limit=UNNEST,
        limit_there=115_000,
    ),
    Goal("single_cpu_us", "CPU per task, all server processes (us)", 1_000, 450, False, (CELERY_CPU, SERVE_CPU)),
    Goal("submit_p50_ms", "submit at 20 requests/s, p50 (ms)", 5, 2.5, False, (ONE_FLUSH,)),
    Goal("submit_p99_ms", "submit at 20 requests/s, p99 (ms)", 20, 8, False, (ONE_FLUSH,)),
    Goal("settled_p50_ms", "submit to settled at 20 requests/s, p50 (ms)", 25, 8, False, (TWO_FLUSHES,)),
    Goal("settled_p99_ms", "submit to settled at 20 requests/s, p99 (ms)", 80, 25, False, (TWO_FLUSHES,)),
    Goal("live_p50_ms", "submit to its last event on a stream, 20 requests/s, p50 (ms)", 25, 8, False, (TWO_FLUSHES,)),
    Goal("live_p99_ms", "submit to its last event on a stream, 20 requests/s, p99 (ms)", 80, 25, False, (TWO_FLUSHES,)),
    Goal("followers_mb", "2,000 idle followers on one gateway process (MB)", 300, 120, False),
    Goal("followers_told_s", "the end of a task, to the last of 2,000 followers (s)", 1.0, 0.25, False),
    Goal(
        "chains_steps_per_s",
        "1,000 chains of three steps at once, to settled (steps/s)",
        1_200,
        2_500,
        higher_is_better=True,
        beside=(
            Line("plain tasks, one a request", {"single_tasks_per_s": 1}),
            Line("as many plain tasks in batches of three", {"chains_plain_tasks_per_s": 1}),
        ),
        must_ratio=0.8,
        bold_ratio=0.95,
    ),
    Goal("chains_waiting_mb", "10,000 chains that wait, gateway and queue (MB more than with 100)", 100, 40, False),
    Goal("urgent_p99_ms", "a P0 task behind 5,000 P2 tasks, submit to settled, p99 (ms)", 250, 50, False),
    Goal("backlog_mb", "1,000,000 waiting tasks: memory of the queue (MB)", 500, 200, False),
    Goal("backlog_lease_ratio", "1,000,000 waiting tasks: submit to lease, times an empty queue's", 3.0, 1.2, False),
    Goal("recovery_model_s", "a model's replica killed -9, to a task completed (s)", 10, 3, False),
    Goal("recovery_gateway_s", "the only gateway killed -9, to a submit answered (s)", 10, 3, False),
    Goal("idle_rss_gb", "memory of an idle region, all processes, RSS (GB)", 2.0, 1.3, False),
    Goal("cold_start_s", "flik up to healthy, empty data folder (s)", 45, 25, False),
)
