"""Streams by name, natively and as the earlier streaming system had them; chunks of text over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, task_id, view
from memory_chunks import MemoryStream

from flik.client.sse import Message, Reader
from flik.domain.chunk import Draft
from flik.domain.event import EndedAttempt, Event, History, Kind, Notice
from flik.domain.rate import Limited
from flik.gateway import streams
from flik.gateway.chat_frames import ChatFrames

ONE = task_id(1)
NOW = 1_700_000_000.0
SOON_S = 5.0
CHAT = "/stream?feature_id=support&chat_id=c%201&tenant_id=acme"
STREAM = "/api/v1/streams/night?tenantId=acme"
KEY = ("acme", "support:c 1")
TEXT = {"prompt": "rain"}


def running(**fields: Any) -> Any:
    common = {
        "status": "PROCESSING",
        "attempt": 1,
        "worker_id": "w1",
        "version": "v1",
        "started_at": NOW + 1,
        "created_at": NOW,
    }
    return view(task_id=ONE, **{**common, **fields})


def end(fakes: Fakes, text: str | None = None, **fields: Any) -> None:
    """Have the task of a stream end, completed with a text or as the fields say."""
    result = {"text": text, "metadata": {}}
    given = {"status": "COMPLETED", "result": result, "completed_at": NOW + 2, **fields}
    task = running(**given)
    fakes.tasks.rows[ONE] = task
    outcome, code = task.status, task.error_code
    ended = EndedAttempt(3, 1, "w1", "v1", NOW + 1, NOW + 2, outcome, None, code, task.error_message)
    fakes.tasks.histories[ONE] = History(task, 3, (ended,))


def run(fakes: Fakes, key: tuple[str, str] = KEY) -> None:
    """Have a stream's task run."""
    fakes.names.rows[key] = ONE
    fakes.tasks.rows[ONE] = running()
    fakes.tasks.histories[ONE] = History(running(), 2)


def write(fakes: Fakes, *texts: str, attempt: int = 1) -> None:
    stream = fakes.texts.streams.setdefault(ONE, MemoryStream())
    draft = Draft(attempt, f"run {attempt}", f"w{attempt}", "v1")
    for text in texts:
        draft.add(text, NOW)
    while (wanted := draft.next_write(10)) is not None:
        draft.heed(stream.write(wanted))


def frames_of(text: str) -> list[str]:
    return [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame.startswith("data: ")]


def messages_of(text: str) -> list[Message]:
    return Reader().feed(text.encode())


async def post(client: httpx.AsyncClient, path: str, **given: Any) -> httpx.Response:
    async with asyncio.timeout(SOON_S):
        return await client.post(path, **given)


async def test_a_chat_is_its_messages_and_done(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    write(fakes, "Message 0\n", "Message 1")
    end(fakes, "Message 0\nMessage 1")
    answer = await post(client, CHAT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *messages, done = frames_of(answer.text)
    assert done == "[DONE]"
    assert answer.text.endswith("data: [DONE]\n\n")
    assert [json.loads(each) for each in messages] == [
        {
            "id": str(number), "feature_id": "support", "chat_id": "c 1", "message": f"Message {number}",
            "timestamp": "2023-11-14T22:13:20.000000+00:00", "container_id": "w1", "container_feature_id": "text-v1",
            "worker": "flik",
        }
        for number in range(2)
    ]  # fmt: skip


async def test_callers_at_one_moment_start_one_task_and_pay_for_one(fakes: Fakes, client: httpx.AsyncClient) -> None:
    starting = [asyncio.create_task(client.post(CHAT)) for _ in range(5)]
    async with asyncio.timeout(SOON_S):
        while not fakes.tasks.stored:  # noqa: ASYNC110  # stored by another task
            await asyncio.sleep(0)
    (task,) = fakes.tasks.stored
    assert fakes.rate.spent == [("acme", 1)]
    assert (task.tenant_id, task.task_type) == ("acme", "TEXT")
    assert json.loads(task.payload) == {
        "prompt": "feature support, chat c 1", "chat": {"featureId": "support", "chatId": "c 1"},
    }  # fmt: skip
    done = view(task, status="CANCELLED", completed_at=time.time())
    fakes.tasks.rows[task.task_id] = done
    fakes.tasks.histories[task.task_id] = History(done, 2)
    async with asyncio.timeout(SOON_S):
        while fakes.hub.followers < 5 and not all(each.done() for each in starting):  # noqa: ASYNC110
            await asyncio.sleep(0)
        fakes.hub.hear([Notice("acme", Event(task.task_id, 2, Kind.CANCELLED, NOW))])
        answers = await asyncio.gather(*starting)
    assert len(fakes.tasks.stored) == 1
    assert [ticket.task_id for ticket in fakes.queue.announced] == [task.task_id]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert [frames_of(answer.text)[-1] for answer in answers] == ["[DONE]"] * 5


@pytest.mark.parametrize("path", [CHAT, STREAM])
async def test_who_joins_is_not_asked_at_the_door(fakes: Fakes, client: httpx.AsyncClient, path: str) -> None:
    for key in (KEY, ("acme", "night")):
        run(fakes, key)
    end(fakes, "")
    fakes.rate.says = Limited(1.0, 0)
    assert (await post(client, path, json=TEXT)).status_code == 200
    assert not fakes.tasks.stored


@pytest.mark.parametrize("path", [CHAT, STREAM])
async def test_who_starts_passes_the_door(fakes: Fakes, client: httpx.AsyncClient, path: str) -> None:
    fakes.rate.says = Limited(1.0, 0)
    answer = await post(client, path, json=TEXT)
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert not fakes.tasks.stored
    assert not fakes.names.rows


async def test_two_tenants_do_not_meet_in_one_chat(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    write(fakes, "a secret")
    starting = asyncio.create_task(client.post(CHAT.replace("acme", "other")))
    async with asyncio.timeout(SOON_S):
        while not fakes.tasks.stored:  # noqa: ASYNC110  # stored by another task
            await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert fakes.names.rows == {KEY: ONE, ("other", "support:c 1"): fakes.tasks.stored[0].task_id}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "FAILED", "error_code": "boom", "error_message": "it broke"}, "boom"),
        ({"status": "CANCELLED"}, "task_cancelled"),
    ],
)
async def test_a_chat_whose_task_does_not_complete_ends_with_an_error_and_done(
    fakes: Fakes, client: httpx.AsyncClient, fields: dict[str, Any], code: str
) -> None:
    run(fakes)
    write(fakes, "Message 0\n")
    end(fakes, result=None, **fields)
    message, error, done = frames_of((await post(client, CHAT)).text)
    assert json.loads(message)["message"] == "Message 0"
    assert json.loads(error)["error"]["code"] == code
    assert done == "[DONE]"


