"""Where a setting comes from: the environment, then the local file, then the checked-in one, then the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from flik import settings
from flik.errors import SettingInvalid

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, with no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for field in settings.Settings.model_fields:
        monkeypatch.delenv(settings.variable(field), raising=False)


def write(name: str, *lines: str) -> None:
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_without_files_and_environment_the_defaults_hold() -> None:
    assert settings.load().port == 8080
    assert settings.load().retry_delays_s == (5.0, 15.0, 60.0)


def test_local_file_overrides_the_checked_in_one() -> None:
    write(".env.development", "FLIK_PORT=9001", "FLIK_REGION=from-file")
    write(".env.development.local", "FLIK_PORT=9002", "FLIK_TENANT_WEIGHTS=big=3,small=1")
    chosen = settings.load()
    assert (chosen.port, chosen.region) == (9002, "from-file")
    assert chosen.tenant_weights == {"big": 3, "small": 1}


def test_environment_overrides_the_files_and_an_argument_overrides_all(monkeypatch: pytest.MonkeyPatch) -> None:
    write(".env.development.local", "FLIK_PORT=9002")
    monkeypatch.setenv("FLIK_PORT", "9003")
    assert settings.load().port == 9003
    assert settings.load(port=9004).port == 9004


def test_bad_value_in_a_file_is_named() -> None:
    write(".env.development.local", "FLIK_LEASE_S=soon")
    with pytest.raises(SettingInvalid) as refused:
        settings.load()
    assert refused.value.name == "FLIK_LEASE_S"


def test_file_that_is_no_text_is_refused_by_name() -> None:
    Path(".env.development.local").write_bytes(b"FLIK_REGION=\xff\xfe\n")
    with pytest.raises(SettingInvalid, match=r"\.env\.development\.local"):
        settings.load()


def test_variable_of_somebody_else_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PORT", "3000"), ("REGION", "mars"), ("PROVIDER", "noop"), ("LOG_LEVEL", "debug")):
        monkeypatch.setenv(name, value)
    write(".env.development", "PORT=3000", "COMPOSE_PROJECT_NAME=x")
    chosen = settings.load()
    assert (chosen.port, chosen.region, chosen.provider) == (8080, "us-east", "simulated")
    assert chosen.log_level == "INFO"


def test_checked_in_file_changes_no_default() -> None:
    defaults = settings.load()
    write(".env.development", (ROOT / ".env.development").read_text(encoding="utf-8"))
    assert settings.load() == defaults


def test_every_line_of_the_checked_in_file_is_a_setting_with_its_default() -> None:
    lines = (ROOT / ".env.development").read_text(encoding="utf-8").splitlines()
    offered = dict(line.removeprefix("#").split("=", 1) for line in lines if is_offer(line))
    defaults = settings.load()
    assert set(offered) == {settings.variable(field) for field in settings.Settings.model_fields}

    unset = {  # examples: no value is a default
        "DATABASE_URL", "REDIS_URL", "FLIK_PUBLIC_URL", "FLIK_SIGNING_KEY", "FLIK_JWT_JWKS_URL", "FLIK_JWT_PUBLIC_KEY",
        "FLIK_JWT_ISSUER", "FLIK_JWT_AUDIENCE",
    }  # fmt: skip
    write(".env.development", *(f"{name}={value}" for name, value in offered.items() if name not in unset))
    assert settings.load() == defaults


def is_offer(line: str) -> bool:
    """Tell a commented-out setting (`#NAME=value`) from a remark (`# words`)."""
    return line.startswith("#") and line[1:2].isupper() and "=" in line
