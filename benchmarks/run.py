"""The order of a run: which rows there are, what each needs, and what becomes of one that breaks.

Never two servers at once: the region is measured, stopped, and only then the others start.
A row of Flik that breaks is an error; a line or a peer that cannot be measured is skipped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.drive import ClientFailed
from benchmarks.limits import disk, http
from benchmarks.measurement import Measurement, Outcome
from benchmarks.peers import fastapi_celery
from benchmarks.peers.environment import EnvironmentNotMade
from benchmarks.plan import Plan
from benchmarks.region import Region, found_region, started_region
from benchmarks.rows import backlog, chains, following, footprint, latency, recovery, throughput, urgent
from benchmarks.service import NotReady

SLOTS = 1_024
BROKEN = (ClientFailed, NotReady, EnvironmentNotMade, httpx.HTTPError, OSError)

RegionRow = Callable[[Region, Plan], Outcome]
LineRow = Callable[[Plan, Path, list[str]], Outcome]

REGION_ROWS: Mapping[str, RegionRow] = {
    "cold-start": footprint.measure_cold_start,
    "memory": footprint.measure_memory,
    "submit": latency.measure_submit,
    "settled": latency.measure_settled,
    "live": following.measure_live,
    "followers": following.measure_followers,
    "single": throughput.measure_single,
    "batch": throughput.measure_batch,
    "chains": chains.measure,
    "waiting-chains": chains.measure_waiting,
    "recovery": recovery.measure,  # at last: it kills what counted so far
}
FEW_SLOTS_ROWS: Mapping[str, RegionRow] = {"urgent": urgent.measure, "backlog": backlog.measure}
LIMIT_ROWS: Mapping[str, LineRow] = {
    "fsync": disk.measure_fsync,
    "postgres": disk.measure_postgres,
    "static": http.measure_static,
    "fastapi": http.measure_fastapi,
    "serve": http.measure_serve,
}
PEER_ROWS: Mapping[str, LineRow] = {
    "celery": fastapi_celery.measure,
    "celery-durable": fastapi_celery.measure_durable,
}
ALL_ROWS = (*REGION_ROWS, *FEW_SLOTS_ROWS, *LIMIT_ROWS, *PEER_ROWS)


@dataclass(frozen=True)
class Where:
    """Which region to measure, and where servers keep their data. `url` None: start one."""

    data_home: Path
    url: str | None = None
    pid: int | None = None


@dataclass
class Findings:
    """What the rows brought so far."""

    measurements: list[Measurement] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, outcome: Outcome) -> None:
        """Take in what row `name` brought."""
        self.measurements += outcome.measurements
        self.violations += [f"{name}: {violation}" for violation in outcome.violations]


def run(rows: Sequence[str], plan: Plan, where: Where) -> Findings:
    """Measure the named rows, in the order of a run."""
    findings = Findings()
    _measure_region({name: row for name, row in REGION_ROWS.items() if name in rows}, SLOTS, plan, where, findings)
    few = {name: row for name, row in FEW_SLOTS_ROWS.items() if name in rows}
    _measure_region(few, urgent.WORKER_CONCURRENCY, plan, where, findings)
    for name, line in {**LIMIT_ROWS, **PEER_ROWS}.items():
        if name in rows:
            _measure_line(name, line, plan, where, findings)
    return findings


def _measure_region(
    rows: Mapping[str, RegionRow], worker_concurrency: int, plan: Plan, where: Where, findings: Findings
) -> None:
    if not rows:
        return
    try:
        with _region(worker_concurrency, where, findings.violations) as region:
            for name, row in rows.items():
                _measure_row(name, row, region, plan, findings)
    except BROKEN as error:
        findings.violations.append(f"{', '.join(rows)}: {describe(error)}")


def _measure_row(name: str, row: RegionRow, region: Region, plan: Plan, findings: Findings) -> None:
    try:
        with _announced(name):
            findings.add(name, row(region, plan))
    except BROKEN as error:
        findings.violations.append(f"{name}: {describe(error)}")


def _measure_line(name: str, line: LineRow, plan: Plan, where: Where, findings: Findings) -> None:
    left_behind: list[str] = []
    try:
        with _announced(name):
            findings.add(name, line(plan, where.data_home, left_behind))
    except BROKEN as error:
        findings.skipped[name] = describe(error)
    for name_left in left_behind:
        print(f"killed: {name_left}", file=sys.stderr)


@contextmanager
def _region(worker_concurrency: int, where: Where, left_behind: list[str]) -> Iterator[Region]:
    if where.url is not None:
        with found_region(where.url, where.pid) as region:
            yield region
        return
    with (
        _announced(f"flik up with {worker_concurrency} slots"),
        started_region(worker_concurrency, where.data_home, left_behind) as region,
    ):
        yield region


@contextmanager
def _announced(name: str) -> Iterator[None]:
    start = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    yield
    print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)


def describe(error: Exception) -> str:
    """Return what broke, with the type of the error where its text alone would not say."""
    return str(error) if isinstance(error, NotReady | EnvironmentNotMade) else f"{type(error).__name__}: {error}"