async def test_a_chat_in_which_nothing_comes_lets_its_reader_go(
    fakes: Fakes, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ChatFrames", lambda chat, patience_s: ChatFrames(chat, 0.01))
    run(fakes)
    write(fakes, "Message 0\n")
    message, error, done = frames_of((await post(client, CHAT)).text)
    assert json.loads(message)["message"] == "Message 0"
    assert json.loads(error)["error"]["code"] == "stream_silent"
    assert done == "[DONE]"


@pytest.mark.parametrize("kept", [(), ("Message 0\n",)])
async def test_messages_that_the_stream_lost_come_from_the_result(
    fakes: Fakes, client: httpx.AsyncClient, kept: tuple[str, ...]
) -> None:
    run(fakes)
    write(fakes, *kept)
    end(fakes, "Message 0\nMessage 1")
    *messages, done = frames_of((await post(client, CHAT)).text)
    assert [(json.loads(each)["id"], json.loads(each)["message"]) for each in messages] == [
        ("0", "Message 0"), ("1", "Message 1"),
    ]  # fmt: skip
    assert done == "[DONE]"


async def test_a_chat_that_begins_anew_is_counted_anew(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    write(fakes, "a\n", "b\n")
    write(fakes, "a\n", "x", attempt=2)
    end(fakes, "a\nx")
    text = (await post(client, CHAT)).text
    before, after = text.split(": restart\n\n")
    for part, messages in ((before, ["a", "b"]), (after, ["a", "x"])):
        said = [json.loads(each) for each in frames_of(part) if each != "[DONE]"]
        assert [(each["id"], each["message"]) for each in said] == [("0", messages[0]), ("1", messages[1])]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("chat_id=c", "/feature_id"), ("feature_id=f", "/chat_id"), ("feature_id=&chat_id=c", "/feature_id"),
        (f"feature_id=f&chat_id={'x' * 129}", "/chat_id"), ("feature_id=f%00&chat_id=c", "/feature_id"),
        ("feature_id=f&chat_id=c&tenant_id=%20", "/tenant_id"),
    ],
)  # fmt: skip
async def test_a_chat_that_cannot_be_named_is_refused(client: httpx.AsyncClient, query: str, pointer: str) -> None:
    answer = await post(client, f"/stream?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_open_flik_takes_a_chat_without_a_tenant(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes, ("demo", "f:c"))
    end(fakes, "")
    assert (await post(client, "/stream?feature_id=f&chat_id=c")).text == "data: [DONE]\n\n"


# ---- by name, natively


async def test_a_stream_is_the_events_of_its_task_with_the_text(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes, ("acme", "night"))
    write(fakes, "a", "b")
    end(fakes, "ab")
    for answer in (await post(client, STREAM, json=TEXT), await client.get(STREAM)):
        said = messages_of(answer.text)
        assert [each.name for each in said] == ["queued", "processing", "chunk", "chunk", "completed"]
        assert [each.last_id for each in said] == ["1", "2", "2.0", "2.1", "3.1"]
        assert json.loads(said[3].data) | {"timestamp": ""} == {
            "taskId": ONE, "event": "chunk", "status": "PROCESSING", "timestamp": "", "attempt": 1, "workerId": "w1",
            "version": "v1", "text": "b", "index": 1,
        }  # fmt: skip


async def test_a_stream_that_nobody_started_cannot_be_joined(client: httpx.AsyncClient) -> None:
    answer = await client.get(STREAM)
    assert (answer.status_code, answer.json()["code"]) == (404, "stream_not_found")


async def test_what_a_stream_is_started_with_is_a_payload(fakes: Fakes, client: httpx.AsyncClient) -> None:
    starting = asyncio.create_task(client.post(STREAM, json={"prompt": "rain", "maxWords": 9}))
    async with asyncio.timeout(SOON_S):
        while not fakes.tasks.stored:  # noqa: ASYNC110  # stored by another task
            await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert json.loads(fakes.tasks.stored[0].payload) == {"prompt": "rain", "maxWords": 9}
    for body, pointer in (({}, "/prompt"), ([], ""), ({"prompt": "a", "colour": 1}, "/colour")):
        answer = await post(client, "/api/v1/streams/other?tenantId=acme", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize("key", ["-a", "a b", "x" * 256, "a%0A", "%C3%A4"])
async def test_a_name_that_is_none_is_refused(client: httpx.AsyncClient, key: str) -> None:
    for answer in (
        await client.get(f"/api/v1/streams/{key}?tenantId=acme"),
        await post(client, f"/api/v1/streams/{key}?tenantId=acme", json=TEXT),
    ):
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/key")


async def test_whose_stream_it_is_must_be_known(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/streams/night")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/tenantId")


# ---- chunks in the events of a task

EVENTS = f"/api/v1/tasks/{ONE}/events"


@pytest.mark.parametrize(
    ("cursor", "said"),
    [
        ("", ["queued", "processing", "a", "b", "c", "completed"]), ("2", ["a", "b", "c", "completed"]),
        ("2.0", ["b", "c", "completed"]), ("2.2", ["completed"]), ("1.1", ["processing", "c", "completed"]),
    ],
)  # fmt: skip
async def test_who_comes_back_goes_on_after_its_last_chunk(
    fakes: Fakes, client: httpx.AsyncClient, cursor: str, said: list[str]
) -> None:
    run(fakes)
    write(fakes, "a", "b", "c")
    end(fakes, "abc")
    streamed = await client.get(f"{EVENTS}?chunks=true", headers={"Last-Event-ID": cursor} if cursor else {})
    shown = [json.loads(each.data).get("text") or each.name for each in messages_of(streamed.text)]
    assert shown == said
    since, _, chunk = (cursor or "0").partition(".")
    page = await client.get(f"{EVENTS}?chunks=true&since={since}" + (f"&chunk={chunk}" if chunk else ""))
    assert [each.get("text") or each["event"] for each in page.json()["events"]] == said
    assert (page.json()["lastSeq"], page.json()["lastChunk"], page.json()["ended"]) == (3, 2, True)


async def test_who_has_seen_the_end_need_not_come_again(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    write(fakes, "a")
    end(fakes, "a")
    answer = await client.get(f"{EVENTS}?chunks=true", headers={"Last-Event-ID": "3.0"})
    assert answer.status_code == 204


async def test_without_asking_for_chunks_there_are_none(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    write(fakes, "a")
    end(fakes, "a")
    answer = await client.get(EVENTS, headers={"Last-Event-ID": "1.0"})
    assert [(each.name, each.last_id) for each in messages_of(answer.text)] == [("processing", "2"), ("completed", "3")]


@pytest.mark.parametrize("cursor", ["1.", ".1", "1.x", "x.1", "1.2.3", "99999999999.1"])
async def test_a_cursor_that_is_none_is_refused(fakes: Fakes, client: httpx.AsyncClient, cursor: str) -> None:
    run(fakes)
    answer = await client.get(f"{EVENTS}?chunks=true", headers={"Last-Event-ID": cursor})
    assert answer.status_code == 422


async def test_chunks_are_asked_for_with_true(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    answer = await client.get(f"{EVENTS}?chunks=yes")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/chunks")


@asynccontextmanager
async def asking(client: httpx.AsyncClient, path: str) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    asked = asyncio.create_task(client.get(path))
    yield asked
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_long_poll_ends_with_the_first_chunk(fakes: Fakes, client: httpx.AsyncClient) -> None:
    run(fakes)
    async with asking(client, f"{EVENTS}?chunks=true&since=2&wait=20s") as asked, asyncio.timeout(SOON_S):
        while not fakes.hub.followers:  # noqa: ASYNC110  # entered by another task
            await asyncio.sleep(0)
        event = Event(ONE, 0, Kind.CHUNK, NOW, 1, "w1", "v1", text="a", chunk_index=0)
        fakes.hub.hear([Notice("acme", event)])
        page = (await asked).json()
    assert [(each["text"], each["index"]) for each in page["events"]] == [("a", 0)]
    assert (page["lastSeq"], page["lastChunk"], page["ended"]) == (2, 0, False)
