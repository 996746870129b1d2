"""One region: a process that starts a Ray cluster with Flik on it, and ends it with itself.

`flik up` runs it as a child (`python -m flik.cli.region DATA_DIR REGION [DASHBOARD_PORT]`), with the environment of
`ray_environment`. It writes one JSON line for each stage it reaches to standard output; the
applications are deployed by a child of its own, `flik.cli.deploy`. It stops on SIGTERM, on SIGINT, and
when its standard input ends, which is how it learns that `flik up` was killed.

Stopping: the queue grants nothing more and tells the replicas to finish or hand back; after
at most `STOP_WITHIN_S` Ray is shut down, whatever still runs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil
import ray

from flik.actors import NAMESPACE
from flik.actors.remote import RemoteQueue
from flik.cli.head import start_head
from flik.cli.instance import ray_temp_dir
from flik.cli.stages import tell
from flik.errors import Unavailable
from flik.processes import become_subreaper, end_all

STOP_WITHIN_S = 6.0
OBJECT_STORE_BYTES = 100 * 1024 * 1024
_MIN_LOGICAL_CPUS = 4
_EMPTY_WITHIN_S = 10.0


def main(data_dir: Path, region: str, dashboard_port: int | None) -> None:
    """Run the region until it is told to stop."""
    become_subreaper()
    stop = threading.Event()
    _stop_on_signals(stop)
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    deploying = _prepare_to_deploy()
    address = _start_ray(data_dir, region, dashboard_port)
    _stop_on_signals(stop)  # ray.init put its own handler in the place of ours
    if not _deployed(deploying, address, stop):
        _end_children()
        sys.exit(1)
    tell(stage="ready")
    while not stop.wait(1.0):
        if not ray.is_initialized():
            break
    _stop()


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _start_ray(data_dir: Path, region: str, dashboard_port: int | None) -> str:
    tell(stage="ray")
    address = start_head(
        num_cpus=max(_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
        object_store_bytes=OBJECT_STORE_BYTES,
        temp_dir=str(_fresh_temp_dir(data_dir, region)),
        dashboard_port=dashboard_port,
    )
    ray.init(address=address, log_to_driver=False, configure_logging=False, namespace=NAMESPACE)
    return address


def _prepare_to_deploy() -> subprocess.Popen[str]:
    """Start what deploys the applications: it loads what it needs while Ray starts."""
    return subprocess.Popen([sys.executable, "-m", "flik.cli.deploy"], stdin=subprocess.PIPE, text=True)


def _deployed(deploying: subprocess.Popen[str], address: str, stop: threading.Event) -> bool:
    """Deploy the applications; return whether that worked, or was cut short by a stop."""
    with suppress(BrokenPipeError), deploying.stdin or nullcontext() as pipe:
        print(address, file=pipe)
    while deploying.poll() is None and not stop.wait(0.05):
        pass
    return stop.is_set() or deploying.returncode == 0


def _fresh_temp_dir(data_dir: Path, region: str) -> Path:
    """Return Ray's folder, without the sessions of earlier starts; `logs/ray-REGION` in the data folder leads to it."""
    folder = ray_temp_dir(data_dir, region)
    deadline = time.monotonic() + _EMPTY_WITHIN_S
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < deadline:  # agents of a Ray that was killed may write to the last
        time.sleep(0.1)
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shortcut = data_dir / "logs" / f"ray-{region}"
    shortcut.unlink(missing_ok=True)
    shortcut.symlink_to(folder / "session_latest" / "logs")
    return folder


def _stop() -> None:
    deadline = time.monotonic() + STOP_WITHIN_S
    tell(stage="draining")
    with suppress(Unavailable, TimeoutError):
        asyncio.run(asyncio.wait_for(_drain(deadline), STOP_WITHIN_S))
    tell(stage="stopping")
    ray.shutdown()
    _end_children()


async def _drain(deadline: float) -> None:
    queue = RemoteQueue()
    while await queue.drain() and time.monotonic() < deadline:  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.2)


def _end_children() -> None:
    """End what Ray left behind: HAProxy does not end with the process that started it."""
    end_all(psutil.Process().children(recursive=True), grace_s=1.0)


def _watch_parent(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else None)
