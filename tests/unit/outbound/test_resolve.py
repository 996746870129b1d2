"""A name leads to all of its addresses, or to none."""

from __future__ import annotations

import asyncio
import socket

import pytest

from flik.domain.webhook.target import Allowed, Refused, Target, read_allowed, read_url
from flik.outbound import resolve
from flik.outbound.resolve import NOWHERE, Lookup, addresses_of, look_up
from flik.outbound.sender import refusal_of

NOBODY = Allowed()


def answering(*addresses: str) -> Lookup:
    async def lookup(host: str) -> list[str]:
        assert host == "hooks.example.com"
        return list(addresses)

    return lookup


def target(url: str = "https://hooks.example.com/") -> Target:
    read = read_url(url, NOBODY)
    assert isinstance(read, Target)
    return read


async def test_public_addresses_come_in_the_order_of_the_system() -> None:
    found = await addresses_of(target(), NOBODY, answering("2606:4700::1111", "8.8.8.8"))
    assert not isinstance(found, Refused)
    assert list(map(str, found)) == ["2606:4700::1111", "8.8.8.8"]


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["::1"], ["8.8.8.8", "::ffff:169.254.169.254"],
     ["fd00:ec2::254"], ["8.8.8.8", "fe80::1%eth0"], [], ["8.8.8.8", "not an address"], ["8.8.8.8"] * 33],
)  # fmt: skip
async def test_one_bad_address_refuses_them_all(addresses: list[str]) -> None:
    assert await addresses_of(target(), NOBODY, answering(*addresses)) == NOWHERE


async def test_operator_may_open_what_a_name_leads_to() -> None:
    for allowed in (read_allowed(["10.0.0.0/8"]), read_allowed(["hooks.example.com:443"])):
        assert not isinstance(await addresses_of(target(), allowed, answering("10.0.0.1")), Refused)
    opened = read_allowed(["hooks.example.com:8443", "10.0.0.0/9"])
    assert isinstance(await addresses_of(target(), opened, answering("10.200.0.1")), Refused)


async def test_address_in_the_url_asks_nobody() -> None:
    async def never(host: str) -> list[str]:
        raise AssertionError

    found = await addresses_of(target("https://8.8.8.8/"), NOBODY, never)
    assert not isinstance(found, Refused)
    assert list(map(str, found)) == ["8.8.8.8"]


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), OSError("no network"), UnicodeError("label")])
async def test_name_that_nobody_knows_is_refused(error: Exception) -> None:
    async def failing(host: str) -> list[str]:
        raise error

    refused = await refusal_of("https://hooks.example.com/", NOBODY, failing)
    assert refused == NOWHERE


async def test_url_is_looked_at_before_its_name() -> None:
    assert isinstance(await refusal_of("https://localhost/", NOBODY, answering("8.8.8.8")), Refused)
    assert await refusal_of("https://hooks.example.com/", NOBODY, answering("8.8.8.8")) == target()


async def test_system_is_asked_for_both_kinds_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, port: None, type: int) -> list[object]:
        assert (host, type) == ("hooks.example.com", socket.SOCK_STREAM)
        return [(0, 0, 0, "", ("2606:4700::1111", 0, 0, 0)), (0, 0, 0, "", ("8.8.8.8", 0)),
                (0, 0, 0, "", ("8.8.8.8", 0))]  # fmt: skip

    monkeypatch.setattr(resolve.socket, "getaddrinfo", getaddrinfo)
    async with asyncio.timeout(5):
        assert await look_up("hooks.example.com") == ["2606:4700::1111", "8.8.8.8"]
