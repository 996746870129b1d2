"""Dags over HTTP: what is accepted, what is refused and where, what is shown, and how they are followed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, task_id
from making import EPOCH

from flik import schemas
from flik.domain.event import OF_DAGS, Event, Kind, Notice
from flik.domain.task import Status
from flik.pipeline.follow_tenant import TenantFollowing

CHAIN: dict[str, Any] = {
    "tenantId": "acme",
    "priority": 0,
    "region": "us-east",
    "steps": [
        {"taskType": "TEXT", "payload": {"prompt": "Generate description"}},
        {"taskType": "IMAGE", "payload": {"action": "upscale"}},
        {"taskType": "VIDEO", "payload": {"action": "watermark"}},
    ],
}
TEXT = {"taskType": "TEXT", "payload": {"prompt": "rain"}}


async def submit(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/dags", json={**CHAIN, **changes})
    assert answer.status_code == 202, answer.text
    started: dict[str, Any] = answer.json()
    return started


def fail(fakes: Fakes, dag_id: str, place: int = 0, at: float = EPOCH + 1, code: str = "boom") -> None:
    row = fakes.store.rows[fakes.store.dags.dags[dag_id].task_ids[place]]
    row.error_code, row.error_message = code, "it broke"
    row.end(Status.FAILED, at)
    fakes.store.dags.advance([dag_id], at)


# ---- submit


async def test_a_list_of_steps_is_a_chain(client: httpx.AsyncClient, fakes: Fakes) -> None:
    answer = await client.post("/api/v1/dags", json=CHAIN)
    started = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == started["statusUrl"] == f"http://flik.test/api/v1/dags/{started['dagId']}"
    assert answer.headers["retry-after"] == "1"
    schemas.DagStarted.model_validate(started)
    assert started["status"] == "RUNNING"
    first, second, third = started["tasks"]
    assert {name: first[name] for name in first if name != "taskId"} == {
        "stepId": "step-1", "taskType": "TEXT", "status": "QUEUED", "dependsOn": [],
    }  # fmt: skip
    assert (second["status"], second["parentTaskId"], second["dependsOn"]) == ("PENDING", first["taskId"], ["step-1"])
    assert (third["status"], third["parentTaskIds"]) == ("PENDING", [second["taskId"]])
    await asyncio.sleep(0)  # announced after the answer
    assert [ticket.task_id for ticket in fakes.queue.announced] == [first["taskId"]]


async def test_a_graph_has_the_steps_of_the_caller_and_what_they_ask_for(
    client: httpx.AsyncClient, fakes: Fakes
) -> None:
    steps = [
        {"id": "write", **TEXT, "priority": 0, "startDeadlineS": 5, "maxAttempts": 2, "onFailure": "skip"},
        {"id": "draw", "taskType": "IMAGE", "payload": {"prompt": {"$from": "write"}}},
        {"id": "join", "taskType": "VIDEO", "dependsOn": ["draw", "write"]},
    ]
    started = await submit(client, steps=steps, deadlineS=100, metadata={"job": 7}, priority=2)
    assert [step["dependsOn"] for step in started["tasks"]] == [[], ["write"], ["draw", "write"]]
    dag = fakes.store.dags.dags[started["dagId"]].dag
    write, draw, _ = dag.steps
    assert (write.task.priority, write.task.max_attempts, write.on_failure, write.start_within_s) == (0, 2, "skip", 5)
    assert write.task.start_deadline_at == dag.created_at + 5
    assert (draw.task.priority, draw.task.waits, draw.task.start_deadline_at) == (2, True, None)
    assert dag.deadline_at == dag.created_at + 100
    shown = (await client.get(f"/api/v1/dags/{started['dagId']}")).json()
    assert (shown["metadata"], shown["deadlineAt"] > shown["createdAt"]) == ({"job": 7}, True)


async def test_a_step_may_reuse_what_was_made_and_says_what_that_saved(client: httpx.AsyncClient, fakes: Fakes) -> None:
    started = await submit(client, steps=[{**TEXT, "reuse": True}, {**TEXT, "reuse": False}, TEXT])
    row = fakes.store.dags.dags[started["dagId"]]
    assert [step.reuse for step in row.dag.steps] == [True, False, False]
    maker, saved = task_id(7), {"seconds": 4.0, "usd": "0.001"}
    made = fakes.store.rows[row.task_ids[0]]
    made.result = json.dumps({"text": "rain", "metadata": {}, "reused": {"from": maker, "saved": saved}})
    made.end(Status.COMPLETED, EPOCH + 1)
    shown = (await client.get(f"/api/v1/dags/{started['dagId']}")).json()
    schemas.DagAnswer.model_validate(shown)
    result = shown["tasks"][0]["result"]
    assert (result["reusedFrom"], result["saved"]) == (maker, saved)
    assert "reused" not in result


def image(payload: Any) -> dict[str, Any]:
    return {"steps": [TEXT, {"taskType": "IMAGE", "payload": payload}]}


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"steps": []}, "/steps"),
        ({"steps": [TEXT] * 101}, "/steps"),
        ({"steps": [TEXT] * 51}, "/steps/50"),
        ({"steps": "TEXT"}, "/steps"),
        ({"steps": [{**TEXT, "taskType": "SONG"}]}, "/steps/0/taskType"),
        ({"steps": [{"taskType": "TEXT"}]}, "/steps/0/payload/prompt"),
        ({"steps": [{"taskType": "IMAGE", "payload": {"action": "upscale"}}]}, "/steps/0/payload/prompt"),
        (image({"width": 1}), "/steps/1/payload/width"),
        (image({"wide": 1}), "/steps/1/payload/wide"),
        (image({"prompt": {"$from": "a"}}), "/steps/1/payload/prompt"),
        (image({"prompt": {"$from": 7}}), "/steps/1/payload/prompt"),
        (image({"prompt": {"$from": "step-2"}}), "/steps/1/payload/prompt"),
        (image({"prompt": {"$from": "step-1", "path": "x"}}), "/steps/1/payload/prompt/path"),
        (image({"style": "x" * 262_144}), "/steps/1/payload"),
        ({"steps": [{**TEXT, "id": "a"}, {**TEXT, "id": "a"}]}, "/steps/1/id"),
        ({"steps": [{**TEXT, "id": "1a"}]}, "/steps/0/id"),
        ({"steps": [{**TEXT, "dependsOn": ["b"]}]}, "/steps/0/dependsOn/0"),
        ({"steps": [{**TEXT, "id": "a", "dependsOn": ["a"]}]}, "/steps/0/dependsOn/0"),
        ({"steps": [{**TEXT, "id": "a", "dependsOn": ["b"]}, {**TEXT, "id": "b", "dependsOn": ["a"]}]},
         "/steps/0/dependsOn/0"),
        ({"steps": [{**TEXT, "onFailure": "ignore"}]}, "/steps/0/onFailure"),
        ({"steps": [{**TEXT, "maxAttempts": 0}]}, "/steps/0/maxAttempts"),
        ({"steps": [{**TEXT, "priority": 3}]}, "/steps/0/priority"),
        ({"metadata": {"x": "y" * 16_384}}, "/metadata"),
        ({"region": "moon"}, "/region"),
        ({"deadlineS": 0}, "/deadlineS"),
        ({"colour": "red"}, "/colour"),
    ],
)  # fmt: skip
async def test_what_breaks_a_rule_is_named_and_nothing_is_stored(
    client: httpx.AsyncClient, fakes: Fakes, changes: dict[str, Any], pointer: str
) -> None:
    answer = await client.post("/api/v1/dags", json={**CHAIN, **changes})
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert not fakes.store.dags.dags
    assert not fakes.queue.announced


async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/dags", json=[CHAIN])).status_code == 422


async def test_under_a_key_a_dag_is_stored_once_and_answered_alike(client: httpx.AsyncClient, fakes: Fakes) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await client.post("/api/v1/dags", json=CHAIN, headers=headers)
    again = await client.post("/api/v1/dags", json=CHAIN, headers=headers)
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")
    assert len(fakes.store.dags.dags) == 1
    other = await client.post("/api/v1/dags", json={**CHAIN, "priority": 2}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_dag_pays_for_all_its_steps_or_is_refused(client: httpx.AsyncClient, fakes: Fakes) -> None:
    fakes.rate.purses["acme"] = 5
    await submit(client)
    assert fakes.rate.spent == [("acme", 3)]
    answer = await client.post("/api/v1/dags", json=CHAIN)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert len(fakes.store.dags.dags) == 1


async def test_a_dag_brings_a_webhook_of_its_own(client: httpx.AsyncClient, fakes: Fakes) -> None:
    hook = {"url": "https://8.8.8.8/hook", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    started = await submit(client, webhook=hook)
    kept = fakes.store.dags.dags[started["dagId"]].dag.webhook
    assert kept is not None
    assert (kept.url, kept.kinds) == ("https://8.8.8.8/hook", ("dagCompleted", "dagFailed", "dagCancelled"))
    assert (await client.get(f"/api/v1/dags/{started['dagId']}/deliveries")).json()["items"] == []
    for wrong, pointer in (
        ({**hook, "url": "https://127.0.0.1/"}, "/webhook/url"),
        ({**hook, "kinds": ["completed"]}, "/webhook/kinds/0"),
        ({"url": hook["url"]}, "/webhook/secret"),
        ({**hook, "url": "https://hooks.example.invalid.example/"}, "/webhook/url"),
    ):
        answer = await client.post("/api/v1/dags", json={**CHAIN, "webhook": wrong})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    fakes.resolver.silent = {"slow.example"}
    answer = await client.post("/api/v1/dags", json={**CHAIN, "webhook": {**hook, "url": "https://slow.example/"}})
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")


# ---- read


async def test_a_dag_is_shown_with_its_steps(client: httpx.AsyncClient, fakes: Fakes) -> None:
    started = await submit(client)
    running = await client.get(f"/api/v1/dags/{started['dagId']}")
    assert (running.json()["status"], running.headers["retry-after"]) == ("RUNNING", "1")
    fail(fakes, started["dagId"])
    answer = await client.get(f"/api/v1/dags/{started['dagId']}")
    shown = answer.json()
    schemas.DagAnswer.model_validate(shown)
    assert shown["status"] == "FAILED"
    assert "retry-after" not in answer.headers
    assert shown["error"] == {"code": "step_failed", "message": "step step-1 is FAILED (boom)", "stepId": "step-1"}
    assert shown["steps"] == {"total": 3, "completed": 0, "open": 0}
    assert [step["status"] for step in shown["tasks"]] == ["FAILED", "CANCELLED", "CANCELLED"]
    assert shown["tasks"][1]["error"] == {"code": "parent_failed", "message": "step step-1 is FAILED (boom)"}
    assert shown["tasks"][2]["parentTaskId"] == shown["tasks"][1]["taskId"]


async def test_dags_are_listed_newest_first_in_pages(client: httpx.AsyncClient) -> None:
    ids = [(await submit(client))["dagId"] for _ in range(3)]
    page = (await client.get("/api/v1/dags", params={"limit": 2})).json()
    schemas.DagPage.model_validate(page)
    assert [item["dagId"] for item in page["items"]] == [ids[2], ids[1]]
    assert page["items"][0]["steps"] == {"total": 3, "completed": 0, "open": 3}
    rest = (await client.get("/api/v1/dags", params={"limit": 2, "cursor": page["nextCursor"]})).json()
    assert ([item["dagId"] for item in rest["items"]], rest["nextCursor"]) == ([ids[0]], None)
    assert (await client.get("/api/v1/dags", params={"status": "COMPLETED"})).json()["items"] == []


@pytest.mark.parametrize("query", [{"status": "QUEUED"}, {"colour": "red"}, {"taskType": "TEXT"}, {"cursor": "x"}])
async def test_a_list_names_the_parameter_that_is_wrong(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/api/v1/dags", params=query)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(query))}"


@pytest.mark.parametrize("action", ["", "/cancel", "/resume", "/events"])
@pytest.mark.parametrize(
    ("dag_id", "status"),
    [("no-uuid", 422), ("0199a1b2-0000-7000-8000-0000000000ff", 404)],
    ids=["malformed", "unknown"],
)
async def test_a_dag_that_is_not_there(client: httpx.AsyncClient, action: str, dag_id: str, status: int) -> None:
    method = "POST" if action in ("/cancel", "/resume") else "GET"
    answer = await client.request(method, f"/api/v1/dags/{dag_id}{action}")
    assert answer.status_code == status
    assert answer.json()["code"] == ("invalid_request" if status == 422 else "dag_not_found")


# ---- move


async def test_a_dag_is_cancelled_once(client: httpx.AsyncClient) -> None:
    dag_id = (await submit(client))["dagId"]
    cancelled = await client.delete(f"/api/v1/dags/{dag_id}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    assert {step["status"] for step in cancelled.json()["tasks"]} == {"CANCELLED"}
    again = await client.post(f"/api/v1/dags/{dag_id}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "dag_state_conflict")


async def test_only_a_failed_dag_is_resumed_and_pays_for_what_runs_again(
    client: httpx.AsyncClient, fakes: Fakes
) -> None:
    dag_id = (await submit(client))["dagId"]
    early = await client.post(f"/api/v1/dags/{dag_id}/resume")
    assert (early.status_code, early.json()["code"]) == (409, "dag_state_conflict")
    fail(fakes, dag_id)
    fakes.rate.purses["acme"] = 2
    assert (await client.post(f"/api/v1/dags/{dag_id}/resume")).status_code == 429
    fakes.rate.purses["acme"] = 3
    resumed = await client.post(f"/api/v1/dags/{dag_id}/resume")
    assert (resumed.status_code, resumed.json()["status"]) == (202, "RUNNING")
    assert [step["status"] for step in resumed.json()["tasks"]] == ["QUEUED", "PENDING", "PENDING"]
    assert fakes.rate.purses["acme"] == 0


async def test_what_runs_again_as_its_file_is_gone_is_paid_for_too(client: httpx.AsyncClient, fakes: Fakes) -> None:
    dag_id = (await submit(client))["dagId"]
    row = fakes.store.rows[fakes.store.dags.dags[dag_id].task_ids[0]]
    row.result = "{}"
    row.end(Status.COMPLETED, EPOCH + 1)
    fakes.store.dags.advance([dag_id], EPOCH + 1)
    fail(fakes, dag_id, 1, EPOCH + 2, code="input_gone")
    fakes.rate.purses["acme"] = 3
    resumed = await client.post(f"/api/v1/dags/{dag_id}/resume")
    assert (resumed.status_code, fakes.rate.purses["acme"]) == (202, 0)
    assert [step["status"] for step in resumed.json()["tasks"]] == ["QUEUED", "PENDING", "PENDING"]


async def test_a_step_is_not_retried_without_its_dag(client: httpx.AsyncClient, fakes: Fakes) -> None:
    started = await submit(client)
    fail(fakes, started["dagId"])
    task_id = started["tasks"][0]["taskId"]
    view = await fakes.store.get(task_id)
    assert view is not None
    fakes.tasks.rows[task_id] = view
    answer = await client.post(f"/api/v1/tasks/{task_id}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "step_of_dag")
    assert started["dagId"] in answer.json()["detail"]


# ---- follow


async def test_the_events_of_a_dag_are_those_of_its_log(client: httpx.AsyncClient, fakes: Fakes) -> None:
    dag_id = (await submit(client))["dagId"]
    fail(fakes, dag_id)
    page = (await client.get(f"/api/v1/dags/{dag_id}/events?since=0")).json()
    schemas.DagEventPage.model_validate(page)
    assert [(event["seq"], event["event"]) for event in page["events"]] == [
        (1, "running"), (2, "step"), (3, "step"), (4, "step"), (5, "failed"),
    ]  # fmt: skip
    assert page["events"][1]["step"]["error"] == {"code": "boom", "message": "it broke"}
    assert page["events"][2]["step"]["status"] == "CANCELLED"
    assert page["events"][4]["error"]["stepId"] == "step-1"
    assert (page["lastSeq"], page["ended"]) == (5, True)
    rest = (await client.get(f"/api/v1/dags/{dag_id}/events?since=4")).json()
    assert [event["seq"] for event in rest["events"]] == [5]
    over = await client.get(f"/api/v1/dags/{dag_id}/events", headers={"Last-Event-ID": "5"})
    assert over.status_code == 204


async def test_a_cursor_beyond_the_log_is_reset_with_how_the_dag_stands(client: httpx.AsyncClient) -> None:
    dag_id = (await submit(client))["dagId"]
    page = (await client.get(f"/api/v1/dags/{dag_id}/events?since=99")).json()
    schemas.DagEventPage.model_validate(page)
    (event,) = page["events"]
    assert (event["event"], event["seq"], event["dag"]["steps"]["open"]) == ("reset", 1, 3)


async def test_a_stream_ends_with_the_dag(client: httpx.AsyncClient, fakes: Fakes) -> None:
    dag_id = (await submit(client))["dagId"]
    fail(fakes, dag_id)
    text = (await client.get(f"/api/v1/dags/{dag_id}/events")).text
    assert [line for line in text.splitlines() if line.startswith("id:")] == [f"id: {n}" for n in range(1, 6)]
    assert text.rstrip().splitlines()[-2] == "event: failed"


async def test_a_follower_reads_on_when_the_log_has_grown(fakes: Fakes, client: httpx.AsyncClient) -> None:
    dag_id = (await submit(client))["dagId"]
    async with fakes.hub.follow_dag(dag_id) as following:
        assert (await following.next(1.0)) is not None
        fail(fakes, dag_id)
        fakes.hub.hear([Notice("acme", Event(dag_id, 0, Kind.MOVED, EPOCH))])
        kinds = [event.kind for event in await following.gather(1.0)]
    assert kinds == ["step", "step", "step", "failed"]
    assert following.ended


async def test_a_follower_that_heard_nothing_is_found_by_the_next_look(fakes: Fakes, client: httpx.AsyncClient) -> None:
    dag_id = (await submit(client))["dagId"]
    fakes.tasks.positions = fakes.store.positions  # type: ignore[method-assign]
    async with fakes.hub.follow_dag(dag_id, since=1) as following:
        fail(fakes, dag_id)
        await fakes.hub.look()
        assert [event.seq for event in await following.gather(1.0)] == [2, 3, 4, 5]


@pytest.mark.parametrize("submits", [True, False])
async def test_who_would_rather_wait_is_answered_with_the_whole_dag_when_it_ends(
    fakes: Fakes, client: httpx.AsyncClient, submits: bool
) -> None:
    fakes.hub.note_live(True)
    prefer = {"Prefer": "wait=20"}
    if submits:
        asking = asyncio.create_task(client.post("/api/v1/dags", json=CHAIN, headers=prefer))
    else:
        dag_id = (await submit(client))["dagId"]
        asking = asyncio.create_task(client.get(f"/api/v1/dags/{dag_id}", headers=prefer))
    while not fakes.hub.followers:  # noqa: ASYNC110  # the hub tells nobody
        await asyncio.sleep(0)
    (dag_id,) = fakes.store.dags.dags
    fail(fakes, dag_id)
    fakes.hub.hear([Notice("acme", Event(dag_id, 0, Kind.MOVED, EPOCH))])
    async with asyncio.timeout(5.0):
        answer = await asking
    assert (answer.status_code, answer.json()["status"], len(answer.json()["tasks"])) == (200, "FAILED", 3)
    assert answer.headers["preference-applied"] == "wait=20"
    assert not submits or answer.headers["location"].endswith(dag_id)


async def test_who_waited_in_vain_is_told_how_the_dag_stands(fakes: Fakes, client: httpx.AsyncClient) -> None:
    submitted = await client.post("/api/v1/dags", json=CHAIN, headers={"Prefer": "wait=1"})
    schemas.DagStarted.model_validate(submitted.json())
    read = await client.get(f"/api/v1/dags/{submitted.json()['dagId']}", headers={"Prefer": "wait=1"})
    assert {answer.headers["preference-applied"] for answer in (submitted, read)} == {"wait=1"}
    assert (submitted.status_code, read.status_code, read.json()["status"]) == (202, 202, "RUNNING")


async def test_who_follows_a_tenant_hears_nothing_of_logs_that_grow(fakes: Fakes) -> None:
    async with TenantFollowing(fakes.hub, fakes.tasks.find, "acme") as following:
        fakes.hub.hear([Notice("acme", Event("dag", 0, Kind.MOVED, EPOCH))])
        assert await following.next(0.0) is None


def test_all_events_of_dags_are_described() -> None:
    described = schemas.DagEventAnswer.model_fields["event"].annotation
    assert set(described.__args__) > OF_DAGS  # type: ignore[union-attr]
