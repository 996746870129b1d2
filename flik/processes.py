"""Ends what Flik started, also after a crash, and nothing else.

A process id alone is never trusted: the kernel gives it to somebody else as soon as its
process is gone. Every process is held as a `psutil.Process`, which remembers the creation
time and refuses to signal a stranger that inherited the number.

Four tools, for the ways in which a process gets lost:

- a child and its descendants are still in the tree: `end_all`;
- a child's child was orphaned while we live: `become_subreaper` makes the kernel hand it to
  us, so that it is in the tree again;
- Flik itself was killed, and everything it had started belongs to init now:
  `find_by_environ` finds them by a variable that Flik put into their environment;
- and they wrote their title over it, as Ray's agents do: `find_by_files` finds them by what they write to.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress

import psutil

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_POLL_S = 0.02


def end_all(processes: Iterable[int | psutil.Process], grace_s: float) -> list[psutil.Process]:
    """End these processes and all their descendants: SIGTERM, wait `grace_s`, SIGKILL, wait 2 s.

    A process that is gone already, this process and its ancestors are passed over. A child that
    was started in the last moment, by a parent that is gone now, is missed: `find_by_environ`
    and `become_subreaper` are for those.

    Returns:
        What still lives (stuck in the kernel, or not ours to end); normally empty.
    """
    targets = _with_descendants(_held(processes))
    _signal_all(targets, psutil.Process.terminate)
    remaining = wait_until_gone(targets, grace_s)
    remaining = _with_descendants(remaining)
    _signal_all(remaining, psutil.Process.kill)
    return sorted(wait_until_gone(remaining, 2.0), key=lambda process: process.pid)


def wait_until_gone(processes: Iterable[psutil.Process], within_s: float) -> set[psutil.Process]:
    """Wait up to `within_s` until these processes have ended, and return those that have not.

    A zombie has ended: where the first process of a container does not reap, it stays for ever.
    """
    deadline = time.monotonic() + within_s
    remaining = {process for process in processes if _alive(process)}
    while remaining and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        remaining = {process for process in remaining if _alive(process)}
    return remaining


def find_by_environ(name: str, value: str) -> list[psutil.Process]:
    """All processes of this user that were started with `name=value` in their environment.

    What a process changes in its own environment later is not seen. This process and its
    ancestors are left out: a variable that the shell exported must not make Flik end its own
    shell.
    """
    exempt = _self_and_ancestors()
    return [process for process in psutil.process_iter() if process not in exempt and _carries(process, name, value)]


def find_by_files(beginning: str) -> list[psutil.Process]:
    """All processes of this user that hold a file open whose path begins so, but this one and its ancestors."""
    exempt = _self_and_ancestors()
    return [process for process in psutil.process_iter() if process not in exempt and _holds(process, beginning)]


def become_subreaper() -> bool:
    """Let orphans among our descendants become our children instead of init's.

    Returns:
        Whether this system can (Linux); elsewhere nothing changes.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def reap_orphans(started: Collection[int]) -> list[int]:
    """Collect dead children that were handed to us as subreaper, so that no zombie piles up.

    `started` are the pids that somebody in this process waits for (`Popen`, asyncio): their
    exit status is left alone.

    Returns:
        The pids that were collected.
    """
    orphans = [child for child in psutil.Process().children() if child.pid not in started]
    return [child.pid for child in orphans if _is_zombie(child) and _reap(child.pid)]


def _held(processes: Iterable[int | psutil.Process]) -> set[psutil.Process]:
    held = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            held.add(psutil.Process(process) if isinstance(process, int) else process)
    return held - _self_and_ancestors()


def _with_descendants(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    found = set(processes)
    for process in tuple(found):
        with suppress(psutil.Error):
            found |= set(process.children(recursive=True))
    return found


def _signal_all(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            send(process)


def _alive(process: psutil.Process) -> bool:
    """Whether it still runs. A zombie does not; its exit status stays for whoever waits for it."""
    return process.is_running() and not _is_zombie(process)


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _reap(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def _carries(process: psutil.Process, name: str, value: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.uids().real == os.getuid() and process.environ().get(name) == value
    return False


def _holds(process: psutil.Process, beginning: str) -> bool:
    with suppress(psutil.Error, OSError):
        ours = process.uids().real == os.getuid()
        return ours and any(file.path.startswith(beginning) for file in process.open_files())
    return False


def _self_and_ancestors() -> set[psutil.Process]:
    return set(_ancestry(psutil.Process()))


def _ancestry(process: psutil.Process) -> Iterator[psutil.Process]:
    yield process
    with suppress(psutil.Error):
        yield from process.parents()


def listens_on(port: int) -> bool:
    """Return whether this process itself takes connections on a port; with many open files it takes long to tell."""
    try:
        found = psutil.Process().net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)
