"""Actors that outlive a deploy: found again by one like it, started anew by one that is not. On a Ray of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SCENE = """
import json, os, sys
import ray
from flik.actors import NAMESPACE, detached
from flik.actors.limiter import LimiterConfig, LimiterShell

ray.init(num_cpus=1, include_dashboard=False, namespace=NAMESPACE, log_to_driver=False, _temp_dir=sys.argv[1])
redis_url = "redis://127.0.0.1:1"  # nobody is there
deploys = [("a", 1.0), ("a", 1.0), ("a", 0.5), ("a", 0.5)]
pids = []
for region, share in deploys:
    actor = detached.start(LimiterShell, "it", LimiterConfig(region, redis_url, share))
    pids.append(ray.get(actor.open.remote(), timeout=60))
detached.__version__ = "another"
actor = detached.start(LimiterShell, "it", LimiterConfig("a", redis_url, 0.5))
pids.append(ray.get(actor.open.remote(), timeout=60))
print(json.dumps(pids))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: unix sockets lie below it."""
    made = Path(tempfile.mkdtemp(prefix="flik-ray-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_an_actor_is_started_anew_when_its_code_or_its_configuration_is_another(folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCENE, str(folder)],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    first, same, other, other_again, of_another_version = json.loads(run.stdout.splitlines()[-1])
    assert first == same
    assert other == other_again
    assert len({first, other, of_another_version}) == 3
