"""Submit, read, cancel and retry over fakes: what is stored, and what is answered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, body, task_id, view

from flik import schemas
from flik.artifacts import link
from flik.domain.task import StoredArtifact
from flik.gateway.answers import iso

PICTURE = StoredArtifact(0, f"{task_id(1)}/1-0.png", "image/png", 12, "ab" * 32, width=64, height=32)


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


async def test_submitted_task_is_stored_and_announced(fakes: Fakes, client: httpx.AsyncClient) -> None:
    headers = {"X-Request-ID": "r-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    asked = body(priority=0, startDeadlineS=60, maxAttempts=2)
    answer = await client.post("/api/v1/tasks", json=asked, headers=headers)
    assert answer.status_code == 202
    said = schemas.Submitted.model_validate(answer.json())
    assert said.status == "QUEUED"
    url = f"http://flik.test/api/v1/tasks/{said.task_id}"
    assert (said.status_url, said.result_url) == (url, f"{url}/result")
    assert (said.cancel_url, said.events_url) == (f"{url}/cancel", f"{url}/events")
    assert answer.headers["location"] == url
    assert answer.headers["retry-after"] == "1"
    (stored,) = fakes.tasks.stored
    assert (stored.task_id, stored.tenant_id, stored.priority, stored.region) == (said.task_id, "acme", 0, "us-east")
    assert json.loads(stored.payload) == {"prompt": "rain"}
    assert (stored.request_id, stored.trace_id) == ("r-1", "a" * 32)
    assert stored.start_deadline_at == pytest.approx(stored.created_at + 60)
    assert stored.max_attempts == 2
    await asyncio.sleep(0)  # the caller is answered first
    assert [ticket.task_id for ticket in fakes.queue.announced] == [said.task_id]


async def test_id_and_time_of_a_task_agree_to_the_millisecond(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = (await client.post("/api/v1/tasks", json=body())).json()
    milliseconds = int(answer["taskId"].replace("-", "")[:12], 16)
    assert answer["createdAt"] == iso(milliseconds / 1000)
    assert fakes.tasks.stored[0].created_at == milliseconds / 1000


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{'0' * 32}-{'b' * 16}-01",
        f"00-{'A' * 32}-{'b' * 16}-01",
        f"00-{'a' * 31}-{'b' * 16}-01",
        "-" * 50,
    ],
)
async def test_broken_traceparent_is_left_out(fakes: Fakes, client: httpx.AsyncClient, header: str) -> None:
    assert (await client.post("/api/v1/tasks", json=body(), headers={"traceparent": header})).status_code == 202
    assert fakes.tasks.stored[0].trace_id is None


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"taskType": "AUDIO"}, "/taskType"),
        ({"taskType": "text"}, "/taskType"),
        ({"taskType": 1}, "/taskType"),
        ({"priority": 3}, "/priority"),
        ({"priority": -1}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": 1.5}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"priority": 10**30}, "/priority"),
        ({"tenantId": ""}, "/tenantId"),
        ({"tenantId": "a" * 129}, "/tenantId"),
        ({"tenantId": "acme\n"}, "/tenantId"),
        ({"tenantId": "../etc"}, "/tenantId"),
        ({"tenantId": None}, "/tenantId"),
        ({"payload": None}, "/payload"),
        ({"payload": []}, "/payload"),
        ({"payload": "rain"}, "/payload"),
        ({"payload": {}}, "/payload/prompt"),
        ({"payload": {"prompt": ""}}, "/payload/prompt"),
        ({"payload": {"prompt": 7}}, "/payload/prompt"),
        ({"payload": {"prompt": "x" * 32_001}}, "/payload/prompt"),
        ({"payload": {"prompt": "x" * (256 * 1024)}}, "/payload"),
        ({"payload": {"prompt": "x", "width": 64}}, "/payload/width"),
        ({"payload": {"prompt": "x", "seed": -1}}, "/payload/seed"),
        ({"payload": {"prompt": "x", "seed": 2**63}}, "/payload/seed"),
        ({"payload": {"prompt": "x", "seed": 1.5}}, "/payload/seed"),
        ({"payload": {"prompt": "x", "maxWords": 0}}, "/payload/maxWords"),
        ({"payload": {"prompt": "x", "script": {"failures": [{}, {"code": "A"}]}}}, "/payload/script/failures/1/code"),
        ({"payload": {"prompt": "x", "script": {"durationS": 1e300}}}, "/payload/script/durationS"),
        ({"startDeadlineS": 0}, "/startDeadlineS"),
        ({"startDeadlineS": "60"}, "/startDeadlineS"),
        ({"startDeadlineS": 1e9}, "/startDeadlineS"),
        ({"maxAttempts": 0}, "/maxAttempts"),
        ({"maxAttempts": 21}, "/maxAttempts"),
        ({"maxAttempts": 1.5}, "/maxAttempts"),
        ({"region": "mars"}, "/region"),
        ({"region": "US EAST"}, "/region"),
        ({"extra": 1}, "/extra"),
        ({"task_type": "IMAGE"}, "/task_type"),
        ({"": 1}, "/"),
    ],
)
async def test_wrong_field_is_named_and_nothing_is_stored(
    fakes: Fakes, client: httpx.AsyncClient, fields: dict[str, Any], pointer: str
) -> None:
    assert pointers(await client.post("/api/v1/tasks", json=body(**fields))) == [pointer]
    assert not fakes.tasks.stored


@pytest.mark.parametrize("missing", ["tenantId", "taskType", "payload"])
async def test_missing_field_is_named(fakes: Fakes, client: httpx.AsyncClient, missing: str) -> None:
    asked = {name: value for name, value in body().items() if name != missing}
    assert pointers(await client.post("/api/v1/tasks", json=asked)) == [f"/{missing}"]
    assert not fakes.tasks.stored


async def test_longest_prompt_is_taken(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/tasks", json=body(payload={"prompt": "é" * 32_000}))
    assert answer.status_code == 202
    assert len(fakes.tasks.stored) == 1


@pytest.mark.parametrize("document", ["[]", '"task"', "1", "null", "true"])
async def test_body_that_is_no_object_is_refused(client: httpx.AsyncClient, document: str) -> None:
    answer = await client.post("/api/v1/tasks", content=document, headers={"Content-Type": "application/json"})
    assert pointers(answer) == [""]


async def test_nothing_is_acknowledged_while_postgresql_is_away(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.away = True
    answer = await client.post("/api/v1/tasks", json=body())
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert not fakes.queue.announced


async def test_task_is_accepted_while_the_queue_is_away(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.queue.away = True
    assert (await client.post("/api/v1/tasks", json=body())).status_code == 202
    assert len(fakes.tasks.stored) == 1


async def test_batch_answers_for_each_task_in_order(fakes: Fakes, client: httpx.AsyncClient) -> None:
    asked = [body(), body(priority=9), body(payload={"prompt": 1}), 7, body(tenantId="other")]
    answer = await client.post("/api/v1/tasks:batch", json={"tasks": asked})
    assert answer.status_code == 207
    items = schemas.BatchAnswer.model_validate(answer.json()).items
    assert [item.status for item in items] == [202, 422, 422, 422, 202]
    assert [item.problem.errors[0].pointer for item in items if item.problem] == [
        "/tasks/1/priority", "/tasks/2/payload/prompt", "/tasks/3",
    ]  # fmt: skip
    assert [task.tenant_id for task in fakes.tasks.stored] == ["acme", "other"]
    assert [item.task.task_id for item in items if item.task] == [task.task_id for task in fakes.tasks.stored]


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"tasks": []}, "/tasks"),
        ({"tasks": [1] * 1001}, "/tasks"),
        ({"tasks": {}}, "/tasks"),
        ({}, "/tasks"),
        ([], "/tasks"),
        ({"tasks": [1], "a/b": 1}, "/a~1b"),
    ],
)
async def test_batch_that_is_none_is_refused(client: httpx.AsyncClient, document: Any, pointer: str) -> None:
    assert pointers(await client.post("/api/v1/tasks:batch", json=document)) == [pointer]


async def test_batch_of_a_thousand_is_one_commit(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/tasks:batch", json={"tasks": [body()] * 1000})
    assert answer.status_code == 207
    ids = [item["task"]["taskId"] for item in answer.json()["items"]]
    assert ids == [task.task_id for task in fakes.tasks.stored]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    "wrong",
    ["x", "123", "0199a1b2", "0199a1b2-0000-7000-8000-00000000000g", "0199a1b2-0000-7000-8000-0000000000_1",
     "{199a1b2-0000-7000-8000-00000000000}", "0199a1b200007000-8000-000000000001--",
     "%00" * 36, "\u0660" * 36, " " * 36],
)  # fmt: skip
@pytest.mark.parametrize("action", ["", "/cancel", "/retry"])
async def test_malformed_id_is_named(client: httpx.AsyncClient, wrong: str, action: str) -> None:
    method = "POST" if action else "GET"
    assert pointers(await client.request(method, f"/api/v1/tasks/{wrong}{action}")) == ["/taskId"]


async def test_id_is_found_in_capitals(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view()
    assert (await client.get(f"/api/v1/tasks/{task_id(1).upper()}")).json()["taskId"] == task_id(1)


async def test_task_is_read_from_redis_first_then_from_postgresql(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.hot.rows[task_id(1)] = view(status="COMPLETED", worker_id="hot")
    fakes.tasks.rows[task_id(1)] = view(status="COMPLETED", worker_id="warm")
    path = f"/api/v1/tasks/{task_id(1)}"
    assert (await client.get(path)).json()["workerId"] == "hot"
    fakes.hot.rows.clear()
    assert (await client.get(path)).json()["workerId"] == "warm"
    assert (await client.get(f"/api/v1/tasks/{task_id(2)}")).status_code == 404
    reads = {tier: fakes.parts.measured.registry.get_sample_value("flik_result_reads_total", {"tier": tier})
             for tier in ("HOT", "WARM", "MISS")}  # fmt: skip
    assert reads == {"HOT": 1, "WARM": 1, "MISS": 1}


async def test_hot_result_is_had_while_postgresql_is_away(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.away = True
    fakes.hot.rows[task_id(1)] = view(status="COMPLETED")
    assert (await client.get(f"/api/v1/tasks/{task_id(1)}")).status_code == 200


async def test_completed_task_has_its_result_with_signed_links(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(
        status="COMPLETED", attempt=1, started_at=2.0, completed_at=3.5, artifacts=(PICTURE,),
        result={"text": "rain", "metadata": {"seed": 7}},
    )  # fmt: skip
    answer = await client.get(f"/api/v1/tasks/{task_id(1)}")
    task = schemas.TaskAnswer.model_validate(answer.json())
    assert "retry-after" not in answer.headers
    assert answer.json()["completedAt"] == "1970-01-01T00:00:03.500Z"
    assert task.result is not None
    assert (task.result.text, task.result.metadata) == ("rain", {"seed": 7})
    (picture,) = task.result.artifacts
    assert picture.url == task.result.url
    assert (picture.content_type, picture.size_bytes, picture.width, picture.height) == ("image/png", 12, 64, 32)
    assert "durationS" not in answer.json()["result"]["artifacts"][0]
    assert picture.upload_attempts == 1
    assert picture.url.startswith(f"http://flik.test{link.PATH_PREFIX}{PICTURE.key}?expires=")
    alone = await client.get(f"/api/v1/tasks/{task_id(1)}/result")
    assert schemas.ResultAnswer.model_validate(alone.json()).text == "rain"


async def test_running_task_shows_how_far_it_is(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(status="PROCESSING", attempt=1, started_at=2.0, worker_id="w", version="v1")
    fakes.hot.fractions[task_id(1)] = 0.25
    answer = await client.get(f"/api/v1/tasks/{task_id(1)}")
    assert answer.headers["retry-after"] == "1"
    said = answer.json()
    assert (said["progress"], said["workerId"], said["version"]) == (0.25, "w", "v1")
    assert not {"result", "completedAt", "error", "availableAt"} & set(said)
    early = await client.get(f"/api/v1/tasks/{task_id(1)}/result")
    assert (early.status_code, early.json()["code"]) == (409, "state_conflict")


async def test_task_that_waits_for_a_retry_says_why_and_until_when(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(attempt=1, available_at=5.0, error_code="boom", error_message="it broke")
    said = (await client.get(f"/api/v1/tasks/{task_id(1)}")).json()
    assert said["availableAt"] == "1970-01-01T00:00:05.000Z"
    assert said["error"] == {"code": "boom", "message": "it broke"}


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/cancel")])
async def test_task_is_cancelled_once(fakes: Fakes, client: httpx.AsyncClient, method: str, suffix: str) -> None:
    fakes.tasks.rows[task_id(1)] = view()
    path = f"/api/v1/tasks/{task_id(1)}{suffix}"
    first, second = await client.request(method, path), await client.request(method, path)
    assert (first.status_code, first.json()["status"]) == (200, "CANCELLED")
    assert (second.status_code, second.json()["code"]) == (409, "state_conflict")
    assert (await client.request(method, f"/api/v1/tasks/{task_id(2)}{suffix}")).status_code == 404


@pytest.mark.parametrize(
    ("status", "answered"), [("FAILED", 202), ("PROCESSING", 409), ("QUEUED", 409), ("COMPLETED", 409)]
)
@pytest.mark.parametrize("path", ["/api/v1/tasks/{}/retry", "/api/v1/dead-letters/{}/replay"])
async def test_only_a_failed_task_can_be_retried(
    fakes: Fakes, client: httpx.AsyncClient, status: str, answered: int, path: str
) -> None:
    fakes.tasks.rows[task_id(1)] = view(status=status)
    assert (await client.post(path.format(task_id(1)))).status_code == answered
    assert (await client.post(path.format(task_id(2)))).status_code == 404
