"""A gateway that is being stopped notices it, and lets its followers go with a word."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from gateway_parts import Fakes, body, task_id, view
from socket_client import connected

from flik.domain.event import History
from flik.errors import GatewayStops
from flik.gateway import events, stopping
from flik.gateway.stopping import Listener, let_go

ONE = task_id(1)
STREAM = {"Accept": "text/event-stream"}
SOON_S = 5.0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A listener; the kernel takes connections for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket) -> tuple[str, int]:
    host, port = server.getsockname()
    return host, port


def put_running(fakes: Fakes) -> None:
    running = view(task_id=ONE, status="PROCESSING", attempt=1, worker_id="w", version="v", started_at=1.0)
    fakes.tasks.rows[ONE] = running
    fakes.tasks.histories[ONE] = History(running, 2)


async def followed(fakes: Fakes) -> None:
    """Return when somebody follows."""
    while not len(fakes.parts.followers):  # noqa: ASYNC110 - takes some turns of the loop
        await asyncio.sleep(0)


def stop(fakes: Fakes) -> None:
    fakes.parts.followers.stop(GatewayStops("the gateway"))


async def test_listener_is_known_by_the_first_request_that_came_to_it(server: socket.socket) -> None:
    listener = Listener()
    assert not await listener.is_closed()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        proxy = address_of(gone)
    for named in ({}, {"server": None}, {"server": ("/run/socket", None)}, {"server": proxy}):
        listener.note({"type": "http", **named})
    assert not await listener.is_closed()  # what is not this process's own says nothing
    listener.note({"type": "http", "server": address_of(server)})
    assert not await listener.is_closed()
    server.close()
    assert await listener.is_closed()


async def test_followers_are_let_go_once_the_listener_is_closed(
    fakes: Fakes, client: httpx.AsyncClient, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "WATCH_S", 0.01)
    put_running(fakes)
    listener = Listener()
    listener.note({"type": "http", "server": address_of(server)})
    watching = asyncio.create_task(let_go(fakes.parts.followers, listener))
    polling = asyncio.create_task(client.get(f"/api/v1/tasks/{ONE}/events", params={"since": 2, "wait": "60s"}))
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(polling), 0.1)
    assert not polling.done()
    server.close()
    answer = await asyncio.wait_for(polling, SOON_S)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "gateway_stops", "1")
    await asyncio.wait_for(watching, SOON_S)


async def test_stream_ends_with_a_comment_and_says_when_to_come_back(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put_running(fakes)
    reading = asyncio.create_task(client.get(f"/api/v1/tasks/{ONE}/events", headers=STREAM))
    await followed(fakes)
    stop(fakes)
    answer = await asyncio.wait_for(reading, SOON_S)
    assert answer.status_code == 200
    *_, comment, retry = answer.text.strip().split("\n")
    assert comment == ": the gateway is being stopped; come back in 1 s"
    least, most = events.COME_BACK_FROM_STOP_MS
    assert least <= int(retry.removeprefix("retry: ")) <= most
    assert len(fakes.parts.followers) == 0


@pytest.mark.parametrize("path", ["/ws", "/ws/json"])
async def test_websocket_is_closed_as_by_a_restart(fakes: Fakes, path: str) -> None:
    async with connected(fakes, path, Authorization="Bearer key") as socket:
        assert (await socket.next())["type"] == "websocket.accept"
        await followed(fakes)
        stop(fakes)
        while (message := await socket.next())["type"] != "websocket.close":
            pass
        assert (message["code"], message["reason"]) == (1012, "gateway_stops")


async def test_who_comes_late_is_sent_elsewhere_and_a_submit_is_taken_all_the_same(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    put_running(fakes)
    stop(fakes)
    answer = await client.get(f"/api/v1/tasks/{ONE}/events", headers=STREAM)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_stops")
    answer = await client.post("/api/v1/tasks", json=body(), headers={"Prefer": "wait=5"})
    assert answer.status_code == 202
