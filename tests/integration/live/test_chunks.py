"""The stream of a text in a real Valkey: what may be written, what is heard and read, what happens while it is away."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from making import worker
from memory_chunks import MemoryStream

from flik.domain.chunk import Chunk, Mode, Write
from flik.domain.event import Event, Kind, Notice
from flik.domain.task import Grant
from flik.embedded import EmbeddedValkey
from flik.live import keys
from flik.live.chunks import SAFETY_TTL_S, ChunkReader, ChunkWriter, Writing
from flik.live.feed import FeedReader

TTL_S = 60
SOON_S = 10.0
W1 = worker("w1")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="flik-test-") as folder:
        server = EmbeddedValkey(Path(folder) / "data")
        server.start()
        yield server
        server.stop()


@pytest.fixture
def there(server: EmbeddedValkey) -> Iterator[redis.Redis]:
    """A client of the test's own."""
    with redis.Redis.from_url(server._url(), decode_responses=True) as client:
        yield client


@pytest.fixture
async def writer(server: EmbeddedValkey) -> AsyncIterator[ChunkWriter]:
    writer = ChunkWriter(server._url(), W1, ttl_s=TTL_S)
    yield writer
    await writer.close()


@pytest.fixture
async def reader(server: EmbeddedValkey) -> AsyncIterator[ChunkReader]:
    reader = ChunkReader(server._url())
    yield reader
    await reader.close()


def grant(attempt: int = 1, task_id: str = "") -> Grant:
    return Grant(task_id or str(uuid4()), "token", "ac:me", "TEXT", 1, attempt, "{}", 60.0, 120.0)


CHAT = {"chat": {"feature_id": "support", "chat_id": "c 1", "messages": 20}}


async def texts(reader: ChunkReader, task_id: str, first: int = 0) -> list[str]:
    events = await reader.read(task_id, first)
    assert events is not None
    return [event.text or event.kind for event in events]


async def sent(writing: Writing) -> None:
    async with asyncio.timeout(SOON_S):
        while writing.draft.waits:  # noqa: ASYNC110  # sent by a loop of its own
            await asyncio.sleep(0.01)


async def test_a_text_is_there_whole_when_its_end_is_noted(
    writer: ChunkWriter, reader: ChunkReader, there: redis.Redis
) -> None:
    given = grant()
    writing = writer.begin(given, {})
    for piece in ("a", "b", "c"):
        writing.add(piece)
    await writing.end()
    writing.close()
    assert await texts(reader, given.task_id) == ["a", "b", "c", "chunk"]
    assert await texts(reader, given.task_id, 2) == ["c", "chunk"]
    assert 0 < there.ttl(keys.chunks(given.task_id)) <= TTL_S
    entries: Any = there.xrange(keys.chunks(given.task_id))
    assert [entry_id for entry_id, _ in entries] == ["1-0", "2-0", "3-0", "4-0"]
    fields = ("attempt", "worker", "version", "kind", "text")
    assert [entries[0][1][name] for name in fields] == ["1", "w1", "v1", "chunk", "a"]


async def test_what_is_written_is_heard_in_order(server: EmbeddedValkey, writer: ChunkWriter) -> None:
    heard, live, changed = list[Notice](), list[bool](), asyncio.Event()

    def hear(notices: Any) -> None:
        heard.extend(notices)
        changed.set()

    def note_live(is_live: bool) -> None:
        live.append(is_live)
        changed.set()

    listening = asyncio.create_task(FeedReader(server._url(), hear, note_live).run())
    given = grant()
    writing = writer.begin(given, {})
    async with asyncio.timeout(SOON_S):
        while not live:
            await changed.wait()
        writing.add("a")
        writing.add("b")
        while len(heard) < 2:
            changed.clear()
            await changed.wait()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert [(notice.tenant_id, notice.event.text, notice.event.chunk_index) for notice in heard] == [
        ("ac:me", "a", 0), ("ac:me", "b", 1),
    ]  # fmt: skip
    assert {notice.event.kind for notice in heard} == {Kind.CHUNK}


async def test_an_unfinished_text_is_kept_longer(writer: ChunkWriter, there: redis.Redis) -> None:
    given = grant()
    writing = writer.begin(given, {})
    writing.add("a")
    await sent(writing)
    assert TTL_S < there.ttl(keys.chunks(given.task_id)) <= SAFETY_TTL_S


async def test_the_next_attempt_goes_on_and_the_last_one_changes_nothing(
    server: EmbeddedValkey, writer: ChunkWriter, reader: ChunkReader
) -> None:
    given = grant()
    first, second = writer.begin(given, {}), writer.begin(given._replace(attempt=2), {})
    first.add("a")
    await sent(first)
    second.add("a")
    second.add("b")
    await second.end()
    first.add("z")
    await sent(first)
    assert first.draft.stopped
    assert await texts(reader, given.task_id) == ["a", "b", "chunk"]


