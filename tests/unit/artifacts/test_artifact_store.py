"""The artifact store keeps bytes exactly, under keys of its own making, and speaks Flik's errors only."""

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from flik.artifacts.store import CHUNK_BYTES, ArtifactStore, key_of, open_store
from flik.errors import ArtifactNotFound, SettingInvalid, Unavailable
from flik.providers.base import Artifact

TASK = "0199f3d2-7a51-7c3e-9d55-0c9a6f1b2c3d"


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return open_store(tmp_path.as_uri() if request.param == "folder" else "memory:///")


async def test_what_was_stored_comes_back_byte_for_byte(store: ArtifactStore) -> None:
    data = bytes(range(256)) * 9000  # 2.3 MB: more than two chunks
    stored = await store.put(TASK, 2, Artifact(1, "video/mp4", data, 64, 48, 1.5))
    assert (stored.key, stored.index, stored.size_bytes) == (f"{TASK}/2-1.mp4", 1, len(data))
    assert (stored.width, stored.height, stored.duration_s) == (64, 48, 1.5)
    assert stored.sha256 == sha256(data).hexdigest()
    pieces = [piece async for piece in store.stream(stored.key, 0, len(data))]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == CHUNK_BYTES
    assert await store.head(stored.key) == len(data)


async def test_a_range_is_read_without_the_rest(store: ArtifactStore) -> None:
    stored = await store.put(TASK, 1, Artifact(0, "text/plain; charset=utf-8", b"0123456789"))
    assert await store.get_range(stored.key, 2, 5) == b"234"
    assert await store.get_range(stored.key, 8, 99) == b"89"
    assert await store.get_range(stored.key, 3, 3) == b""


async def test_an_empty_artifact_is_stored(store: ArtifactStore) -> None:
    stored = await store.put(TASK, 1, Artifact(0, "text/plain", b""))
    assert await store.head(stored.key) == 0


async def test_putting_again_replaces_and_many_at_once_leave_one_whole(store: ArtifactStore) -> None:
    bodies = [bytes([number]) * 100_000 for number in range(8)]
    stored = await asyncio.gather(*(store.put(TASK, 1, Artifact(0, "image/png", body)) for body in bodies))
    assert len({found.key for found in stored}) == 1
    assert await store.get_range(stored[0].key, 0, 200_000) in bodies


async def test_what_was_deleted_is_not_found_and_deleting_again_does_nothing(store: ArtifactStore) -> None:
    stored = await store.put(TASK, 1, Artifact(0, "image/png", b"x"))
    await store.delete(stored.key)
    await store.delete(stored.key)
    with pytest.raises(ArtifactNotFound):
        await store.head(stored.key)


async def test_a_missing_artifact_is_not_found(store: ArtifactStore) -> None:
    for read in (store.head(f"{TASK}/1-0.png"), store.get_range(f"{TASK}/1-0.png", 0, 9)):
        with pytest.raises(ArtifactNotFound):
            await read


BAD_KEYS = [
    "",
    "/",
    "..",
    "../secret",
    "./1-0.png",
    "a/../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a//1-0.png",
    "a/1-0.png/../x",
    "a\\1-0.png",
    "a/1-0.png\0",
    "a/1-0.png\n",
    "%2e%2e/1-0.png",
    "a/\uff11-0.png",
    "a/" + "1" * 500 + "-0.png",
]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_key_that_is_not_ours_never_reaches_the_store(key: str) -> None:
    untouched = ArtifactStore(None)
    for read in (untouched.head(key), untouched.get_range(key, 0, 9), untouched.delete(key)):
        with pytest.raises(ArtifactNotFound):
            await read


@pytest.mark.parametrize("task_id", ["", "..", "../x", "a/b", ".hidden", "a b", "x" * 200, "a\n"])
async def test_a_task_id_that_flik_does_not_make_is_refused(store: ArtifactStore, task_id: str) -> None:
    with pytest.raises(ValueError, match="task id"):
        await store.put(task_id, 1, Artifact(0, "image/png", b"x"))


@pytest.mark.parametrize(
    ("content_type", "ending"),
    [("image/png", "png"), ("image/jpeg", "jpg"), ("image/webp", "webp"), ("video/mp4", "mp4"),
     ("text/plain; charset=utf-8", "txt"), ("text/plain", "txt"), ("../../evil", "bin")],
)  # fmt: skip
def test_the_ending_follows_the_content_type(content_type: str, ending: str) -> None:
    assert key_of(TASK, 3, Artifact(0, content_type, b"")) == f"{TASK}/3-0.{ending}"


async def test_a_folder_that_cannot_be_written_is_an_unavailable_store(tmp_path: Path) -> None:
    store = open_store((tmp_path / "artifacts").as_uri())
    (tmp_path / "artifacts" / TASK).touch()  # a file where a folder should be
    with pytest.raises(Unavailable) as away:
        await store.put(TASK, 1, Artifact(0, "image/png", b"x"))
    assert away.value.dependency == "artifacts"


async def test_a_folder_with_spaces_is_made_and_leaves_no_scraps_behind(tmp_path: Path) -> None:
    store = open_store((tmp_path / "my artifacts").as_uri())
    await store.put(TASK, 1, Artifact(0, "image/png", b"x"))
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}  # noqa: ASYNC240 - a test may block
    assert files == {f"my artifacts/{TASK}/1-0.png"}


@pytest.mark.parametrize("url", ["", "nonsense", "gopher://x/y", "file:///proc/flik"])
def test_a_url_that_names_no_store_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingInvalid) as refused:
        open_store(url)
    assert "\n" not in str(refused.value)
