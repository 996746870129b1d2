"""Submitting twice under one Idempotency-Key: what the second request is answered, and what is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, body
from starlette.requests import Request

from flik import schemas
from flik.gateway import idempotency

KEY = {"Idempotency-Key": '"8e03978e-40d5"'}
ONE, MANY = "/api/v1/tasks", "/api/v1/tasks:batch"
SUBMITS = [(ONE, body()), (MANY, {"tasks": [body(), body(taskType="nope"), body(priority=0)]})]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), answer.text
    schemas.Problem.model_validate(found)
    return found


@pytest.mark.parametrize(("path", "asked"), SUBMITS)
async def test_second_request_is_answered_byte_for_byte_as_the_first(
    fakes: Fakes, client: httpx.AsyncClient, path: str, asked: Any
) -> None:
    first = await client.post(path, json=asked, headers=KEY)
    stored = list(fakes.tasks.stored)
    second = await client.post(path, json=asked, headers=KEY | {"Host": "elsewhere.test"})
    assert (second.status_code, second.content) == (first.status_code, first.content)
    for name in ("location", "retry-after", "content-type"):
        assert second.headers.get(name) == first.headers.get(name)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert fakes.tasks.stored == stored != []


@pytest.mark.parametrize(("path", "asked"), SUBMITS)
async def test_bare_key_and_other_spacing_are_the_same_request(
    fakes: Fakes, client: httpx.AsyncClient, path: str, asked: Any
) -> None:
    first = await client.post(path, json=asked, headers=KEY)
    spaced = json.dumps(dict(reversed(asked.items())), indent=1)
    headers = {"Idempotency-Key": "8e03978e-40d5", "Content-Type": "application/json"}
    assert (await client.post(path, content=spaced, headers=headers)).content == first.content


@pytest.mark.parametrize(("path", "asked"), SUBMITS)
async def test_without_a_key_each_request_is_a_new_one(
    fakes: Fakes, client: httpx.AsyncClient, path: str, asked: Any
) -> None:
    first, second = [await client.post(path, json=asked) for _ in range(2)]
    assert first.status_code == second.status_code < 300
    assert first.content != second.content
    assert fakes.kept.batches == fakes.kept.looked_up == []


async def test_another_body_or_route_under_the_key_is_refused_and_changes_nothing(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    await client.post(ONE, json=body(), headers=KEY)
    for path, asked in ((ONE, body(priority=0)), (MANY, {"tasks": [body()]})):
        found = problem(await client.post(path, json=asked, headers=KEY), 422, "idempotency_key_reused")
        assert found["retryable"] is False
    assert len(fakes.tasks.stored) == 1


def test_one_body_on_two_routes_is_two_requests() -> None:
    def prints_of(method: str, path: str) -> str:
        asked = idempotency.keyed_request(Request({"type": "http", "method": method, "path": path}), "k", "acme", {})
        assert asked is not None
        return asked.fingerprint

    routes = [("POST", ONE), ("POST", MANY), ("PUT", ONE)]
    assert len({prints_of(*route) for route in routes}) == len(routes)


async def test_while_the_first_is_in_flight_the_second_is_told_when_to_come_back(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    fakes.kept.open.clear()
    first = asyncio.create_task(client.post(ONE, json=body(), headers=KEY))
    await fakes.kept.arrived.wait()
    early = await client.post(ONE, json=body(), headers=KEY)
    assert problem(early, 409, "idempotency_in_flight")["retryable"] is True
    assert early.headers["retry-after"] == "1"
    fakes.kept.open.set()
    answered = await first
    assert (await client.post(ONE, json=body(), headers=KEY)).content == answered.content
    assert len(fakes.tasks.stored) == 1


@pytest.mark.parametrize(("path", "asked"), SUBMITS)
@pytest.mark.parametrize("sent", ["", "a b", '"a', '"a";x', "é", "x" * 256])
async def test_malformed_key_is_refused_before_anything_else(
    fakes: Fakes, client: httpx.AsyncClient, path: str, asked: Any, sent: str
) -> None:
    answer = await client.post(path, json=asked, headers={b"Idempotency-Key": sent.encode()})
    assert "Idempotency-Key" in problem(answer, 400, "idempotency_key_invalid")["detail"]
    assert not fakes.tasks.stored


async def test_key_that_was_sent_twice_is_refused(fakes: Fakes, client: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("idempotency-key", "a")]
    problem(await client.post(ONE, json=body(), headers=headers), 400, "idempotency_key_invalid")
    assert not fakes.tasks.stored


async def test_tenants_do_not_share_keys(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answers = [await client.post(ONE, json=body(tenantId=name), headers=KEY) for name in ("acme", "other", "acme")]
    assert answers[0].content == answers[2].content != answers[1].content
    assert [task.tenant_id for task in fakes.tasks.stored] == ["acme", "other"]


async def test_batch_has_the_same_place_also_when_fewer_of_its_tasks_are_refused_the_next_time(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    tasks = {"tasks": [body(tenantId="first"), body(tenantId="second")]}
    first = await client.post(MANY, json=tasks, headers=KEY)
    again = await client.post(MANY, json=tasks, headers=KEY)
    assert again.content == first.content
    assert list(fakes.kept.rows) == [("first", "8e03978e-40d5")]


async def test_batch_of_a_caller_without_a_tenant_has_the_keys_of_its_first_readable_task(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    tasks = [body(tenantId="bad", priority=9), body(tenantId="second"), body(tenantId="third")]
    await client.post(MANY, json={"tasks": tasks}, headers=KEY)
    assert list(fakes.kept.rows) == [("second", "8e03978e-40d5")]


@pytest.mark.parametrize(
    ("path", "wrong", "status"),
    [(ONE, body(priority=9), 422), (MANY, {"tasks": [body(priority=9)]}, 207), (MANY, {"tasks": []}, 422)],
)
async def test_what_stored_nothing_is_not_kept(
    fakes: Fakes, client: httpx.AsyncClient, path: str, wrong: Any, status: int
) -> None:
    assert (await client.post(path, json=wrong, headers=KEY)).status_code == status
    right = body() if path == ONE else {"tasks": [body()]}
    answer = await client.post(path, json=right, headers=KEY)
    assert answer.status_code in (202, 207)
    assert "idempotency-replayed" not in answer.headers
    assert len(fakes.tasks.stored) == 1


async def test_outage_is_not_kept_and_the_repeat_finds_out_what_happened(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    fakes.tasks.away = True
    problem(await client.post(ONE, json=body(), headers=KEY), 503, "unavailable")
    fakes.tasks.away = False
    answer = await client.post(ONE, json=body(), headers=KEY)
    assert answer.status_code == 202
    assert "idempotency-replayed" not in answer.headers
    assert [task.task_id for task in fakes.tasks.stored] == [answer.json()["taskId"]]


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_description_names_the_header_and_its_refusals(client: httpx.AsyncClient, path: str) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"][path]["post"]
    (parameter,) = [each for each in operation["parameters"] if each["name"] == "Idempotency-Key"]
    assert (parameter["in"], parameter["required"]) == ("header", False)
    assert parameter["schema"] == idempotency.PARAMETER["schema"]
    assert {"400", "409", "422"} <= set(operation["responses"])
