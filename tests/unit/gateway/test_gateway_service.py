"""Status, health and metrics, also while parts of Flik are away, broken or frozen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

import httpx
import pytest
from gateway_parts import ALL_WELL, Alone, Fakes, body
from prometheus_client.parser import text_string_to_metric_families
from psycopg_pool import PoolTimeout

from flik import schemas
from flik.domain.breaker import BreakerPolicy
from flik.errors import Unavailable
from flik.gateway import service
from flik.guard import Guard
from flik.pipeline.queue.measures import Measures
from flik.storage import database as database_module
from flik.storage.database import Database
from flik.storage.tasks import TaskStore
from flik.telemetry import Metrics


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PATIENCE_S", 0.05)


async def health(client: httpx.AsyncClient) -> tuple[int, dict[str, str]]:
    answer = await client.get("/health")
    said = schemas.Health.model_validate(answer.json())
    assert (said.status == "UP") == (answer.status_code == 200)
    return answer.status_code, dict(said.components)


async def test_health_is_up_when_all_is_well(client: httpx.AsyncClient) -> None:
    assert await health(client) == (200, dict.fromkeys(("queue", "postgresql", "redis", "models"), "UP"))


async def test_redis_is_not_needed(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.hot.answers = False
    assert await health(client) == (200, {"queue": "UP", "postgresql": "UP", "redis": "DOWN", "models": "UP"})


async def test_postgresql_is_needed(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.away = True
    assert await health(client) == (503, {"queue": "UP", "postgresql": "DOWN", "redis": "UP", "models": "UP"})


async def test_fault_of_a_component_counts_as_down(
    fakes: Fakes, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.tasks.fault = RuntimeError("the table is gone")
    assert (await health(client))[1]["postgresql"] == "DOWN"
    assert "the table is gone" in caplog.text


@pytest.mark.parametrize(
    ("state", "components"),
    [
        ({"ready": False, "types": ALL_WELL["types"]}, {"queue": "DOWN", "models": "UP"}),
        (
            {"ready": True, "types": {"TEXT": {"workers": 1}, "IMAGE": {"workers": 0}}},
            {"queue": "UP", "models": "DOWN"},
        ),
    ],
)
async def test_queue_tells_of_itself_and_of_models(
    fakes: Fakes, client: httpx.AsyncClient, state: dict[str, Any], components: dict[str, str]
) -> None:
    fakes.queue.state = state
    status, said = await health(client)
    assert status == 503
    assert said == {"postgresql": "UP", "redis": "UP", **components}


async def test_frozen_component_does_not_hold_up_the_answer(
    fakes: Fakes, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    thawed = asyncio.Event()

    async def frozen() -> bool:
        try:
            await thawed.wait()
        except asyncio.CancelledError:
            await thawed.wait()  # as psycopg does, which tries to cancel the statement first
        return True

    monkeypatch.setattr(fakes.tasks, "ping", frozen)
    monkeypatch.setattr(fakes.hot, "ping", frozen)
    monkeypatch.setattr(fakes.queue, "stats", frozen)
    monkeypatch.setattr(fakes.queue, "metrics", frozen)
    started = time.monotonic()
    assert await health(client) == (503, dict.fromkeys(("queue", "postgresql", "redis", "models"), "DOWN"))
    assert "# the queue is not available" in (await client.get("/metrics")).text
    assert time.monotonic() - started < 2
    thawed.set()
    await asyncio.sleep(0)


async def test_metrics_are_those_of_the_gateway_and_of_the_queue(fakes: Fakes, client: httpx.AsyncClient) -> None:
    await client.post("/api/v1/tasks", json=body())
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'flik_submit_seconds_count{replica="r1"} 1.0' in answer.text
    assert "flik_queue_depth 7.0" in answer.text
    fakes.queue.away = True
    assert "# the queue is not available" in (await client.get("/metrics")).text


async def test_scrape_of_gateway_and_queue_is_one_text_without_a_series_twice(
    fakes: Fakes, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, queue = Metrics("flik_breaker_*", "flik_submit_*", "flik_http_errors", process="gateway"), Measures()
    for measured in (gateway, queue.metrics):
        Guard("postgresql", fakes.hot.ping, BreakerPolicy(), measured=measured)
    monkeypatch.setattr(fakes.parts.snapshots, "read", lambda: (gateway.text(), ""))
    fakes.parts.snapshots.others["r2"] = (gateway.text(), "")  # type: ignore[attr-defined]

    async def said() -> str:
        return queue.text()

    monkeypatch.setattr(fakes.queue, "metrics", said)
    text = (await client.get("/metrics", headers={"Authorization": "Bearer an operator"})).text
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    series = [(each.name, *sorted(each.labels.items())) for each in samples]
    assert len(series) == len(set(series))
    states = {each.labels["process"] for each in samples if each.name == "flik_breaker_state"}
    assert states == {"gateway", "queue"}


async def test_scrape_shows_all_replicas_and_while_redis_is_away_the_one_that_answers(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    shared = cast(Alone, fakes.parts.snapshots)
    shared.others["r2"] = (fakes.parts.measured.text(), "flik_tasks_refused_total 5.0\n")
    await client.post("/api/v1/tasks", json=body())

    both = (await client.get("/metrics")).text
    stranger = (await client.get("/metrics", headers={"Authorization": ""})).text
    shared.away = True
    alone = (await client.get("/metrics")).text

    assert 'flik_submit_seconds_count{replica="r1"} 1.0' in both
    assert 'flik_submit_seconds_count{replica="r2"} 0.0' in both
    assert 'flik_tasks_refused_total{replica="r2"} 5.0' in both
    assert 'replica="r2"' in stranger and "flik_tasks_refused" not in stranger
    assert 'replica="r1"' in alone and "r2" not in alone


async def test_status_says_where_to_go_on(client: httpx.AsyncClient) -> None:
    said = schemas.ServiceStatus.model_validate((await client.get("/")).json())
    assert (said.service, said.region) == ("flik", "us-east")
    for path in said.links.values():
        assert (await client.get(path)).status_code == 200


class Scripted(Database):
    """A database whose statements find no connection; its probe does what the test says."""

    def __init__(self) -> None:
        super().__init__("postgresql:///nowhere", connections=1)
        self.away = True
        self.asked = 0

    async def _execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.asked += 1
        if self.away:
            raise PoolTimeout("no connection in time")
        return [(1,)]

    async def _connect_and_ask(self) -> None:
        await self._execute("", {})


async def test_health_sees_postgresql_through_an_open_breaker(
    fakes: Fakes, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BREAKER", BreakerPolicy(open_s=60.0, most_open_s=60.0))
    database = Scripted()
    monkeypatch.setattr(fakes.tasks, "ping", TaskStore(database, max_attempts=4).ping)
    for _ in range(4):
        assert (await health(client))[1]["postgresql"] == "DOWN"
    with pytest.raises(Unavailable):
        await database.once("SELECT 1", {})
    asked, database.away = database.asked, False
    assert (await health(client))[1]["postgresql"] == "UP"
    assert database.asked == asked + 1
    assert await database.once("SELECT 1", {}) == [(1,)]
    await database.close()
