"""Puts the applications onto a region's Ray cluster, then ends: `python -m flik.cli.deploy`.

A process of its own, because Ray Serve and all that `flik/app.py` wires cost 90 MB (measured 2026-11-24), and
the region's process lives as long as the region. It is started before the cluster and reads its address, one
line, from standard input. It writes the stages it reaches to standard output, as `flik/cli/region.py` does;
its exit code is 0 once every task type has a worker.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import ray
from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation

from flik import app, settings
from flik.actors import NAMESPACE
from flik.actors.remote import RemoteQueue
from flik.cli import error_pages, haproxy
from flik.cli.stages import tell
from flik.errors import FlikError, Unavailable
from flik.settings import Settings


def main() -> None:
    """Deploy, and wait until it works; exits with 1 when it is refused."""
    chosen = settings.load()
    error_pages.write(chosen.data_dir / haproxy.FOLDER)
    address = sys.stdin.readline().strip()
    if not address:
        sys.exit(1)  # the region ended before its cluster stood
    ray.init(address=address, log_to_driver=False, configure_logging=False, namespace=NAMESPACE)
    try:
        _deploy(chosen)
    except FlikError as error:
        tell(stage="refused", reason=str(error))
        sys.exit(1)


def _deploy(chosen: Settings) -> None:
    tell(stage="serve")
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host="0.0.0.0", port=chosen.port),  # noqa: S104 - HAProxy listens there in any case
    )
    tell(stage="applications")
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


if __name__ == "__main__":
    main()
