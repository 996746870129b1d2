"""Whatever Schemathesis makes of the description, Flik answers as described: the short form of `make fuzz`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import RunningFlik
from tests.fuzz.fuzzing import fuzz


@pytest.fixture
def idle_flik(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik whose tasks end at once: the films that are asked for here would keep the shared one busy for hours."""
    running = RunningFlik(data_folder / "fuzz", FLIK_PROVIDER="noop").start()
    yield running
    running.stop()


@pytest.mark.timeout(600)
def test_flik_answers_as_its_description_says(idle_flik: RunningFlik) -> None:
    seed = int(os.environ.get("FLIK_FUZZ_SEED") or 1)
    figures = fuzz(idle_flik, requests=1, examples=8, seed=seed)
    assert not figures.failures, figures.summary
    assert figures.requests > 1_000, figures.summary
