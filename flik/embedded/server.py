"""What both embedded servers have in common: launch, readiness, end, left-overs.

A server runs in the foreground as our child, in a session of its own (the terminal's Ctrl-C
reaches Flik, which then stops it in order). On Linux it gets its stop signal from the kernel
when the thread that started it ends: start it from a thread that lives as long as Flik.

The caller holds the data folder (`FolderLock`): every other process of the server's name
that works in its folder is then a left-over of a crash, and is ended before the start.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import psutil

from flik.embedded.account import Account, account_for, let_through, open_program
from flik.embedded.folder import prepare, socket_folder
from flik.errors import StartupRefused
from flik.processes import wait_until_gone

READY_WITHIN_S = 120.0  # a PostgreSQL that was killed under load replays its log first
LOG_KEPT_BYTES = 10 * 1024 * 1024
_POLL_S = 0.01
_LAUNCH = str(Path(__file__).with_name("launch.py"))
_log = logging.getLogger("flik.embedded")


def never() -> bool:
    """The default for `cancelled`: the start is not called off."""
    return False


class EmbeddedServer(ABC):
    """One server with its files in `{data_dir}/{folder_name}`; subclasses say which.

    `start`, `poll` and `stop` are called by one thread at a time.
    """

    name: ClassVar[str]
    folder_name: ClassVar[str]
    process_name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    program: Path  # the binary
    program_tree: Path  # the folder with all that the binary loads

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._home = data_dir / self.folder_name
        self._account = Account(os.geteuid(), os.getegid())
        self._sockets = self._home
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, or None when it was not started or was stopped."""
        return None if self._child is None else self._child.pid

    def start(self, cancelled: Callable[[], bool] = never) -> str:
        """End left-overs, start, wait until it answers, and return its URL (the same every time).

        Raises:
            StartupRefused: it cannot start here, with the last line of its log; or it was `cancelled`.
        """
        self._data_dir = prepare(self._data_dir)
        self._home = self._data_dir / self.folder_name
        self._end_leftovers()
        self._account = account_for(self._home)
        let_through(self._account, self._home)
        open_program(self._account, self.program, self.program_tree)
        try:
            self._make_home()
            self._sockets = socket_folder(self._home, self._account)
        except OSError as error:
            raise StartupRefused(f"{self._home} cannot be used: {error.strerror}") from error
        self._launch(cancelled)
        return self._url()

    def poll(self) -> int | None:
        """None while it runs; its exit code once it has ended; -1 when it was never started."""
        return -1 if self._child is None else self._child.poll()

    def stop(self, within_s: float = 8.0) -> None:
        """Stop it in order, or kill it with all its processes when that takes longer than `within_s`."""
        if self._child is None:
            return
        self._child.send_signal(self.stop_signal)
        try:
            self._child.wait(within_s)
        except subprocess.TimeoutExpired:
            _log.warning("server was killed", extra={"server": self.name, "after_s": within_s})
            self._child.kill()
            self._child.wait()
        self._end_leftovers()
        self._child = None
        if self._sockets != self._home:
            with suppress(OSError):
                self._sockets.rmdir()

    @abstractmethod
    def _make_home(self) -> None:
        """Bring the server's folder into being."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server's command line."""

    @abstractmethod
    def _ready(self, pid: int) -> bool:
        """Whether the server with this pid takes connections."""

    @abstractmethod
    def _url(self) -> str:
        """Where clients find it."""

    def _make_own_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self._account.own(path)

    def _launched(self, command: list[str]) -> list[str]:
        """`command`, run as the server's account and ended with this thread."""
        numbers = (os.getpid(), int(self.stop_signal), self._account.uid, self._account.gid)
        return [sys.executable, "-I", "-S", _LAUNCH, *map(str, numbers), *command]

    def _launch(self, cancelled: Callable[[], bool]) -> None:
        log_path = self._data_dir / "logs" / f"{self.folder_name}.log"
        _rotate(log_path)
        with log_path.open("ab") as log:
            log_start = log.tell()
            self._child = subprocess.Popen(
                self._launched(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=environment(),
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._child, log_path, log_start, cancelled)
        except BaseException:
            self.stop()
            raise
        _log.info("server was started", extra={"server": self.name, "pid": self._child.pid})

    def _wait_until_ready(
        self, child: subprocess.Popen[bytes], log_path: Path, log_start: int, cancelled: Callable[[], bool]
    ) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._ready(child.pid):
            if child.poll() is not None:
                raise StartupRefused(f"{self.name} did not start: {_last_line(log_path, log_start)} (log: {log_path})")
            if cancelled():
                raise StartupRefused(f"{self.name} was stopped while it started")
            if time.monotonic() > deadline:
                raise StartupRefused(f"{self.name} did not answer within {READY_WITHIN_S:g} s (log: {log_path})")
            time.sleep(_POLL_S)

    def _end_leftovers(self) -> None:
        """End what a crash left running on our folder: in order if its main process lives, else at once."""
        found = self._leftovers()
        if not found:
            return
        mains = [process for process in found if _is_main(process)]
        for process in found:
            with suppress(psutil.Error):
                process.send_signal(self.stop_signal if process in mains else signal.SIGTERM)
        alive = wait_until_gone(found, within_s=10.0 if mains else 0.3)
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        alive = wait_until_gone(alive | set(self._leftovers()), within_s=5.0)
        if alive:
            pids = ", ".join(str(process.pid) for process in alive)
            raise StartupRefused(f"an earlier {self.name} still uses {self._home} and cannot be ended: pid {pids}")
        _log.warning("left-overs were ended", extra={"server": self.name, "pids": [process.pid for process in found]})

    def _leftovers(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        """By where it works, which both servers set to their folder; `Process` guards against reused pids."""
        with suppress(psutil.Error, OSError):
            running = process.name() == self.process_name and process.status() != psutil.STATUS_ZOMBIE
            return running and process.cwd() == str(self._home)
        return False


def environment() -> dict[str, str]:
    """The environment of the servers: nothing of ours leaks in (PGPORT and friends change what they do)."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C"}


def _is_main(process: psutil.Process) -> bool:
    """Not one of PostgreSQL's backends, which name themselves `postgres: ...`."""
    with suppress(psutil.Error):
        return not " ".join(process.cmdline()).startswith("postgres:")
    return False


def _rotate(log_path: Path) -> None:
    if log_path.exists() and log_path.stat().st_size > LOG_KEPT_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))


def _last_line(log_path: Path, start: int) -> str:
    """The line that says why: the last FATAL one, else the last one."""
    with log_path.open("rb") as log:
        log.seek(start)
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or ["it said nothing"])[-1]
