"""Artifacts over HTTP: the bytes that were recorded, in ranges, only behind a link that is genuine and fresh."""

from __future__ import annotations

import hashlib
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from flik.artifacts import link
from tests.acceptance.running import RunningFlik


@pytest.fixture(scope="module")
def picture(flik: RunningFlik) -> dict[str, Any]:
    """An artifact as its task shows it, with its bytes under "data"."""
    task_id = flik.submit("IMAGE", payload={"width": 160, "height": 120, "seed": 7})
    (made,) = flik.wait(task_id)["result"]["artifacts"]
    return {**made, "data": httpx.get(made["url"]).content}


def test_bytes_are_those_that_were_recorded(flik: RunningFlik) -> None:
    asked: list[tuple[str, dict[str, Any], str, bytes]] = [
        ("IMAGE", {"width": 64, "height": 64, "outputFormat": "jpg"}, "image/jpeg", b"\xff\xd8\xff"),
        ("IMAGE", {"width": 64, "height": 64, "outputFormat": "webp", "numOutputs": 2}, "image/webp", b"RIFF"),
        ("VIDEO", {"width": 64, "height": 64, "lengthS": 0.5}, "video/mp4", b"\x00\x00\x00"),
    ]
    for kind, payload, content_type, magic in asked:
        made = flik.wait(flik.submit(kind, payload=payload))["result"]["artifacts"]
        assert len(made) == payload.get("numOutputs", 1)
        for artifact in made:
            answer = httpx.get(artifact["url"])  # no token: the link is the credential
            assert answer.status_code == 200
            assert answer.headers["content-type"] == artifact["contentType"] == content_type
            assert len(answer.content) == artifact["sizeBytes"] == int(answer.headers["content-length"])
            assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
            assert answer.content.startswith(magic)
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_link_expires_within_the_hour(picture: dict[str, Any]) -> None:
    (expires,) = parse_qs(urlsplit(picture["url"]).query)["expires"]
    assert 3500 < int(expires) - time.time() <= 3600


def test_head_tells_size_and_type(picture: dict[str, Any]) -> None:
    answer = httpx.head(picture["url"], headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == picture["sizeBytes"]
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-50", -50, None),
     ("bytes=-99999999", 0, None), ("bytes=50-99999999", 50, None)],
)  # fmt: skip
def test_range_of_bytes_is_served(picture: dict[str, Any], asked: str, start: int, end: int | None) -> None:
    answer = httpx.get(picture["url"], headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, picture["data"][start:end])
    size = picture["sizeBytes"]
    first = start % size if start < 0 else start
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{size}"


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "bytes=x-y", "lines=1-2", "bytes=9-3", "bytes", "0-5"])
def test_range_that_is_none_means_the_whole(picture: dict[str, Any], asked: str) -> None:
    answer = httpx.get(picture["url"], headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, picture["data"])


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_range_outside_is_a_problem(picture: dict[str, Any], asked: str) -> None:
    answer = httpx.get(picture["url"], headers={"Range": asked})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-range"] == f"bytes */{picture['sizeBytes']}"


def test_link_that_is_forged_changed_or_old_opens_nothing(flik: RunningFlik, picture: dict[str, Any]) -> None:
    key = urlsplit(picture["url"]).path.removeprefix(link.PATH_PREFIX)
    real, later = (flik.data_dir / "signing_key").read_bytes(), int(time.time()) + 60
    assert httpx.get(flik.url + link.sign(key, later, real)).status_code == 200
    wrong = [
        link.sign(key, int(time.time()) - 1, real),
        link.sign(key, later, b"another key"),
        link.sign(key, later, real).replace(f"expires={later}", f"expires={later + 600}"),
        link.sign(key.replace("1-0", "1-1"), later, real),
        link.sign(key, later, real)[:-2],
        f"/artifacts/{key}",
        f"/artifacts/{key}?expires={later}&signature=",
    ]
    for path in wrong:
        answer = httpx.get(flik.url + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "artifact_not_found"), path
        assert answer.headers["content-type"] == "application/problem+json"
