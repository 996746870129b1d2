"""Following over WebSockets: who gets in, what is told, how it ends. The protocols have tests of their own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes, task_id, view
from making import new_task
from memory_chunks import MemoryStream
from socket_client import SOON_S, Socket, connected

from flik.domain import key as keys
from flik.domain.chunk import Draft
from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.event import EndedAttempt, Event, History, Kind, Notice
from flik.domain.identity import Scope, TenantRecord
from flik.domain.key import ApiKey
from flik.domain.stomp.frames import Frame, Parser, Version
from flik.domain.task import Status
from flik.gateway import sockets

ONE = task_id(1)
NOW = 1_700_000_000.0


def make_key(number: int) -> str:
    return keys.make(keys.Kind.TEST, number.to_bytes(32))


OWNER, STRANGER, WRITER, OPERATOR, REVOKED = map(make_key, range(5))


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    """One running task of acme, and a key for each case."""
    fakes = gateway_parts.build(is_open=False)
    now = time.time()
    for tenant in ("acme", "zebra"):
        fakes.identity.tenants[tenant] = TenantRecord(tenant, "", now, now)
    both = frozenset({Scope.SUBMIT, Scope.READ})
    for number, (text, tenant, scopes) in enumerate((
        (OWNER, "acme", both), (STRANGER, "zebra", both), (WRITER, "acme", frozenset({Scope.SUBMIT})),
        (OPERATOR, "zebra", frozenset({Scope.ADMIN})), (REVOKED, "acme", both),
    )):  # fmt: skip
        revoked_at = now - 1 if text == REVOKED else None
        fakes.identity.keys[keys.digest(text)] = ApiKey(
            task_id(100 + number), tenant, keys.shown(text), "", scopes, now, revoked_at=revoked_at
        )
    running = view(task_id=ONE, status="PROCESSING", attempt=1, worker_id="w1", version="v1", started_at=NOW + 1)
    fakes.tasks.rows[ONE] = running._replace(created_at=NOW)
    fakes.tasks.histories[ONE] = History(running, 2)
    async with fakes.app.router.lifespan_context(fakes.app):
        yield fakes
    await fakes.parts.directory.close()
    assert len(fakes.parts.followers) == 0
    assert fakes.hub.followers == 0


def write(fakes: Fakes, *texts: str) -> None:
    stream, draft = fakes.texts.streams.setdefault(ONE, MemoryStream()), Draft(1, "run 1", "w1", "v1")
    for text in texts:
        draft.add(text, NOW)
    while (wanted := draft.next_write(10)) is not None:
        draft.heed(stream.write(wanted))


def complete(fakes: Fakes, text: str = "rain") -> None:
    done = fakes.tasks.rows[ONE]._replace(
        status="COMPLETED", completed_at=NOW + 2, result={"text": text, "metadata": {}}
    )
    fakes.tasks.rows[ONE] = done
    ended = EndedAttempt(3, 1, "w1", "v1", NOW + 1, NOW + 2, "COMPLETED", None, None, None)
    fakes.tasks.histories[ONE] = History(done, 3, (ended,))
    fakes.hub.hear([Notice("acme", Event(ONE, 3, Kind.COMPLETED, NOW + 2))])


# ---- JSON


async def said(socket: Socket) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(await socket.read())
    return document


def say(socket: Socket, kind: str, **members: Any) -> None:
    socket.send(json.dumps({"type": kind, **members}))


async def opened(socket: Socket, key: str = OWNER) -> None:
    assert (await socket.next())["type"] == "websocket.accept"
    say(socket, "auth", token=key)
    assert await said(socket) == {"type": "ready"}


async def test_json_follows_a_task_to_its_end(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE)
        assert await said(socket) == {"type": "subscribed", "id": "a"}
        told = [await said(socket), await said(socket)]
        assert [(each["id"], each["seq"], each["event"]["event"]) for each in told] == [
            ("a", 1, "queued"), ("a", 2, "processing"),
        ]  # fmt: skip
        fakes.hub.hear([Notice("acme", Event(ONE, 0, Kind.PROGRESS, NOW, 1, progress=0.5))])
        progress = await said(socket)
        assert (progress["seq"], progress["event"]["progress"]) == (2, 0.5)  # the number to go on from
        complete(fakes)
        end = await said(socket)
        assert (end["seq"], end["event"]["status"], end["event"]["result"]["text"]) == (3, "COMPLETED", "rain")
        say(socket, "unsubscribe", id="a")
        assert (await said(socket))["type"] == "unsubscribed"
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}
        assert fakes.hub.followers == 0


async def test_json_goes_on_from_a_number(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE.upper(), fromSeq=1)
        assert (await said(socket))["type"] == "subscribed"
        assert (await said(socket))["seq"] == 2


async def test_one_connection_follows_many_things(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE, fromSeq=2)
        say(socket, "subscribe", id="b", tenant=True)
        assert {(await said(socket))["id"], (await said(socket))["id"]} == {"a", "b"}
        assert len(fakes.parts.followers) == 1
        fakes.hub.hear([Notice("acme", Event(ONE, 3, Kind.CANCELLED, NOW))])
        assert {(await said(socket))["id"], (await said(socket))["id"]} == {"a", "b"}


@pytest.mark.parametrize("unseen", [task_id(7), "no-id"])
async def test_a_task_that_is_not_there_ends_the_subscription_and_not_the_connection(fakes: Fakes, unseen: str) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=unseen)
        refused = await said(socket)
        assert (refused["type"], refused["id"], refused["problem"]["code"]) == ("error", "a", "task_not_found")
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}


async def test_a_strangers_task_is_not_there(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket, STRANGER)
        say(socket, "subscribe", id="a", taskId=ONE)
        assert (await said(socket))["problem"]["code"] == "task_not_found"
        say(socket, "subscribe", id="b", tenant=True)
        assert (await said(socket))["type"] == "subscribed"
        fakes.hub.hear([Notice("acme", Event(ONE, 3, Kind.CANCELLED, NOW))])
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}  # and nothing before it


async def test_an_operator_follows_every_task(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket, OPERATOR)
        say(socket, "subscribe", id="a", taskId=ONE)
        assert (await said(socket))["type"] == "subscribed"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (REVOKED, "unauthenticated"),
        (make_key(99), "unauthenticated"),
        ("x", "unauthenticated"),
        (WRITER, "scope_missing"),
    ],
)
async def test_a_credential_that_does_not_open_this_ends_the_connection(fakes: Fakes, key: str, code: str) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await socket.next()
        say(socket, "auth", token=key)
        assert (await said(socket))["problem"]["code"] == code
        closed = await socket.next()
        assert (closed["type"], closed["code"], closed["reason"]) == ("websocket.close", 1008, code)


async def test_who_showed_a_key_in_the_handshake_is_ready_at_once(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json", Authorization=f"Bearer {OWNER}") as socket:
        assert (await socket.next())["type"] == "websocket.accept"
        assert await said(socket) == {"type": "ready"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws", {"Authorization": f"Bearer {REVOKED}"}, 401),
        ("/ws/json", {"Authorization": f"Bearer {WRITER}"}, 403),
        ("/ws/json?ticket=none", {}, 401),
        ("/ws?ticket=", {}, 401),
    ],
)
async def test_a_bad_handshake_is_refused_with_a_problem(
    fakes: Fakes, path: str, headers: dict[str, str], status: int
) -> None:
    async with connected(fakes, path, **headers) as socket:
        start = await socket.next()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
        assert json.loads((await socket.next())["body"])["status"] == status


def client_of(fakes: Fakes) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {OWNER}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik", headers=headers)


async def test_a_ticket_opens_one_connection(fakes: Fakes) -> None:
    async with client_of(fakes) as client:
        answer = await client.post("/api/v1/tickets")
    assert answer.status_code == 201
    ticket = answer.json()["ticket"]
    async with connected(fakes, f"/ws/json?ticket={ticket}") as socket:
        await socket.next()
        assert await said(socket) == {"type": "ready"}
    async with connected(fakes, "/ws/json") as socket:
        await socket.next()
        say(socket, "auth", ticket=ticket)
        assert (await said(socket))["problem"]["code"] == "unauthenticated"


async def test_while_redis_is_away_there_are_no_tickets(fakes: Fakes) -> None:
    fakes.parts.tickets.away = True  # type: ignore[attr-defined]  # its stand-in
    async with client_of(fakes) as client:
        answer = await client.post("/api/v1/tickets")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "retry-after" in answer.headers


async def test_a_revoked_key_follows_nothing_any_more(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket, connected(fakes, "/ws/json") as other:
        await opened(socket)
        await opened(other, STRANGER)
        digest = keys.digest(OWNER)
        revoked = fakes.identity.keys[digest]
        fakes.identity.keys[digest] = ApiKey(
            revoked.key_id, revoked.tenant_id, revoked.prefix, "", revoked.scopes, NOW, revoked_at=NOW + 1
        )
        await fakes.parts.followers.check()
        assert (await said(socket))["problem"]["code"] == "unauthenticated"
        assert (await socket.next())["type"] == "websocket.close"
        say(other, "ping")
        assert await said(other) == {"type": "pong"}


async def test_while_postgresql_is_away_nobody_is_thrown_out(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        fakes.identity.away = True
        await fakes.parts.followers.check()
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}


async def test_a_credential_holds_so_many_connections_and_no_more(fakes: Fakes) -> None:
    fakes.parts.followers.most_of_key = 1
    async with connected(fakes, "/ws/json") as first, connected(fakes, "/ws/json") as second:
        await opened(first)
        await second.next()
        say(second, "auth", token=OWNER)
        assert (await said(second))["problem"]["code"] == "too_many_followers"
        assert (await second.next())["code"] == 1013


async def test_a_credential_follows_so_many_things_whatever_its_connections(fakes: Fakes) -> None:
    fakes.parts.followers.most_of_key = 3
    async with connected(fakes, "/ws/json") as first, connected(fakes, "/ws/json") as second:
        for socket in (first, second):
            await opened(socket)
            say(socket, "subscribe", id="a", tenant=True)
            assert (await said(socket))["type"] == "subscribed"
        say(first, "subscribe", id="b", tenant=True)
        assert (await said(first))["type"] == "subscribed"
        say(second, "subscribe", id="b", tenant=True)
        refused = await said(second)
        assert (refused["id"], refused["problem"]["code"]) == ("b", "too_many_followers")
        assert "streams and subscriptions" in refused["problem"]["detail"]
        async with client_of(fakes) as client:
            answer = await client.get(f"/api/v1/tasks/{ONE}/events")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_followers")
        say(first, "unsubscribe", id="a")
        assert (await said(first))["type"] == "unsubscribed"
        say(second, "subscribe", id="b", tenant=True)
        assert (await said(second))["type"] == "subscribed"


async def test_a_subscription_that_is_ended_before_it_began_holds_no_place(fakes: Fakes) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        await client.read()
        begun = "SUBSCRIBE\nid:s1\ndestination:/topic/tenant\n\n\0"
        socket.send(f"{begun}UNSUBSCRIBE\nid:s1\n\n\0")
        client.send("ACK", id="1", receipt="r")
        await client.read()
        assert (fakes.hub.followers, fakes.parts.followers._followed_of_key) == (0, {})


async def test_strangers_are_counted_from_the_handshake_on(fakes: Fakes) -> None:
    fakes.parts.followers.most_strangers = 1
    async with connected(fakes, "/ws") as first:
        assert (await first.next())["type"] == "websocket.accept"
        for path in ("/ws", "/ws/json"):
            async with connected(fakes, path) as refused:
                start = await refused.next()
                assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
                assert json.loads((await refused.next())["body"])["code"] == "too_many_strangers"
        async with connected(fakes, "/ws/json", Authorization=f"Bearer {OWNER}") as known:  # is nobody's stranger
            assert (await known.next())["type"] == "websocket.accept"
        client = Stomp(first)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        assert (await client.read()).command == "CONNECTED"
        async with connected(fakes, "/ws/json") as second:  # the first has said who it is
            await opened(second)
    assert fakes.parts.followers.strangers == 0


async def test_a_stranger_who_leaves_is_forgotten(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await socket.next()
        assert fakes.parts.followers.strangers == 1
    assert fakes.parts.followers.strangers == 0


async def test_a_client_that_takes_nothing_is_left(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SEND_S", 0.01)
    never = asyncio.Event()
    socket = Socket(fakes, "/ws/json", {"Authorization": f"Bearer {OWNER}"}, ())

    async def put(message: Any) -> None:
        if message["type"] == "websocket.send":
            await never.wait()

    socket.sent.put = put  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await socket.serve()


async def test_a_client_that_takes_no_event_any_more_is_left(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "SEND_S", 0.01)
    monkeypatch.setattr(sockets, "CLOSE_S", 0.01)
    socket, stuck, never = Socket(fakes, "/ws/json", {"Authorization": f"Bearer {OWNER}"}, ()), False, asyncio.Event()
    put = socket.sent.put

    async def put_until_stuck(message: Any) -> None:
        await (never.wait() if stuck else put(message))

    socket.sent.put = put_until_stuck  # type: ignore[method-assign]
    serving = asyncio.create_task(socket.serve())
    await socket.next()
    assert await said(socket) == {"type": "ready"}
    say(socket, "subscribe", id="a", taskId=ONE, fromSeq=2)
    assert (await said(socket))["type"] == "subscribed"
    stuck = True
    complete(fakes)
    async with asyncio.timeout(SOON_S):
        await serving  # in peace: whoever is left behind is no fault of ours
    assert len(fakes.parts.followers) == 0


async def test_a_client_that_is_gone_is_forgotten(fakes: Fakes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE)
        await said(socket)
        assert fakes.hub.followers == 1


@pytest.mark.parametrize("data", ["", "no json", "[]", b"\xff\xfe", "x" * 70_000])
async def test_what_cannot_be_read_ends_the_connection(fakes: Fakes, data: str | bytes) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        socket.send(data)
        assert (await said(socket))["type"] == "error"
        assert (await socket.next())["type"] == "websocket.close"


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """By how many seconds the sockets' clock goes before the real one."""
    real, ahead_s = time.monotonic, [0.0]
    monkeypatch.setattr(sockets.time, "monotonic", lambda: real() + ahead_s[0])
    return ahead_s


