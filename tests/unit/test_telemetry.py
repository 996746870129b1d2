"""The table of metrics, and log lines that are JSON whatever is in them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psutil
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flik.telemetry import METRICS, JsonFormatter, Metrics, Names, labelled, log_as, log_as_json, merged

_USES = {"counter": "inc", "gauge": "set", "histogram": "observe"}


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the `flik` loggers write."""
    logger = logging.getLogger("flik")
    before = (logger.handlers[:], logger.level, logger.propagate)
    log_as_json("INFO")
    stream = io.StringIO()
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    logger.handlers[:], logger.level, logger.propagate = before[0], before[1], before[2]
    logger.setLevel(before[1])


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_every_metric_of_the_table_can_be_scraped() -> None:
    measured = Metrics("flik_*")
    for row in METRICS:
        made = measured[row.name].labels(*("x" for _ in row.labels)) if row.labels else measured[row.name]
        getattr(made, _USES[row.kind])(1)
    text = generate_latest(measured.registry).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(families) >= {row.name for row in METRICS}
    assert all(families[row.name].type == row.kind for row in METRICS)


def test_names_are_unique_and_labels_come_from_bounded_sets() -> None:
    names = [row.name for row in METRICS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("flik_") for name in names)
    bounded = {"task_type", "priority", "version", "error_code", "attempt", "outcome", "code", "tier",
               "dependency", "process", "decision", "tenant"}  # fmt: skip  # a tenant through `Names` only
    assert {label for row in METRICS for label in row.labels} <= bounded


def test_buckets_rise_and_belong_to_histograms() -> None:
    for row in METRICS:
        assert bool(row.buckets) == (row.kind == "histogram"), row.name
        assert list(row.buckets) == sorted(set(row.buckets)), row.name


def test_only_the_metrics_that_were_asked_for_are_made() -> None:
    measured = Metrics("flik_queue_*", "flik_attempts")
    measured["flik_queue_depth"].labels("TEXT", "0").set(1)
    measured["flik_attempts"].labels("TEXT", "1", "COMPLETED").inc()
    with pytest.raises(KeyError):
        measured["flik_http_errors"]


def test_a_process_tells_what_it_takes() -> None:
    measured = Metrics("flik_process_*", process="queue")
    before, started = samples(measured.text()), time.process_time()
    while time.process_time() < started + 0.05:
        pass
    with tempfile.TemporaryFile():
        after = samples(measured.text())
    me = psutil.Process()
    assert 0.03 < after["cpu_seconds_total"] - before["cpu_seconds_total"] < 0.5
    assert after["cpu_seconds_total"] <= sum(me.cpu_times()[:2]) + 0.01
    assert after["resident_bytes"] == pytest.approx(me.memory_info().rss, rel=0.2)
    assert after["open_files"] == before["open_files"] + 1
    assert after["start_time_seconds"] == pytest.approx(me.create_time(), abs=1.0)


def samples(text: str) -> dict[str, float]:
    return {
        sample.name.removeprefix("flik_process_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels == {"process": "queue"} and not sample.name.endswith("_created")
    }


def test_texts_of_several_processes_become_one_that_repeats_no_header_and_no_series() -> None:
    texts = []
    for process in ("gateway", "queue"):
        measured = Metrics(
            "flik_breaker_*", "flik_submit_seconds" if process == "gateway" else "flik_grant_*", process=process
        )
        measured["flik_breaker_opened"].labels(process, "postgresql").inc()
        texts.append(generate_latest(measured.registry).decode())

    text = merged(*texts, "# the queue is not available\n")

    headers = [line for line in text.splitlines() if line.startswith(("# HELP", "# TYPE"))]
    assert len(headers) == len(set(headers))
    families = list(text_string_to_metric_families(text))
    series = [(each.name, *sorted(each.labels.items())) for family in families for each in family.samples]
    assert len(series) == len(set(series))
    opened = next(family for family in families if family.name == "flik_breaker_opened")
    totals = {each.labels["process"]: each.value for each in opened.samples if each.name.endswith("_total")}
    assert totals == {"gateway": 1.0, "queue": 1.0}
    assert {family.name for family in families} >= {"flik_submit_seconds", "flik_grant_seconds"}
    assert text.endswith("# the queue is not available\n")


def test_label_is_added_to_every_sample_and_to_nothing_else() -> None:
    text = '# HELP a_total Some {words}.\n# TYPE a_total counter\na_total 1.0\na_total{x="y z{"} 2.0\n'
    (family,) = text_string_to_metric_families(labelled(text, "replica", "r1"))
    assert family.documentation == "Some {words}."
    assert [(each.labels, each.value) for each in family.samples] == [
        ({"replica": "r1"}, 1.0), ({"replica": "r1", "x": "y z{"}, 2.0),
    ]  # fmt: skip


def test_two_sets_of_metrics_do_not_share_their_counts() -> None:
    first, second = Metrics("flik_tasks_expired"), Metrics("flik_tasks_expired")
    first["flik_tasks_expired"].inc()
    assert first.registry.get_sample_value("flik_tasks_expired_total") == 1
    assert second.registry.get_sample_value("flik_tasks_expired_total") == 0


def test_line_is_one_json_object(written: io.StringIO) -> None:
    log = logging.getLogger("flik.some.part")
    log.info("task\nsettled %s", "well", extra={"durationMs": 12})
    (line,) = lines(written)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {"level": "INFO", "logger": "flik.some.part", "message": "task\nsettled well", "durationMs": 12}


async def test_lines_of_an_asyncio_task_carry_its_ids_and_those_of_others_do_not(written: io.StringIO) -> None:
    async def attempt(task_id: str) -> None:
        log_as(taskId=task_id, traceId=None)
        await asyncio.sleep(0)  # the other attempt runs in between
        log_as(tenantId="acme")
        logging.getLogger("flik.x").info("inside")

    await asyncio.gather(attempt("17"), attempt("18"))
    logging.getLogger("flik.x").info("outside")
    first, second, outside = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["taskId"], line["tenantId"], "traceId" in line) for line in (first, second)] == [
        ("17", "acme", False),
        ("18", "acme", False),
    ]
    assert "taskId" not in outside


def test_exception_is_part_of_its_line(written: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("flik").exception("failed")
    (line,) = lines(written)
    assert line["message"] == "failed"
    assert line["exception"].endswith("ValueError: broken")


@pytest.mark.parametrize("extra", ["\ud800", 2**70, float("nan"), {1, 2}, object()])
def test_no_line_is_lost_for_what_json_cannot_say(extra: Any) -> None:
    record = logging.LogRecord("flik", logging.INFO, __file__, 1, "odd \ud800", None, None)
    record.__dict__["taskId"] = extra
    line = JsonFormatter().format(record)
    line.encode()
    assert json.loads(line)["message"].startswith("odd")


def test_level_is_respected(written: io.StringIO) -> None:
    logging.getLogger("flik").debug("small talk")
    assert not written.getvalue()


def test_names_beyond_the_bound_are_other() -> None:
    names = Names(2)

    assert [names.bounded(name) for name in ("a", "b", "c", "a", "c", "b")] == ["a", "b", "other", "a", "other", "b"]
