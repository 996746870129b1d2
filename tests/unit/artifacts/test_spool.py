"""The spool gives back what was kept, whole, or nothing; and it stays small."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from making import EPOCH, Clock, stored_file

from flik.artifacts.spool import Held, Made, Spool
from flik.errors import ArtifactNotFound
from flik.providers.base import Artifact

PICTURE = Artifact(1, "image/png", b"picture", 8, 4)
FILM = Artifact(2, "video/mp4", b"", duration_s=1.5)
MADE = Made("v1", "token", "é 猫", {"seed": 7, "deep": [{}]}, (stored_file(0, upload_attempts=3), PICTURE, FILM))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spool"


@pytest.fixture
def spool(folder: Path) -> Spool:
    return Spool(folder)


async def test_what_was_kept_is_found_by_another_replica_with_its_bytes(spool: Spool, folder: Path) -> None:
    assert await spool.keep("t1", MADE)
    made = await Spool(folder).find("t1", "v1")
    assert made is not None
    stored, picture, film = made.files
    assert (made.version, made.made_by, made.text, made.metadata) == ("v1", "token", "é 猫", {"seed": 7, "deep": [{}]})
    assert stored == stored_file(0, upload_attempts=3)
    assert isinstance(picture, Held)
    assert isinstance(film, Held)
    assert [await spool.read("t1", held) for held in (picture, film)] == [PICTURE, FILM]


async def test_nothing_kept_and_another_version_s_generation_are_nothing(spool: Spool) -> None:
    assert await spool.find("t1", "v1") is None
    await spool.keep("t1", MADE)
    assert await spool.find("t2", "v1") is None
    assert await spool.find("t1", "v2") is None


async def test_what_is_kept_again_takes_the_place_of_what_was(spool: Spool) -> None:
    await spool.keep("t1", MADE)
    await spool.keep("t1", Made("v1", "later", None, {}, (PICTURE,)))
    made = await spool.find("t1", "v1")
    assert made is not None
    assert (made.made_by, len(made.files)) == ("later", 1)


async def test_what_was_found_can_be_kept_again(spool: Spool) -> None:
    await spool.keep("t1", MADE)
    made = await spool.find("t1", "v1")
    assert made is not None
    await spool.keep("t1", made)
    assert await spool.find("t1", "v1") == made


async def test_what_is_forgotten_is_gone_and_forgetting_again_does_nothing(spool: Spool, folder: Path) -> None:
    await spool.keep("t1", MADE)
    await spool.forget("t1")
    await spool.forget("t1")
    assert await spool.find("t1", "v1") is None
    assert os.listdir(folder) == []  # noqa: PTH208


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_cut, Path.unlink], ids=["cut", "gone"])
async def test_file_that_is_not_as_it_was_kept_is_not_found(
    spool: Spool, folder: Path, damage: Callable[[Path], None]
) -> None:
    await spool.keep("t1", MADE)
    damage(folder / "t1" / sha256(PICTURE.data).hexdigest())
    made = await spool.find("t1", "v1")
    assert made is not None
    _, picture, _ = made.files
    assert isinstance(picture, Held)
    with pytest.raises(ArtifactNotFound, match="as it was kept"):
        await spool.read("t1", picture)


@pytest.mark.parametrize(
    "written", [b"", b"{", b"[]", b"{}", b'{"files": [{"held": {}}]}', b'{"files": [{"stored": 1}]}']
)
async def test_manifest_that_is_none_is_nothing(spool: Spool, folder: Path, written: bytes) -> None:
    await spool.keep("t1", MADE)
    (folder / "t1" / "made.json").write_bytes(written)
    assert await spool.find("t1", "v1") is None


async def test_keeping_that_broke_off_is_nothing(spool: Spool, folder: Path) -> None:
    await spool.keep("t1", MADE)
    (folder / "t1" / "made.json").rename(folder / "t1" / "made.json.0.part")
    assert await spool.find("t1", "v1") is None
    assert await spool.keep("t1", MADE)


async def test_many_who_keep_the_same_at_once_leave_one_whole(spool: Spool) -> None:
    assert all(await asyncio.gather(*(spool.keep("t1", MADE) for _ in range(8))))
    made = await spool.find("t1", "v1")
    assert made is not None
    assert len(made.files) == 3


async def test_the_oldest_make_room_for_the_next(folder: Path) -> None:
    spool = Spool(folder, most_bytes=3_000)
    for number in range(1, 5):
        assert await spool.keep(f"t{number}", Made("v1", "t", None, {}, (Artifact(0, "image/png", bytes(900)),)))
        await asyncio.sleep(0.01)  # folders are told apart by their times
    kept = [await spool.find(f"t{number}", "v1") is not None for number in range(1, 5)]
    assert kept == [False, False, True, True]
    assert sorted(os.listdir(folder)) == ["t3", "t4"]  # noqa: PTH208


async def test_what_is_larger_than_all_of_it_is_not_kept_and_costs_nobody_his_place(folder: Path) -> None:
    spool = Spool(folder, most_bytes=3_000)
    await spool.keep("t1", MADE)
    assert not await spool.keep("t2", Made("v1", "t", None, {}, (Artifact(0, "image/png", bytes(3_001)),)))
    assert await spool.find("t1", "v1") is not None


async def test_what_is_too_old_is_nothing_and_is_removed(folder: Path) -> None:
    await Spool(folder).keep("t1", MADE)
    clock = Clock((folder / "t1").stat().st_mtime + 3_600.5)
    assert clock() > EPOCH
    later = Spool(folder, most_age_s=3_600.0, now=clock)
    assert await later.find("t1", "v1") is None
    await later.keep("t2", MADE)
    assert not (folder / "t1").exists()


async def test_folder_that_cannot_be_written_keeps_nothing_and_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    spool = Spool(tmp_path / "spool")
    assert not await spool.keep("t1", MADE)
    assert await spool.find("t1", "v1") is None
    await spool.forget("t1")


@pytest.mark.parametrize("task_id", ["", "..", "../t1", "a/b", ".hidden"])
async def test_id_that_is_none_keeps_nothing(spool: Spool, folder: Path, task_id: str) -> None:
    assert not await spool.keep(task_id, MADE)
    assert not os.path.exists(folder)  # noqa: ASYNC240, PTH110
