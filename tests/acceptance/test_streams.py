"""Streams of text: one task however many ask, the same for everybody, whatever is killed or emptied meanwhile."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis
from websockets.sync.client import connect

from flik.client import FlikClient
from tests.acceptance.running import RunningFlik, eventually, task
from tests.acceptance.test_idempotency import AT_ONCE as HERD
from tests.acceptance.test_idempotency import ONE, Herd, client_of, ids_of, unique_prompt

pytestmark = pytest.mark.timeout(300)
AT_ONCE = 50
MESSAGES = 20
SOON_S = 60.0


@pytest.fixture(scope="module")
def flik(data_folder: Path) -> Iterator[RunningFlik]:
    """Flik with two gateways and two writers, whose texts take a few seconds; short retries and a short memory."""
    running = RunningFlik(
        data_folder / "streams",
        FLIK_GATEWAY_REPLICAS="2",
        FLIK_MODEL_REPLICAS="2",
        FLIK_SIMULATED_SPEED="0.4",
        FLIK_STREAM_TTL_S="3",
        FLIK_RETRY_DELAYS_S="0.2,0.4,0.6",
    ).start()
    running.tenant("tests")
    yield running
    running.stop()


@asynccontextmanager
async def session(flik: RunningFlik) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        flik.url,
        headers={"Authorization": f"Bearer {flik.key}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(SOON_S),
    ) as client:
        yield client


class Reader:
    """Reads one chat's stream to its end."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.grew = asyncio.Event()

    async def read(self, client: aiohttp.ClientSession, chat_id: str, tenant_id: str = "tests") -> list[str]:
        query = {"feature_id": "support", "chat_id": chat_id, "tenant_id": tenant_id}
        while not await self._try(client, query):  # noqa: ASYNC110  # the limiter hears of a new or emptied Redis
            await asyncio.sleep(0.5)
        return self.frames

    async def _try(self, client: aiohttp.ClientSession, query: dict[str, str]) -> bool:
        """Read the stream; return False when it is to be asked for again, as a client should."""
        async with client.post("/stream", params=query) as answer:
            if answer.status in (429, 503):
                return False
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: "):
                    self.frames.append(line.decode().removeprefix("data: ").strip())
                    self.grew.set()
        return True

    async def until(self, count: int) -> None:
        async with asyncio.timeout(SOON_S):
            while len(self.frames) < count:
                self.grew.clear()
                await self.grew.wait()


def new_chat() -> str:
    return f"chat-{uuid.uuid4().hex[:8]}"


def assert_whole(frames: list[str], chat_id: str) -> None:
    *messages, done = frames
    assert done == "[DONE]"
    said = [json.loads(each) for each in messages]
    assert [(each["id"], each["message"]) for each in said] == [
        (str(number), f"Message {number} from feature support, chat {chat_id}") for number in range(MESSAGES)
    ]
    assert all(each["container_id"] and each["timestamp"] and each["worker"] == "flik" for each in said)


def tasks_of(flik: RunningFlik, chat_id: str) -> list[tuple[Any, ...]]:
    return flik.query(
        f"SELECT task_id::text, status::text, attempt FROM tasks WHERE payload->'chat'->>'chatId' = '{chat_id}'"
    )


def valkey(flik: RunningFlik) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(flik.data_dir.resolve() / "valkey" / "valkey.sock"), decode_responses=True)


async def test_many_callers_at_one_moment_get_one_stream(flik: RunningFlik) -> None:
    chat_id = new_chat()
    async with session(flik) as client:
        async with asyncio.timeout(SOON_S):
            streams = await asyncio.gather(*(Reader().read(client, chat_id) for _ in range(AT_ONCE)))
        late = await Reader().read(client, chat_id)  # it is over, and still there
    assert_whole(streams[0], chat_id)
    assert all(stream == streams[0] for stream in [*streams, late])
    ((task_id, status, attempt),) = tasks_of(flik, chat_id)
    assert (status, attempt) == ("COMPLETED", 1)
    assert {json.loads(each)["container_id"] for each in late[:-1]} == {flik.get(task_id)["workerId"]}


