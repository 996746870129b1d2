"""Secrets in the data folder: whole or not there, and nobody's but their owner's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flik.embedded.secret import keep_secret, kept_secret, read_secret
from flik.errors import StartupRefused


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    assert kept_secret(path) == kept_secret(path)
    assert len(kept_secret(path)) == 64
    assert mode_of(path) == 0o600


def test_kept_text_is_read_again_and_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert read_secret(path) is None
    for text in ("first", "second"):
        keep_secret(path, text)
        assert read_secret(path) == text
        assert mode_of(path) == 0o600
        assert list(tmp_path.iterdir()) == [path]


def test_file_that_others_could_read_is_replaced_by_one_that_they_cannot(tmp_path: Path) -> None:
    path, draft = tmp_path / "key", tmp_path / f".key.{os.getpid()}"
    for open_to_all in (path, draft):  # a draft is left by a crash
        open_to_all.write_text("old")
        open_to_all.chmod(0o644)
    keep_secret(path, "new")
    assert (read_secret(path), mode_of(path)) == ("new", 0o600)


def test_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    keep_secret(tmp_path / "key", "new")
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert read_secret(tmp_path / "key") == "new"


def test_what_is_no_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(StartupRefused, match="cannot be read"):
        read_secret(tmp_path / "key")
    with pytest.raises(StartupRefused, match="cannot be written"):
        keep_secret(tmp_path / "key", "new")