async def idle_out(socket: Socket) -> None:
    assert (await said(socket))["problem"]["code"] == "stream_idle"
    closed = await socket.next()
    assert (closed["type"], closed["code"], closed["reason"]) == ("websocket.close", 1008, "stream_idle")


async def test_a_connection_that_follows_nothing_is_ended(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        hurry[0] = 61.0
        say(socket, "ping")  # wakes it
        assert await said(socket) == {"type": "pong"}
        await idle_out(socket)


async def test_a_connection_stays_until_what_it_follows_has_ended(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE, fromSeq=2)
        assert (await said(socket))["type"] == "subscribed"
        hurry[0] = 1_000.0
        complete(fakes)
        assert (await said(socket))["event"]["event"] == "completed"
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}
        hurry[0] = 1_061.0
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}
        await idle_out(socket)


async def test_a_connection_that_follows_what_had_ended_before_is_ended(fakes: Fakes, hurry: list[float]) -> None:
    complete(fakes)
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE, fromSeq=3)  # it has seen all of it
        assert (await said(socket))["type"] == "subscribed"
        hurry[0] = 61.0
        say(socket, "ping")
        assert await said(socket) == {"type": "pong"}
        await idle_out(socket)


async def test_a_connection_that_follows_its_tenant_stays(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", tenant=True)
        await said(socket)
        hurry[0] = 1_000.0
        for _ in range(2):
            say(socket, "ping")
            assert await said(socket) == {"type": "pong"}


DAG = "0199a1b2-0000-7000-8000-00000000dddd"


def put_dag(fakes: Fakes) -> None:
    step = NewStep("a", new_task(dag_id=DAG), (), "fail")
    fakes.store.dags.put(NewDag(DAG, "acme", 1, "us-east", NOW, None, None, None, None, (step,)))


def fail_dag(fakes: Fakes) -> None:
    row = fakes.store.dags.open_steps(DAG)[0]
    row.error_code = "boom"
    row.end(Status.FAILED, NOW + 1)
    fakes.store.dags.advance([DAG], NOW + 1)
    fakes.hub.hear([Notice("acme", Event(DAG, 0, Kind.MOVED, NOW + 1))])


async def test_json_follows_a_dag_to_its_end(fakes: Fakes) -> None:
    put_dag(fakes)
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", dagId=DAG.upper())
        assert (await said(socket))["type"] == "subscribed"
        assert (await said(socket))["event"]["event"] == "running"
        fail_dag(fakes)
        step, end = await said(socket), await said(socket)
        assert (step["seq"], step["event"]["step"]["stepId"], step["event"]["step"]["status"]) == (2, "a", "FAILED")
        assert (end["seq"], end["event"]["event"], end["event"]["dagId"]) == (3, "failed", DAG)


async def test_stomp_follows_a_dag_from_a_number(fakes: Fakes) -> None:
    put_dag(fakes)
    fail_dag(fakes)
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        await client.read()
        client.send("SUBSCRIBE", id="0", destination=f"/topic/dags/{DAG}", from_seq="2")
        message = await client.read()
        assert (message.headers["destination"], message.headers["seq"]) == (f"/topic/dags/{DAG}", "3")
        assert json.loads(message.body)["status"] == "FAILED"


@pytest.mark.parametrize("unseen", [task_id(7), "no-id"])
async def test_a_dag_that_is_not_there_ends_the_subscription(fakes: Fakes, unseen: str) -> None:
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", dagId=unseen)
        assert (await said(socket))["problem"]["code"] == "dag_not_found"


async def test_a_strangers_dag_is_not_there(fakes: Fakes) -> None:
    put_dag(fakes)
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket, STRANGER)
        say(socket, "subscribe", id="a", dagId=DAG)
        assert (await said(socket))["problem"]["code"] == "dag_not_found"


