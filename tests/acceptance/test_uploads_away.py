"""An object store that is away in the middle of an attempt costs time and no second generation, whoever is killed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.running import RunningFlik, eventually


@pytest.fixture(scope="module")
def victim(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik of our own, whose store and replicas go away."""
    running = RunningFlik(data_folder / "uploads", WORKER_CONCURRENCY="2", FLIK_SIMULATED_SPEED="20").start()
    yield running
    running.stop()


@contextmanager
def store_away(flik: RunningFlik) -> Iterator[None]:
    """Put a file where the store's folder was: nothing can be written or read, whoever asks."""
    folder = flik.data_dir / "artifacts"
    aside = folder.with_name("artifacts.aside")
    folder.rename(aside)
    folder.write_text("")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


def rows(flik: RunningFlik, columns: str, table: str, task_id: str) -> list[tuple[Any, ...]]:
    return flik.query(f"SELECT {columns} FROM {table} WHERE task_id = '{task_id}' ORDER BY 1")


def drawing(flik: RunningFlik) -> str:
    """Submit three pictures that take about two seconds; return the task's id when it runs."""
    asked = {"width": 64, "height": 64, "numOutputs": 3, "script": {"durationS": 40}}
    task_id = flik.submit("IMAGE", payload=asked)
    eventually(lambda: flik.get(task_id)["status"] == "PROCESSING", within_s=20, every_s=0.02, what="the start")
    return task_id


def assert_files_are_there(files: list[dict[str, Any]]) -> None:
    for file in files:
        assert hashlib.sha256(httpx.get(file["url"]).content).hexdigest() == file["sha256"]


def test_store_that_is_away_for_some_seconds_costs_no_second_generation(victim: RunningFlik) -> None:
    task_id = drawing(victim)
    with store_away(victim):
        time.sleep(6)  # how long it is away is what is tested; longer than a lease, too
        running = victim.get(task_id)
        assert (running["status"], running["attempt"]) == ("PROCESSING", 1)
    done = victim.wait(task_id)
    assert (done["status"], done["attempt"]) == ("COMPLETED", 1)
    files = done["result"]["artifacts"]
    assert all(file["uploadAttempts"] > 1 for file in files)
    assert_files_are_there(files)

    assert rows(victim, "attempt, outcome::text, made_by", "attempts", task_id) == [(1, "COMPLETED", None)]
    uploads = rows(victim, "index, status::text, attempts, error, ended_at - started_at", "uploads", task_id)
    assert [row[:2] for row in uploads] == [(0, "STORED"), (1, "STORED"), (2, "STORED")]
    assert [row[2] for row in uploads] == [file["uploadAttempts"] for file in files]
    assert all(row[3] and row[4].total_seconds() > 1 for row in uploads)
    shown = victim.http.get("/metrics").text
    assert 'flik_uploads_total{outcome="STORED",task_type="IMAGE"}' in shown
    assert 'flik_upload_retries_total{task_type="IMAGE"}' in shown


@pytest.mark.chaos
@pytest.mark.skipif(os.environ.get("FLIK_CHAOS") != "long", reason="the long form: make chaos")
def test_generation_outlives_its_replica_while_the_store_is_away(victim: RunningFlik) -> None:
    task_id = drawing(victim)
    kept = victim.data_dir / "spool" / task_id / "made.json"
    with store_away(victim):
        eventually(kept.exists, within_s=30, what="the keeping")
        victim.kill("image")
        eventually(lambda: victim.get(task_id)["status"] == "QUEUED", within_s=20, what="the end of the lease")
    done = victim.wait(task_id)
    assert (done["status"], done["attempt"]) == ("COMPLETED", 2)
    assert_files_are_there(done["result"]["artifacts"])
    (first, second) = rows(victim, "attempt, outcome::text, lease_token, made_by", "attempts", task_id)
    assert first[:2] == (1, "LOST")
    assert second[:2] == (2, "COMPLETED")
    assert (first[3], second[3]) == (None, first[2])
    eventually(lambda: not kept.parent.exists(), within_s=10, what="the forgetting")
