"""Lists of tasks: newest first, filtered, in pages that neither skip nor repeat."""

from __future__ import annotations

from typing import Any

import pytest

from flik import schemas
from tests.acceptance.running import RunningFlik, task

FAILING = {"prompt": "x", "script": {"durationS": 0.1, "failures": [{"retryable": False}]}}


def listed(flik: RunningFlik, **query: Any) -> list[str]:
    """Return the ids of all pages."""
    ids: list[str] = []
    while True:
        answer = flik.http.get("/api/v1/tasks", params=query)
        assert answer.status_code == 200, answer.text
        page = schemas.TaskPage.model_validate(answer.json())
        assert len(page.items) <= int(query.get("limit", 50))
        ids += [item.task_id for item in page.items]
        if page.next_cursor is None:
            return ids
        query["cursor"] = page.next_cursor


@pytest.fixture(scope="module")
def tenant(flik: RunningFlik) -> tuple[str, list[str]]:
    """A tenant with 12 finished tasks, oldest first: texts and pictures in all classes, one of them failed."""
    asked = [
        task("IMAGE" if number % 3 == 0 else "TEXT", tenantId="lister", priority=number % 3,
             payload={"prompt": "x", **({"width": 64, "height": 64} if number % 3 == 0 else {"maxWords": 5})})
        for number in range(11)
    ]  # fmt: skip
    ids = flik.submit_many([*asked, task(tenantId="lister", payload=FAILING)])
    for task_id in ids:
        flik.wait(task_id)
    return "lister", ids


def test_newest_comes_first(flik: RunningFlik, tenant: tuple[str, list[str]]) -> None:
    name, ids = tenant
    assert listed(flik, tenantId=name) == ids[::-1]


@pytest.mark.parametrize("limit", [1, 5, 12, 100])
def test_pages_neither_skip_nor_repeat(flik: RunningFlik, tenant: tuple[str, list[str]], limit: int) -> None:
    name, ids = tenant
    assert listed(flik, tenantId=name, limit=limit) == ids[::-1]


def test_filters_narrow_the_list(flik: RunningFlik, tenant: tuple[str, list[str]]) -> None:
    name, ids = tenant
    assert listed(flik, tenantId=name, taskType="IMAGE") == ids[0:11:3][::-1]
    assert listed(flik, tenantId=name, priority=2) == ids[2:11:3][::-1]
    assert listed(flik, tenantId=name, status="FAILED") == ids[11:]
    assert listed(flik, tenantId=name, status="COMPLETED", priority=0, taskType="TEXT") == []
    assert listed(flik, tenantId="nobody") == []
    assert ids[0] in listed(flik, taskType="IMAGE", limit=100)


def test_times_bound_the_list(flik: RunningFlik, tenant: tuple[str, list[str]]) -> None:
    name, ids = tenant
    created_at = flik.get(ids[0])["createdAt"]
    assert set(listed(flik, tenantId=name, createdAfter=created_at)) == set(ids)
    assert ids[0] not in listed(flik, tenantId=name, createdBefore=created_at)
    assert listed(flik, tenantId=name, createdAfter="2099-01-01T00:00:00Z") == []
    assert listed(flik, tenantId=name, createdBefore="1999-01-01") == []


def test_page_is_not_moved_by_what_is_submitted_meanwhile(flik: RunningFlik, tenant: tuple[str, list[str]]) -> None:
    first = flik.http.get("/api/v1/tasks", params={"limit": 5}).json()
    new = flik.submit(tenantId="newcomer")
    second = flik.http.get("/api/v1/tasks", params={"limit": 5, "cursor": first["nextCursor"]}).json()
    ids = [item["taskId"] for item in (*first["items"], *second["items"])]
    assert new not in ids
    assert ids == sorted(set(ids), reverse=True)
    assert listed(flik, tenantId="newcomer") == [new]


def test_listed_tasks_carry_their_results(flik: RunningFlik, tenant: tuple[str, list[str]]) -> None:
    items = flik.http.get("/api/v1/tasks", params={"tenantId": tenant[0], "taskType": "IMAGE"}).json()["items"]
    for item in items:
        assert flik.http.get(item["result"]["url"]).status_code == 200