async def test_a_stream_can_be_inspected_and_is_forgotten_after_its_end(flik: RunningFlik) -> None:
    chat_id = new_chat()
    key = f"stream:tests:support:{chat_id}"
    async with session(flik) as client:
        frames = await Reader().read(client, chat_id)
        with valkey(flik) as server:
            assert server.xlen(key) == MESSAGES + 1
            entries: Any = server.xrange(key, "-", "+")
            assert [fields["data"] for _, fields in entries][-1] == "[DONE]"
            assert [json.loads(fields["data"]) for _, fields in entries[:-1]] == [json.loads(f) for f in frames[:-1]]
            eventually(lambda: not server.exists(key), within_s=10, what="the end of the stream's time")
        eventually(lambda: _is_free(flik, f"support:{chat_id}"), within_s=10, what="the end of the name's time")
        assert_whole(await Reader().read(client, chat_id), chat_id)
    assert len(tasks_of(flik, chat_id)) == 2


def _is_free(flik: RunningFlik, key: str) -> bool:
    return flik.http.get(f"/api/v1/streams/{key}", params={"tenantId": "tests", "since": 0}).status_code == 404


async def test_chats_run_side_by_side_and_tenants_do_not_meet(flik: RunningFlik) -> None:
    chats = [new_chat() for _ in range(4)]
    flik.tenant("other")
    async with session(flik) as client, asyncio.timeout(SOON_S):
        reading = [Reader().read(client, chat, tenant) for chat in chats for tenant in ("tests", "other")]
        for frames, chat in zip(
            await asyncio.gather(*reading), [each for each in chats for _ in range(2)], strict=True
        ):
            assert_whole(frames, chat)
    assert all(len(tasks_of(flik, chat)) == 2 for chat in chats)


@pytest.mark.chaos
async def test_when_the_writer_is_killed_another_goes_on_where_it_was(flik: RunningFlik) -> None:
    chat_id = new_chat()
    async with session(flik) as client:
        readers = [Reader() for _ in range(AT_ONCE)]
        reading = [asyncio.create_task(each.read(client, chat_id)) for each in readers]
        await readers[0].until(5)
        ((task_id, _, _),) = tasks_of(flik, chat_id)
        killed = flik.get(task_id)["workerId"]
        pid = int(killed.split(":")[1])
        (process,) = [each for each in flik.find("text") if each.pid == pid]
        process.kill()
        async with asyncio.timeout(SOON_S):
            streams = await asyncio.gather(*reading)
    assert_whole(streams[0], chat_id)
    assert all(stream == streams[0] for stream in streams)
    containers = [json.loads(each)["container_id"] for each in streams[0][:-1]]
    assert containers[0] == killed
    assert containers[-1] != killed
    ((_, status, attempt),) = tasks_of(flik, chat_id)
    assert (status, attempt) == ("COMPLETED", 2)


@pytest.mark.chaos
async def test_when_redis_is_emptied_the_streams_are_whole_all_the_same(flik: RunningFlik) -> None:
    chat_id = new_chat()
    async with session(flik) as client:
        early = [Reader() for _ in range(10)]
        reading = [asyncio.create_task(each.read(client, chat_id)) for each in early]
        await early[0].until(5)
        with valkey(flik) as server:
            server.flushall()
        reading += [asyncio.create_task(Reader().read(client, chat_id)) for _ in range(10)]
        async with asyncio.timeout(SOON_S):
            streams = await asyncio.gather(*reading)
    for frames in streams:
        assert_whole(frames, chat_id)
    ((_, status, attempt),) = tasks_of(flik, chat_id)
    assert (status, attempt) == ("COMPLETED", 1)


@pytest.mark.chaos
async def test_when_redis_is_killed_readers_end_and_the_task_completes(flik: RunningFlik) -> None:
    chat_id = new_chat()
    async with session(flik) as client:
        readers = [Reader() for _ in range(5)]
        reading = [asyncio.create_task(each.read(client, chat_id)) for each in readers]
        await readers[0].until(5)
        flik.kill("valkey")
        async with asyncio.timeout(SOON_S):
            streams = await asyncio.gather(*reading)
    for frames in streams:
        assert_whole(frames, chat_id)
    ((_, status, attempt),) = tasks_of(flik, chat_id)
    assert (status, attempt) == ("COMPLETED", 1)


