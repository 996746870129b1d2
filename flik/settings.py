"""Every knob of Flik: its environment name, unit and default. Read once, in `app` and `cli`.

Other parts get plain values in their constructors. A bad value stops the start with the
name of the variable and what is wrong with it.

A value comes from, first found: an argument of `load`, the environment, the file
`.env.development.local`, the file `.env.development` (both in the working folder, both may be
missing), the default here. A field's own name is no variable: PORT or LOG_LEVEL in somebody's
environment is not meant for Flik.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from flik.domain.webhook.target import read_allowed
from flik.errors import SettingInvalid

ENV_FILES = (".env.development", ".env.development.local")  # the later wins


REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)  # the database takes up to 32 characters
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+", re.ASCII)  # RFC 6454, section 6.2: lower case, no path


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _env(*names: str, default: Any, **rules: Any) -> Any:
    return Field(default=default, validation_alias=AliasChoices(*names), **rules)


class Settings(BaseSettings):
    """The settings, by topic. Durations are seconds, money US dollars, sizes bytes."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILES, env_file_encoding="utf-8", extra="ignore", frozen=True, allow_inf_nan=False
    )

    # Where Flik is
    region: str = _env("FLIK_REGION", default="us-east", pattern=f"^{REGION.pattern}$")
    regions: Annotated[tuple[str, ...], NoDecode] = _env("FLIK_REGIONS", default=())  # that tasks may name, beside it
    port: int = _env("FLIK_PORT", default=8080, ge=1, le=65535)
    data_dir: Annotated[Path, AfterValidator(_absolute)] = _env("FLIK_DATA_DIR", default=Path(".flik"))
    public_url: str | None = _env("FLIK_PUBLIC_URL", default=None)  # None: the address the caller used
    cors_origins: Annotated[tuple[str, ...], NoDecode] = _env("FLIK_CORS_ORIGINS", default=())  # *: every origin

    # Servers; without a URL Flik starts its own in the data folder
    database_url: str | None = _env("DATABASE_URL", default=None)
    redis_url: str | None = _env("REDIS_URL", default=None)

    # Gateway
    gateway_replicas: int = _env("FLIK_GATEWAY_REPLICAS", default=1, ge=1, le=64)
    gateway_connections: int = _env("FLIK_GATEWAY_DB_CONNECTIONS", default=4, ge=1, le=100)
    idempotency_ttl_s: int = _env("FLIK_IDEMPOTENCY_TTL_S", default=86_400, ge=1, le=365 * 86_400)
    followers: int = _env("FLIK_FOLLOWERS", default=10_000, ge=1, le=1_000_000)  # of one gateway replica
    followers_per_key: int = _env("FLIK_FOLLOWERS_PER_KEY", default=1_000, ge=1, le=1_000_000)
    haproxy: bool = _env("FLIK_HAPROXY", default=True)  # Ray Serve's HAProxy mode
    throughput: bool = _env("FLIK_THROUGHPUT", default=True)  # Ray Serve's throughput mode
    rate_limit_requests_per_sec: int = _env("RATE_LIMIT_REQUESTS_PER_SEC", default=300, ge=1)
    rate_limit_burst: int = _env("RATE_LIMIT_BURST", default=1_000, ge=1)  # one full batch fits
    rate_share: float = _env("FLIK_RATE_SHARE", default=1.0, gt=0, le=1)  # of the limits, while Redis is away

    # Who may call
    auth: Literal["keys", "open"] = _env("FLIK_AUTH", default="keys")  # open: any bearer token may do everything
    jwt_jwks_url: str | None = _env("FLIK_JWT_JWKS_URL", default=None, pattern=r"^https?://\S+$")
    jwt_public_key: str | None = _env("FLIK_JWT_PUBLIC_KEY", default=None)  # a PEM, or the path of one
    jwt_issuer: str | None = _env("FLIK_JWT_ISSUER", default=None)
    jwt_audience: str | None = _env("FLIK_JWT_AUDIENCE", default=None)
    jwt_tenant_claim: str = _env("FLIK_JWT_TENANT_CLAIM", default="tenant", min_length=1)
    jwt_scopes_claim: str = _env("FLIK_JWT_SCOPES_CLAIM", default="scope", min_length=1)

    # Webhooks
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = _env("FLIK_WEBHOOK_ALLOW", default=())
    webhook_http: bool = _env("FLIK_WEBHOOK_HTTP", default=False)  # for development: signed, but readable on the way

    # Models
    worker_concurrency: int = _env("WORKER_CONCURRENCY", default=5, ge=1, le=4096)
    worker_version: str = _env("WORKER_VERSION", default="v1.0.0", pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")
    model_replicas: int = _env("FLIK_MODEL_REPLICAS", default=1, ge=1, le=1000)
    model_num_cpus: float = _env("FLIK_MODEL_NUM_CPUS", default=0.1, ge=0)
    provider: str = _env("FLIK_PROVIDER", default="simulated")
    simulated_speed: float = _env("FLIK_SIMULATED_SPEED", default=1.0, gt=0)  # 10: ten times as fast
    drain_s: float = _env("FLIK_DRAIN_S", default=4.0, ge=0)  # a stopping replica finishes what it can in this time

    # Queue
    lease_s: float = _env("FLIK_LEASE_S", default=3.0, gt=0)
    heartbeat_s: float = _env("FLIK_HEARTBEAT_S", default=1.0, gt=0)
    retry_delays_s: Annotated[tuple[float, ...], NoDecode] = _env("FLIK_RETRY_DELAYS_S", default=(5.0, 15.0, 60.0))
    ageing_s: float = _env("FLIK_AGEING_S", default=600.0, ge=0)  # waiting this long lifts a task one class; 0: never
    tenant_weights: Annotated[dict[str, int], NoDecode] = _env("FLIK_TENANT_WEIGHTS", default={})  # big=3,small=1
    queue_window: int = _env("FLIK_QUEUE_WINDOW", default=50_000, ge=100)  # tickets held in memory, per type
    queue_bounds: Annotated[tuple[int, ...], NoDecode] = _env(  # of P0, P1, P2: see flik/domain/pressure.py
        "FLIK_QUEUE_BOUNDS", default=(1_250_000, 1_100_000, 1_000_000)
    )
    soft_timeout_s: float = _env("FLIK_SOFT_TIMEOUT_S", default=25 * 60.0, gt=0)
    hard_timeout_s: float = _env("FLIK_HARD_TIMEOUT_S", default=30 * 60.0, gt=0)
    type_timeouts_s: Annotated[dict[str, tuple[float, float]], NoDecode] = _env(  # TEXT=60/90: soft and hard of a type
        "FLIK_TYPE_TIMEOUTS_S", default={}
    )

    # Results
    hot_ttl_s: int = _env("FLIK_HOT_TTL_S", default=600, ge=1)
    stream_ttl_s: int = _env("FLIK_STREAM_TTL_S", default=60, ge=1, le=86_400)  # of a text's chunks, after its end
    stream_silence_s: float = _env("FLIK_STREAM_SILENCE_S", default=60.0, gt=0)  # then a reader of /stream is let go
    artifact_url_ttl_s: int = _env("FLIK_ARTIFACT_URL_TTL_S", default=3600, ge=1)
    signing_key: SecretStr | None = _env("FLIK_SIGNING_KEY", default=None)  # None: made and kept in the data folder

    # Scaling (read by the autoscaler)
    autoscale_min_workers: int = _env("AUTOSCALE_MIN_WORKERS", default=2, ge=0)
    autoscale_max_workers: int = _env("AUTOSCALE_MAX_WORKERS", default=10, ge=1)
    autoscale_queue_threshold: int = _env("AUTOSCALE_QUEUE_THRESHOLD", default=100, ge=1)
    autoscale_budget_per_hour: float = _env("AUTOSCALE_BUDGET_PER_HOUR", default=50.0, ge=0)

    # Logs
    log_level: str = _env("FLIK_LOG_LEVEL", default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")

    @field_validator("retry_delays_s", "queue_bounds", mode="before")
    @classmethod
    def _split_numbers(cls, value: Any) -> Any:
        return tuple(part for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("regions", "cors_origins", "webhook_allow", mode="before")
    @classmethod
    def _split_texts(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(origin != "*" and not _ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("write origins as browsers send them, for instance https://app.example:8443, or *")
        return value

    @field_validator("regions")
    @classmethod
    def _regions_have_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not REGION.fullmatch(name) for name in value):
            raise ValueError("write names of up to 32 small letters, digits and hyphens, as in us-east,us-west")
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _allow_networks_and_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        read_allowed(value)
        return value

    @field_validator("tenant_weights", mode="before")
    @classmethod
    def _split_weights(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        if any("=" not in part for part in parts):
            raise ValueError("write tenant=weight, separated by commas, for instance big=3,small=1")
        return dict(part.split("=", 1) for part in parts)

    @field_validator("type_timeouts_s", mode="before")
    @classmethod
    def _split_timeouts(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [re.fullmatch(r"\s*(\w+)=([\d.]+)/([\d.]+)\s*", part) for part in value.split(",") if part.strip()]
        if None in parts:
            raise ValueError("write TYPE=soft/hard, separated by commas, for instance TEXT=60/90")
        return {found[1]: (found[2], found[3]) for found in parts if found}

    @field_validator("type_timeouts_s")
    @classmethod
    def _wind_down_before_the_end(cls, value: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        if any(not 0 < soft < hard for soft, hard in value.values()):
            raise ValueError("the soft timeout must be above 0 and below the hard one")
        return value

    @field_validator("tenant_weights")
    @classmethod
    def _weigh_at_least_one(cls, value: dict[str, int]) -> dict[str, int]:
        if any(weight < 1 for weight in value.values()):
            raise ValueError("a weight must be at least 1")
        return value

    @field_validator("queue_bounds")
    @classmethod
    def _urgent_work_has_more_room(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) != 3 or value[2] < 1 or sorted(value, reverse=True) != list(value):
            raise ValueError("write three bounds, for P0, P1 and P2, none larger than the one before it")
        return value

    @model_validator(mode="after")
    def _hold_together(self) -> Self:
        if self.jwt_jwks_url and self.jwt_public_key:
            raise ValueError("set FLIK_JWT_JWKS_URL or FLIK_JWT_PUBLIC_KEY, not both")
        if self.lease_s <= 2 * self.heartbeat_s:
            raise ValueError("FLIK_LEASE_S must be more than twice FLIK_HEARTBEAT_S, or one late beat loses a lease")
        if self.hard_timeout_s <= self.soft_timeout_s:
            raise ValueError("FLIK_HARD_TIMEOUT_S must be larger than FLIK_SOFT_TIMEOUT_S")
        if any(delay < 0 for delay in self.retry_delays_s):
            raise ValueError("FLIK_RETRY_DELAYS_S must not hold a negative delay")
        if self.autoscale_min_workers > self.autoscale_max_workers:
            raise ValueError("AUTOSCALE_MIN_WORKERS must not be larger than AUTOSCALE_MAX_WORKERS")
        return self


def variable(field: str) -> str:
    """Return the environment name of a setting, for instance FLIK_PORT for `port`."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)  # noqa: S101 - `_env` makes nothing else
    return str(alias.choices[0])


def load(**overrides: Any) -> Settings:
    """Read the settings, with `overrides` (field names) on top.

    Raises:
        SettingInvalid: names the variable and what is wrong with its value, or the file that cannot be read.
    """
    try:
        return Settings(**{variable(field): value for field, value in overrides.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise SettingInvalid(name, first["msg"].removeprefix("Value error, ")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingInvalid(" or ".join(ENV_FILES), f"cannot be read: {error}") from None
