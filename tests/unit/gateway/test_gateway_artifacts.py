"""Artifacts behind signed links: whole, in ranges, and not at all."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest
from gateway_parts import SIGNING_KEY, Fakes, task_id

from flik.artifacts import link
from flik.errors import Unavailable
from flik.providers.base import Artifact

DATA = bytes(range(256)) * 4


@pytest.fixture
async def url(fakes: Fakes) -> str:
    stored = await fakes.parts.artifacts.put(task_id(1), 1, Artifact(0, "image/png", DATA))
    return link.sign(stored.key, int(time.time()) + 60, SIGNING_KEY)


async def test_link_opens_the_artifact_without_a_token(fakes: Fakes, url: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as stranger:
        answer = await stranger.get(url)
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "said", "data"),
    [
        ("bytes=0-0", "bytes 0-0/1024", DATA[:1]),
        ("bytes=10-19", "bytes 10-19/1024", DATA[10:20]),
        ("bytes=1000-", "bytes 1000-1023/1024", DATA[1000:]),
        ("bytes=-5", "bytes 1019-1023/1024", DATA[-5:]),
        ("bytes=-5000", "bytes 0-1023/1024", DATA),
        ("bytes=1023-9999", "bytes 1023-1023/1024", DATA[-1:]),
    ],
)
async def test_range_is_served(client: httpx.AsyncClient, url: str, asked: str, said: str, data: bytes) -> None:
    answer = await client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, data)
    assert answer.headers["content-range"] == said
    assert answer.headers["content-length"] == str(len(data))


@pytest.mark.parametrize(
    "asked", ["bytes", "bytes=", "bytes=a-b", "items=0-1", "bytes=5-1", "bytes=0-1,3-4", "", "²-³"]
)
async def test_range_that_is_none_means_the_whole(client: httpx.AsyncClient, url: str, asked: str) -> None:
    answer = await client.get(url, headers={b"Range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, DATA)


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
async def test_range_outside_is_a_problem_that_tells_the_size(client: httpx.AsyncClient, url: str, asked: str) -> None:
    answer = await client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-range"] == "bytes */1024"


async def test_head_tells_the_size_and_ignores_ranges(client: httpx.AsyncClient, url: str) -> None:
    for headers in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=9999-"}):
        answer = await client.head(url, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "1024"
        assert answer.headers["content-type"] == "image/png"


async def test_what_is_not_signed_by_us_is_not_found(client: httpx.AsyncClient, url: str) -> None:
    key, expires = f"{task_id(1)}/1-0.png", int(time.time()) + 60
    signature = url.rpartition("=")[2]
    wrong = [
        f"/artifacts/{key}",
        f"/artifacts/{key}?expires={expires}",
        f"/artifacts/{key}?expires=soon&signature={signature}",
        f"/artifacts/{key}?expires={expires + 1}&signature={signature}",
        url.replace("1-0.png", "2-0.png"),
        url[:-1],
        url + "%00",
        link.sign(key, expires, b"another key"),
        link.sign(key, int(time.time()) - 1, SIGNING_KEY),
        link.sign("../../etc/passwd", expires, SIGNING_KEY).replace("../", "..%2f"),
        link.sign("x/1-0.png", expires, SIGNING_KEY),
        "/artifacts/..%2f..%2fetc%2fpasswd",
    ]
    for path in wrong:
        answer = await client.get(path)
        assert (path, answer.status_code, answer.json()["code"]) == (path, 404, "artifact_not_found")
        assert answer.headers["content-type"] == "application/problem+json"


async def test_what_made_a_file_that_is_gone_is_not_reused_any_more(
    fakes: Fakes, client: httpx.AsyncClient, url: str
) -> None:
    memos = fakes.store.memos
    memos |= {("acme", "a" * 64): task_id(1), ("acme", "b" * 64): task_id(2)}
    assert (await client.get(url[:-1])).status_code == 404
    assert len(memos) == 2, "the link was none of ours"
    await fakes.parts.artifacts.delete(f"{task_id(1)}/1-0.png")
    assert (await client.get(url)).status_code == 404
    assert list(memos.values()) == [task_id(2)]


@pytest.mark.parametrize("call", ["head", "stream"])
async def test_store_that_is_away_is_a_503_and_no_answer_cut_short(
    fakes: Fakes, client: httpx.AsyncClient, url: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def head(key: str) -> int:
        raise Unavailable("artifacts", 2.5)

    async def stream(key: str, start: int, end: int) -> AsyncIterator[bytes]:
        raise Unavailable("artifacts", 2.5)
        yield b""

    monkeypatch.setattr(fakes.parts.artifacts, call, {"head": head, "stream": stream}[call])
    answer = await client.get(url)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert (answer.headers["retry-after"], answer.json()["retryAfterMs"]) == ("3", 2500)


async def test_empty_artifact_is_served(fakes: Fakes, client: httpx.AsyncClient) -> None:
    stored = await fakes.parts.artifacts.put(task_id(1), 1, Artifact(0, "text/plain", b""))
    answer = await client.get(link.sign(stored.key, int(time.time()) + 60, SIGNING_KEY))
    assert (answer.status_code, answer.content) == (200, b"")