async def test_a_chat_whose_task_is_cancelled_ends_with_an_error(flik: RunningFlik) -> None:
    chat_id = new_chat()
    async with session(flik) as client:
        reader = Reader()
        reading = asyncio.create_task(reader.read(client, chat_id))
        await reader.until(2)
        ((task_id, _, _),) = tasks_of(flik, chat_id)
        assert flik.http.post(f"/api/v1/tasks/{task_id}/cancel").status_code == 200
        async with asyncio.timeout(SOON_S):
            *_, error, done = await reading
    assert json.loads(error)["error"]["code"] == "task_cancelled"
    assert done == "[DONE]"


@pytest.mark.parametrize("path", ["/ws/json", "/ws"])
def test_a_text_is_followed_over_a_websocket(flik: RunningFlik, path: str) -> None:
    task_id = flik.submit("TEXT", payload={"prompt": "a night at sea", "maxWords": 60})
    events: list[dict[str, Any]] = []
    headers = {"Authorization": f"Bearer {flik.key}"}
    with connect(f"{flik.url.replace('http', 'ws')}{path}", additional_headers=headers, proxy=None) as socket:
        if path == "/ws":
            socket.send("CONNECT\naccept-version:1.2\nhost:flik\n\n\0")
            socket.send(f"SUBSCRIBE\nid:s\ndestination:/topic/tasks/{task_id}\nchunks:true\n\n\0")
        else:
            socket.send(json.dumps({"type": "subscribe", "id": "a", "taskId": task_id, "chunks": True}))
        while not events or events[-1]["event"] != "completed":
            text = str(socket.recv(timeout=SOON_S))
            if path == "/ws" and text.startswith("MESSAGE"):
                events.append(json.loads(text.partition("\n\n")[2].removesuffix("\0")))
            elif path == "/ws/json" and "event" in (said := json.loads(text)):
                events.append(said["event"])
    pieces = [event["text"] for event in events if event["event"] == "chunk"]
    assert "".join(pieces) == events[-1]["result"]["text"]
    assert len(pieces) > 1
    assert [event["index"] for event in events if event["event"] == "chunk"] == list(range(len(pieces)))


async def test_a_text_is_followed_by_name_and_comes_back_together(flik: RunningFlik) -> None:
    name = f"night-{uuid.uuid4().hex[:8]}"
    async with FlikClient(flik.url, flik.key, "tests") as client:
        events = [event async for event in client.stream(name, {"prompt": "a night at sea", "maxWords": 60})]
        again = [event async for event in client.stream(name)]
        task = await client.get(events[0].task_id or "")
    for each in (events, again):
        pieces = [event.text or "" for event in each if event.kind == "chunk"]
        assert each[-1].kind == "completed"
        assert "".join(pieces) == task.text
        assert len(pieces) > 5


# ---- one Idempotency-Key over the same two gateways


@pytest.mark.chaos
@pytest.mark.parametrize("answered", [0, 1, 250])
async def test_one_task_and_one_answer_also_when_the_gateways_are_killed_in_the_middle(
    flik: RunningFlik, answered: int
) -> None:
    eventually(lambda: len(flik.find("gateway")) == 2, within_s=30, what="the start of both gateways")
    eventually(lambda: flik.http.get("/health").status_code == 200, within_s=30, what="health")
    prompt = unique_prompt()
    async with client_of(flik) as client:
        herd = Herd(client, ONE, task(payload={"prompt": prompt, "script": {"durationS": 0}}))
        gateways = flik.find("gateway")
        running = asyncio.create_task(herd.run())
        await herd.until_answered(answered)
        for gateway in gateways:
            gateway.kill()
        assert len(herd.answers) < HERD
        await running
    herd.assert_one_answer(202)
    assert ids_of(flik, prompt) == [herd.answers[0].json()["taskId"]]
    assert flik.wait(herd.answers[0].json()["taskId"])["status"] == "COMPLETED"
