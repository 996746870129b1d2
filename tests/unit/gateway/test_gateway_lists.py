"""Pages of tasks and replays of dead letters: filters, cursors, limits."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, task_id, view

from flik import schemas
from flik.domain.task import TaskFilter
from flik.errors import InvalidRequest
from flik.gateway import cursor


def fill(fakes: Fakes, count: int) -> None:
    fakes.tasks.rows |= {task_id(number): view(task_id=task_id(number)) for number in range(1, count + 1)}


async def test_pages_follow_one_another_without_a_gap(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fill(fakes, 7)
    seen: list[str] = []
    query = {"limit": "3"}
    while True:
        page = schemas.TaskPage.model_validate((await client.get("/api/v1/tasks", params=query)).json())
        seen += [item.task_id for item in page.items]
        if page.next_cursor is None:
            break
        query["cursor"] = page.next_cursor
    assert seen == [task_id(number) for number in range(7, 0, -1)]


async def test_full_last_page_has_no_cursor(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fill(fakes, 3)
    assert (await client.get("/api/v1/tasks?limit=3")).json()["nextCursor"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", TaskFilter(limit=51)),
        ("limit=100", TaskFilter(limit=101)),
        (
            "status=FAILED&taskType=IMAGE&priority=0",
            TaskFilter(status="FAILED", task_type="IMAGE", priority=0, limit=51),
        ),
        ("tenantId=acme", TaskFilter(tenant_id="acme", limit=51)),
        ("createdAfter=1970-01-01T00:01:00Z", TaskFilter(created_from=60.0, limit=51)),
        ("createdBefore=1970-01-01T00:01:00", TaskFilter(created_until=60.0, limit=51)),
        ("createdBefore=1970-01-01T01:00:00%2B00:30", TaskFilter(created_until=1800.0, limit=51)),
        ("createdBefore=1970-01-01T01:00:00+00:30", TaskFilter(created_until=1800.0, limit=51)),
        ("createdAfter=1970-01-02", TaskFilter(created_from=86_400.0, limit=51)),
    ],
)
async def test_parameters_become_a_filter(
    fakes: Fakes, client: httpx.AsyncClient, query: str, expected: TaskFilter
) -> None:
    assert (await client.get(f"/api/v1/tasks?{query}")).status_code == 200
    assert fakes.tasks.asked == [expected]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"), ("limit=101", "/limit"), ("limit=abc", "/limit"), ("limit=", "/limit"),
        ("limit=-1", "/limit"), ("limit=1.0", "/limit"), ("limit=²", "/limit"), (f"limit={'9' * 5000}", "/limit"),
        ("priority=3", "/priority"), ("priority=x", "/priority"), ("status=DONE", "/status"),
        ("status=queued", "/status"), ("taskType=AUDIO", "/taskType"), ("tenantId=", "/tenantId"),
        ("tenantId=%00", "/tenantId"), ("tenantId=a+b", "/tenantId"), ("tenantId=acme%0A", "/tenantId"),
        (f"tenantId={'x' * 129}", "/tenantId"),
        ("createdAfter=yesterday", "/createdAfter"),
        ("createdBefore=2026-13-01", "/createdBefore"), ("createdAfter=99999-01-01", "/createdAfter"),
        ("cursor=", "/cursor"), ("cursor=abc", "/cursor"), ("cursor=" + "!" * 22, "/cursor"),
        ("cursor=" + "é" * 22, "/cursor"), ("cursor=" + "A" * 22 + "==", "/cursor"),
        ("cursor=" + "%2B" * 22, "/cursor"), ("cursor=" + "A" * 22 + "%0A", "/cursor"),
        ("sort=asc", "/sort"), ("a/b=1", "/a~1b"), ("Status=QUEUED", "/Status"), ("errorCode=x", "/errorCode"),
        ("limit=1&limit=2", "/limit"), ("%00=1", "/\x00"), ("status=QUEUED&status=FAILED", "/status"),
    ],
)  # fmt: skip
async def test_wrong_parameter_is_named(fakes: Fakes, client: httpx.AsyncClient, query: str, pointer: str) -> None:
    answer = await client.get(f"/api/v1/tasks?{query}")
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not fakes.tasks.asked


@pytest.mark.parametrize("year", ["0001-01-01T00:00:00%2B23:59", "9999-12-31T23:59:59-23:59"])
async def test_ends_of_time_are_times(client: httpx.AsyncClient, year: str) -> None:
    assert (await client.get(f"/api/v1/tasks?createdAfter={year}")).status_code == 200


def test_cursor_survives_the_round_trip() -> None:
    assert cursor.decode(cursor.encode(task_id(5))) == task_id(5)
    with pytest.raises(InvalidRequest):
        cursor.decode(task_id(5))


@pytest.mark.parametrize("name", ["a", "A-1_b.c:d@e", "x" * 128])
def test_cursor_of_names_survives_the_round_trip_and_fits_its_pattern(name: str) -> None:
    assert cursor.decode_name(cursor.encode_name(name)) == name
    assert re.fullmatch(cursor.OF_NAMES, cursor.encode_name(name))


@pytest.mark.parametrize("text", ["", "6", "00", "7f", "c3a4", "6A", "61\n", "61" * 129])
def test_what_no_page_returned_is_no_cursor_of_names(text: str) -> None:
    with pytest.raises(InvalidRequest):
        cursor.decode_name(text)


async def test_dead_letters_are_the_failed_tasks(fakes: Fakes, client: httpx.AsyncClient) -> None:
    query = "errorCode=boom&taskType=TEXT&limit=5"
    assert (await client.get(f"/api/v1/dead-letters?{query}")).status_code == 200
    assert fakes.tasks.asked == [TaskFilter(status="FAILED", error_code="boom", task_type="TEXT", limit=6)]
    assert (await client.get("/api/v1/dead-letters?status=QUEUED")).status_code == 422


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"all": True}, TaskFilter(limit=1001)),
        ({"taskType": "IMAGE", "limit": 5}, TaskFilter(task_type="IMAGE", limit=6)),
        ({"tenantId": "acme"}, TaskFilter(tenant_id="acme", limit=1001)),
        ({"priority": 0}, TaskFilter(priority=0, limit=1001)),
        ({"errorCode": "boom"}, TaskFilter(error_code="boom", limit=1001)),
        (
            {"createdAfter": "2026-01-01T00:00:00Z"},
            TaskFilter(created_from=datetime(2026, 1, 1, tzinfo=UTC).timestamp(), limit=1001),
        ),
    ],
)
async def test_replay_takes_the_filter_along(
    fakes: Fakes, client: httpx.AsyncClient, asked: dict[str, Any], expected: TaskFilter
) -> None:
    answer = await client.post("/api/v1/dead-letters:replay", json=asked)
    assert answer.json() == {"replayed": 0, "more": False}
    assert fakes.tasks.dead_asked == [expected]  # one more than is replayed says whether more match


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""), ({"limit": 5}, ""), ({"all": False}, ""), ({"all": 1}, "/all"), ([], ""),
        ({"taskType": "AUDIO"}, "/taskType"), ({"all": True, "limit": 0}, "/limit"),
        ({"all": True, "limit": 10_001}, "/limit"),
        ({"status": "FAILED"}, "/status"), ({"createdAfter": "soon"}, "/createdAfter"),
        ({"createdBefore": 5}, "/createdBefore"),
        ({"priority": 3}, "/priority"), ({"all": True, "tenantId": ""}, "/tenantId"),
    ],
)  # fmt: skip
async def test_replay_without_a_proper_filter_is_refused(
    fakes: Fakes, client: httpx.AsyncClient, asked: Any, pointer: str
) -> None:
    answer = await client.post("/api/v1/dead-letters:replay", json=asked)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not fakes.queue.replays
