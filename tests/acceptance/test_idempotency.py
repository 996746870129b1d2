"""One Idempotency-Key, 500 requests at once: one task, one answer. What kills the gateways is in test_streams.py."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.acceptance.running import RunningFlik, task

pytestmark = pytest.mark.timeout(300)
AT_ONCE = 500
ONE, MANY = "/api/v1/tasks", "/api/v1/tasks:batch"
COME_BACK = {409, 429, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; aiohttp, because 500 connections of httpx take longer than what they ask for."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


def client_of(flik: RunningFlik) -> aiohttp.ClientSession:
    """A client with as many connections as there are requests at once, whose tenant is there."""
    flik.tenant("tests")
    return aiohttp.ClientSession(
        flik.url,
        headers={"Authorization": flik.http.headers["Authorization"]},
        connector=aiohttp.TCPConnector(limit=AT_ONCE),
        timeout=aiohttp.ClientTimeout(60),
    )


async def post(client: aiohttp.ClientSession, path: str, body: Any, key: str) -> Answer:
    async with client.post(path, json=body, headers={"Idempotency-Key": key}) as answer:
        return Answer(answer.status, answer.headers.copy(), await answer.read())


def asks_to_come_back(answer: Answer) -> bool:
    """Return whether a client would send again; a 500 that is no problem is HAProxy's, whose gateway broke off."""
    if answer.status_code == 500:
        return not answer.headers.get("content-type", "").startswith("application/problem+json")
    return answer.status_code in COME_BACK


class Herd:
    """Sends one request again and again, on many connections, until each of them was answered."""

    def __init__(self, client: aiohttp.ClientSession, path: str, body: Any) -> None:
        self._client = client
        self._path = path
        self._body = body
        self.key = str(uuid.uuid4())
        self.early: list[Answer] = []
        self.answers: list[Answer] = []
        self._progress = asyncio.Condition()

    async def run(self, size: int = AT_ONCE) -> None:
        async with asyncio.timeout(120):
            await asyncio.gather(*(self._send_until_answered() for _ in range(size)))

    async def _send_until_answered(self) -> None:
        while True:
            try:
                answer = await post(self._client, self._path, self._body, self.key)
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
                continue
            if not asks_to_come_back(answer):
                self.answers.append(answer)
                async with self._progress:
                    self._progress.notify_all()
                return
            self.early.append(answer)
            await asyncio.sleep(0.1)

    async def until_answered(self, answers: int) -> None:
        async with self._progress:
            await self._progress.wait_for(lambda: len(self.answers) >= answers)

    def assert_one_answer(self, status: int) -> None:
        assert [answer.content for answer in self.answers if answer.status_code != status] == []
        assert len({answer.content for answer in self.answers}) == 1
        for name in ("location", "retry-after"):
            assert len({answer.headers.get(name) for answer in self.answers}) == 1


def ids_of(flik: RunningFlik, prompt: str) -> list[str]:
    """Return the ids of the tasks with a prompt, as the database has them."""
    rows = flik.query(f"SELECT task_id::text FROM tasks WHERE payload ->> 'prompt' = '{prompt}' ORDER BY 1")
    return [row[0] for row in rows]


def unique_prompt() -> str:
    return f"once {uuid.uuid4()}"


async def test_five_hundred_requests_under_one_key_make_one_task_and_one_answer(flik: RunningFlik) -> None:
    prompt = unique_prompt()
    async with client_of(flik) as client:
        herd = Herd(client, ONE, task(payload={"prompt": prompt}))
        await herd.run()
        other = await post(client, ONE, task(priority=2), herd.key)
    herd.assert_one_answer(202)
    assert {answer.json()["code"] for answer in herd.early} <= {"idempotency_in_flight"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in herd.early)
    assert [answer.headers.get("idempotency-replayed") for answer in herd.answers].count(None) == 1
    assert ids_of(flik, prompt) == [herd.answers[0].json()["taskId"]]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert flik.wait(herd.answers[0].json()["taskId"])["status"] == "COMPLETED"


async def test_batches_under_one_key_are_stored_once(flik: RunningFlik) -> None:
    prompt = unique_prompt()
    body = {"tasks": [task(payload={"prompt": prompt}), task(priority=7), task("IMAGE", payload={"prompt": prompt})]}
    async with client_of(flik) as client:
        herd = Herd(client, MANY, body)
        await herd.run(50)
    herd.assert_one_answer(207)
    stored = [item["task"]["taskId"] for item in herd.answers[0].json()["items"] if item["status"] == 202]
    assert ids_of(flik, prompt) == sorted(stored)
    assert len(stored) == 2
