"""What the queue counts. Each batch is counted at once: a lookup of labels costs more than the counting."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from flik.domain.breaker import Tally, worst
from flik.domain.lease import Leases
from flik.domain.task import Status, Ticket
from flik.pipeline.queue.roster import Roster
from flik.pipeline.queue.waiting import Waiting
from flik.storage.queue import GrantedRow, Settled, Settlement
from flik.telemetry import Metrics, Names

_NAMES = ("flik_tasks_*", "flik_attempts", "flik_queue_*", "flik_worker*", "flik_run_seconds", "flik_grant_seconds",
          "flik_settle_seconds", "flik_stale_settlements", "flik_events_*", "flik_breaker_*",
          "flik_upload*", "flik_process_*")  # fmt: skip
_KIND = attrgetter("task_type", "priority")
_MODEL = "model"
_DEPENDENCIES = ("artifacts", "provider")  # of a worker
_MOST_ATTEMPTS = 10  # attempts beyond it share a label
MOST_CODES = 50  # of providers, which may let callers choose them; those beyond share a label
OWN_CODES = (
    "worker_lost", "run_timeout", "provider_fault", "no_result", "artifacts_unavailable", "input_unusable",
    "input_gone", "result_not_storable", "",
)  # fmt: skip


class Measures:
    """The queue's metrics, and what its workers tell of their breakers."""

    def __init__(self) -> None:
        self.metrics = Metrics(*_NAMES, process="queue")
        self._codes = Names(MOST_CODES, OWN_CODES)
        self._told: dict[str, tuple[Tally, ...]] = {}  # by worker

    def __getitem__(self, name: str) -> Any:
        return self.metrics[name]

    def text(self) -> str:
        """Return all of them as Prometheus text."""
        return self.metrics.text()

    def note_announced(self, tickets: Sequence[Ticket]) -> None:
        """Count committed tasks."""
        for (task_type, priority), count in Counter(map(_KIND, tickets)).items():
            self["flik_tasks_submitted"].labels(task_type, str(priority)).inc(count)

    def note_granted(self, rows: Iterable[GrantedRow], now: float) -> None:
        """Measure for how long granted tasks had waited."""
        waits: dict[tuple[str, int], list[float]] = {}
        for row in rows:
            waits.setdefault((row.task_type, row.priority), []).append(max(0.0, now - row.queued_at))
        for (task_type, priority), seconds in waits.items():
            _observe_all(self["flik_queue_wait_seconds"].labels(task_type, str(priority)), seconds)

    def note_settled(self, ended: Sequence[tuple[Settlement, Settled]], now: float) -> None:
        """Count attempts that ended, and the tasks that ended with them."""
        alike = Counter(
            (row.task_type, row.attempt + settlement.uncounted, settlement.outcome, row.status, row.version,
             settlement.error_code, row.started_at)
            for settlement, row in ended
        )  # fmt: skip
        for (task_type, attempt, outcome, status, version, error_code, started_at), count in alike.items():
            self["flik_attempts"].labels(task_type, str(min(attempt, _MOST_ATTEMPTS)), outcome).inc(count)
            if status == Status.COMPLETED:
                self["flik_tasks_completed"].labels(task_type, version).inc(count)
            elif status == Status.FAILED:
                self["flik_tasks_failed"].labels(task_type, self._codes.bounded(error_code or "")).inc(count)
            _observe_all(self["flik_run_seconds"].labels(task_type), [max(0.0, now - started_at)] * count)

        self._note_uploads(ended)

    def _note_uploads(self, ended: Sequence[tuple[Settlement, Settled]]) -> None:
        for settlement, row in ended:
            for each in settlement.uploads:
                self["flik_uploads"].labels(row.task_type, each.status).inc()
                self["flik_upload_retries"].labels(row.task_type).inc(max(0, each.attempts - 1))
                self["flik_upload_seconds"].labels(row.task_type).observe(max(0.0, each.ended_at - each.started_at))

    def note_breakers(self, worker_id: str, tallies: tuple[Tally, ...], roster: Roster) -> None:
        """Count what a worker's breakers did since it told last.

        What a worker did before it was first heard of may have been counted by the queue's predecessor.
        """
        before = self._told.get(worker_id)
        if before == tallies:
            return
        if before is None:
            self._forget_all_but(roster)
        self._told[worker_id] = tallies
        for tally in tallies if before is not None else ():
            was = next((each for each in before or () if each.dependency == tally.dependency), Tally(tally.dependency))
            self["flik_breaker_opened"].labels(_MODEL, tally.dependency).inc(max(0, tally.opened - was.opened))
            self["flik_breaker_refused"].labels(_MODEL, tally.dependency).inc(max(0, tally.refused - was.refused))

    def _forget_all_but(self, roster: Roster) -> None:
        present = {each.worker.worker_id for each in roster.present()}
        self._told = {worker_id: tallies for worker_id, tallies in self._told.items() if worker_id in present}

    def _note_breaker_states(self, roster: Roster) -> None:
        self._forget_all_but(roster)
        for dependency in _DEPENDENCIES:
            states = [
                each.state for tallies in self._told.values() for each in tallies if each.dependency == dependency
            ]
            self["flik_breaker_state"].labels(_MODEL, dependency).set(worst(states))

    def note_levels(self, waiting: Waiting, leases: Leases, roster: Roster) -> None:
        """Measure what waits, what runs and who lives now."""
        slots = dict.fromkeys(waiting.lanes, 0)
        for name in waiting.lanes:
            for priority, depth in enumerate(waiting.depths(name)):
                self["flik_queue_depth"].labels(name, str(priority)).set(depth)
            self["flik_tasks_running"].labels(name).set(leases.running(name))
        self._note_breaker_states(roster)
        self["flik_workers"].clear()
        for present in roster.present():
            self["flik_workers"].labels(present.worker.task_type, present.worker.version).inc()
            slots[present.worker.task_type] = slots.get(present.worker.task_type, 0) + present.slots
        for name, count in slots.items():
            self["flik_worker_slots"].labels(name).set(count)


def _observe_all(histogram: Any, values: Sequence[float]) -> None:
    """Do what `histogram.observe` does for each value, with one addition a bucket: it offers nothing for many."""
    bounds = histogram._upper_bounds
    histogram._sum.inc(sum(values))
    for place, count in Counter(bisect_left(bounds, value) for value in values).items():
        histogram._buckets[place].inc(count)