async def test_a_chat_stands_there_as_the_earlier_system_had_it(writer: ChunkWriter, there: redis.Redis) -> None:
    given = grant()
    writing = writer.begin(given, CHAT)
    for number in range(3):
        writing.add(f"hello {number}\n")
    await writing.end()
    key = "stream:ac%3Ame:support:c 1"
    assert there.xlen(key) == 4
    entries: Any = there.xrange(key)
    *messages, done = [fields["data"] for _, fields in entries]
    assert done == "[DONE]"
    assert [json.loads(each)["message"] for each in messages] == ["hello 0", "hello 1", "hello 2"]
    said = json.loads(messages[2])
    timestamp = said.pop("timestamp")
    assert timestamp.endswith("+00:00")
    assert said == {
        "id": "2", "feature_id": "support", "chat_id": "c 1", "message": "hello 2", "container_id": "w1",
        "container_feature_id": "text-v1", "worker": "flik",
    }  # fmt: skip
    assert 0 < there.ttl(key) <= TTL_S
    again = writer.begin(grant(), CHAT)  # a new task of the same chat
    again.add("anew")
    await sent(again)
    assert there.xlen(key) == 1


async def test_another_text_begins_a_chat_anew(writer: ChunkWriter, there: redis.Redis) -> None:
    given = grant()
    first, second = writer.begin(given, CHAT), writer.begin(given._replace(attempt=2), CHAT)
    first.add("a\n")
    await sent(first)
    second.add("x\n")
    second.add("y\n")
    await second.end()
    entries: Any = there.xrange(keys.chat(given.tenant_id, "support", "c 1"))
    messages = [json.loads(fields["data"]) for _, fields in entries[:-1]]
    assert [(each["id"], each["message"]) for each in messages] == [("0", "x"), ("1", "y")]


async def test_a_stream_that_was_lost_is_written_again(
    writer: ChunkWriter, reader: ChunkReader, there: redis.Redis
) -> None:
    given = grant()
    writing = writer.begin(given, {})
    writing.add("a")
    await sent(writing)
    there.flushall()
    writing.add("b")
    await writing.end()
    assert await texts(reader, given.task_id) == ["a", "b", "chunk"]


async def test_a_redis_that_starts_again_gets_what_it_missed(
    server: EmbeddedValkey, writer: ChunkWriter, reader: ChunkReader
) -> None:
    given = grant()
    writing = writer.begin(given, {})
    writing.add("a")
    await sent(writing)
    psutil.Process(server.pid).kill()
    server.stop()
    writing.add("b")
    async with asyncio.timeout(SOON_S):
        while writer._guard.closed:  # noqa: ASYNC110  # a breaker has no event
            await asyncio.sleep(0.01)
    assert await reader.read(given.task_id) is None
    server.start()
    await sent(writing)
    async with asyncio.timeout(SOON_S):
        while await reader.read(given.task_id) is None:  # noqa: ASYNC110  # its breaker asks in its own time
            await asyncio.sleep(0.01)
    assert await texts(reader, given.task_id) == ["a", "b"]


async def test_while_redis_is_away_a_task_waits_for_nothing_and_nothing_is_kept_of_it() -> None:
    writer = ChunkWriter("unix:///nowhere/redis.sock", W1, ttl_s=TTL_S)
    first = writer.begin(grant(), {})
    first.add("a")
    async with asyncio.timeout(SOON_S):
        while writer._guard.closed:  # noqa: ASYNC110  # a breaker has no event
            await asyncio.sleep(0.01)
        for _ in range(100):
            writing = writer.begin(grant(), {})
            writing.add("a")
            await writing.end()
            writing.close()
    first.close()
    assert not writer._waiting
    assert not writer._closed
    await writer.close()


async def test_a_frozen_redis_costs_a_task_little(server: EmbeddedValkey, writer: ChunkWriter) -> None:
    given = grant()
    writing = writer.begin(given, {})
    writing.add("a")
    await sent(writing)
    frozen = psutil.Process(server.pid)
    frozen.suspend()
    try:
        async with asyncio.timeout(1.0):  # the socket's own limit is as long
            writing.add("b")
            await writing.end()
    finally:
        frozen.resume()
    writing.close()


async def test_many_pieces_are_few_writes(writer: ChunkWriter, there: redis.Redis) -> None:
    given = grant()
    writing = writer.begin(given, {})
    there.config_resetstat()
    for number in range(1_000):
        writing.add(f"{number} ")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await writing.end()
    await sent(writing)  # the end waits for it, but not for long
    stats: Any = there.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 6
    assert there.xlen(keys.chunks(given.task_id)) == 1_001


# ---- the script against its stand-in

chunks = st.builds(
    Chunk, st.sampled_from(["chunk", "restart", "end"]), st.text("ab", max_size=2), st.just(1), st.just("w"),
    st.just("v"), st.just(1.0),
)  # fmt: skip
writes = st.builds(
    lambda attempt, run, first, mode, chunks: Write(attempt, f"{attempt}{run}", first, mode, chunks),
    st.integers(1, 3), st.integers(1, 2), st.integers(0, 4), st.sampled_from(list(Mode)),
    st.lists(chunks, min_size=1, max_size=2),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(writes, max_size=8))
def test_the_script_says_what_its_stand_in_says(valkey_url: str, writes: list[Write]) -> None:
    async def run() -> None:
        given, stream = grant(), MemoryStream()
        writer = ChunkWriter(valkey_url, W1, ttl_s=TTL_S)
        reader = ChunkReader(valkey_url)
        writing = writer.begin(given, {})
        for write in writes:
            assert await writer._write([(writing, write)]) == [stream.write(write)]
        read: list[Event] | None = await reader.read(given.task_id)
        assert read is not None
        assert [(event.text or "", event.attempt) for event in read] == [
            (chunk.text if chunk.kind != "restart" else "", chunk.attempt) for chunk in stream.chunks
        ]
        await writer.close()
        await reader.close()

    asyncio.run(run())
