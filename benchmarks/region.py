"""The region under test: `flik up` in a folder of its own, or one that runs already.

Its metrics are what counts settled tasks. While a run lasts nobody else may submit to it.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.drive import HEADERS
from benchmarks.load.job import Post
from benchmarks.service import ROOT, ProcessGroup, Recipe, running, tree_group

GATEWAY, QUEUE, TEXT_MODEL = "ray::ServeReplica:flik:Gateway", "ray::QueueShell", "ray::ServeReplica:flik-text-"
"""How the titles of processes begin."""
KNOWN_WITHIN_S = 6.0  # until all know of a tenant's new limits
POLL_S = 0.05
QUIET_S = 0.5  # a task that settles twice shows within this time
COMMAND = (sys.executable, "-m", "flik", "up", "--port", "{port}", "--data-dir", "{folder}/data", "--no-dashboard")


@dataclass(frozen=True)
class Counters:
    """What `/metrics` said: tasks submitted and completed since the start, tasks waiting by priority."""

    submitted: int
    completed: int
    waiting: dict[str, int]


@dataclass(frozen=True)
class Region:
    """A region that answers. For one that we did not start, `group`, `healthy_after_s` and `data_dir` are None."""

    host: str
    port: int
    client: httpx.Client
    group: ProcessGroup | None = None
    healthy_after_s: float | None = None
    data_dir: Path | None = None

    def processes(self, *titles: str) -> list[psutil.Process] | None:
        """Return its processes with a title that begins so; None when they are not known."""
        return None if self.group is None else [each for each in self.group.members() if _is_titled(each, titles)]

    def held_bytes(self, *titles: str) -> int | None:
        """Return the memory (RSS) of its processes with a title that begins so; None when they are not known."""
        found = self.processes(*titles)
        return None if found is None else sum(each.memory_info().rss for each in found)

    def limit(self, tenant_id: str, **limits: int) -> None:
        """Give a tenant, which is made unless it is there, limits by their names on the wire.

        They hold everywhere after `KNOWN_WITHIN_S`.
        """
        self.client.post("/api/v1/tenants", json={"tenantId": tenant_id})
        self.client.patch(f"/api/v1/tenants/{tenant_id}", json={"limits": limits}).raise_for_status()

    def submit(self, post: Post) -> httpx.Response:
        """Send one request that submits, and return the answer. Raises httpx.HTTPError when there is none."""
        return self.client.post(post.path, content=post.body, headers={"content-type": "application/json"})

    def counters(self) -> Counters:
        """Read the counters. Raises httpx.HTTPError when the region does not answer."""
        answer = self.client.get("/metrics")
        answer.raise_for_status()
        return read_counters(answer.text)

    def wait_completed(self, total: int, within_s: float) -> float | None:
        """Wait until `total` tasks completed since the start; return the moment (monotonic), None if it never came."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.counters().completed >= total:
                return time.monotonic()
            time.sleep(POLL_S)
        return None

    def status(self, task_id: str) -> str:
        """Return the status of a task, or the HTTP status that stood in its place."""
        answer = self.client.get(f"/api/v1/tasks/{task_id}")
        return str(answer.json()["status"]) if answer.status_code == 200 else f"HTTP {answer.status_code}"


def read_counters(text: str) -> Counters:
    """Read the three families that count here from a page in Prometheus' text format; a missing one is 0."""
    lines = (line for line in text.splitlines() if line.lstrip("# TYPEHL").startswith("flik_"))
    sums: dict[str, float] = {}
    waiting: dict[str, int] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
            if sample.name == "flik_queue_depth":
                priority = sample.labels.get("priority", "")
                waiting[priority] = waiting.get(priority, 0) + int(sample.value)
    return Counters(
        submitted=int(sums.get("flik_tasks_submitted_total", 0)),
        completed=int(sums.get("flik_tasks_completed_total", 0)),
        waiting=waiting,
    )


def is_up(port: int) -> bool:
    """Tell whether `/health` answers 200 with status UP."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health", timeout=2)
        return answer.status_code == 200 and answer.json().get("status") == "UP"
    except (httpx.HTTPError, ValueError):
        return False


@contextmanager
def started_region(
    worker_concurrency: int, data_home: Path, left_behind: list[str], command: Sequence[str] = COMMAND
) -> Iterator[Region]:
    """Run `flik up` with the no-op provider in an empty folder, for as long as the block lasts.

    Raises:
        NotReady: it did not get healthy within 120 s.
    """
    recipe = Recipe(
        name="flik up",
        command=command,
        is_ready=is_up,
        environment={
            "FLIK_PROVIDER": "noop",
            "FLIK_PORT": "{port}",
            "FLIK_AUTH": "open",
            "FLIK_LOG_LEVEL": "WARNING",
            "WORKER_CONCURRENCY": str(worker_concurrency),
            "RATE_LIMIT_REQUESTS_PER_SEC": "1000000",  # the limiter works, but never refuses
            "RATE_LIMIT_BURST": "1000000",
            "FLIK_FOLLOWERS": "20000",
            "FLIK_FOLLOWERS_PER_KEY": "20000",
        },
        working_dir=ROOT,
        ready_within_s=120.0,
        stop_signal=signal.SIGINT,
        stop_within_s=20.0,
    )
    with (
        running(recipe, data_home, left_behind) as service,
        _client(f"http://127.0.0.1:{service.port}") as client,
    ):
        data_dir = service.folder / "data"
        yield Region("127.0.0.1", service.port, client, service.group, service.ready_after_s, data_dir)


@contextmanager
def found_region(url: str, pid: int | None) -> Iterator[Region]:
    """Use a region that runs at `url`; with `pid` of its `flik up`, CPU and memory of its descendants are counted."""
    parts = urlsplit(url)
    if parts.hostname is None:
        raise ValueError(f"--url needs http://host:port, not {url!r}")
    group = tree_group(pid) if pid is not None else None
    with _client(url) as client:
        yield Region(parts.hostname, parts.port or 80, client, group)


def _is_titled(process: psutil.Process, titles: Sequence[str]) -> bool:
    try:
        return "".join(process.cmdline()[:1]).startswith(tuple(titles))
    except psutil.Error:
        return False


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers=HEADERS, timeout=10)
