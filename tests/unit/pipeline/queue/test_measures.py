"""What is counted by the batch is what would be counted one by one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from making import EPOCH, Clock, ticket, worker

from flik.domain.breaker import Tally
from flik.domain.task import Status, Upload, UploadStatus
from flik.pipeline.queue.measures import MOST_CODES, OWN_CODES, Measures, _observe_all
from flik.pipeline.queue.roster import Roster
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


def test_codes_of_failures_are_a_bounded_set_whatever_callers_have_providers_say() -> None:
    measures = Measures()
    codes = ["overloaded", *(f"made-up-{number}" for number in range(1000)), "run_timeout", "overloaded"]
    for code in codes:
        settlement = Settlement("t1", "k", Status.FAILED, "FAILED", error_code=code)
        measures.note_settled([(settlement, Settled("t1", "FAILED", 1, 3, "TEXT", "acme", "v1", EPOCH, None))], EPOCH)
    counted = {
        sample.labels["error_code"]: sample.value
        for family in measures.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "flik_tasks_failed_total"
    }
    assert len(counted) == MOST_CODES + 2  # with Flik's own, and "other"
    assert (counted["overloaded"], counted["run_timeout"], counted["other"]) == (2, 1, len(codes) - 2 - MOST_CODES)


def test_flik_s_own_codes_are_those_of_the_document() -> None:
    document = (Path(__file__).parents[4] / "docs" / "errors.md").read_text(encoding="utf-8")
    table = document.partition("## Codes of failed tasks")[2].partition("##")[0]
    assert {*re.findall(r"^\| `(\w+)`", table, re.MULTILINE), ""} == set(OWN_CODES)


def test_uploads_are_counted_by_what_became_of_them() -> None:
    def upload(status: UploadStatus, attempts: int, took_s: float) -> Upload:
        return Upload(0, status, attempts, 1, EPOCH, EPOCH + took_s, "away")

    measures = Measures()
    uploads = (
        upload(UploadStatus.STORED, 1, 0.2), upload(UploadStatus.STORED, 4, 4.0), upload(UploadStatus.FAILED, 9, 20.0),
        upload(UploadStatus.ABANDONED, 0, -1.0),
    )  # fmt: skip
    done = Settlement("t1", "k", Status.COMPLETED, "COMPLETED", uploads=uploads)
    measures.note_settled([(done, Settled("t1", "COMPLETED", 1, 3, "IMAGE", "acme", "v1", EPOCH, None))], EPOCH + 3)
    text = measures.text()
    for line in (
        'flik_uploads_total{outcome="STORED",task_type="IMAGE"} 2.0',
        'flik_uploads_total{outcome="FAILED",task_type="IMAGE"} 1.0',
        'flik_uploads_total{outcome="ABANDONED",task_type="IMAGE"} 1.0',
        'flik_upload_retries_total{task_type="IMAGE"} 11.0',
        'flik_upload_seconds_sum{task_type="IMAGE"} 24.2',
        'flik_upload_seconds_count{task_type="IMAGE"} 4.0',
    ):
        assert line in text


# ---- the breakers of workers


class Breakers:
    """What the queue's metrics say of the breakers of two workers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.roster = Roster(3.0, self.clock, asyncio.Event())
        self.measures = Measures()

    def beat(self, worker_id: str, *tallies: Tally) -> None:
        self.roster.hear(worker(worker_id), 1)
        self.measures.note_breakers(worker_id, tallies, self.roster)

    def says(self, name: str, dependency: str = "provider") -> float:
        self.measures._note_breaker_states(self.roster)
        labels = {"process": "model", "dependency": dependency}
        return self.measures.metrics.registry.get_sample_value(f"flik_breaker_{name}", labels) or 0.0


@pytest.fixture
def breakers() -> Breakers:
    return Breakers()


def test_breakers_of_all_workers_are_counted_together_each_event_once(breakers: Breakers) -> None:
    breakers.beat("w1")
    breakers.beat("w2")
    for _ in range(3):
        breakers.beat("w1", Tally("provider", 1, 1, 5))
        breakers.beat("w2", Tally("artifacts", 0, 2, 0), Tally("provider", 0, 1, 1))
    breakers.beat("w1", Tally("provider", 0, 2, 6))
    assert (breakers.says("opened_total"), breakers.says("refused_total")) == (3, 7)
    assert breakers.says("opened_total", "artifacts") == 2


def test_what_a_worker_told_the_queue_before_it_was_restarted_is_not_counted_again(breakers: Breakers) -> None:
    breakers.beat("w1", Tally("provider", 0, 9, 90))
    assert breakers.says("opened_total") == 0
    breakers.beat("w1", Tally("provider", 1, 10, 90))
    assert breakers.says("opened_total") == 1


@pytest.mark.parametrize(("states", "worst"), [((0, 0), 0), ((0, 2), 2), ((2, 1), 1), ((1, 0), 1)])
def test_state_is_that_of_the_worker_that_is_worst_off(breakers: Breakers, states: tuple[int, int], worst: int) -> None:
    for number, state in enumerate(states):
        breakers.beat(f"w{number}", Tally("provider", state, 1, 0))
    assert breakers.says("state") == worst


def test_worker_that_is_gone_holds_no_breaker_open(breakers: Breakers) -> None:
    breakers.beat("w1", Tally("provider", 1, 1, 0))
    assert breakers.says("state") == 1
    breakers.clock.now += 10
    assert (breakers.says("state"), breakers.measures._told) == (0, {})
