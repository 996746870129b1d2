"""Settings: read from the environment, checked once, and a bad one is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flik import settings
from flik.errors import SettingInvalid


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("FLIK_", "AUTOSCALE_", "WORKER_", "RATE_LIMIT_", "DATABASE_URL", "REDIS_URL")
    for name in [name for name in os.environ if name.startswith(ours)]:
        monkeypatch.delenv(name)


def test_defaults_are_those_of_the_documentation() -> None:
    read = settings.load()
    assert (read.region, read.port, read.worker_version, read.worker_concurrency) == ("us-east", 8080, "v1.0.0", 5)
    assert (read.rate_limit_requests_per_sec, read.hot_ttl_s, read.artifact_url_ttl_s) == (300, 600, 3600)
    assert read.retry_delays_s == (5.0, 15.0, 60.0)
    assert (read.autoscale_min_workers, read.autoscale_max_workers) == (2, 10)
    assert (read.autoscale_queue_threshold, read.autoscale_budget_per_hour) == (100, 50.0)
    assert (read.database_url, read.redis_url, read.signing_key) == (None, None, None)
    assert read.data_dir == Path.cwd() / ".flik"


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_PORT", "9001")
    monkeypatch.setenv("WORKER_CONCURRENCY", "8")
    monkeypatch.setenv("FLIK_RETRY_DELAYS_S", "0.5, 1,")
    monkeypatch.setenv("FLIK_TENANT_WEIGHTS", "big=3, small=1,")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/flik")
    monkeypatch.setenv("FLIK_HAPROXY", "false")
    read = settings.load()
    assert (read.port, read.worker_concurrency, read.retry_delays_s) == (9001, 8, (0.5, 1.0))
    assert read.tenant_weights == {"big": 3, "small": 1}
    assert (read.database_url, read.haproxy) == ("postgresql://db/flik", False)


@pytest.mark.parametrize("value", ["", "5,4", "1,2,3", "3,2,0", "9,8,7,6"])
def test_queue_bounds_that_would_refuse_urgent_work_first_are_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    assert settings.load().queue_bounds == (1_250_000, 1_100_000, 1_000_000)
    monkeypatch.setenv("FLIK_QUEUE_BOUNDS", value)
    with pytest.raises(SettingInvalid, match="FLIK_QUEUE_BOUNDS"):
        settings.load()


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", ()),
        ("*", ("*",)),
        ("https://app.example, http://[::1]:3000,", ("https://app.example", "http://[::1]:3000")),
    ],
)
def test_origins_are_read(monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]) -> None:
    monkeypatch.setenv("FLIK_CORS_ORIGINS", value)
    assert settings.load().cors_origins == origins


@pytest.mark.parametrize(
    "value", ["app.example", "https://app.example/", "https://App.example", "https://a.example b", "https://*.example"]
)
def test_origin_that_no_browser_sends_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLIK_CORS_ORIGINS", value)
    with pytest.raises(SettingInvalid, match="FLIK_CORS_ORIGINS"):
        settings.load()


def test_webhooks_may_lead_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_WEBHOOK_ALLOW", "10.0.0.0/8, receiver:9000,")
    assert settings.load().webhook_allow == ("10.0.0.0/8", "receiver:9000")


@pytest.mark.parametrize("value", ["receiver", "10.0.0.1/8", "*", "10.0.0.0/8;receiver:9000"])
def test_what_allows_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLIK_WEBHOOK_ALLOW", value)
    with pytest.raises(SettingInvalid, match="FLIK_WEBHOOK_ALLOW"):
        settings.load()


def test_no_delays_mean_no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_RETRY_DELAYS_S", "")
    assert settings.load().retry_delays_s == ()


def test_override_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_REGION", "us-west")
    assert settings.load(region="eu-north").region == "eu-north"
    assert settings.load().region == "us-west"


def test_data_folder_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings.load(data_dir=Path("here")).data_dir == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.load(data_dir=Path("~/flik")).data_dir == tmp_path / "flik"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLIK_PORT", "0"), ("FLIK_PORT", "65536"), ("FLIK_PORT", "http"), ("FLIK_PORT", ""),
        ("FLIK_REGION", "US EAST"), ("FLIK_REGION", ""), ("FLIK_REGIONS", "us-east,US WEST"),
        ("WORKER_CONCURRENCY", "0"), ("WORKER_CONCURRENCY", "1.5"),
        ("WORKER_VERSION", "v1/../.."), ("WORKER_VERSION", ""), ("FLIK_RETRY_DELAYS_S", "5,soon"),
        ("FLIK_RETRY_DELAYS_S", "nan"), ("FLIK_RETRY_DELAYS_S", "inf"), ("FLIK_TENANT_WEIGHTS", "big:3"),
        ("FLIK_TENANT_WEIGHTS", "big=0"), ("FLIK_TENANT_WEIGHTS", "big=x"), ("FLIK_TENANT_WEIGHTS", "big=3,small"),
        ("FLIK_LEASE_S", "nan"), ("FLIK_LEASE_S", "-1"), ("FLIK_SIMULATED_SPEED", "0"), ("FLIK_SIMULATED_SPEED", "inf"),
        ("FLIK_HOT_TTL_S", "0"), ("FLIK_LOG_LEVEL", "LOUD"), ("FLIK_HAPROXY", "maybe"), ("FLIK_QUEUE_WINDOW", "10"),
        ("AUTOSCALE_BUDGET_PER_HOUR", "-1"), ("RATE_LIMIT_REQUESTS_PER_SEC", "0"),
        ("RATE_LIMIT_BURST", "0"), ("FLIK_RATE_SHARE", "0"), ("FLIK_RATE_SHARE", "1.5"),
    ],
)  # fmt: skip
def test_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingInvalid) as caught:
        settings.load()
    assert caught.value.name == name
    assert caught.value.reason


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"FLIK_LEASE_S": "2", "FLIK_HEARTBEAT_S": "1"}, "FLIK_LEASE_S must be more than twice FLIK_HEARTBEAT_S"),
        ({"FLIK_HARD_TIMEOUT_S": "10", "FLIK_SOFT_TIMEOUT_S": "10"}, "FLIK_HARD_TIMEOUT_S must be larger"),
        ({"FLIK_RETRY_DELAYS_S": "1,-1"}, "FLIK_RETRY_DELAYS_S must not hold a negative delay"),
        ({"AUTOSCALE_MIN_WORKERS": "11"}, "AUTOSCALE_MIN_WORKERS must not be larger than AUTOSCALE_MAX_WORKERS"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingInvalid, match=said):
        settings.load()


def test_secret_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_SIGNING_KEY", "hunter2")
    read = settings.load()
    assert "hunter2" not in repr(read)
    assert read.signing_key is not None
    assert read.signing_key.get_secret_value() == "hunter2"


def test_timeouts_of_single_types_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_TYPE_TIMEOUTS_S", "TEXT=60/90, VIDEO=1500/1800.5")
    assert settings.load().type_timeouts_s == {"TEXT": (60.0, 90.0), "VIDEO": (1500.0, 1800.5)}


@pytest.mark.parametrize("value", ["TEXT=90/60", "TEXT=0/60", "TEXT=60", "60/90", "TEXT=a/b"])
def test_impossible_timeout_of_a_type_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("FLIK_TYPE_TIMEOUTS_S", value)
    with pytest.raises(SettingInvalid, match="FLIK_TYPE_TIMEOUTS_S"):
        settings.load()


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ({"FLIK_AUTH": "off"}, "FLIK_AUTH"),
        ({"FLIK_AUTH": "OPEN"}, "FLIK_AUTH"),
        ({"FLIK_JWT_JWKS_URL": "id.example/jwks.json"}, "FLIK_JWT_JWKS_URL"),
        ({"FLIK_JWT_JWKS_URL": "file:///etc/passwd"}, "FLIK_JWT_JWKS_URL"),
        ({"FLIK_JWT_TENANT_CLAIM": ""}, "FLIK_JWT_TENANT_CLAIM"),
        ({"FLIK_JWT_JWKS_URL": "https://id.example/jwks.json", "FLIK_JWT_PUBLIC_KEY": "x.pem"}, "not both"),
    ],
)
def test_who_may_call_is_never_left_in_doubt(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str], named: str
) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingInvalid, match=named):
        settings.load()


def test_keys_are_asked_for_unless_it_is_said() -> None:
    assert settings.load().auth == "keys"
