"""Whole rows against a stand-in for `flik up`, which keeps the contract or breaks it on purpose."""

import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import parse
from benchmarks.plan import QUICK
from benchmarks.region import started_region
from benchmarks.rows import footprint, latency, throughput, urgent
from benchmarks.service import NotReady, free_ports, listens

STANDIN = (
    *(sys.executable, str(Path(__file__).parent / "standin.py"), "up"),
    *("--port", "{port}", "--data-dir", "{folder}/data"),
)
TINY = replace(
    QUICK,
    single_tasks=200,
    batched_tasks=2_000,
    connections=16,
    warm_up_tasks=20,
    paced_requests=4,
    backlog_tasks=1_000,
    urgent_tasks=8,
    idle_s=0.0,
    settle_within_s=1.0,
    checked_tasks=200,
)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Run a row against a stand-in with a fault; return its outcome and who was left behind."""

    def measure(row, fault="", worker_concurrency=256):
        left_behind = []
        monkeypatch.setenv("STANDIN_FAULT", fault)
        with started_region(worker_concurrency, tmp_path, left_behind, STANDIN) as region:
            outcome = row(region, TINY)
        assert not listens(region.port)
        return outcome, left_behind

    return measure


def figures(outcome):
    return {one.metric: one.value for one in outcome.measurements}


def test_tasks_a_second_and_cpu_are_measured_one_by_one(measured):
    outcome, left_behind = measured(throughput.measure_single)

    assert figures(outcome)["single_tasks_per_s"] > 0
    assert figures(outcome)["single_cpu_us"] is not None
    assert (outcome.violations, left_behind) == ((), [])


def test_every_task_of_a_batch_counts(measured):
    outcome, _ = measured(throughput.measure_batch)

    assert outcome.measurements[0].note.startswith("2,000 tasks")
    assert outcome.violations == ()


@pytest.mark.parametrize(
    ("fault", "said"), [("lose", "were counted as completed"), ("twice", "were counted as completed")]
)
def test_a_task_that_is_lost_or_settles_twice_is_found(measured, fault, said):
    outcome, _ = measured(throughput.measure_single, fault)

    assert any(said in violation for violation in outcome.violations)


def test_latency_is_measured_to_the_202_and_to_settled(measured):
    submit, _ = measured(latency.measure_submit)
    settled, _ = measured(latency.measure_settled)

    assert figures(submit)["submit_p50_ms"] > 0
    assert figures(settled)["settled_p99_ms"] > 0
    assert settled.measurements[0].note == "4 samples"
    assert submit.violations == settled.violations == ()


def test_urgent_tasks_are_measured_while_a_backlog_waits(measured):
    outcome, _ = measured(urgent.measure, worker_concurrency=2)

    assert figures(outcome)["urgent_p99_ms"] > 0
    assert outcome.violations == ()


def test_memory_and_start_are_those_of_the_started_processes(measured):
    memory, _ = measured(footprint.measure_memory)
    start, _ = measured(footprint.measure_cold_start)

    assert 0 < figures(memory)["idle_pss_gb"] <= figures(memory)["idle_rss_gb"] < 1
    assert figures(start)["cold_start_s"] > 0


def test_a_process_that_outlives_its_server_is_reported_and_ended(measured):
    _, left_behind = measured(footprint.measure_cold_start, "orphan")

    assert len(left_behind) == 1
    assert left_behind[0].startswith("flik up left python")
    pid = int(left_behind[0].rpartition("(")[2].partition(")")[0])
    assert not psutil.pid_exists(pid)


def test_a_server_that_exits_is_named_with_the_end_of_its_log(measured, tmp_path):
    with pytest.raises(NotReady, match=r"flik up exited with 1(.|\n)*the stand-in was told to die"):
        measured(footprint.measure_cold_start, "dead")

    assert list(tmp_path.iterdir()) == []


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20


@pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--pid", "1"], ["--data-home", "/no/such/folder"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)

    assert stopped.value.code == 2
    assert arguments[0].lstrip("-") in capsys.readouterr().err
