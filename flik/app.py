"""Wires everything: settings become the Serve applications that `serve_config.yaml` names.

`gateway` and `model` are the two builders. `flik up`, `serve run serve_config.yaml`,
`serve deploy` and KubeRay all start Flik through them, so there is one Flik however it was
started. Without DATABASE_URL and REDIS_URL the gateway's builder finds or starts the
embedded servers, held by an actor of their own.
"""

# No postponed annotations here: Serve reads the builders' parameter types to make arguments of a dictionary.
import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from ray.serve import Application

from flik import settings as settings_module
from flik.actors.limiter import LimiterConfig, start_limiter
from flik.actors.queue import QueueConfig, start_queue
from flik.actors.servers import embedded_addresses
from flik.catalog import TASK_TYPES
from flik.deployments.gateway import APP_NAME, GatewayConfig, gateway_application
from flik.deployments.model import ModelConfig, app_name, model_application
from flik.domain import retry
from flik.domain.identity import Limits
from flik.domain.webhook.target import read_allowed
from flik.embedded.secret import kept_secret
from flik.errors import SettingInvalid
from flik.gateway.issuer import read_pem
from flik.gateway.issuer_config import IssuerConfig
from flik.pipeline.bootstrap import FILE_NAME as ADMIN_KEY_FILE
from flik.pipeline.bootstrap import ensure_operator
from flik.pipeline.schedule import QueuePolicy
from flik.settings import Settings
from flik.storage.check import check_database
from flik.storage.migrate import migrate

_log = logging.getLogger("flik")


class NoArgs(BaseModel):
    """The gateway takes no arguments: everything is in the environment."""


class ModelArgs(BaseModel):
    """Which model version an application is; `version` None means WORKER_VERSION."""

    task_type: str
    version: str | None = None


def gateway(args: NoArgs) -> Application:
    """Return the gateway's application, with its database migrated and its queue and limiter started."""
    del args
    settings = settings_module.load()
    database_url, redis_url = addresses(settings)
    check_database(database_url)
    migrate(database_url)
    admin = ensure_operator(database_url, settings.data_dir)
    if admin.is_new:
        _log.warning("a key with the scope admin was made; it is in %s", settings.data_dir / ADMIN_KEY_FILE)
    start_queue(queue_config(settings, database_url, redis_url))
    start_limiter(LimiterConfig(settings.region, redis_url, settings.rate_share, settings.log_level))
    return gateway_application(gateway_config(settings, database_url, redis_url))


def model(args: ModelArgs) -> Application:
    """Return the application of one model version."""
    settings = settings_module.load()
    redis_url = addresses(settings)[1] if TASK_TYPES[args.task_type].writes else None
    return model_application(model_config(settings, args.task_type, args.version, redis_url=redis_url))


def applications(settings: Settings) -> Iterator[tuple[str, Application, str | None]]:
    """Yield (name, application, route prefix) of all that a region runs."""
    yield APP_NAME, gateway(NoArgs()), "/"
    for task_type in TASK_TYPES:
        args = ModelArgs(task_type=task_type)
        yield app_name(task_type, settings.worker_version), model(args), None


def addresses(settings: Settings) -> tuple[str, str]:
    """Return the URLs of PostgreSQL and Redis, starting embedded servers for those that have none."""
    if settings.database_url and settings.redis_url:
        return settings.database_url, settings.redis_url
    return embedded_addresses(settings.data_dir, settings.database_url, settings.redis_url)


def queue_config(settings: Settings, database_url: str, redis_url: str) -> QueueConfig:
    """Return what the queue needs."""
    policy = QueuePolicy(
        task_types=tuple(TASK_TYPES),
        lease_s=settings.lease_s,
        retry_delays_s=settings.retry_delays_s,
        ageing_s=settings.ageing_s,
        window=settings.queue_window,
        tenant_weights=settings.tenant_weights,
        soft_timeout_s=settings.soft_timeout_s,
        hard_timeout_s=settings.hard_timeout_s,
        type_timeouts_s=settings.type_timeouts_s,
    )
    return QueueConfig(settings.region, database_url, redis_url, settings.hot_ttl_s, policy, settings.log_level)


