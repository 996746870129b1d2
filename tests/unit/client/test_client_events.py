"""Following a task: every event once, over connections that break."""

from __future__ import annotations

import json

import pytest
from fakes_gateway import FakeGateway, busy, problem, task_id
from starlette.responses import Response

from flik.client import Event, FlikApiError, FlikClient, FlikUnreachable, Task, UnreadableAnswer
from flik.client import following as module

ONE = task_id(1)


def stream(*events: dict[str, object], rest: bytes = b"") -> Response:
    frames = [b"retry: 3000\n\n"]
    for event in events:
        number = f"id: {event['seq']}\n" if "seq" in event else ""
        frames.append(f"{number}event: {event['event']}\ndata: {json.dumps({'taskId': ONE, **event})}\n\n".encode())
    return Response(b"".join(frames) + rest, media_type="text/event-stream")


QUEUED = {"seq": 1, "event": "queued", "status": "QUEUED", "timestamp": "2026-01-31T09:00:00Z"}
RUNS = {"seq": 2, "event": "processing", "status": "PROCESSING", "attempt": 1}
HALF = {"event": "progress", "status": "PROCESSING", "progress": 0.5, "attempt": 1}
DONE = {"seq": 3, "event": "completed", "status": "COMPLETED", "result": {"text": "rain", "artifacts": [{"url": "/a"}]}}


def piece(text: str, index: int) -> dict[str, object]:
    return {"event": "chunk", "status": "PROCESSING", "text": text, "index": index}


async def kinds(client: FlikClient, since: int = 0) -> list[str]:
    return [event.kind async for event in client.events(ONE, since)]


async def test_events_come_in_order_up_to_the_end(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(stream(QUEUED, RUNS, HALF, DONE))
    events = [event async for event in client.events(ONE)]
    assert [event.kind for event in events] == ["queued", "processing", "progress", "completed"]
    assert (events[0].seq, events[0].status, events[0].task_id) == (1, "QUEUED", ONE)
    assert events[0].at is not None
    assert (events[2].seq, events[2].progress) == (None, 0.5)
    assert isinstance(events[3], Event)
    assert (events[3].text, [each.url for each in events[3].artifacts]) == ("rain", ["/a"])
    assert gateway.requests[0].headers["accept"] == "text/event-stream"


async def test_a_connection_that_breaks_is_made_again_where_it_broke(
    gateway: FakeGateway, client: FlikClient, pauses: list[float]
) -> None:
    gateway.answer_next(stream(QUEUED, RUNS, rest=b"id: 3\nevent: comp"), stream(HALF), busy(), stream(DONE))
    assert await kinds(client) == ["queued", "processing", "progress", "completed"]
    assert [asked.headers["last-event-id"] for asked in gateway.requests] == ["0", "2", "2", "2"]
    assert pauses == [3.0, 3.0, 0.5]


async def test_chunks_are_asked_for_and_come_once_over_connections_that_break(
    gateway: FakeGateway, client: FlikClient
) -> None:
    gateway.answer_next(stream(QUEUED, RUNS, piece("ra", 0), piece("in", 1)), stream(piece("!", 2), DONE))
    events = [event async for event in client.events(ONE, chunks=True)]
    assert [(event.text, event.index) for event in events if event.kind == "chunk"] == [("ra", 0), ("in", 1), ("!", 2)]
    assert [asked.query for asked in gateway.requests] == [{"chunks": "true"}] * 2
    assert [asked.headers["last-event-id"] for asked in gateway.requests] == ["0", "2.1"]


async def test_a_stream_is_started_by_name_and_then_followed_as_a_task(
    gateway: FakeGateway, client: FlikClient
) -> None:
    gateway.answer_next(busy(), stream(QUEUED, RUNS, piece("ra", 0)), stream(piece("in", 1), DONE))
    events = [event async for event in client.stream("a:b", {"prompt": "rain"})]
    assert [event.kind for event in events] == ["queued", "processing", "chunk", "chunk", "completed"]
    assert [(asked.method, asked.path) for asked in gateway.requests] == [
        ("POST", "/api/v1/streams/a:b"), ("POST", "/api/v1/streams/a:b"), ("GET", f"/api/v1/tasks/{ONE}/events"),
    ]  # fmt: skip
    assert gateway.requests[0].body == {"prompt": "rain"}
    assert gateway.requests[2].headers["last-event-id"] == "2.0"


async def test_a_stream_without_a_payload_is_joined_only(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(problem(404, "stream_not_found", "no stream"))
    with pytest.raises(FlikApiError, match="no stream"):
        [event async for event in client.stream("a:b")]
    assert gateway.requests[0].method == "GET"


async def test_one_that_has_seen_the_end_gets_nothing(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(Response(status_code=204))
    assert await kinds(client, since=3) == []
    assert gateway.requests[0].headers["last-event-id"] == "3"


async def test_a_reset_moves_the_cursor(gateway: FakeGateway, client: FlikClient) -> None:
    reset = {"seq": 2, "event": "reset", "status": "COMPLETED", "task": {}}
    gateway.answer_next(stream(reset), stream(DONE))
    assert await kinds(client, since=40) == ["reset", "completed"]
    assert [asked.headers["last-event-id"] for asked in gateway.requests] == ["40", "2"]


async def test_a_gateway_that_stays_away_is_given_up(
    gateway: FakeGateway, client: FlikClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OUTAGES_IN_A_ROW", 2)
    gateway.answer_next(busy(), busy(), busy())
    with pytest.raises(FlikApiError, match="postgresql"):
        await kinds(client)
    gateway.answer_next(stream(), stream(), stream())
    with pytest.raises(FlikUnreachable, match="again and again"):
        await kinds(client)


async def test_a_refusal_ends_it_at_once(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(problem(404, "task_not_found", "no such task"))
    with pytest.raises(FlikApiError) as caught:
        await kinds(client)
    assert (caught.value.status, len(gateway.requests)) == (404, 1)


@pytest.mark.parametrize("data", ["no json", "[]", "{}", '{"event": 7}'])
async def test_what_is_no_event_is_not_believed(gateway: FakeGateway, client: FlikClient, data: str) -> None:
    gateway.answer_next(Response(f"data: {data}\n\n", media_type="text/event-stream"))
    with pytest.raises(UnreadableAnswer):
        await kinds(client)


async def test_wait_shows_what_the_events_tell(gateway: FakeGateway, client: FlikClient, pauses: list[float]) -> None:
    gateway.add(1, {}, {"status": "PROCESSING", "attempt": 1}, {"status": "COMPLETED"})
    first = Response(json.dumps({"taskId": ONE, "status": "QUEUED"}), media_type="application/json")
    gateway.scripts[ONE].popleft()
    gateway.answer_next(first, stream(QUEUED, RUNS, HALF, DONE))
    seen: list[Task] = []
    task = await client.wait(ONE, on_change=seen.append)
    assert task.is_completed
    shown = [(look.status, look.progress) for look in seen]
    assert shown == [("QUEUED", None), ("PROCESSING", None), ("PROCESSING", 0.5), ("COMPLETED", None)]
    assert seen[2].raw["progress"] == 0.5
    assert pauses == []


async def test_wait_without_looks_lets_the_gateway_hold_the_answer(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add(1, {"status": "COMPLETED"})
    assert (await client.wait(ONE)).is_completed
    assert gateway.requests[0].headers["prefer"] == "wait=20"
