"""Starts a server as a subprocess, waits until it is ready, and ends all of it.

A server forks, and some of what it forks (PostgreSQL, Ray's daemons) leaves its process
tree. So each start carries a token of its own in the environment, `FLIK_BENCHMARK_RUN`:
whoever has it, has the token or the data folder on its command line, or descends from such
a process, belongs to the service. Only those are counted, and only those are ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

TOKEN_NAME = "FLIK_BENCHMARK_RUN"
ROOT = Path(__file__).parent.parent
NOT_INHERITED = ("RAY_", "FLIK_", "DATABASE_URL", "REDIS_URL")  # what would point a server at something of the user's
LOG_TAIL_LINES = 15


class NotReady(Exception):
    """A service did not get ready: (name, why, the end of its log)."""

    def __init__(self, name: str, reason: str, log_tail: str) -> None:
        super().__init__(name, reason, log_tail)

    def __str__(self) -> str:
        name, reason, log_tail = self.args
        return f"{name} {reason}" + (f"; the end of its log:\n{log_tail}" if log_tail else "")


@dataclass(frozen=True)
class Memory:
    """What processes hold: RSS counts a shared page in each, PSS divides it among them."""

    processes: int
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one service; `members` finds the living ones anew at each call."""

    members: Callable[[], list[psutil.Process]]
    used_s: dict[int, float] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Return user plus system seconds used so far; of a process that ended, what an earlier call saw."""
        for process in self.members():
            with suppress(psutil.Error):
                times = process.cpu_times()
                self.used_s[process.pid] = times.user + times.system
        return sum(self.used_s.values())

    def memory(self) -> Memory:
        """Return what the service holds now."""
        processes, rss_bytes, pss_bytes = 0, 0, 0
        for process in self.members():
            with suppress(psutil.Error):
                memory = process.memory_full_info()
                processes += 1
                rss_bytes += memory.rss
                pss_bytes += memory.pss
        return Memory(processes, rss_bytes, pss_bytes)


def marked_group(token: str, folder: Path) -> ProcessGroup:
    """Return the group of all processes that carry `token`, name `folder`, or descend from one that does."""
    return ProcessGroup(lambda: _with_descendants(p for p in psutil.process_iter() if _is_marked(p, token, folder)))


def tree_group(pid: int) -> ProcessGroup:
    """Return the group of process `pid` and its descendants. Raises psutil.NoSuchProcess when there is none."""
    root = psutil.Process(pid)
    return ProcessGroup(lambda: _with_descendants([root]))


def _with_descendants(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.Error):
            found.update((process.pid, process) for process in [root, *root.children(recursive=True)])
    return list(found.values())


def _is_marked(process: psutil.Process, token: str, folder: Path) -> bool:
    if process.pid == os.getpid():
        return False
    with suppress(psutil.Error):
        if process.environ().get(TOKEN_NAME) == token:
            return True
    with suppress(psutil.Error):  # PostgreSQL writes its title over its environment
        return any(str(folder) in argument for argument in process.cmdline())
    return False


@dataclass(frozen=True)
class Service:
    """A running server."""

    name: str
    port: int
    group: ProcessGroup
    ready_after_s: float
    folder: Path


@dataclass(frozen=True)
class Recipe:
    """How to start a server.

    `{port}` and `{folder}` in `command` and in the values of `environment` are filled in. It is
    ready when `is_ready(port)` is true, asked every 50 ms for `ready_within_s`. `stop_signal`
    ends it; what lives on after `stop_within_s` is killed and counts as left behind.
    """

    name: str
    command: Sequence[str]
    is_ready: Callable[[int], bool]
    environment: Mapping[str, str]
    working_dir: Path
    ready_within_s: float = 30.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = 20.0


@contextmanager
def running(recipe: Recipe, data_home: Path, left_behind: list[str]) -> Iterator[Service]:
    """Run a server in a folder of its own under `data_home`, for as long as the block lasts.

    Names of processes that outlived the stop are added to `left_behind`, once they are killed.

    Raises:
        NotReady: it exited, or did not get ready in time.
    """
    folder = Path(tempfile.mkdtemp(prefix="flik-bench-", dir=data_home))
    port, token = free_port(), uuid.uuid4().hex
    group = marked_group(token, folder)
    try:
        with (folder / "output.log").open("wb") as log:
            started_at = time.monotonic()
            process = _start(recipe, folder, port, token, log.fileno())
            try:
                _wait_ready(recipe, process, port, folder)
                yield Service(recipe.name, port, group, time.monotonic() - started_at, folder)
            finally:
                left_behind += _stop(recipe, process, group)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports, none twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def listens(port: int) -> bool:
    """Tell whether something accepts connections on `port`."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _start(recipe: Recipe, folder: Path, port: int, token: str, log: int) -> subprocess.Popen[bytes]:
    def fill(text: str) -> str:
        return text.replace("{port}", str(port)).replace("{folder}", str(folder))

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    environment = {name: fill(value) for name, value in recipe.environment.items()}
    return subprocess.Popen(
        [fill(part) for part in recipe.command],
        env={**inherited, **environment, TOKEN_NAME: token},
        cwd=recipe.working_dir,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C reaches us alone; we stop it in order
    )


def _wait_ready(recipe: Recipe, process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + recipe.ready_within_s
    while not recipe.is_ready(port):
        if process.poll() is not None:
            raise NotReady(recipe.name, f"exited with {process.returncode} before it was ready", _log_tail(folder))
        if time.monotonic() > deadline:
            raise NotReady(recipe.name, f"was not ready within {recipe.ready_within_s:.0f} s", _log_tail(folder))
        time.sleep(0.05)


def _log_tail(folder: Path) -> str:
    lines = (folder / "output.log").read_text(errors="replace").splitlines()
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _stop(recipe: Recipe, process: subprocess.Popen[bytes], group: ProcessGroup) -> list[str]:
    members = {member.pid: member for member in group.members()}
    if process.poll() is None:
        process.send_signal(recipe.stop_signal)
    with suppress(subprocess.TimeoutExpired):
        process.wait(recipe.stop_within_s)
    members.update((member.pid, member) for member in group.members())
    _, alive = psutil.wait_procs(list(members.values()), timeout=2)
    names = [_name(member) for member in alive]
    for member in alive:
        with suppress(psutil.Error):
            member.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait()
    return [f"{recipe.name} left {name} behind" for name in names]


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.name()} ({process.pid})"
    return str(process.pid)
