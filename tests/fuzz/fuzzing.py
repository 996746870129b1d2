"""Fuzzing of Flik's HTTP face: Schemathesis against a running Flik, with all its checks.

    figures = fuzz(flik, requests=200_000, seed=7)

Schemathesis runs in rounds, each with the next seed and all its phases, until so many requests were
sent. The first round that finds something is the last: its own summary says what, and how to send it
again. Whatever it makes belongs to tenants of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.running import RunningFlik
from tests.fuzz.hooks import OWNER, SPARE, STRANGER

CONFIG = Path(__file__).with_name("schemathesis.toml")
_ROOT = CONFIG.parents[2]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to. `failures` counts kinds of failures, and rounds that broke off."""

    requests: int
    failures: int
    seconds: float
    summary: str

    def __str__(self) -> str:
        return f"{self.requests:,} requests, {self.failures} failures, {self.seconds:.0f} s"


def fuzz(flik: RunningFlik, *, requests: int, examples: int, seed: int) -> Figures:
    """Send about so many requests, `examples` of an operation in a round, and return what came of them."""
    environment = {**os.environ, **_identities(flik)}
    started, sent = time.monotonic(), 0
    while True:
        report, summary = _round(flik, environment, examples, seed)
        sent += report.get("test_cases", {}).get("generated", 0)
        figures = Figures(sent, _failures(report), time.monotonic() - started, summary)
        if figures.failures or sent >= requests:
            return figures
        print(f"seed {seed}: {figures}", flush=True)
        seed += 1


def _round(flik: RunningFlik, environment: dict[str, str], examples: int, seed: int) -> tuple[dict[str, Any], str]:
    """Run Schemathesis once; return its report and what it printed.

    With one worker: in two threads CPython 3.11 fails in `ast.parse` now and then (24 November 2026).
    """
    path = flik.data_dir / f"fuzz-{seed}.json"
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--no-color", "--config-file", CONFIG, "run",
            f"{flik.url}/openapi.json", "--seed", str(seed), "--max-examples", str(examples), "--workers", "1",
            "--report", "json", "--report-json-path", path, "--warnings", "off",
        ],
        cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        check=False, text=True,
    )  # fmt: skip
    report = json.loads((path.read_text() if path.exists() else "") or "{}")  # it is made empty, and filled at the end
    return {**report, "exit_code": ran.returncode}, ran.stdout


def _failures(report: dict[str, Any]) -> int:
    found = report.get("test_cases", {}).get("unique_failures", 0) + len(report.get("errors", ()))
    return max(found, int(report["exit_code"] != 0))


def _identities(flik: RunningFlik) -> dict[str, str]:
    """Make the tenants and keys of a run; return the environment that tells Schemathesis of them."""
    flik.tenant(SPARE)
    made = {name: _key(flik, tenant) for name, tenant in (("owner", OWNER), ("stranger", STRANGER))}
    tokens = {name: key["key"] for name, key in made.items()} | {"operator": flik.key}
    bearers = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {token}"}]}
        for name, token in tokens.items()
    ]
    path = flik.data_dir / "fuzz-auth.json"
    path.touch(0o600)
    path.write_text(json.dumps({"auth": bearers}))
    listed = flik.http.get("/api/v1/keys", params={"limit": 100}).json()["items"]
    spare = _key(flik, SPARE)
    return {
        "FLIK_FUZZ_AUTH": str(path),
        "FLIK_FUZZ_KEYS": " ".join(key["keyId"] for key in listed),
        "FLIK_FUZZ_SPARE_KEY": spare["keyId"],
    }


def _key(flik: RunningFlik, tenant_id: str) -> dict[str, Any]:
    flik.tenant(tenant_id)
    answer = flik.http.post("/api/v1/keys", json={"tenantId": tenant_id})
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key
