"""Answers are read leniently: an older client survives a newer server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from flik.client import Artifact, TaskFailure
from flik.client.answers import read_health, read_page, read_task

LEAST: dict[str, Any] = {"taskId": "t-1", "status": "QUEUED"}


def test_the_least_answer_is_enough() -> None:
    task = read_task(LEAST)

    assert (task.task_id, task.status, task.attempt, task.artifacts) == ("t-1", "QUEUED", 0, ())


def test_unknown_fields_and_statuses_are_kept_and_harmless() -> None:
    task = read_task({**LEAST, "status": "DREAMING", "mood": "good", "result": {"artifacts": [{"url": "/a", "x": 1}]}})

    assert not task.is_terminal
    assert task.raw["mood"] == "good"
    assert task.artifacts == (Artifact("/a"),)


def test_optional_fields_of_the_wrong_type_read_as_absent() -> None:
    wrong = {"priority": "high", "progress": "half", "createdAt": 12, "startedAt": "soon", "attempt": None}
    task = read_task({**LEAST, **wrong, "error": "boom", "result": [], "region": {}})

    assert (task.priority, task.progress, task.created_at, task.started_at) == (None, None, None, None)
    assert (task.attempt, task.error, task.region, task.text) == (0, None, None, None)


@pytest.mark.parametrize(("progress", "read"), [(0, 0.0), (0.25, 0.25), (7, 1.0), (-1, 0.0), (True, None)])
def test_progress_stays_between_nothing_and_all(progress: object, read: float | None) -> None:
    assert read_task({**LEAST, "progress": progress}).progress == read


def test_times_become_utc() -> None:
    task = read_task({**LEAST, "createdAt": "2026-01-31T10:00:00+02:00", "startedAt": "2026-01-31T08:00:00.5Z"})

    assert task.created_at == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert task.started_at == datetime(2026, 1, 31, 8, 0, 0, 500_000, tzinfo=UTC)


def test_the_error_of_a_task_is_read() -> None:
    assert read_task({**LEAST, "error": {"code": "boom", "message": "it broke"}}).error == TaskFailure(
        "boom", "it broke"
    )


def test_artifacts_without_a_link_are_left_out() -> None:
    task = read_task({**LEAST, "result": {"artifacts": [None, {}, {"url": 7}, {"url": "/a", "sizeBytes": 3}]}})

    assert task.artifacts == (Artifact("/a", size_bytes=3),)


@pytest.mark.parametrize("raw", [None, [], "x", {}, {"taskId": "t-1"}, {"taskId": "", "status": "QUEUED"}])
def test_what_is_not_a_task_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match=r"missing|not a JSON object"):
        read_task(raw)


def test_the_last_page_has_no_cursor() -> None:
    assert read_page({"items": [LEAST], "nextCursor": None}).next_cursor is None
    assert read_page({"items": [], "nextCursor": ""}).next_cursor is None
    assert read_page({"items": [], "nextCursor": "abc"}).next_cursor == "abc"


def test_components_may_be_words_or_objects() -> None:
    health = read_health({"status": "UP", "components": {"a": "UP", "b": {"status": "DOWN"}, "c": {}, "d": 7}})

    assert health.components == {"a": "UP", "b": "DOWN", "c": "UNKNOWN"}
