"""What is counted by the batch is what would be counted one by one."""

from __future__ import annotations

import pytest
from making import EPOCH, ticket

from flik.domain.task import Status
from flik.pipeline.queue.measures import Measures, _observe_all
from flik.storage.queue import Settled, Settlement
from flik.telemetry import Metrics

VALUES = [0.0, 0.005, 0.01, 0.010001, 0.3, 0.3, 5.0, 1800.0, 1800.1, 1e9]


def test_many_observations_at_once_are_the_same_as_one_by_one() -> None:
    at_once, singly = Metrics("flik_run_seconds"), Metrics("flik_run_seconds")
    _observe_all(at_once["flik_run_seconds"].labels("TEXT"), VALUES)
    for value in VALUES:
        singly["flik_run_seconds"].labels("TEXT").observe(value)
    assert _samples(at_once) == _samples(singly)


def _samples(metrics: Metrics) -> list[tuple[str, dict[str, str], float]]:
    found = [sample for family in metrics.registry.collect() for sample in family.samples]
    return [(each.name, each.labels, pytest.approx(each.value)) for each in found if not each.name.endswith("_created")]


def test_attempts_are_counted_by_the_number_they_had_and_how_they_ended() -> None:
    measures = Measures()
    done = Settlement("t1", "k", Status.COMPLETED, "COMPLETED")
    back = Settlement("t2", "k", Status.QUEUED, "HANDED_BACK", uncounted=True)
    dead = Settlement("t3", "k", Status.FAILED, "FAILED", error_code="refused")
    ended = [
        (done, Settled("t1", "COMPLETED", 1, 3, "TEXT", "acme", "v1", EPOCH, None)),
        (done, Settled("t4", "COMPLETED", 1, 3, "TEXT", "acme", "v1", EPOCH + 2, None)),
        (back, Settled("t2", "QUEUED", 0, 3, "TEXT", "acme", "v1", EPOCH, ticket(2))),
        (dead, Settled("t3", "FAILED", 40, 81, "IMAGE", "acme", "v2", EPOCH, None)),
    ]
    measures.note_settled(ended, EPOCH + 3)
    text = measures.text()
    for line in (
        'flik_attempts_total{attempt="1",outcome="COMPLETED",task_type="TEXT"} 2.0',
        'flik_attempts_total{attempt="1",outcome="HANDED_BACK",task_type="TEXT"} 1.0',
        'flik_attempts_total{attempt="10",outcome="FAILED",task_type="IMAGE"} 1.0',
        'flik_tasks_completed_total{task_type="TEXT",version="v1"} 2.0',
        'flik_tasks_failed_total{error_code="refused",task_type="IMAGE"} 1.0',
        'flik_run_seconds_sum{task_type="TEXT"} 7.0',
        'flik_run_seconds_bucket{le="1.0",task_type="TEXT"} 1.0',
        'flik_run_seconds_count{task_type="TEXT"} 3.0',
    ):
        assert line in text
