"""Starts the servers that have no URL, restarts what dies, and stops all it started.

One thread does all of it, because a server is told to end when the thread that started it
ends (see `server`); it is a daemon thread, so that a Flik that just exits takes them along.
It looks at its children ten times a second; a server that died is started again at once, and
after a failed start again in 0.5, 1, 2, 4, then every 5 s. URLs stay the same.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from flik.embedded.folder import FolderLock, prepare
from flik.embedded.postgres import EmbeddedPostgres
from flik.embedded.server import EmbeddedServer
from flik.embedded.valkey import EmbeddedValkey
from flik.errors import FlikError

_POLL_S = 0.1
_log = logging.getLogger("flik.embedded")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where PostgreSQL and Redis are, whoever runs them. `database_url` may hold a password."""

    database_url: str
    redis_url: str


@dataclass(slots=True)
class _Watched:
    """A server and when it may be started again (monotonic seconds)."""

    server: EmbeddedServer
    failures: int = 0
    not_before_s: float = 0.0


class Servers:
    """The servers of one data folder, from `hold` or `start` to `stop`; also a context manager."""

    def __init__(self, data_dir: Path, database_url: str | None = None, redis_url: str | None = None) -> None:
        self._data_dir = data_dir
        self._database_url = database_url
        self._redis_url = redis_url
        self._lock: FolderLock | None = None
        self._watched: list[_Watched] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Where the servers are; an error before `start`."""
        if self._addresses is None:
            raise RuntimeError("the servers were not started")
        return self._addresses

    def hold(self) -> Path:
        """Take the data folder, unless it is taken, and start nothing; return its real path.

        Raises:
            StartupRefused: the folder is held by another Flik or cannot be used.
        """
        home = prepare(self._data_dir)
        if self._lock is None:
            lock = FolderLock(home)
            lock.take(datetime.now(UTC))
            self._lock = lock
        return home

    def start(self) -> Addresses:
        """Take the data folder, start what has no URL, and keep it running from now on.

        Raises:
            StartupRefused: the folder is held by another Flik or cannot be used, or a server does
                not start; everything that was started is stopped again.
        """
        home = self.hold()
        started: Future[Addresses] = Future()
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(home, started), name="flik-servers", daemon=True)
        self._thread.start()
        try:
            self._addresses = started.result()
            return self._addresses
        except BaseException:  # an interrupt of the waiting thread counts too
            self.stop()
            raise

    def stop(self) -> None:
        """Stop what was started (PostgreSQL within 8 s, then by force) and give the folder up."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def pids(self) -> dict[str, int]:
        """The running servers that are ours, by name."""
        return {each.server.name: each.server.pid for each in self._watched if each.server.pid is not None}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _run(self, home: Path, started: Future[Addresses]) -> None:
        try:
            started.set_result(self._start_all(home))
            while not self._stopping.wait(_POLL_S):
                for each in self._watched:
                    self._keep_running(each)
        except BaseException as error:
            if started.done():
                _log.exception("supervision of the servers ended")
            else:
                started.set_exception(error)
        finally:
            self._stop_all()

    def _start_all(self, home: Path) -> Addresses:
        return Addresses(
            self._database_url or self._start_one(EmbeddedPostgres(home)),
            self._redis_url or self._start_one(EmbeddedValkey(home)),
        )

    def _start_one(self, server: EmbeddedServer) -> str:
        self._watched.append(_Watched(server))
        return server.start(self._stopping.is_set)

    def _keep_running(self, each: _Watched) -> None:
        exit_code = each.server.poll()
        if exit_code is None or time.monotonic() < each.not_before_s:
            return
        if each.failures == 0:
            _log.warning("server ended unasked", extra={"server": each.server.name, "exit_code": exit_code})
        try:
            each.server.start(self._stopping.is_set)
            each.failures = 0
        except (FlikError, OSError) as error:
            delay_s = min(0.5 * 2**each.failures, 5.0)
            each.failures += 1
            each.not_before_s = time.monotonic() + delay_s
            _log.error(
                "server was not restarted",
                extra={"server": each.server.name, "reason": str(error), "again_in_s": delay_s},
            )

    def _stop_all(self) -> None:
        for each in reversed(self._watched):
            try:
                each.server.stop()
            except Exception:
                _log.exception("server was not stopped", extra={"server": each.server.name})
        self._watched.clear()
