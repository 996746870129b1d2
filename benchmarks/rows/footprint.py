"""What a region that nobody uses costs: memory of all its processes, and the time from command to healthy.

Cold means an empty data folder (the database is created within the time); the files of
Python and Ray may be in the page cache.
"""

from __future__ import annotations

import time

from benchmarks.measurement import Measurement, Outcome
from benchmarks.plan import Plan
from benchmarks.region import Region

GB = 1e9


def measure_memory(region: Region, plan: Plan) -> Outcome:
    """Memory after some idle seconds, before any load."""
    if region.group is None:
        return Outcome((Measurement("idle_rss_gb", None, "GB", "needs --pid with --url"),))
    time.sleep(plan.idle_s)
    memory = region.group.memory()
    note = f"{memory.processes} processes"
    return Outcome(
        (
            Measurement("idle_rss_gb", memory.rss_bytes / GB, "GB", f"{note}, shared pages counted in each"),
            Measurement("idle_pss_gb", memory.pss_bytes / GB, "GB", f"{note}, shared pages divided among them"),
        )
    )


def measure_cold_start(region: Region, plan: Plan) -> Outcome:
    """Seconds from the command to `/health` UP."""
    note = "" if region.healthy_after_s is not None else "not started by this run"
    return Outcome((Measurement("cold_start_s", region.healthy_after_s, "s", note),))
