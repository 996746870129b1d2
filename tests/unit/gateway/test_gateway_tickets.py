"""What a ticket is worth: no more than the credential behind it is at the moment at which it is shown."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes, task_id, view
from socket_client import connected

from flik.domain import key as keys
from flik.domain.event import History
from flik.domain.identity import ANYONE, Caller, Scope, TenantRecord
from flik.domain.key import ApiKey

KEY = keys.make(keys.Kind.TEST, bytes(32))
ONE = task_id(1)
EVENTS = f"/api/v1/tasks/{ONE}/events?since=0"
READ = frozenset({Scope.READ})


def build(**options: Any) -> Fakes:
    fakes = gateway_parts.build(**options)
    now = time.time()
    fakes.identity.tenants["acme"] = TenantRecord("acme", "", now, now)
    fakes.identity.keys[keys.digest(KEY)] = ApiKey(task_id(100), "acme", keys.shown(KEY), "", READ, now)
    fakes.tasks.rows[ONE] = view(task_id=ONE)
    fakes.tasks.histories[ONE] = History(fakes.tasks.rows[ONE], 1)
    return fakes


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    fakes = build(is_open=False)
    async with fakes.app.router.lifespan_context(fakes.app):
        yield fakes
    await fakes.parts.directory.close()


def change_key(fakes: Fakes, **changes: Any) -> None:
    digest = keys.digest(KEY)
    fakes.identity.keys[digest] = replace(fakes.identity.keys[digest], **changes)


async def ticket_of(fakes: Fakes) -> str:
    async with client_of(fakes) as client:
        answer = await client.post("/api/v1/tickets", headers={"Authorization": f"Bearer {KEY}"})
    ticket: str = answer.json()["ticket"]
    return ticket


def client_of(fakes: Fakes) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik")


async def shown(fakes: Fakes, ticket: str) -> httpx.Response:
    async with client_of(fakes) as client:
        return await client.get(f"{EVENTS}&ticket={ticket}")


@pytest.mark.parametrize("name", ["token", "key", "api_key", "access_token"])
async def test_a_key_never_works_in_a_url(fakes: Fakes, name: str) -> None:
    async with client_of(fakes) as client:
        answer = await client.get(f"{EVENTS}&{name}={KEY}")
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert KEY not in answer.text
    for path in ("/ws", "/ws/json"):
        async with connected(fakes, f"{path}?{name}={KEY}") as socket:
            start, said = await socket.next(), await socket.next()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert json.loads(said["body"])["code"] == "unauthenticated"
        assert KEY.encode() not in said["body"]


async def test_a_key_works_in_no_parameter_that_stands_for_a_ticket(fakes: Fakes) -> None:
    assert (await shown(fakes, KEY)).status_code == 401


async def test_a_ticket_stands_for_a_key_that_works(fakes: Fakes) -> None:
    assert (await shown(fakes, await ticket_of(fakes))).status_code == 200


@pytest.mark.parametrize("change", ["revoked_at", "expires_at"])
async def test_a_ticket_opens_nothing_when_its_key_does_not(fakes: Fakes, change: str) -> None:
    tickets = [await ticket_of(fakes) for _ in range(2)]
    change_key(fakes, **{change: time.time() - 1})
    answer = await shown(fakes, tickets[0])
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    async with connected(fakes, f"/ws/json?ticket={tickets[1]}") as socket:
        assert (await socket.next())["status"] == 401
        await socket.next()


async def test_the_expiry_that_is_stored_with_a_ticket_is_compared(fakes: Fakes) -> None:
    change_key(fakes, expires_at=time.time() + 1_000)
    tickets = [await ticket_of(fakes) for _ in range(2)]
    assert (await shown(fakes, tickets[0])).status_code == 200  # from now on it is known that the key works
    fakes.parts.directory._now = lambda: time.time() + 1_000
    assert (await shown(fakes, tickets[1])).status_code == 401


async def test_tickets_of_a_key_in_use_are_looked_up_once(fakes: Fakes) -> None:
    tickets = [await ticket_of(fakes) for _ in range(2)]
    assert (await shown(fakes, tickets[0])).status_code == 200
    fakes.identity.away = True
    assert (await shown(fakes, tickets[1])).status_code == 200


async def test_while_postgresql_is_away_an_unknown_key_s_ticket_is_put_off(fakes: Fakes) -> None:
    ticket = await ticket_of(fakes)
    fakes.identity.away = True
    answer = await shown(fakes, ticket)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("issuer", "expires_in_s", "status"), [(object(), 60, 200), (object(), -1, 401), (None, 60, 401)]
)
async def test_a_ticket_of_an_issuer_s_token_lasts_as_long_as_that(
    fakes: Fakes, issuer: Any, expires_in_s: float, status: int
) -> None:
    caller = Caller("acme", READ, "jwt:ada", time.time() + expires_in_s)
    ticket = await fakes.parts.tickets.issue(caller)
    fakes.app.state.parts = replace(fakes.parts, issuer=cast(Any, issuer))
    assert (await shown(fakes, ticket)).status_code == status


async def test_in_open_mode_every_ticket_opens_once() -> None:
    fakes = build(is_open=True)
    async with fakes.app.router.lifespan_context(fakes.app):
        ticket = await ticket_of(fakes)
        assert [(await shown(fakes, ticket)).status_code for _ in range(2)] == [200, 401]


async def test_a_ticket_of_open_mode_opens_nothing_where_keys_are_asked_for(fakes: Fakes) -> None:
    assert (await shown(fakes, await fakes.parts.tickets.issue(ANYONE))).status_code == 401
