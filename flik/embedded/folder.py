"""The data folder: made, checked, and held by one Flik at a time.

Why a lock: two Flik on one folder would each end the other's servers as left-overs. The lock
is a `flock`, so a crashed Flik's lock is free the moment its process is gone, whatever the
file says; the text in it is only for the message to the second one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from flik.embedded.account import Account
from flik.errors import StartupRefused

SOCKET_PATH_BYTES = 103  # sockaddr_un holds 108 bytes on Linux and 104 on macOS, one of them the final NUL
SOCKET_NAME_ROOM_BYTES = len("/.s.PGSQL.5432.lock")


def prepare(data_dir: Path) -> Path:
    """Make the data folder and its `logs/`, and return its real, absolute path.

    Raises:
        StartupRefused: it cannot be made, is not a folder, or cannot be written.
    """
    try:
        (data_dir / "logs").mkdir(parents=True, exist_ok=True)
        home = data_dir.resolve(strict=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartupRefused(f"the data folder {str(data_dir)!r} cannot be used: {reason}") from error


class FolderLock:
    """Holds `{data_dir}/flik.lock` from `take` to `release`, or until the process ends.

    The file stays behind: removing it would let two processes lock two different files.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file: TextIO | None = None

    def take(self, now: datetime) -> None:
        """Take the lock and write our pid and `now` into it.

        Raises:
            StartupRefused: another Flik holds it (named with its pid and start), or this file
                system cannot lock.
        """
        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(file)
            file.close()
            raise StartupRefused(f"{self._data_dir} is in use by flik ({holder})") from error
        except OSError as error:
            file.close()
            raise StartupRefused(f"{self._data_dir} is on a file system without locks: {error.strerror}") from error
        self._file = file
        _write(file, {"pid": os.getpid(), "started_at": now.astimezone(UTC).isoformat(timespec="seconds")})

    def release(self) -> None:
        """Give it up; nothing happens when it is not held."""
        if self._file is not None:
            _write(self._file, None)
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        path = self._data_dir / "flik.lock"
        try:
            path.touch(mode=0o644)
            return path.open("r+", encoding="utf-8")
        except OSError as error:
            raise StartupRefused(f"{path} cannot be written: {error.strerror}") from error


def socket_folder(home: Path, account: Account) -> Path:
    """Where the server of `home` puts its unix socket: `home`, or a private folder with a short name.

    The short folder is `flik-<hash of home>` in the system's temporary folder, mode 0700, owned
    by the server's account, so that the same home always gets the same one and nobody else can
    reach it.

    Raises:
        StartupRefused: somebody else owns the folder of that name, or no place can hold a socket.
    """
    if _holds_sockets(home):
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    for base in dict.fromkeys((Path(tempfile.gettempdir()), Path("/tmp"))):  # noqa: S108 - made 0700, owner checked
        folder = base / f"flik-{digest}"
        if _fits(folder):
            _make_private(folder, account)
            if _holds_sockets(folder):
                return folder
    raise StartupRefused(f"no folder can hold the unix socket of {home}: set TMPDIR to a short local path")


def _fits(folder: Path) -> bool:
    # libpq splits its `host` at commas, so a socket cannot be named below such a folder
    return "," not in str(folder) and len(os.fsencode(folder)) + SOCKET_NAME_ROOM_BYTES <= SOCKET_PATH_BYTES


def _holds_sockets(folder: Path) -> bool:
    """Tried, not guessed: some network and shared file systems hold files but no sockets."""
    if not _fits(folder):
        return False
    probe = folder / f".{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        server.bind(str(probe))
        probe.unlink()
        return True
    return False


def _make_private(folder: Path, account: Account) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        account.own(folder)
    status = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or status.st_uid != account.uid:
        raise StartupRefused(f"{folder} belongs to somebody else: remove it, or set TMPDIR to a folder of your own")
    folder.chmod(0o700)


def _holder(file: TextIO) -> str:
    try:
        facts = json.loads(file.read())
        return f"pid {facts['pid']}, since {facts['started_at']}"
    except (ValueError, KeyError, TypeError):
        return "it has just started"


def _write(file: TextIO, facts: dict[str, object] | None) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(facts) + "\n" if facts else "")
    file.flush()
