"""What a process loads stays in its memory: some libraries are for those only that use them."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("flik.deployments.gateway", {"jwt", "flik.gateway.key_set"}),
        ("flik.deployments.model", {"psycopg", "redis", "PIL", "av", "jwt"}),
        ("flik.actors.queue", {"fastapi", "ray.serve", "pydantic", "obstore"}),
        ("flik.actors.limiter", {"fastapi", "ray.serve", "pydantic", "psycopg"}),
        ("flik.cli.region", {"fastapi", "ray.serve", "flik.settings", "psycopg", "redis"}),
        ("flik.client", {"ray", "flik.dags", "pydantic", "yaml"}),
        ("flik.cli.dags", {"ray", "flik.dags", "pydantic"}),
        ("flik.cli.up", {"ray", "flik.client"}),
    ],
)
def test_process_does_not_load_what_it_does_not_use(module: str, unwanted: set[str]) -> None:
    check = f"import sys, {module}; print(sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"
