"""The gateway as a Serve deployment: FastAPI behind HAProxy, a fixed number of replicas.

Each replica opens its own connections when it starts. The number is fixed because every
change of it makes HAProxy reload, which ends long connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp

from flik.actors.queue import RemoteQueue
from flik.artifacts.store import open_store
from flik.gateway.app import create_app
from flik.gateway.parts import Parts
from flik.live.results import LiveResults
from flik.pipeline.submit import Announcer, GroupCommit
from flik.storage.database import Database
from flik.storage.tasks import TaskStore
from flik.telemetry import Metrics, log_as_json

APP_NAME = "flik"
_METRICS = ("flik_submit_*", "flik_http_errors", "flik_result_reads")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a gateway replica needs to open its parts; plain values, so that it crosses Ray."""

    region: str
    regions: frozenset[str]
    public_url: str | None
    database_url: str
    redis_url: str
    artifact_url: str
    signing_key: bytes
    artifact_url_ttl_s: int
    hot_ttl_s: int
    max_attempts: int
    connections: int
    replicas: int
    log_level: str = "INFO"


@asynccontextmanager
async def open_parts(config: GatewayConfig) -> AsyncIterator[Parts]:
    """Open everything the routes work with, and close it again."""
    log_as_json(config.log_level)
    database = await Database(config.database_url, connections=config.connections).open()
    hot = LiveResults(config.redis_url, ttl_s=config.hot_ttl_s).open()
    measured = Metrics(*_METRICS)
    queue = RemoteQueue()
    tasks = TaskStore(database, max_attempts=config.max_attempts)
    commit = GroupCommit(tasks, Announcer(config.region, queue.announce), measured["flik_submit_batch_tasks"].observe)
    try:
        yield Parts(
            region=config.region, regions=config.regions, public_url=config.public_url, tasks=tasks, hot=hot,
            queue=queue, commit=commit, artifacts=open_store(config.artifact_url), signing_key=config.signing_key,
            artifact_url_ttl_s=config.artifact_url_ttl_s, measured=measured,
        )  # fmt: skip
    finally:
        await hot.close()
        await database.close()


def build_asgi(config: GatewayConfig) -> ASGIApp:
    """Return the gateway's ASGI application, as a replica runs it."""
    return create_app(partial(open_parts, config), echo_request_id=False)


def gateway_application(config: GatewayConfig) -> Application:
    """Return the Serve application of the gateway."""

    def build() -> ASGIApp:  # Serve takes a function for a builder, and nothing else that is callable
        return build_asgi(config)

    replica = serve.ingress(build)()
    deployment = serve.deployment(
        name="Gateway",
        num_replicas=config.replicas,
        max_ongoing_requests=4_096,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )(replica)
    return deployment.bind()
