"""How settings become what a gateway needs to know who may call."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flik import app, settings
from flik.domain.identity import Limits
from flik.domain.webhook.target import Allowed
from flik.errors import SettingInvalid
from flik.gateway.issuer_config import IssuerConfig

PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for field in settings.Settings.model_fields:
        monkeypatch.delenv(settings.variable(field), raising=False)


def test_default_rate_is_that_of_the_setting() -> None:
    assert app.default_limits(settings.load(rate_limit_requests_per_sec=7)) == Limits(rate_per_s=7.0)


def test_gateway_is_told_where_webhooks_may_lead() -> None:
    read = settings.load(webhook_allow=("10.0.0.0/8", "receiver:9000"), webhook_http=True, signing_key="x")
    allowed = app.gateway_config(read, "postgresql://", "redis://").webhooks
    assert (str(allowed.networks[0]), allowed.places, allowed.plain_http) == (
        "10.0.0.0/8", {("receiver", 9000)}, True,
    )  # fmt: skip
    assert app.gateway_config(settings.load(), "postgresql://", "redis://").webhooks == Allowed()


def test_without_its_settings_there_is_no_issuer() -> None:
    assert app.issuer_config(settings.load(jwt_audience="flik")) is None


def test_key_of_an_issuer_may_be_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "issuer.pem").write_text(PEM)
    expected = IssuerConfig(public_key_pem=PEM, issuer="https://id.example", tenant_claim="org")
    for given in (PEM, "issuer.pem", str(tmp_path / "issuer.pem")):
        read = settings.load(jwt_public_key=given, jwt_issuer="https://id.example", jwt_tenant_claim="org")
        assert app.issuer_config(read) == expected


def test_issuer_may_have_a_set_of_keys() -> None:
    url = "https://id.example/jwks.json"
    assert app.issuer_config(settings.load(jwt_jwks_url=url)) == IssuerConfig(jwks_url=url)


@pytest.mark.parametrize("given", ["missing.pem", "-----BEGIN PUBLIC KEY-----\nAAAA", "\0"])
def test_key_that_cannot_be_read_stops_the_start(given: str) -> None:
    with pytest.raises(SettingInvalid, match="FLIK_JWT_PUBLIC_KEY"):
        app.issuer_config(settings.load(jwt_public_key=given))
