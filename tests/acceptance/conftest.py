"""One real Flik for the whole session; tests that kill things start their own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.running import RunningFlik


@pytest.fixture(scope="session")
def data_folder() -> Iterator[Path]:
    """A folder with a short path: unix sockets lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="flik-accept-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def flik(data_folder: Path) -> Iterator[RunningFlik]:
    """Flik with one slot a replica, fast models and short retries."""
    running = RunningFlik(
        data_folder / "shared",
        WORKER_CONCURRENCY="1",
        FLIK_SIMULATED_SPEED="20",
        FLIK_RETRY_DELAYS_S="0.2,0.4,0.6",
        FLIK_TENANT_WEIGHTS="heavy=3,light=1",
        FLIK_WEBHOOK_ALLOW="127.0.0.0/8",
        FLIK_WEBHOOK_HTTP="true",
        FLIK_FOLLOWERS_PER_KEY="20000",
        FLIK_FOLLOWERS="20000",
    ).start()
    yield running
    took_s = running.stop()
    assert took_s < 15, f"stopping took {took_s:.1f} s"
