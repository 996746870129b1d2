"""Dead letters: what failed for good is listed, and gets another round when it is replayed."""

from __future__ import annotations

from typing import Any

from flik import schemas
from tests.acceptance.running import RunningFlik, task


def bury(flik: RunningFlik, tenant: str, code: str, *, count: int, kind: str = "TEXT") -> list[str]:
    """Submit tasks that fail once, for good, and would succeed at the next attempt."""
    script = {"durationS": 0.1, "failures": [{"code": code, "retryable": False}]}
    ids = flik.submit_many([task(kind, tenantId=tenant, payload={"prompt": "x", "script": script})] * count)
    for task_id in ids:
        assert flik.wait(task_id)["status"] == "FAILED"
    return ids


def dead(flik: RunningFlik, **query: Any) -> list[str]:
    answer = flik.http.get("/api/v1/dead-letters", params={"limit": 100, **query})
    page = schemas.TaskPage.model_validate(answer.json())
    assert {item.status for item in page.items} <= {"FAILED"}
    return [item.task_id for item in page.items]


def replay(flik: RunningFlik, **wanted: Any) -> int:
    answer = flik.http.post("/api/v1/dead-letters:replay", json=wanted)
    assert answer.status_code == 200, answer.text
    return schemas.Replayed.model_validate(answer.json()).replayed


def test_failed_tasks_are_listed_with_why(flik: RunningFlik) -> None:
    ids = bury(flik, "morgue", "boom", count=3)
    assert dead(flik, tenantId="morgue") == ids[::-1]
    assert dead(flik, tenantId="morgue", errorCode="boom") == ids[::-1]
    assert dead(flik, tenantId="morgue", errorCode="other") == []
    assert dead(flik, tenantId="morgue", taskType="IMAGE") == []
    first = flik.http.get("/api/v1/dead-letters", params={"tenantId": "morgue", "limit": 2}).json()
    rest = flik.http.get(
        "/api/v1/dead-letters", params={"tenantId": "morgue", "limit": 2, "cursor": first["nextCursor"]}
    ).json()
    assert [item["taskId"] for item in (*first["items"], *rest["items"])] == ids[::-1]
    assert first["items"][0]["error"]["code"] == "boom"


def test_one_dead_letter_is_replayed_to_its_end(flik: RunningFlik) -> None:
    one, other = bury(flik, "replay-one", "boom", count=2)
    answer = flik.http.post(f"/api/v1/dead-letters/{one}/replay")
    assert answer.status_code == 202
    said = schemas.TaskAnswer.model_validate(answer.json())
    assert said.status in ("QUEUED", "PROCESSING", "COMPLETED")
    assert said.max_attempts == 1 + 4
    done = flik.wait(one)
    assert (done["status"], done["attempt"]) == ("COMPLETED", 2)
    assert "error" not in done
    assert flik.http.post(f"/api/v1/tasks/{other}/retry").status_code == 202
    assert flik.wait(other)["status"] == "COMPLETED"
    assert dead(flik, tenantId="replay-one") == []
    assert flik.http.post(f"/api/v1/dead-letters/{one}/replay").status_code == 409


def test_dead_letters_are_replayed_by_filter(flik: RunningFlik) -> None:
    boom = bury(flik, "replay-many", "boom", count=3)
    bang = bury(flik, "replay-many", "bang", count=2)
    assert replay(flik, tenantId="replay-many", errorCode="unheard_of") == 0
    assert replay(flik, tenantId="replay-many", errorCode="boom", limit=2) == 2
    for task_id in boom[:2]:  # the oldest first
        assert flik.wait(task_id)["status"] == "COMPLETED"
    assert set(dead(flik, tenantId="replay-many")) == {boom[2], *bang}
    assert replay(flik, tenantId="replay-many", priority=0) == 0
    assert replay(flik, tenantId="replay-many") == 3
    for task_id in (boom[2], *bang):
        assert flik.wait(task_id)["status"] == "COMPLETED"
    assert replay(flik, tenantId="replay-many") == 0


def test_replay_of_everything_must_be_said(flik: RunningFlik) -> None:
    (left,) = bury(flik, "replay-all", "boom", count=1)
    assert flik.http.post("/api/v1/dead-letters:replay", json={}).status_code == 422
    assert flik.get(left)["status"] == "FAILED"
    assert replay(flik, all=True) >= 1
    assert flik.wait(left)["status"] == "COMPLETED"