@pytest.mark.parametrize(
    ("asked", "pieces"),
    [({"chunks": True}, ["a ", "grey ", "rain"]), ({"chunks": True, "fromChunk": 0}, ["grey ", "rain"]), ({}, [])],
    ids=["all", "after a number", "none"],
)
async def test_json_follows_a_text_as_it_is_written(fakes: Fakes, asked: dict[str, Any], pieces: list[str]) -> None:
    write(fakes, "a ", "grey ", "rain")
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE, fromSeq=2, **asked)
        assert await said(socket) == {"type": "subscribed", "id": "a"}
        told = [await said(socket) for _ in pieces]
        assert [(each["event"]["event"], each["seq"], each["event"]["text"]) for each in told] == [
            ("chunk", 2, piece) for piece in pieces
        ]
        assert [each["event"]["index"] for each in told] == list(range(3))[3 - len(pieces) :]
        complete(fakes, "a grey rain")
        assert (await said(socket))["event"]["event"] == "completed"


async def test_a_text_that_was_lost_is_told_to_begin_anew(fakes: Fakes) -> None:
    write(fakes, "a ")
    async with connected(fakes, "/ws/json") as socket:
        await opened(socket)
        say(socket, "subscribe", id="a", taskId=ONE, fromSeq=2, chunks=True)
        await said(socket)
        assert (await said(socket))["event"]["event"] == "chunk"
        complete(fakes, "rain")
        assert [(await said(socket))["event"]["event"] for _ in range(2)] == ["restart", "completed"]


