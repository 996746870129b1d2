"""An artifact arrives whole and as announced, or leaves nothing behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from fakes_gateway import PICTURE, FakeGateway, busy
from starlette.responses import RedirectResponse, StreamingResponse

from flik.client import Artifact, DownloadRefused, FlikApiError, FlikClient, FlikUnreachable
from flik.client.answers import read_task


@pytest.fixture
def artifact(gateway: FakeGateway) -> Artifact:
    return read_task(gateway.tasks[gateway.add_finished(1)]).artifacts[0]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_the_file_holds_the_bytes(client: FlikClient, artifact: Artifact, tmp_path: Path) -> None:
    path = await client.download(artifact, tmp_path / "picture.png")

    assert path.read_bytes() == PICTURE
    assert files(tmp_path) == ["picture.png"]


async def test_the_key_is_not_sent_for_a_signed_link(
    gateway: FakeGateway, client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    await client.download(artifact, tmp_path / "picture.png")

    assert "authorization" not in gateway.requests[-1].headers
    assert gateway.requests[-1].query == {"sig": "secret"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size_bytes": 100}, "larger than the 100 bytes"),
        ({"size_bytes": 10**6}, "10,246 of 1,000,000 bytes"),
    ],
)
async def test_other_bytes_than_announced_are_refused_and_the_old_file_stays(
    client: FlikClient, artifact: Artifact, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")

    with pytest.raises(DownloadRefused, match=reason):
        await client.download(replace(artifact, **change), target)  # type: ignore[arg-type]

    assert files(tmp_path) == ["picture.png"]
    assert target.read_bytes() == b"old"


async def test_a_connection_that_breaks_halfway_leaves_nothing(
    gateway: FakeGateway, client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    async def half():  # type: ignore[no-untyped-def]
        yield PICTURE[:100]

    gateway.answer_next(StreamingResponse(half(), headers={"Content-Length": str(len(PICTURE))}))

    with pytest.raises(FlikUnreachable):
        await client.download(artifact, tmp_path / "picture.png")

    assert files(tmp_path) == []


async def test_a_cancelled_download_leaves_nothing(
    gateway: FakeGateway, client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    async def slow():  # type: ignore[no-untyped-def]
        yield PICTURE[:100]
        await asyncio.sleep(0.5)

    gateway.answer_next(StreamingResponse(slow()))
    download = asyncio.create_task(client.download(artifact, tmp_path / "picture.png"))
    while not files(tmp_path):  # noqa: ASYNC110  # a file that appears sets no event
        await asyncio.sleep(0.005)

    download.cancel()
    with pytest.raises(asyncio.CancelledError):
        await download

    assert files(tmp_path) == []


async def test_an_expired_link_is_a_refusal(
    gateway: FakeGateway, client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    gateway.answer_next(busy(403))

    with pytest.raises(FlikApiError) as caught:
        await client.download(artifact, tmp_path / "picture.png")

    assert caught.value.status == 403
    assert files(tmp_path) == []


async def test_a_link_may_lead_on_to_another_store(
    gateway: FakeGateway, client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    gateway.answer_next(RedirectResponse("/artifacts/elsewhere"))

    path = await client.download(artifact, tmp_path / "picture.png")

    assert path.read_bytes() == PICTURE


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[broken"])
async def test_a_link_that_is_not_http_is_refused(client: FlikClient, tmp_path: Path, url: str) -> None:
    with pytest.raises((FlikUnreachable, DownloadRefused)):
        await client.download(Artifact(url), tmp_path / "x")

    assert files(tmp_path) == []


async def test_a_folder_that_is_not_there_is_named(client: FlikClient, artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DownloadRefused, match="No such file or directory"):
        await client.download(artifact, tmp_path / "absent" / "x.png")


async def test_a_folder_in_the_place_of_the_file_is_named(
    client: FlikClient, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "x.png").mkdir()

    with pytest.raises(DownloadRefused, match="directory"):
        await client.download(artifact, tmp_path / "x.png")

    assert files(tmp_path) == ["x.png"]
