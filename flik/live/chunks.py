"""The texts of tasks while they are written: one stream a task in Redis, told to followers as it grows.

Writers (model replicas) gather for `GATHER_S`, then all their tasks' chunks go to Redis in one round trip; what
a write may do is decided there (`chunks.lua`), so that a repeat or an attempt that was given up changes nothing.
While Redis is away nothing is sent and nothing is lost: a running task's chunks stay with it, bounded, and are
sent when Redis is back, or never if the task ends before. A stream that Redis lost is written again.

A stream expires `ttl_s` after its end; one without an end, `SAFETY_TTL_S` after its last chunk.

Metrics: flik_breaker_*, of the dependency redis.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from redis.exceptions import NoScriptError, RedisError

from flik.domain import chat as chats
from flik.domain.chat import Chat
from flik.domain.chunk import (
    CHUNK,
    END,
    RESTART,
    Chunk,
    Draft,
    Missing,
    Refused,
    Reply,
    Taken,
    Write,
    Written,
    event_of,
)
from flik.domain.event import Event, Notice
from flik.domain.task import Grant, Worker
from flik.errors import Unavailable
from flik.guard import Guard
from flik.live import keys
from flik.live.connect import connect
from flik.live.feed import pack
from flik.live.results import BREAKER, verdict_of
from flik.telemetry import Metrics

SCRIPT = Path(__file__).with_name("chunks.lua").read_text(encoding="utf-8")
GATHER_S = 0.03
MAX_CHUNKS_A_WRITE = 500
SAFETY_TTL_S = 600
END_WITHIN_S = 0.25  # so long a task waits at most until its last chunks are in the stream
PAUSE_S = 0.25
MAX_UNFINISHED = 1_000  # texts that are closed, with something still to send


class Writing:
    """The text of one attempt on its way."""

    def __init__(self, writer: ChunkWriter, grant: Grant, worker: Worker, chat: Chat | None) -> None:
        self.task_id = grant.task_id
        self.tenant_id = grant.tenant_id
        self.chat = chat
        self.draft = Draft(grant.attempt, secrets.token_hex(8), worker.worker_id, worker.version)
        self.settled = asyncio.Event()  # nothing waits to be sent, or never will be
        self._writer = writer
        self._is_used = False

    def add(self, text: str) -> None:
        """Send the next piece on its way; returns at once."""
        self._is_used = True
        self.draft.add(text, time.time())
        self._writer.note(self)

    async def end(self) -> None:
        """Note that the text is whole; return when followers can have it, or after `END_WITHIN_S`."""
        if not self._is_used or self.draft.stopped:
            return
        self.draft.end(time.time())
        await self._writer.finish(self)

    def close(self) -> None:
        """Nothing more comes of this attempt."""
        if self._is_used:
            self._writer.forget(self)


class ChunkWriter:
    """Writes texts. Not thread-safe: it lives on one event loop. `ttl_s`: how long a stream stays after its end."""

    def __init__(self, url: str, worker: Worker, *, ttl_s: int, measured: Metrics | None = None) -> None:
        self._worker = worker
        self._ttl_s = ttl_s
        self._redis = connect(url)
        self._script = ""  # its digest, when the server has it
        self._guard = Guard("redis", self._answer, BREAKER, verdict_of=verdict_of, measured=measured)
        self._waiting: dict[Writing, None] = {}
        self._closed: set[Writing] = set()
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop; what was not sent is dropped."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._guard.close()
        await self._redis.aclose()

    def begin(self, grant: Grant, payload: Mapping[str, Any]) -> Writing:
        """Return where the text of an attempt goes; nothing is sent before there is some."""
        named = payload.get("chat")
        return Writing(self, grant, self._worker, Chat(named["feature_id"], named["chat_id"]) if named else None)

    def note(self, writing: Writing) -> None:
        """Note that a text may have something to send."""
        if not writing.draft.waits:
            return
        self._waiting[writing] = None
        writing.settled.clear()
        self._wanted.set()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._run(), name="chunks")

    async def finish(self, writing: Writing) -> None:
        """Send at once, and wait a little until it is sent."""
        self.note(writing)
        if writing.draft.waits and self._guard.closed:
            self._urgent.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_WITHIN_S):
                    await writing.settled.wait()

    def forget(self, writing: Writing) -> None:
        """Let go of a text when what it waits to send is sent; at once while Redis is away."""
        if writing not in self._waiting:
            return
        if self._guard.closed and len(self._closed) < MAX_UNFINISHED:
            self._closed.add(writing)
            self._urgent.set()
        else:
            self._drop(writing)

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._urgent.wait()
            self._urgent.clear()
            if not await self._send():
                await asyncio.sleep(PAUSE_S)

    async def _send(self) -> bool:
        """Make one write for each text that has something to send; return False when Redis is away."""
        writes = [(each, write) for each in self._waiting if (write := each.draft.next_write(MAX_CHUNKS_A_WRITE))]
        try:
            replies = await self._write(writes) if writes else []
        except (Unavailable, RedisError, OSError):
            for writing in list(self._closed):
                self._drop(writing)
            return False
        for (writing, _), reply in zip(writes, replies, strict=True):
            if reply is None:
                writing.draft.stopped = True
            else:
                writing.draft.heed(reply)
        for writing in [each for each in self._waiting if not each.draft.waits]:
            self._drop(writing)
        return True

    async def _write(self, writes: Sequence[tuple[Writing, Write]]) -> list[Reply | None]:
        """Return what became of each write; None for one that Redis cannot take."""
        with self._guard.call(verdict_of):
            self._script = self._script or await self._redis.script_load(SCRIPT)
            pipeline = self._redis.pipeline(transaction=False)
            for writing, write in writes:
                names = [keys.chunks(writing.task_id)]
                if writing.chat is not None:
                    names.append(keys.chat(writing.tenant_id, *writing.chat))
                pipeline.evalsha(self._script, len(names), *names, *self._arguments(writing, write))
            replies = await pipeline.execute(raise_on_error=False)
            for failure in replies:
                if isinstance(failure, NoScriptError):  # it is another server, or it was started again
                    self._script = ""
                    raise failure
        return [None if isinstance(each, Exception) else _reply(each) for each in replies]

    def _arguments(self, writing: Writing, write: Write) -> list[Any]:
        whole = write.chunks[-1].kind == END
        told = [event_of(writing.task_id, write.first + place, chunk) for place, chunk in enumerate(write.chunks)]
        arguments = [
            write.attempt, write.run, write.first, write.mode.value, self._ttl_s if whole else SAFETY_TTL_S,
            keys.EVENTS, pack(Notice(writing.tenant_id, event._replace(attempt=write.attempt)) for event in told),
        ]  # fmt: skip
        for chunk, data in zip(write.chunks, _messages(writing, write), strict=True):
            arguments += [chunk.kind, chunk.text, chunk.worker_id, chunk.version, f"{chunk.at:.6f}", data]
        return arguments

    def _drop(self, writing: Writing) -> None:
        self._waiting.pop(writing, None)
        self._closed.discard(writing)
        writing.settled.set()
        if not self._waiting:
            self._wanted.clear()

    async def _answer(self) -> None:
        """Probe."""
        await self._redis.ping()


class ChunkReader:
    """Reads the streams of texts."""

    def __init__(self, url: str, *, measured: Metrics | None = None) -> None:
        self._redis = connect(url)
        self._guard = Guard("redis", self._answer, BREAKER, verdict_of=verdict_of, measured=measured)

    async def close(self) -> None:
        """Close the connections."""
        self._guard.close()
        await self._redis.aclose()

    async def read(self, task_id: str, first: int = 0) -> list[Event] | None:
        """Return the chunks of a task from number `first` on; None while Redis is away."""
        try:
            with self._guard.call(verdict_of):
                entries: Any = await self._redis.xrange(keys.chunks(task_id), f"{first + 1}-0", "+")
        except (Unavailable, RedisError, OSError):
            return None
        return [event_of(task_id, *_entry(each)) for each in entries]

    async def _answer(self) -> None:
        """Probe."""
        await self._redis.ping()


def _messages(writing: Writing, write: Write) -> list[str]:
    """Return the chunks of a write as messages of the earlier streaming system; empty texts without a chat."""
    if writing.chat is None:
        return [""] * len(write.chunks)
    number, said = 0, []
    for chunk in writing.draft.chunks[: write.first + len(write.chunks)]:
        data = chats.DONE if chunk.kind == END else ""
        if chunk.kind == CHUNK:
            content = chats.message(writing.chat, number, chunk)
            data = orjson.dumps(content).decode()
        number = 0 if chunk.kind == RESTART else number + (chunk.kind == CHUNK)
        said.append(data)
    return said[write.first :]


def _reply(raw: Sequence[Any]) -> Reply:
    word, *rest = raw
    if word == b"WRITTEN":
        return Written(int(rest[0]))
    if word == b"TAKEN":
        entries = [(entry_id, _fields(flat)) for entry_id, flat in rest[1]]
        return Taken(int(rest[0]), [_entry(entry)[1] for entry in entries])
    return Missing() if word == b"MISSING" else Refused()


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entry(entry: tuple[bytes, Mapping[bytes, bytes]]) -> tuple[int, Chunk]:
    entry_id, fields = entry
    text = {name.decode(): value.decode("utf-8", "replace") for name, value in fields.items()}
    chunk = Chunk(text["kind"], text["text"], int(text["attempt"]), text["worker"], text["version"], float(text["at"]))
    return int(entry_id.partition(b"-")[0]) - 1, chunk
