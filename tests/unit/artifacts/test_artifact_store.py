"""The artifact store keeps bytes exactly, under keys of its own making, and speaks Flik's errors only."""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, NotFoundError, PermissionDeniedError

from flik.artifacts import store as store_module
from flik.artifacts.store import CHUNK_BYTES, ArtifactStore, key_of, open_store, verdict_of
from flik.domain.breaker import Verdict
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


async def test_the_whole_is_what_was_stored(store: ArtifactStore) -> None:
    for index, data in enumerate((bytes(range(256)) * 9000, b"x", b"")):
        stored = await store.put(TASK, 1, Artifact(index, "image/png", data))
        assert await store.get(stored) == data


@pytest.mark.parametrize("there", [b"", b"0123", b"0123456780", b"0123456789a"])
async def test_what_is_not_as_it_was_stored_is_not_found(store: ArtifactStore, there: bytes) -> None:
    stored = await store.put(TASK, 1, Artifact(0, "image/png", b"0123456789"))
    await store.put(TASK, 1, Artifact(0, "image/png", there))
    with pytest.raises(ArtifactNotFound, match="not what was stored"):
        await store.get(stored)
    await store.delete(stored.key)
    with pytest.raises(ArtifactNotFound, match="not there"):
        await store.get(stored)


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


# ---- while the store is away


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (NotFoundError("no such key"), Verdict.ANSWERED),
        (FileNotFoundError(), Verdict.ANSWERED),
        (PermissionDeniedError("not yours"), Verdict.ANSWERED),
        (GenericError("cannot connect"), Verdict.AWAY),
        (OSError("no space left"), Verdict.AWAY),
        (TimeoutError(), Verdict.AWAY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_failed_call_says_about_the_store(error: Exception, verdict: Verdict) -> None:
    assert verdict_of(error) is verdict


class Away:
    """Takes the place of obstore's calls: counts them, and fails or hangs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.calls = 0
        self.error = error
        for name in ("put_async", "head_async", "get_range_async", "delete_async"):
            monkeypatch.setattr(obstore, name, self)

    async def __call__(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        if self.error is None:
            await asyncio.Event().wait()
        raise self.error or AssertionError


async def all_fail(store: ArtifactStore, times: int) -> None:
    key = f"{TASK}/1-0.png"
    for number in range(times):
        calls = (
            lambda: store.head(key),
            lambda: store.get_range(key, 0, 9),
            lambda: store.put(TASK, 1, Artifact(0, "image/png", b"x")),
            lambda: store.delete(key),
        )
        with pytest.raises(Unavailable) as away:
            await calls[number % 4]()  # type: ignore[no-untyped-call]
        assert away.value.dependency == "artifacts"


async def test_while_the_store_is_away_calls_are_refused_without_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(monkeypatch, GenericError("cannot connect"))
    await all_fail(open_store("memory:///"), 100)
    assert away.calls == 3


async def test_store_that_does_not_answer_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(monkeypatch)
    for limit in ("READ_WITHIN_S", "WRITE_WITHIN_S"):
        monkeypatch.setattr(store_module, limit, 0.01)
    await all_fail(open_store("memory:///"), 100)
    assert away.calls == 3


async def test_what_is_not_there_refuses_nobody(store: ArtifactStore) -> None:
    for _ in range(20):
        with pytest.raises(ArtifactNotFound):
            await store.head(f"{TASK}/1-0.png")
    assert await store.head((await store.put(TASK, 1, Artifact(0, "image/png", b"x"))).key) == 1


async def test_the_store_is_asked_again_by_itself(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        Away(patched, GenericError("cannot connect"))
        await all_fail(store, 4)
    await store._guard.ping()  # what the guard does after half a second
    await store.put(TASK, 1, Artifact(0, "image/png", b"x"))