def gateway_config(settings: Settings, database_url: str, redis_url: str) -> GatewayConfig:
    """Return what a gateway replica needs."""
    return GatewayConfig(
        region=settings.region,
        regions=frozenset({settings.region, *settings.regions}),
        public_url=settings.public_url,
        cors_origins=settings.cors_origins,
        database_url=database_url,
        redis_url=redis_url,
        artifact_url=artifact_url(settings),
        signing_key=signing_key(settings),
        artifact_url_ttl_s=settings.artifact_url_ttl_s,
        hot_ttl_s=settings.hot_ttl_s,
        max_attempts=retry.max_attempts(settings.retry_delays_s),
        idempotency_ttl_s=settings.idempotency_ttl_s,
        limits=default_limits(settings),
        queue_bounds=settings.queue_bounds,
        followers=settings.followers,
        followers_per_key=settings.followers_per_key,
        stream_ttl_s=settings.stream_ttl_s,
        stream_silence_s=settings.stream_silence_s,
        webhooks=read_allowed(settings.webhook_allow, plain_http=settings.webhook_http),
        is_open=settings.auth == "open",
        issuer=issuer_config(settings),
        connections=settings.gateway_connections,
        replicas=settings.gateway_replicas,
        log_level=settings.log_level,
    )


def default_limits(settings: Settings) -> Limits:
    """Return what a tenant may use that has no limits of its own."""
    return Limits(rate_per_s=float(settings.rate_limit_requests_per_sec), burst=settings.rate_limit_burst)


def issuer_config(settings: Settings) -> IssuerConfig | None:
    """Return how tokens of an issuer are checked; None when there is none.

    Raises:
        SettingInvalid: FLIK_JWT_PUBLIC_KEY is neither a key nor a file that holds one.
    """
    if not settings.jwt_jwks_url and not settings.jwt_public_key:
        return None
    return IssuerConfig(
        jwks_url=settings.jwt_jwks_url,
        public_key_pem=_public_key(settings.jwt_public_key) if settings.jwt_public_key else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
        scopes_claim=settings.jwt_scopes_claim,
    )


def _public_key(setting: str) -> str:
    try:
        pem = setting if "-----BEGIN" in setting else Path(setting).expanduser().read_text(encoding="utf-8")
        read_pem(pem)
    except (OSError, ValueError) as error:
        raise SettingInvalid("FLIK_JWT_PUBLIC_KEY", str(error)) from None
    return pem


def model_config(
    settings: Settings, task_type: str, version: str | None = None, *, redis_url: str | None = None
) -> ModelConfig:
    """Return what the replicas of one model version need; `redis_url` is for those that write text."""
    return ModelConfig(
        task_type=task_type,
        version=version or settings.worker_version,
        provider=settings.provider,
        simulated_speed=settings.simulated_speed,
        artifact_url=artifact_url(settings),
        slots=settings.worker_concurrency,
        heartbeat_s=settings.heartbeat_s,
        drain_s=settings.drain_s,
        replicas=settings.model_replicas,
        num_cpus=settings.model_num_cpus,
        redis_url=redis_url,
        stream_ttl_s=settings.stream_ttl_s,
        spool=None if TASK_TYPES[task_type].writes else str(settings.data_dir / "spool"),
        log_level=settings.log_level,
    )


def artifact_url(settings: Settings) -> str:
    """Return the URL of the object store: a folder in the data folder."""
    folder = settings.data_dir / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def signing_key(settings: Settings) -> bytes:
    """Return the key that signs artifact links: the setting, else one made once and kept in the data folder."""
    if settings.signing_key is not None:
        return settings.signing_key.get_secret_value().encode()
    return kept_secret(settings.data_dir / "signing_key")
