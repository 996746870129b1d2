"""One region: a process that starts a Ray cluster with Flik on it, and ends it with itself.

`flik up` runs it as a child (`python -m flik.cli.region`), with the environment of
`ray_environment`. It writes one JSON line for each stage it reaches to standard output. It
stops on SIGTERM, on SIGINT, and when its standard input ends, which is how it learns that
`flik up` was killed.

Stopping: the queue grants nothing more and tells the replicas to finish or hand back; after
at most `STOP_WITHIN_S` Ray is shut down, whatever still runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from flik import app, settings
from flik.actors import NAMESPACE
from flik.actors.remote import RemoteQueue
from flik.cli.head import start_head
from flik.cli.ray_environment import ray_temp_dir
from flik.errors import FlikError, Unavailable
from flik.processes import become_subreaper, end_all
from flik.settings import Settings

STOP_WITHIN_S = 6.0
OBJECT_STORE_BYTES = 100 * 1024 * 1024
_MIN_LOGICAL_CPUS = 4


def main(dashboard_port: int | None) -> None:
    """Run the region until it is told to stop."""
    become_subreaper()
    stop = threading.Event()
    _stop_on_signals(stop)
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    chosen = settings.load()
    try:
        _start(chosen, dashboard_port)
    except FlikError as error:
        _tell(stage="refused", reason=str(error))
        _end_children()
        sys.exit(1)
    _stop_on_signals(stop)  # ray.init put its own handler in the place of ours
    _tell(stage="ready")
    while not stop.wait(1.0):
        if not ray.is_initialized():
            break
    _stop()


def _stop_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _start(chosen: Settings, dashboard_port: int | None) -> None:
    _tell(stage="ray")
    address = start_head(
        num_cpus=max(_MIN_LOGICAL_CPUS, os.cpu_count() or 1),
        object_store_bytes=OBJECT_STORE_BYTES,
        temp_dir=str(_fresh_temp_dir(chosen.data_dir)),
        dashboard_port=dashboard_port,
    )
    ray.init(address=address, log_to_driver=False, configure_logging=False, namespace=NAMESPACE)
    _tell(stage="serve")
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="0.0.0.0", port=chosen.port),  # noqa: S104 - HAProxy listens there in any case
    )
    _tell(stage="applications")
    targets = [
        serve.RunTarget(application, name=name, route_prefix=prefix)
        for name, application, prefix in app.applications(chosen)
    ]
    serve.run_many(targets)
    asyncio.run(_until_working())


async def _until_working() -> None:
    """Return when the queue is rebuilt and every task type has a worker."""
    queue = RemoteQueue()
    while True:
        with suppress(Unavailable):
            stats = await queue.stats()
            if stats["ready"] and all(kind["workers"] for kind in stats["types"].values()):
                return
        await asyncio.sleep(0.1)


def _fresh_temp_dir(data_dir: Path) -> Path:
    """Return Ray's folder, without the sessions of earlier starts; `logs/ray` in the data folder leads to it."""
    folder = ray_temp_dir(data_dir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    shortcut = data_dir / "logs" / "ray"
    shortcut.unlink(missing_ok=True)
    shortcut.symlink_to(folder / "session_latest" / "logs")
    return folder


def _stop() -> None:
    deadline = time.monotonic() + STOP_WITHIN_S
    _tell(stage="draining")
    with suppress(Unavailable, TimeoutError):
        asyncio.run(asyncio.wait_for(_drain(deadline), STOP_WITHIN_S))
    _tell(stage="stopping")
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


def _tell(**fields: str) -> None:
    try:
        print(json.dumps(fields), flush=True)
    except BrokenPipeError:
        return  # nobody listens any more; stopping goes on


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else None)
