"""What is queued again passes the door: who pays, who is refused and how, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_parts import Fakes, task_id, view
from httpx import AsyncClient

from flik.domain.pressure import Level, Load

RETRY = f"/api/v1/tasks/{task_id(1)}/retry"
ONE_BY_ONE = [RETRY, f"/api/v1/dead-letters/{task_id(1)}/replay", f"/api/tasks/{task_id(1)}/retry"]
REPLAY = "/api/v1/dead-letters:replay"
ALL: dict[str, Any] = {"all": True}


def bury(fakes: Fakes, *tenants: str, **fields: Any) -> None:
    for number, tenant_id in enumerate(tenants, 1):
        row = view(task_id=task_id(number), tenant_id=tenant_id, status="FAILED", **fields)
        fakes.tasks.rows[row.task_id] = row


def statuses(fakes: Fakes) -> list[str]:
    return [row.status for _, row in sorted(fakes.tasks.rows.items())]


@pytest.mark.parametrize("path", ONE_BY_ONE)
async def test_retry_costs_its_tenant_one_token(fakes: Fakes, client: AsyncClient, path: str) -> None:
    bury(fakes, "acme")

    answer = await client.post(path)

    assert answer.status_code == 202
    assert answer.headers["ratelimit"] == '"tasks";r=999;t=1'
    assert fakes.rate.spent == [("acme", 1)]
    assert fakes.levels.level("TEXT").waiting == 1


@pytest.mark.parametrize("path", [*ONE_BY_ONE, REPLAY])
async def test_without_a_token_nothing_is_queued_again(fakes: Fakes, client: AsyncClient, path: str) -> None:
    bury(fakes, "acme", "acme")
    fakes.rate.purses["acme"] = 0

    answer = await client.post(path, json=ALL if path == REPLAY else None)

    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["ratelimit"].startswith('"tasks";r=0;')
    assert statuses(fakes) == ["FAILED", "FAILED"]
    assert (fakes.rate.spent, fakes.queue.replays) == ([], [])


@pytest.mark.parametrize("path", [*ONE_BY_ONE, REPLAY])
async def test_full_queue_takes_nothing_back_and_costs_no_token(fakes: Fakes, client: AsyncClient, path: str) -> None:
    bury(fakes, "acme", priority=2)
    fakes.queue.full = Load({"TEXT": Level(1_000, 10.0)})
    await fakes.levels.ask_once()

    answer = await client.post(path, json=ALL if path == REPLAY else None)

    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert (statuses(fakes), fakes.rate.spent) == (["FAILED"], [])


@pytest.mark.parametrize("path", [*ONE_BY_ONE, REPLAY])
async def test_while_the_limiter_is_away_nothing_is_queued_again(fakes: Fakes, client: AsyncClient, path: str) -> None:
    bury(fakes, "acme")
    fakes.rate.away = True

    answer = await client.post(path, json=ALL if path == REPLAY else None)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert statuses(fakes) == ["FAILED"]


async def test_what_cannot_be_retried_costs_no_token(fakes: Fakes, client: AsyncClient) -> None:
    assert (await client.post(RETRY)).status_code == 404
    fakes.tasks.rows[task_id(1)] = view(status="COMPLETED")
    assert (await client.post(RETRY)).status_code == 409
    assert fakes.rate.spent == []


async def test_replay_takes_the_oldest_there_are_tokens_for_and_says_that_more_match(
    fakes: Fakes, client: AsyncClient
) -> None:
    bury(fakes, *["acme"] * 5)
    fakes.rate.purses["acme"] = 3

    first = await client.post(REPLAY, json=ALL)
    fakes.rate.purses["acme"] = 9
    second = await client.post(REPLAY, json=ALL)

    assert (first.status_code, first.json()) == (200, {"replayed": 3, "more": True})
    assert fakes.queue.replays == [[task_id(1), task_id(2), task_id(3)], [task_id(4), task_id(5)]]
    assert second.json() == {"replayed": 2, "more": False}
    assert fakes.rate.purses["acme"] == 7


async def test_replay_to_its_limit_says_whether_more_match(fakes: Fakes, client: AsyncClient) -> None:
    bury(fakes, *["acme"] * 5)

    assert (await client.post(REPLAY, json={**ALL, "limit": 3})).json() == {"replayed": 3, "more": True}
    assert (await client.post(REPLAY, json={**ALL, "limit": 2})).json() == {"replayed": 2, "more": False}
    assert fakes.rate.spent == [("acme", 3), ("acme", 2)]


async def test_replay_over_all_tenants_costs_each_its_own_tokens(fakes: Fakes, client: AsyncClient) -> None:
    bury(fakes, "acme", "poor", "acme", "poor", "other")
    fakes.rate.purses = {"acme": 9, "poor": 1, "other": 9}

    answer = await client.post(REPLAY, json=ALL)

    assert answer.json() == {"replayed": 4, "more": True}
    assert fakes.rate.purses == {"acme": 7, "poor": 0, "other": 8}
    assert statuses(fakes) == ["QUEUED", "QUEUED", "QUEUED", "FAILED", "QUEUED"]
