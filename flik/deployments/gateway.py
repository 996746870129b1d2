"""The gateway as a Serve deployment: FastAPI behind HAProxy, a fixed number of replicas.

Each replica opens its own connections when it starts. The number is fixed because every
change of it makes HAProxy reload, which ends long connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp
from uuid_utils import uuid4

from flik.actors.remote import RemoteLimiter, RemoteQueue
from flik.artifacts.store import open_store
from flik.domain.identity import Limits
from flik.domain.webhook.target import Allowed
from flik.gateway.app import create_app
from flik.gateway.issuer_config import IssuerConfig
from flik.gateway.parts import Parts
from flik.live.chunks import ChunkReader
from flik.live.feed import FeedReader
from flik.live.news import NewsWriter
from flik.live.results import LiveResults
from flik.live.snapshots import Snapshots
from flik.live.tickets import Tickets
from flik.outbound.lookups import Lookups
from flik.outbound.sender import GuardedSender
from flik.pipeline.admit import Admission
from flik.pipeline.allowances import Allowances
from flik.pipeline.collector import collect_seldom
from flik.pipeline.deliver import Courier
from flik.pipeline.directory import Directory
from flik.pipeline.follow import Hub
from flik.pipeline.follow_text import SharedTexts
from flik.pipeline.followers import Followers
from flik.pipeline.levels import QueueLevels
from flik.pipeline.streams import Streams
from flik.pipeline.submit import Announcer, Announcers, GroupCommit
from flik.storage.audit import AuditLog
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.deliveries import DeliveryStore
from flik.storage.events import HistoryStore
from flik.storage.idempotency import AnswerStore
from flik.storage.keys import KeyStore
from flik.storage.streams import StreamStore
from flik.storage.tasks import TaskStore
from flik.storage.tenants import TenantStore
from flik.storage.webhooks import WebhookStore
from flik.telemetry import Metrics, log_as_json

if TYPE_CHECKING:
    from flik.gateway.issuer import Issuer

APP_NAME = "flik"
_METRICS = (
    "flik_submit_*", "flik_breaker_*", "flik_rate_*", "flik_followers", "flik_webhook_*", "flik_http_errors",
    "flik_result_reads", "flik_process_*",
)  # fmt: skip


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
    idempotency_ttl_s: int
    connections: int
    replicas: int
    limits: Limits
    queue_bounds: tuple[int, ...]
    followers: int
    followers_per_key: int
    stream_ttl_s: int = 60
    stream_silence_s: float = 60.0
    webhooks: Allowed = field(default_factory=Allowed)
    is_open: bool = False
    issuer: IssuerConfig | None = None
    cors_origins: tuple[str, ...] = ()
    log_level: str = "INFO"


@asynccontextmanager
async def open_parts(config: GatewayConfig) -> AsyncIterator[Parts]:
    """Open everything the routes work with, and close it again."""
    log_as_json(config.log_level)
    collect_seldom()
    measured, by_tenant = Metrics(*_METRICS, process="gateway"), Metrics("flik_tasks_refused")
    database = await Database(config.database_url, connections=config.connections, measured=measured).open()
    hot = LiveResults(config.redis_url, ttl_s=config.hot_ttl_s, measured=measured).open()
    queue = RemoteQueue()
    tasks = TaskStore(database, max_attempts=config.max_attempts)
    kept = AnswerStore(database, max_attempts=config.max_attempts, ttl_s=config.idempotency_ttl_s)
    news = NewsWriter(config.redis_url)
    others = sorted(config.regions - {config.region})
    announcers = Announcers(
        [
            Announcer(config.region, queue.announce),
            *(Announcer(each, partial(news.announce, each)) for each in others),
        ]
    )
    dags = DagStore(database, max_attempts=config.max_attempts)
    commit = GroupCommit(tasks, kept, announcers, measured["flik_submit_batch_tasks"].observe, dags=dags)
    tenants, keys = TenantStore(database), KeyStore(database)
    directory = Directory(keys, tenants, config.limits)
    replica = uuid4().hex[:8]
    snapshots = Snapshots(config.redis_url, config.region, replica, lambda: (measured.text(), by_tenant.text())).open()
    allowances = Allowances(RemoteLimiter().lend, measured=measured).open()
    levels = QueueLevels(queue.load)
    hub = Hub(HistoryStore(database), hot)
    texts = ChunkReader(config.redis_url)
    names = StreamStore(database, max_attempts=config.max_attempts, ttl_s=config.stream_ttl_s)
    followers = Followers(keys, config.followers, config.followers_per_key)
    measured["flik_followers"].set_function(lambda: len(followers))
    tickets = Tickets(config.redis_url).open()
    feed = FeedReader(config.redis_url, hub.hear, hub.note_live, hub.is_followed)
    lookups = Lookups()
    sender = GuardedSender(config.webhooks, lookups=lookups)
    courier = Courier(DeliveryStore(database), sender, measured=measured)
    in_background = (levels, hub, feed, followers, snapshots, courier)
    loops = [asyncio.create_task(each.run(), name=type(each).__name__) for each in in_background]
    try:
        async with _issuer(config.issuer) as issuer:
            yield Parts(
                region=config.region, regions=config.regions, public_url=config.public_url, tasks=tasks, hot=hot,
                dags=dags, queue=queue, commit=commit, artifacts=open_store(config.artifact_url, measured),
                signing_key=config.signing_key, artifact_url_ttl_s=config.artifact_url_ttl_s, measured=measured,
                snapshots=snapshots,
                directory=directory, tenants=tenants, keys=keys, audit=AuditLog(database), issuer=issuer,
                hub=hub, followers=followers, tickets=tickets,
                texts=SharedTexts(texts), streams=Streams(names, announcers), stream_silence_s=config.stream_silence_s,
                webhooks=WebhookStore(database), webhook_targets=config.webhooks, lookups=lookups,
                wake_courier=courier.wake,
                is_open=config.is_open, admission=Admission(allowances, levels, config.queue_bounds, by_tenant),
            )  # fmt: skip
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await news.close()
        await snapshots.close()
        await tickets.close()
        await texts.close()
        await sender.close()
        await allowances.close()
        await directory.close()
        await hot.close()
        await database.close()


@asynccontextmanager
async def _issuer(config: IssuerConfig | None) -> AsyncIterator[Issuer | None]:
    """Yield what checks an issuer's tokens; None without one, and then its libraries are not loaded."""
    if config is None:
        yield None
        return
    from flik.gateway.key_set import open_issuer  # noqa: PLC0415  # see above

    async with open_issuer(config) as issuer:
        yield issuer


def build_asgi(config: GatewayConfig) -> ASGIApp:
    """Return the gateway's ASGI application, as a replica runs it."""
    return create_app(
        partial(open_parts, config),
        echo_request_id=False,
        public_url=config.public_url,
        cors_origins=config.cors_origins,
    )


def gateway_application(config: GatewayConfig) -> Application:
    """Return the Serve application of the gateway."""

    def build() -> ASGIApp:  # Serve takes a function for a builder, and nothing else that is callable
        return build_asgi(config)

    replica = serve.ingress(build)()
    deployment = serve.deployment(
        name="Gateway",
        num_replicas=config.replicas,
        max_ongoing_requests=config.followers + 4_096,
        ray_actor_options={"num_cpus": 0.1},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )(replica)
    return deployment.bind()
