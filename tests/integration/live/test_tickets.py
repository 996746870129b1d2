"""A ticket opens once, for a while, and only what it was made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from flik.domain.identity import ANYONE, Caller, Scope
from flik.errors import Unavailable
from flik.live.tickets import TTL_S, Tickets

CALLER = Caller("acme", frozenset({Scope.READ}), "k1", 1_900_000_000.0)


@pytest.fixture
async def tickets(valkey_url: str) -> AsyncIterator[Tickets]:
    tickets = Tickets(valkey_url).open()
    yield tickets
    await tickets.close()


@pytest.mark.parametrize("caller", [CALLER, ANYONE])
async def test_a_ticket_stands_for_its_caller(tickets: Tickets, caller: Caller) -> None:
    assert await tickets.redeem(await tickets.issue(caller)) == caller


async def test_of_many_who_show_a_ticket_one_gets_in(tickets: Tickets) -> None:
    ticket = await tickets.issue(CALLER)
    found = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(50)))
    assert [each for each in found if each is not None] == [CALLER]


async def test_a_ticket_expires_and_is_not_stored_itself(tickets: Tickets, valkey_url: str) -> None:
    ticket = await tickets.issue(CALLER)
    with redis.Redis.from_url(valkey_url, decode_responses=True) as server:
        (key,) = server.scan_iter("flik:ticket:*")
        assert ticket not in key
        assert ticket not in (server.get(key) or "")
        assert 0 < server.ttl(key) <= TTL_S
        server.delete(key)
    assert await tickets.redeem(ticket) is None


@pytest.mark.parametrize(
    "made_up", ["", "flik_ticket_", "flik_ticket_" + "a" * 43, "flik_ticket_" + "a" * 44, "*", "\n"]
)
async def test_what_is_no_ticket_opens_nothing(tickets: Tickets, made_up: str) -> None:
    assert await tickets.redeem(made_up) is None


async def test_while_redis_is_away_there_are_none() -> None:
    tickets = Tickets("unix:///nowhere/redis.sock").open()
    with pytest.raises(Unavailable):
        await tickets.issue(CALLER)
    with pytest.raises(Unavailable):
        await tickets.redeem("flik_ticket_" + "a" * 43)
    await tickets.close()
