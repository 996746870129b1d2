"""The environment a region's Ray is started with.

Ray Serve reads these when its processes start, so they are set before `ray.init`, by
whoever starts a cluster: here, in the Dockerfile and in the manifests. Every port that two
Flik on one machine would fight for is picked free.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from flik.cli import haproxy, open_files
from flik.cli.instance import INSTANCE, instance_of, ray_temp_dir
from flik.embedded.secret import kept_secret
from flik.errors import StartupRefused
from flik.settings import Settings

# A port that a gateway has left is not used again for 150 s, or connections of the one before keep the next from it;
# Ray then never gives it out again. So there are some for gateways that die one after another.
REPLICA_PORTS = 256
# Above those of Ray's workers, and below those that Linux gives to whoever connects, which may take one at any time.
_FIRST_REPLICA_PORT = 20_000
_LAST_REPLICA_PORT = 32_767


@dataclass(frozen=True, slots=True)
class Ports:
    """Those of one region, beside that of its gateway; `replicas_http` begins a block of `REPLICA_PORTS`."""

    metrics: int
    stats: int
    fallback_http: int
    fallback_grpc: int
    replicas_http: int


def build(each: Sequence[Settings], database_url: str, redis_url: str) -> list[dict[str, str]]:
    """Return the whole environment of each region's processes."""
    ports = pick_ports(len(each))
    return [_build(chosen, picked, database_url, redis_url) for chosen, picked in zip(each, ports, strict=True)]


def _build(settings: Settings, ports: Ports, database_url: str, redis_url: str) -> dict[str, str]:
    token = settings.data_dir / "ray_token"
    kept_secret(token)
    fitting = open_files.connections(settings, open_files.most_open_files())
    decided = {
        INSTANCE: instance_of(settings.data_dir),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLIK_DATA_DIR": str(settings.data_dir),
        "FLIK_REGION": settings.region,
        "FLIK_REGIONS": ",".join(settings.regions),
        "FLIK_RATE_SHARE": str(settings.rate_share),
        "FLIK_PORT": str(settings.port),
        "FLIK_FOLLOWERS": str(fitting.followers),
    }
    defaults = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "MALLOC_ARENA_MAX": "2",  # each process has some 30 threads, of which few allocate at one moment
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRAFANA_HOST": "DISABLED",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if settings.haproxy else "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1" if settings.throughput else "0",
        **_problems_of_others(settings),
        **_haproxy_files(settings),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_MAXCONN": str(fitting.most),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "120",  # eight heartbeats: who takes none of them is gone
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # parsed by a Python process, for each request
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replicas_http),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replicas_http + REPLICA_PORTS),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    # An operator's own choice of RAY_* wins; Ray must not find another cluster.
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**defaults, **inherited, **decided}


def _problems_of_others(settings: Settings) -> dict[str, str]:
    """Return what makes problems of the answers that Ray Serve and HAProxy give by themselves."""
    around = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "flik.gateway.edge:middlewares"}
    program = haproxy.prepare(settings.data_dir / haproxy.FOLDER) if settings.haproxy else None
    return around if program is None else {**around, "RAY_SERVE_HAPROXY_BINARY_PATH": str(program)}


def _haproxy_files(settings: Settings) -> dict[str, str]:
    """Return where HAProxy's files are: with those of Ray, which has one place for all, and the first user's alone."""
    folder = ray_temp_dir(settings.data_dir, settings.region)
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/s",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/m",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/state",
    }


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def free_blocks(size: int, count: int) -> list[int]:
    """Return the first ports of `count` blocks of `size` neighbouring free ports each.

    Raises:
        StartupRefused: there are not so many.
    """
    # Start at a place that depends on this process, so that two Flik that start together do not collide.
    blocks = (_LAST_REPLICA_PORT - _FIRST_REPLICA_PORT) // size
    found: list[int] = []
    for step in range(blocks):
        first = _FIRST_REPLICA_PORT + (os.getpid() + step) % blocks * size
        if all(is_free(port, "0.0.0.0") for port in range(first, first + size)):  # noqa: S104 - as Ray binds
            found.append(first)
        if len(found) == count:
            return found
    raise StartupRefused(
        f"{count} times {size} neighbouring ports are not free from {_FIRST_REPLICA_PORT} to {_LAST_REPLICA_PORT}"
    )


def pick_ports(count: int) -> list[Ports]:
    """Return free ports for so many regions; no two have one in common.

    Raises:
        StartupRefused: there are not so many.
    """
    blocks = free_blocks(REPLICA_PORTS, count)
    taken = {port for first in blocks for port in range(first, first + REPLICA_PORTS)}
    single: list[int] = []
    while len(single) < 4 * count:  # the system picks from a range in which blocks may lie
        single = [port for port in free_ports(6 * count) if port not in taken]
    return [Ports(*_four(single[4 * place :]), first) for place, first in enumerate(blocks)]


def _four(ports: Sequence[int]) -> tuple[int, int, int, int]:
    return ports[0], ports[1], ports[2], ports[3]


def is_free(port: int, host: str) -> bool:
    """Return whether a server could listen on this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
