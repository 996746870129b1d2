"""What Flik tells about itself: one table of metrics, JSON logs, and the ids that tie lines together.

Every metric Flik emits is a row of `METRICS`; labels come from bounded sets (types, classes,
states), never from ids. A tenant is a label only through `Names`, which bounds how many. `process` says
who counted, where several do: gateway, queue, or model (all model replicas of the region together).
`replica` is added to what gateways show: it stands for the life of one gateway process.

A log line is one JSON object with timestamp, level, logger and message, and, where they are
known, taskId, tenantId, taskType, durationMs, traceId and requestId. `log_as` sets those for
the rest of an asyncio task; `extra={"durationMs": 12}` adds to one line.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


METRICS = (
    Metric("flik_tasks_submitted", "counter", ("task_type", "priority"), "Tasks the queue learnt of."),
    Metric("flik_tasks_completed", "counter", ("task_type", "version"), "Tasks that completed."),
    Metric("flik_tasks_failed", "counter", ("task_type", "error_code"), "Tasks that failed; 50 codes, then other."),
    Metric("flik_tasks_cancelled", "counter", ("task_type",), "Tasks that were cancelled."),
    Metric("flik_tasks_expired", "counter", (), "Tasks that never started by their start deadline."),
    Metric("flik_attempts", "counter", ("task_type", "attempt", "outcome"), "Attempts that ended, by their number."),
    Metric("flik_stale_settlements", "counter", ("task_type",), "Outcomes refused: their lease token was not current."),
    Metric("flik_queue_depth", "gauge", ("task_type", "priority"), "Tasks that wait."),
    Metric("flik_tasks_running", "gauge", ("task_type",), "Tasks that are being worked on."),
    Metric("flik_workers", "gauge", ("task_type", "version"), "Model replicas heard of within a lease."),
    Metric("flik_worker_slots", "gauge", ("task_type",), "Tasks those replicas can work on at a time."),
    Metric("flik_queue_wait_seconds", "histogram", ("task_type", "priority"), "From submit to grant.", _LONG_S),
    Metric("flik_run_seconds", "histogram", ("task_type",), "From grant to settled.", _LONG_S),
    Metric(
        "flik_uploads", "counter", ("task_type", "outcome"), "Files of attempts that ended, by what became of them."
    ),
    Metric("flik_upload_retries", "counter", ("task_type",), "Times such a file was sent again."),
    Metric(
        "flik_upload_seconds", "histogram", ("task_type",), "From a file's making to its end in the store.", _LONG_S
    ),
    Metric("flik_grant_seconds", "histogram", (), "One grant transaction.", _SHORT_S),
    Metric("flik_settle_seconds", "histogram", (), "One settle transaction.", _SHORT_S),
    Metric("flik_submit_seconds", "histogram", (), "From a submit request's arrival to its answer.", _SHORT_S),
    Metric(
        "flik_submit_batch_tasks",
        "histogram",
        (),
        "Tasks that shared one commit.",
        (1, 2, 5, 10, 25, 50, 100, 250, 1000),
    ),
    Metric("flik_events_told", "counter", (), "Events of tasks sent to the gateways."),
    Metric("flik_events_dropped", "counter", (), "Events not sent: Redis was away; followers read them in the log."),
    Metric("flik_followers", "gauge", (), "Connections that follow tasks live."),
    Metric("flik_http_errors", "counter", ("code",), "Requests answered with a problem."),
    Metric("flik_tasks_refused", "counter", ("code", "tenant"), "Tasks the door turned away; 200 tenants, then other."),
    Metric("flik_rate_tasks", "counter", ("decision",), "Tasks by what the rate limit said of them."),
    Metric("flik_rate_ask_seconds", "histogram", (), "One call of a gateway to the region's limiter.", _SHORT_S),
    Metric("flik_rate_tenants", "gauge", (), "Tenants for which this gateway holds or wants tokens."),
    Metric("flik_rate_local", "gauge", (), "1: Redis is away, the region admits by its share; 0: one bucket for all."),
    Metric("flik_webhook_attempts", "counter", ("outcome",), "Attempts at deliveries by what they led to."),
    Metric("flik_webhook_seconds", "histogram", (), "One attempt at a delivery.", _SHORT_S),
    Metric(
        "flik_breaker_state",
        "gauge",
        ("process", "dependency"),
        "0 closed: calls go through; 1 open: refused; 2 probing.",
    ),
    Metric("flik_breaker_opened", "counter", ("process", "dependency"), "How often a dependency was found to be away."),
    Metric("flik_breaker_refused", "counter", ("process", "dependency"), "Calls refused because a dependency is away."),
    Metric("flik_process_cpu_seconds", "counter", ("process",), "CPU time of the process, user and system."),
    Metric("flik_process_resident_bytes", "gauge", ("process",), "Memory of the process that is in RAM."),
    Metric("flik_process_open_files", "gauge", ("process",), "Files, sockets and pipes that the process has open."),
    Metric("flik_process_start_time_seconds", "gauge", ("process",), "When the process started, since the epoch."),
    Metric(
        "flik_result_reads", "counter", ("tier",), "Reads of a task by where they were answered: HOT, WARM or MISS."
    ),
)

_OF_PROCESS = {
    "flik_process_resident_bytes": "process_resident_memory_bytes",
    "flik_process_open_files": "process_open_fds",
    "flik_process_start_time_seconds": "process_start_time_seconds",
}
_KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class Metrics:
    """The metrics of one process, made from the table: `metrics["flik_tasks_failed"].labels(...)`.

    `process` is the label of those that several processes have.
    """

    def __init__(self, *names: str, process: str = "", registry: CollectorRegistry | None = None) -> None:
        self.process = process
        self.registry = registry or CollectorRegistry()
        self._made: dict[str, Any] = {}
        for row in METRICS:
            if row.name in names or any(name.endswith("*") and row.name.startswith(name[:-1]) for name in names):
                options = {"buckets": row.buckets} if row.kind == "histogram" else {}
                kind: Any = _KINDS[row.kind]
                self._made[row.name] = kind(row.name, row.help, row.labels, registry=self.registry, **options)
        self._process = ProcessCollector(registry=None) if "flik_process_cpu_seconds" in self._made else None
        self._cpu_s = 0.0  # of the process, counted so far

    def __getitem__(self, name: str) -> Any:
        return self._made[name]

    def text(self) -> str:
        """Return all of them as Prometheus text."""
        if self._process is not None:
            self._note_process(self._process)
        return generate_latest(self.registry).decode()

    def _note_process(self, process: ProcessCollector) -> None:
        read = {family.name: family.samples[0].value for family in process.collect()}
        used_s = read.get("process_cpu_seconds", self._cpu_s)
        self["flik_process_cpu_seconds"].labels(self.process).inc(max(0.0, used_s - self._cpu_s))
        self._cpu_s = used_s
        for name, found in _OF_PROCESS.items():
            self[name].labels(self.process).set(read.get(found, 0.0))


def labelled(text: str, name: str, value: str) -> str:
    """Return a text of Prometheus with one label more on every sample."""
    lines = []
    for line in text.splitlines():
        metric, has_labels, rest = line.partition("{")
        if line.startswith("#"):
            lines.append(line)
        elif has_labels:
            lines.append(f'{metric}{{{name}="{value}",{rest}')
        else:
            lines.append(f'{{{name}="{value}"}} '.join(line.split(" ", 1)))
    return "\n".join([*lines, ""])


def merged(*texts: str) -> str:
    """Return texts of Prometheus as one: all samples of a metric below one HELP and one TYPE, which must not repeat."""
    headers: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                known = headers.setdefault(name, [])
                if line not in known:
                    known.append(line)
            elif line:
                samples.setdefault(name, []).append(line)
    lines = [line for name in headers | samples for line in (*headers.get(name, ()), *samples.get(name, ()))]
    return "\n".join([*lines, ""])


class Names:
    """Bounds a label whose values callers choose: the first `most` keep their names, all later ones are "other".

    Those that are `known` beforehand keep theirs whatever callers choose.
    """

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._known = set(known)
        self._most = most + len(self._known)

    def bounded(self, name: str) -> str:
        """Return the name, or "other"."""
        if name in self._known:
            return name
        if len(self._known) >= self._most:
            return "other"
        self._known.add(name)
        return name


# The fields of a task, and those of the one that made it: (fields, (fields, ...)); joined when a line is written.
_Fields = tuple[Mapping[str, Any], "_Fields | None"]
_context: contextvars.ContextVar[_Fields | None] = contextvars.ContextVar("flik_log_context", default=None)


def log_as(**fields: Any) -> None:
    """Add fields to every line that this asyncio task logs from now on; None values are left out."""
    _context.set((fields, _context.get()))


def _known(context: _Fields | None) -> dict[str, Any]:
    if context is None:
        return {}
    fields, outer = context
    return {**_known(outer), **{name: value for name, value in fields.items() if value is not None}}


_FIELDS = (
    "taskId",
    "tenantId",
    "taskType",
    "durationMs",
    "traceId",
    "requestId",
    "attempt",
    "workerId",
    "version",
    "count",
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_known(_context.get()),
        }
        line.update({name: record.__dict__[name] for name in _FIELDS if name in record.__dict__})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a lone surrogate or a huge number: no reason to lose the line
            return json.dumps(line, default=str)


def log_as_json(level: str = "INFO") -> None:
    """Send the `flik` loggers of this process to standard error as JSON lines.

    The real one: in a replica `sys.stderr` leads to Ray Serve's own log, which leaves these lines out.
    """
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("flik")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
