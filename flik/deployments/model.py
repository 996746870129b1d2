"""A model version as a Serve application: replicas that lease tasks and take no requests.

Serve gives them placement, restarts and health checks; the work comes from the queue. A
replica whose heartbeat loop stands still for `UNHEALTHY_AFTER_S` is unhealthy, and Serve
replaces it. On shutdown it finishes what it can and hands the rest back.
"""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from ray.serve import Application
from uuid_utils import uuid4

from flik import catalog, providers
from flik.actors.remote import RemoteQueue
from flik.artifacts.spool import Spool
from flik.artifacts.store import open_store
from flik.domain.task import Worker
from flik.errors import Unavailable
from flik.pipeline.draft import Chunks
from flik.pipeline.work import TaskWorker
from flik.telemetry import log_as_json

UNHEALTHY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What a model replica needs; plain values, so that it crosses Ray."""

    task_type: str
    version: str
    provider: str
    simulated_speed: float
    artifact_url: str
    slots: int
    heartbeat_s: float
    drain_s: float
    replicas: int
    num_cpus: float
    redis_url: str | None = None  # where its texts can be followed; None: nowhere
    stream_ttl_s: int = 60
    spool: str | None = None  # where generations are kept whose files wait for the store; None: nowhere
    log_level: str = "INFO"


class ModelReplica:
    """Runs one `TaskWorker` for as long as the replica lives."""

    def __init__(self, config: ModelConfig) -> None:
        log_as_json(config.log_level)
        self._config = config
        self._queue = RemoteQueue()
        self._identity = Worker(
            f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}", config.task_type, config.version
        )
        artifacts = open_store(config.artifact_url)
        self._worker = TaskWorker(
            self._identity,
            self._queue,
            providers.build(config.provider, speed=config.simulated_speed),
            artifacts,
            catalog.read_payload,
            slots=config.slots,
            heartbeat_s=config.heartbeat_s,
            drain_s=config.drain_s,
            breakers=lambda: (artifacts.tally(),),
            chunks=_open_chunks(config, self._identity),
            spool=Spool(Path(config.spool)) if config.spool else None,
        )
        self._working = asyncio.get_running_loop().create_task(self._worker.run())

    async def check_health(self) -> None:
        """Raise when this replica does no work any more."""
        if self._working.done():
            error = None if self._working.cancelled() else self._working.exception()
            raise RuntimeError("the worker's loops ended") from error
        if self._worker.silent_s > UNHEALTHY_AFTER_S:
            raise RuntimeError(f"the heartbeat loop stands still for {self._worker.silent_s:.0f} s")

    async def __del__(self) -> None:
        """Serve's shutdown hook: drain, then leave."""
        await self._worker.drain(self._config.drain_s)
        try:
            await self._queue.leave(self._identity)
        except Unavailable:
            return

    async def __call__(self) -> str:
        """Tell which worker this is."""
        return self._identity.worker_id


def _open_chunks(config: ModelConfig, identity: Worker) -> Chunks | None:
    if config.redis_url is None:
        return None
    from flik.live.chunks import ChunkWriter  # noqa: PLC0415  # redis costs 15 MB, which who makes no text does not need

    return ChunkWriter(config.redis_url, identity, ttl_s=config.stream_ttl_s)


def app_name(task_type: str, version: str) -> str:
    """Return the name of the Serve application of a model version."""
    return f"flik-{task_type.lower()}-{version}"


def model_application(config: ModelConfig) -> Application:
    """Return the Serve application of a model version."""
    return serve.deployment(
        name="Model",
        num_replicas=config.replicas,
        max_ongoing_requests=8,
        ray_actor_options={"num_cpus": config.num_cpus},
        health_check_period_s=1,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=config.drain_s + 5,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )(ModelReplica).bind(config)