# ---- STOMP


class Stomp:
    """A client's side of STOMP 1.2."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._parser = Parser(version=Version.V1_2)

    def send(self, command: str, **headers: str) -> None:
        lines = "".join(f"{name.replace('_', '-')}:{value}\n" for name, value in headers.items())
        self._socket.send(f"{command}\n{lines}\n\0")

    async def read(self) -> Frame:
        while not isinstance(part := self._parser.take(), Frame):
            self._parser.feed((await self._socket.read()).encode())
        return part


async def test_stomp_follows_a_task_to_its_end(fakes: Fakes) -> None:
    async with connected(fakes, "/ws", subprotocols=("v12.stomp", "v11.stomp")) as socket:
        assert (await socket.next())["subprotocol"] == "v12.stomp"
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.1,1.2", host="flik", Authorization=f"Bearer {OWNER}", heart_beat="0,0")
        connect = await client.read()
        assert (connect.command, connect.headers["version"]) == ("CONNECTED", "1.2")
        client.send("SUBSCRIBE", id="s1", destination=f"/topic/tasks/{ONE}", receipt="r1")
        assert (await client.read()).headers["receipt-id"] == "r1"
        queued, processing = await client.read(), await client.read()
        assert (queued.command, queued.headers["subscription"], queued.headers["seq"]) == ("MESSAGE", "s1", "1")
        shown = json.loads(processing.body)
        assert (shown["taskId"], shown["status"], shown["timestamp"]) == (ONE, "PROCESSING", "2023-11-14T22:13:21.000Z")
        complete(fakes)
        end = json.loads((await client.read()).body)
        assert (end["status"], end["result"]["text"]) == ("COMPLETED", "rain")
        client.send("DISCONNECT", receipt="bye")
        assert (await client.read()).headers["receipt-id"] == "bye"
        assert (await socket.next())["code"] == 1000


async def test_stomp_follows_a_text_as_it_is_written(fakes: Fakes) -> None:
    write(fakes, "a ", "grey ", "rain")
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        await client.read()
        client.send(
            "SUBSCRIBE", id="s1", destination=f"/topic/tasks/{ONE}", from_seq="2", chunks="true", from_chunk="0"
        )
        told = [await client.read() for _ in range(2)]
        assert [(each.headers.get("seq"), json.loads(each.body)["text"]) for each in told] == [
            (None, "grey "),
            (None, "rain"),
        ]
        complete(fakes, "a grey rain")
        told.append(await client.read())
        assert (json.loads(told[-1].body)["event"], told[-1].headers["seq"]) == ("completed", "3")
        assert len({each.headers["message-id"] for each in told}) == 3


async def test_stomp_numbers_its_messages_whatever_tasks_they_are_about(fakes: Fakes) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        await client.read()
        client.send("SUBSCRIBE", id="s1", destination="/topic/tenant", ack="client-individual", receipt="r")
        await client.read()
        happened = [Event(task_id(number), 1, Kind.QUEUED, NOW) for number in (1, 2)]
        happened.append(Event(task_id(1), 2, Kind.PROCESSING, NOW, 1))
        progress = Event(task_id(1), 0, Kind.PROGRESS, NOW, 1, progress=0.5)
        fakes.hub.hear([Notice("acme", event) for event in (*happened, progress, progress)])
        told = [await client.read() for _ in range(5)]
        assert [each.headers.get("seq") for each in told] == ["1", "1", "2", None, None]
        assert len({each.headers["message-id"] for each in told}) == 5
        assert len({each.headers["ack"] for each in told}) == 5


async def test_stomp_goes_on_from_a_number(fakes: Fakes) -> None:
    async with connected(fakes, "/ws") as socket:
        assert (await socket.next())["subprotocol"] is None
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER)
        await client.read()
        client.send("SUBSCRIBE", id="s1", destination=f"/topic/tasks/{ONE}", from_seq="1")
        assert (await client.read()).headers["seq"] == "2"


@pytest.mark.parametrize(
    ("key", "destination"), [(STRANGER, f"/topic/tasks/{ONE}"), (OWNER, f"/topic/tasks/{task_id(7)}")]
)
async def test_stomp_says_of_an_unseen_task_that_it_is_not_there(fakes: Fakes, key: str, destination: str) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=key)
        await client.read()
        client.send("SUBSCRIBE", id="s1", destination=destination, receipt="r")
        error = await client.read()
        assert (error.command, error.headers["receipt-id"]) == ("ERROR", "r")
        assert json.loads(error.body)["code"] == "task_not_found"
        assert (await socket.next())["type"] == "websocket.close"


async def test_stomp_without_a_key_is_refused(fakes: Fakes) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik")
        error = await client.read()
        assert (error.command, json.loads(error.body)["code"]) == ("ERROR", "unauthenticated")


async def test_a_stomp_client_that_follows_nothing_is_ended(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER, heart_beat="0,0")
        await client.read()
        hurry[0] = 61.0
        socket.send("\n")  # wakes it
        error = await client.read()
        assert (error.command, json.loads(error.body)["code"]) == ("ERROR", "stream_idle")
        assert (await socket.next())["code"] == 1008


async def test_a_stomp_client_that_says_nothing_is_given_up(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        hurry[0] = 11.0
        socket.send("\n")  # wakes it
        assert "no CONNECT" in await socket.read()
        assert (await socket.next())["type"] == "websocket.close"


async def test_a_heart_beat_is_sent_when_it_is_due(fakes: Fakes, hurry: list[float]) -> None:
    async with connected(fakes, "/ws") as socket:
        await socket.next()
        client = Stomp(socket)
        client.send("CONNECT", accept_version="1.2", host="flik", passcode=OWNER, heart_beat="0,10")
        await client.read()
        hurry[0] = 9.0
        socket.send("\n")  # wakes it
        assert await socket.read() == "\n"
