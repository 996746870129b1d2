"""Events over HTTP: as a stream and as JSON, with one cursor; and answers that wait for the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import gateway_parts
import httpx
import pytest
import virtual_time
from gateway_parts import Fakes, body, task_id, view

from flik import schemas
from flik.client.sse import Message, Reader
from flik.domain import key as keys
from flik.domain.event import EndedAttempt, Event, History, Kind, Notice
from flik.domain.identity import Scope, TenantRecord
from flik.domain.key import ApiKey
from flik.domain.task import StoredArtifact, TaskView
from flik.errors import Unavailable
from flik.gateway import events

ONE = task_id(1)
EVENTS = f"/api/v1/tasks/{ONE}/events"
NOW = 1_700_000_000.0
SOON_S = 5.0
FILE = StoredArtifact(0, "k/0.png", "image/png", 3, "0" * 64, 8, 4)


def running() -> TaskView:
    return view(
        task_id=ONE, status="PROCESSING", attempt=1, worker_id="w1", version="v1", started_at=NOW + 1, created_at=NOW
    )


def done() -> TaskView:
    return running()._replace(
        status="COMPLETED", completed_at=NOW + 2, result={"text": "rain", "metadata": {}}, artifacts=(FILE,)
    )


def put(fakes: Fakes, task: TaskView, seq: int, *attempts: EndedAttempt) -> None:
    fakes.tasks.rows[ONE] = task
    fakes.tasks.histories[ONE] = History(task, seq, attempts)


def put_done(fakes: Fakes) -> None:
    put(fakes, done(), 4, EndedAttempt(4, 1, "w1", "v1", NOW + 1, NOW + 2, "COMPLETED", None, None, None))


def tell(fakes: Fakes, *told: Event) -> None:
    fakes.hub.hear([Notice("acme", event) for event in told])


def messages_of(text: str) -> list[Message]:
    return Reader().feed(text.encode())


@asynccontextmanager
async def stream(fakes: Fakes, path: str = EVENTS, **headers: str) -> AsyncIterator[Stream]:
    """Open a stream as a server does, and read it message by message."""
    opened = Stream(fakes, path, headers)
    serving = asyncio.create_task(opened.serve())
    try:
        yield opened
    finally:
        opened.gone.set()
        async with asyncio.timeout(SOON_S):
            await serving


class Stream:
    def __init__(self, fakes: Fakes, path: str, headers: dict[str, str]) -> None:
        self._app = fakes.app
        self._path, _, self._query = path.partition("?")
        named = {"authorization": "Bearer key", "accept": "text/event-stream", **headers}
        self._headers = [(name.encode(), value.encode()) for name, value in named.items()]
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.gone = asyncio.Event()
        self._reader = Reader()

    async def serve(self) -> None:
        scope = {
            "type": "http", "method": "GET", "path": self._path, "raw_path": self._path.encode(), "scheme": "http",
            "query_string": self._query.encode(), "headers": self._headers, "http_version": "1.1",
        }  # fmt: skip
        await self._app(scope, self._receive, self.sent.put)

    async def _receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def start(self) -> Any:
        async with asyncio.timeout(SOON_S):
            return await self.sent.get()

    async def chunk(self) -> bytes:
        async with asyncio.timeout(SOON_S):
            message = await self.sent.get()
        chunk: bytes = message["body"]
        return chunk

    async def next(self) -> list[Message]:
        while not (found := self._reader.feed(await self.chunk())):
            pass
        return found


async def test_a_finished_task_is_told_from_its_beginning(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put_done(fakes)
    answer = await client.get(EVENTS)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in answer.headers
    assert answer.text.startswith("retry: 1000\n\n")
    messages = messages_of(answer.text)
    assert [(each.name, each.last_id) for each in messages] == [
        ("queued", "1"), ("processing", "2"), ("artifact", "3"), ("completed", "4"),
    ]  # fmt: skip
    shown = [json.loads(each.data) for each in messages]
    assert shown[1] == {
        "taskId": ONE, "seq": 2, "event": "processing", "status": "PROCESSING",
        "timestamp": "2023-11-14T22:13:21.000Z", "attempt": 1, "workerId": "w1", "version": "v1",
    }  # fmt: skip
    assert shown[2]["artifact"]["sha256"] == FILE.sha256
    assert shown[3]["result"]["text"] == "rain"
    assert (await client.get(httpx.URL(shown[2]["artifact"]["url"]))).status_code == 404  # signed; nothing is there
    for each in shown:
        schemas.EventAnswer.model_validate(each)


@pytest.mark.parametrize("cursor", [{"headers": {"Last-Event-ID": "2"}}, {"params": {"since": "2"}}])
async def test_a_stream_goes_on_where_it_broke(fakes: Fakes, client: httpx.AsyncClient, cursor: dict[str, Any]) -> None:
    put_done(fakes)
    cursor["headers"] = {"Accept": "text/event-stream", **cursor.get("headers", {})}
    assert [each.last_id for each in messages_of((await client.get(EVENTS, **cursor)).text)] == ["3", "4"]


async def test_the_browsers_cursor_goes_before_the_one_in_the_url(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put_done(fakes)
    answer = await client.get(f"{EVENTS}?since=1", headers={"Accept": "text/event-stream", "Last-Event-ID": "3"})
    assert [each.last_id for each in messages_of(answer.text)] == ["4"]


async def test_who_has_seen_the_end_need_not_come_again(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put_done(fakes)
    answer = await client.get(EVENTS, headers={"Last-Event-ID": "4"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert fakes.hub.followers == 0


async def test_what_happens_is_streamed_as_it_happens(fakes: Fakes) -> None:
    put(fakes, running(), 2)
    async with stream(fakes) as reading:
        assert (await reading.start())["status"] == 200
        assert [each.name for each in await reading.next()] == ["queued", "processing"]
        tell(fakes, Event(ONE, 0, Kind.PROGRESS, NOW, 1, "w1", "v1", progress=0.5))
        (progress,) = await reading.next()
        assert (progress.name, progress.last_id, json.loads(progress.data)["progress"]) == ("progress", None, 0.5)
        put_done(fakes)
        fakes.hot.rows[ONE] = done()
        tell(fakes, Event(ONE, 4, Kind.COMPLETED, NOW + 2))
        names = [each.name for each in await reading.next()]
        while "completed" not in names:
            names += [each.name for each in await reading.next()]
        assert names == ["artifact", "completed"]
    assert fakes.hub.followers == 0


async def test_a_silent_stream_has_a_heartbeat(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.001)
    put(fakes, running(), 2)
    async with stream(fakes) as reading:
        await reading.start()
        await reading.next()
        assert await reading.chunk() == b":\n\n"


def test_a_silent_stream_has_a_heartbeat_every_fifteen_seconds() -> None:
    async def heard_at() -> list[float]:
        fakes, loop = gateway_parts.build(), asyncio.get_running_loop()
        put(fakes, running(), 2)
        async with fakes.app.router.lifespan_context(fakes.app), stream(fakes) as reading:
            while b"event: processing" not in (await reading.sent.get()).get("body", b""):
                pass
            began, at = loop.time(), []
            for _ in range(4):
                assert (await reading.sent.get())["body"] == b":\n\n"
                at.append(loop.time() - began)
            return at

    assert virtual_time.run(heard_at()) == pytest.approx([15, 30, 45, 60])


async def test_a_reader_that_leaves_is_forgotten(fakes: Fakes) -> None:
    put(fakes, running(), 2)
    async with stream(fakes) as reading:
        await reading.start()
        assert fakes.hub.followers == 1
    assert fakes.hub.followers == 0
    assert not fakes.parts.followers._of_key


async def test_a_reader_that_takes_nothing_is_left(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SEND_S", 0.01)
    put(fakes, running(), 2)
    reading = Stream(fakes, EVENTS, {})
    stuck = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await stuck.wait()

    reading.sent.put = send  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SOON_S):
            await reading.serve()
    assert fakes.hub.followers == 0


async def test_a_long_text_goes_in_pieces_and_others_have_their_turns_between_them() -> None:
    """What was added to what was written before each time would take a gateway seconds, in which it served nobody."""
    frames = [b"%06d" % number * 50 for number in range(20_000)]
    left, turns, bodies = iter(frames), [0], []

    class Backlog:
        ended = True

        def next_now(self) -> bytes | None:
            return next(left, None)

    class AsTheyAre:
        opening, patience_s = b"first ", 1.0

        def of(self, event: bytes) -> bytes:
            return event

    async def others() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            bodies.append((message["body"], message["more_body"]))

    waiting = asyncio.create_task(others())
    backlog: Any = Backlog()
    await events.EventStream(nullcontext(backlog), backlog, AsTheyAre())({}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    waiting.cancel()
    assert b"".join(body for body, _ in bodies) == b"first " + b"".join(frames)
    assert [more for _, more in bodies] == [True] * (len(bodies) - 1) + [False]
    assert max(len(body) for body, _ in bodies) < events.SENT_AT_ONCE + len(frames[0])
    assert turns[0] >= len(bodies)


async def test_a_head_request_gets_the_head(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    answer = await client.head(EVENTS)
    assert (answer.status_code, answer.content) == (200, b"")
    assert fakes.hub.followers == 0


async def test_while_redis_is_away_the_stream_says_so(fakes: Fakes) -> None:
    put(fakes, running(), 2)
    fakes.hub.note_live(False)
    async with stream(fakes) as reading:
        await reading.start()
        assert [each.name for each in await reading.next()] == ["delayed", "queued", "processing"]
        fakes.hub.note_live(True)
        assert [each.name for each in await reading.next()] == ["live"]


# ---- JSON


async def test_events_after_a_number_come_as_json(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put_done(fakes)
    answer = await client.get(EVENTS, params={"since": "1"})
    document = answer.json()
    schemas.EventPage.model_validate(document)
    assert [event["seq"] for event in document["events"]] == [2, 3, 4]
    assert (document["lastSeq"], document["ended"], document["live"]) == (4, True, True)


@pytest.mark.parametrize("accept", ["application/json", "application/json, */*;q=0.1"])
async def test_accept_chooses_json(fakes: Fakes, client: httpx.AsyncClient, accept: str) -> None:
    put(fakes, running(), 2)
    answer = await client.get(EVENTS, headers={"Accept": accept})
    assert [event["seq"] for event in answer.json()["events"]] == [1, 2]
    assert answer.json()["ended"] is False


async def test_a_long_poll_is_answered_when_something_happens(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    polling = asyncio.create_task(client.get(EVENTS, params={"since": "2", "wait": "20s"}))
    while not fakes.hub.followers:  # noqa: ASYNC110  # the hub tells nobody
        await asyncio.sleep(0)
    tell(fakes, Event(ONE, 0, Kind.PROGRESS, NOW, 1, progress=0.5))
    tell(fakes, Event(ONE, 3, Kind.FAILED, NOW, 1, error_code="boom", error_message="it broke"))
    async with asyncio.timeout(SOON_S):
        document = (await polling).json()
    (event,) = document["events"]
    assert (event["event"], event["error"], document["ended"]) == (
        "failed",
        {"code": "boom", "message": "it broke"},
        True,
    )


async def test_a_long_poll_without_events_is_answered_in_its_time(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    answer = await client.get(EVENTS, params={"since": "2", "wait": "0.01"})
    assert answer.json() == {"events": [], "lastSeq": 2, "ended": False, "live": True}


async def test_a_cursor_from_elsewhere_is_reset_with_the_task(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    document = (await client.get(EVENTS, params={"since": "99"})).json()
    schemas.EventPage.model_validate(document)
    (event,) = document["events"]
    assert (event["event"], event["seq"], event["task"]["taskId"]) == ("reset", 2, ONE)
    assert document["lastSeq"] == 2


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"since": "-1"}, "/since"), ({"since": "x"}, "/since"), ({"since": "1.0"}, "/since"),
        ({"since": ""}, "/since"),
        ({"since": "9" * 30}, "/since"), ({"since": "٣"}, "/since"), ({"wait": "long"}, "/wait"),
        ({"wait": "-1"}, "/wait"), ({"wait": "20m"}, "/wait"), ({"wait": "nan"}, "/wait"), ({"wait": ""}, "/wait"),
    ],
)  # fmt: skip
async def test_an_impossible_cursor_or_wait_is_refused(
    fakes: Fakes, client: httpx.AsyncClient, parameters: dict[str, str], pointer: str
) -> None:
    put(fakes, running(), 2)
    answer = await client.get(EVENTS, params=parameters)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert fakes.hub.followers == 0


async def test_an_impossible_cursor_is_refused_beside_a_good_one(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    answer = await client.get(EVENTS, params={"since": "2147483648"}, headers={"Last-Event-ID": "0"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/since")


async def test_a_task_that_is_not_there_has_no_events(client: httpx.AsyncClient, fakes: Fakes) -> None:
    answer = await client.get(EVENTS)
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    assert fakes.hub.followers == 0


async def test_while_postgresql_is_away_events_are_refused(client: httpx.AsyncClient, fakes: Fakes) -> None:
    put(fakes, running(), 2)
    fakes.tasks.fault = Unavailable("postgresql", 2.0)
    answer = await client.get(EVENTS)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def test_one_credential_holds_so_many_connections_and_no_more(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    caller_limit = fakes.parts.followers.most_of_key
    open_streams = [stream(fakes) for _ in range(caller_limit)]
    for each in open_streams:
        await (await each.__aenter__()).start()
    answer = await client.get(EVENTS)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_followers")
    assert int(answer.headers["retry-after"]) >= 1
    await open_streams.pop().__aexit__(None, None, None)
    assert (await client.get(EVENTS, params={"since": "0"})).status_code == 200
    for each in open_streams:
        await each.__aexit__(None, None, None)


# ---- Prefer: wait


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=5", "wait=5"), ("WAIT = 5", "wait=5"), ('wait="5"', "wait=5"), ("foo; bar, wait=5; x", "wait=5"),
        ("wait=5, wait=9", "wait=5"), ("wait=3600", "wait=60"), ("wait=0", None), ("wait=-1", None), ("wait", None),
        ("wait=soon", None), ("respond-async, wait=5", None), ("return=minimal", None), ("", None),
    ],
)  # fmt: skip
async def test_what_was_preferred_and_can_be_had_is_applied(
    fakes: Fakes, client: httpx.AsyncClient, prefer: str, applied: str | None
) -> None:
    put_done(fakes)
    answer = await client.get(f"/api/v1/tasks/{ONE}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert answer.headers.get("preference-applied") == applied


async def test_a_read_that_waits_is_answered_with_the_end(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    reading = asyncio.create_task(client.get(f"/api/v1/tasks/{ONE}", headers={"Prefer": "wait=20"}))
    while not fakes.hub.followers:  # noqa: ASYNC110  # the hub tells nobody
        await asyncio.sleep(0)
    put_done(fakes)
    tell(fakes, Event(ONE, 4, Kind.COMPLETED, NOW + 2))
    async with asyncio.timeout(SOON_S):
        answer = await reading
    assert (answer.json()["status"], answer.headers["preference-applied"]) == ("COMPLETED", "wait=20")
    assert "retry-after" not in answer.headers


async def test_a_read_that_waited_in_vain_is_answered_with_what_holds(fakes: Fakes, client: httpx.AsyncClient) -> None:
    put(fakes, running(), 2)
    started = time.monotonic()
    answer = await client.get(f"/api/v1/tasks/{ONE}", headers={"Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - started < SOON_S
    assert (answer.status_code, answer.json()["status"], answer.headers["retry-after"]) == (202, "PROCESSING", "1")


async def submit_and_end(fakes: Fakes, client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    posting = asyncio.create_task(client.post("/api/v1/tasks", json=body(), headers={"Prefer": "wait=20", **headers}))
    while not fakes.hub.followers:  # noqa: ASYNC110  # the hub tells nobody
        await asyncio.sleep(0)
    ((made, row),) = fakes.tasks.rows.items()
    fakes.tasks.rows[made] = row._replace(status="CANCELLED", completed_at=NOW + 3)
    tell(fakes, Event(made, 2, Kind.CANCELLED, NOW + 3))
    async with asyncio.timeout(SOON_S):
        return await posting


async def test_a_submit_that_waits_is_answered_with_the_whole_task(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await submit_and_end(fakes, client)
    assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    schemas.TaskAnswer.model_validate(answer.json())
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["location"].endswith(answer.json()["taskId"])


async def test_a_submit_that_waited_in_vain_is_accepted_all_the_same(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/tasks", json=body(), headers={"Prefer": "wait=1"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    schemas.Submitted.model_validate(answer.json())


async def test_a_submit_whose_wait_fails_is_accepted_all_the_same(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.parts.followers.most = 0
    answer = await client.post("/api/v1/tasks", json=body(), headers={"Prefer": "wait=20"})
    assert answer.status_code == 202
    assert len(fakes.tasks.rows) == 1


async def test_the_same_submit_again_waits_for_the_same_task(fakes: Fakes, client: httpx.AsyncClient) -> None:
    first = await submit_and_end(fakes, client, **{"Idempotency-Key": "k"})
    fakes.tasks.histories[first.json()["taskId"]] = History(view(), 2)
    again = await client.post("/api/v1/tasks", json=body(), headers={"Prefer": "wait=20", "Idempotency-Key": "k"})
    assert again.json() == first.json()
    assert len(fakes.tasks.rows) == 1


async def test_a_key_that_may_not_read_does_not_wait() -> None:
    fakes = gateway_parts.build(is_open=False)
    text, now = keys.make(keys.Kind.TEST, bytes(32)), time.time()
    fakes.identity.tenants["acme"] = TenantRecord("acme", "", now, now)
    only_submit = frozenset({Scope.SUBMIT})
    fakes.identity.keys[keys.digest(text)] = ApiKey(task_id(9), "acme", keys.shown(text), "", only_submit, now)
    headers = {"Prefer": "wait=20", "Authorization": f"Bearer {text}"}
    transport = httpx.ASGITransport(fakes.app)
    async with (
        fakes.app.router.lifespan_context(fakes.app),
        httpx.AsyncClient(transport=transport, base_url="http://flik.test") as client,
        asyncio.timeout(SOON_S),
    ):
        answer = await client.post("/api/v1/tasks", json=body(), headers=headers)
    await fakes.parts.directory.close()
    assert (answer.status_code, "result" in answer.json()) == (202, False)
