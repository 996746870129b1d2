"""The embedded servers as a Ray actor, for a Flik that `serve run` started without URLs.

`flik up` supervises its servers itself and hands their URLs on; this actor stands in where
nobody does. The servers end with the actor's process.
"""

from __future__ import annotations

from pathlib import Path

import ray

from flik.actors import NAMESPACE
from flik.embedded import Servers

NAME = "servers"


class ServersShell:
    """Holds the servers for as long as the actor lives."""

    def __init__(self, data_dir: Path, database_url: str | None, redis_url: str | None) -> None:
        self._servers = Servers(data_dir, database_url, redis_url)
        self._addresses = self._servers.start()

    def addresses(self) -> tuple[str, str]:
        """Return the URLs of PostgreSQL and Redis."""
        return self._addresses.database_url, self._addresses.redis_url


def embedded_addresses(data_dir: Path, database_url: str | None, redis_url: str | None) -> tuple[str, str]:
    """Return the URLs of PostgreSQL and Redis, starting those servers that have none.

    Raises:
        StartupRefused: they cannot be started here.
    """
    actor = (
        ray.remote(ServersShell)
        .options(name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0, max_restarts=-1)
        .remote(data_dir, database_url, redis_url)
    )
    found: tuple[str, str] = ray.get(actor.addresses.remote(), timeout=60)
    return found
