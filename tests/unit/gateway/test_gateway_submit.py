"""What the door says, as HTTP tells it."""

from __future__ import annotations

import pytest
from gateway_parts import Fakes, body
from httpx import AsyncClient

from flik.domain.pressure import Level, Load
from flik.domain.rate import Admitted, Limited, NeverFits

ONE, MANY = "/api/v1/tasks", "/api/v1/tasks:batch"


async def test_accepted_task_tells_what_is_left_of_the_rate(client: AsyncClient, fakes: Fakes) -> None:
    fakes.rate.says = Admitted(700)

    answer = await client.post(ONE, json=body())

    assert answer.status_code == 202
    assert answer.headers["ratelimit-policy"] == '"tasks";q=1000;w=4'
    assert answer.headers["ratelimit"] == '"tasks";r=700;t=1'
    assert fakes.rate.spent == [("acme", 1)]


async def test_tenant_over_its_rate_is_told_when_to_come_back(client: AsyncClient, fakes: Fakes) -> None:
    fakes.rate.says = Limited(2.2, 0)

    answer = await client.post(ONE, json=body())

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "3"
    assert answer.headers["ratelimit"] == '"tasks";r=0;t=3'
    problem = answer.json()
    assert (problem["code"], problem["retryable"], problem["retryAfterMs"]) == ("rate_limited", True, 2200)
    assert fakes.tasks.stored == []


async def test_refused_request_changes_nothing_and_costs_no_token(client: AsyncClient, fakes: Fakes) -> None:
    for broken in (body(priority=7), body(taskType="SOUND"), body(payload={"prompt": 5}), body(region="mars")):
        assert (await client.post(ONE, json=broken)).status_code == 422

    assert fakes.rate.spent == []
    assert fakes.tasks.stored == []


async def test_full_queue_is_answered_503_for_background_work_first(client: AsyncClient, fakes: Fakes) -> None:
    fakes.queue.full = Load({"TEXT": Level(1_050, 10.0)})
    await fakes.levels.ask_once()

    background = await client.post(ONE, json=body(priority=2))
    interactive = await client.post(ONE, json=body(priority=1))

    assert (background.status_code, interactive.status_code) == (503, 202)
    assert background.json()["code"] == "queue_full"
    assert int(background.headers["retry-after"]) >= 1


async def test_batch_costs_its_size(client: AsyncClient, fakes: Fakes) -> None:
    answer = await client.post(MANY, json={"tasks": [body() for _ in range(3)] + [body(priority=9)]})

    assert [item["status"] for item in answer.json()["items"]] == [202, 202, 202, 422]
    assert fakes.rate.spent == [("acme", 3)]


async def test_batch_of_which_all_must_wait_is_refused_as_a_whole(client: AsyncClient, fakes: Fakes) -> None:
    fakes.rate.says = Limited(4.0, 2)

    answer = await client.post(MANY, json={"tasks": [body(), body(tenantId="other")]})

    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "4"
    assert fakes.tasks.stored == []


async def test_batch_with_items_of_different_fates_tells_each(client: AsyncClient, fakes: Fakes) -> None:
    fakes.queue.full = Load({"TEXT": Level(1_050, 10.0)})
    await fakes.levels.ask_once()

    answer = await client.post(MANY, json={"tasks": [body(priority=2), body(priority=0), body(priority=4)]})

    assert answer.status_code == 207
    items = answer.json()["items"]
    assert [item["status"] for item in items] == [503, 202, 422]
    assert items[0]["problem"]["code"] == "queue_full"
    assert items[0]["problem"]["retryAfterMs"] >= 1000
    assert len(fakes.tasks.stored) == 1


async def test_batch_that_can_never_pass_is_told_so(client: AsyncClient, fakes: Fakes) -> None:
    fakes.rate.says = NeverFits(1)

    answer = await client.post(MANY, json={"tasks": [body(), body()]})

    assert [item["problem"]["code"] for item in answer.json()["items"]] == ["exceeds_burst"] * 2


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_while_the_limiter_is_away_nothing_is_stored(client: AsyncClient, fakes: Fakes, path: str) -> None:
    fakes.rate.away = True

    answer = await client.post(path, json=body() if path == ONE else {"tasks": [body()]})

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert fakes.tasks.stored == []


async def test_replay_of_an_idempotent_request_costs_no_token(client: AsyncClient, fakes: Fakes) -> None:
    headers = {"Idempotency-Key": '"once"'}

    first = await client.post(ONE, json=body(), headers=headers)
    fakes.rate.says = Limited(9.0, 0)
    again = await client.post(ONE, json=body(), headers=headers)

    assert (again.status_code, again.content) == (202, first.content)
    assert fakes.rate.spent == [("acme", 1)]


async def test_refusals_are_counted_by_tenant_for_operators_only(client: AsyncClient, fakes: Fakes) -> None:
    fakes.rate.says = Limited(2.0, 0)
    await client.post(ONE, json=body())

    operator = (await client.get("/metrics")).text
    stranger = (await client.get("/metrics", headers={"Authorization": ""})).text

    assert 'flik_tasks_refused_total{replica="r1",code="rate_limited",tenant="acme"} 1.0' in operator
    assert "acme" not in stranger
    assert "flik_http_errors_total" in stranger
