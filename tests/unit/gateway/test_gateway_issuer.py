"""Tokens of a company's own issuer: the good ones become callers, every other one is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gateway_parts
import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from gateway_parts import body
from making import EPOCH, Clock

from flik.domain.identity import Caller, OwnLimits, Scope
from flik.errors import Unavailable
from flik.gateway import key_set
from flik.gateway.issuer import Issuer, OneKey, read_pem
from flik.gateway.issuer_config import IssuerConfig
from flik.gateway.key_set import KeySet, fetch_from, open_issuer
from flik.storage.audit import By

RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))
SHORT_RSA = rsa.generate_private_key(65537, 1024)
EC, WRONG_CURVE = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
CONFIG = IssuerConfig(issuer="https://id.example", audience="flik")
CLAIMS = {
    "iss": "https://id.example", "aud": "flik", "sub": "ada", "exp": EPOCH + 60, "nbf": EPOCH - 60, "iat": EPOCH - 60,
    "tenant": "acme", "scope": "openid submit read profile",
}  # fmt: skip
GOOD = Caller("acme", frozenset({Scope.SUBMIT, Scope.READ}), "jwt:ada")


def pem_of(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def token(key: Any = RSA, algorithm: str = "RS256", header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """A token; a claim that is None is left out."""
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(said, key, algorithm, headers=dict(header or {}))


def part(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def issuer(key: Any = RSA, config: IssuerConfig = CONFIG) -> Issuer:
    return Issuer(config, OneKey(read_pem(pem_of(key))), Clock())


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
async def test_good_token_stands_for_its_tenant_and_scopes(key: Any, algorithm: str) -> None:
    assert await issuer(key).caller_of(token(key, algorithm)) == GOOD


@pytest.mark.parametrize(
    ("claims", "caller"),
    [
        ({"scope": ["read", "admin", 7]}, Caller("acme", frozenset({Scope.READ, Scope.ADMIN}), "jwt:ada")),
        ({"scope": None}, Caller("acme", frozenset(), "jwt:ada")),
        ({"scope": {"read": True}}, Caller("acme", frozenset(), "jwt:ada")),
        ({"scope": "READ readonly"}, Caller("acme", frozenset(), "jwt:ada")),
        ({"scope": "admin", "tenant": None}, Caller(None, frozenset({Scope.ADMIN}), "jwt:ada")),
        ({"sub": None}, Caller("acme", GOOD.scopes, "jwt:unnamed")),
        ({"sub": "a\x1b[31m" + "x" * 999}, Caller("acme", GOOD.scopes, "jwt:a?[31m" + "x" * 194)),
        ({"aud": ["other", "flik"]}, GOOD),
        ({"nbf": EPOCH + 4}, GOOD),  # the issuer's clock is a little ahead
        ({"iat": EPOCH + 10**6}, GOOD),
        ({"exp": EPOCH + 0.5}, GOOD),
    ],
)
async def test_claims_say_who_it_is(claims: dict[str, Any], caller: Caller) -> None:
    assert await issuer().caller_of(token(**claims)) == caller


async def test_names_of_claims_are_settings() -> None:
    config = IssuerConfig(tenant_claim="https://id.example/org", scopes_claim="roles")
    claims = {"tenant": "zebra", "scope": "admin", "https://id.example/org": "acme", "roles": ["submit", "read"]}
    assert await issuer(config=config).caller_of(token(**claims)) == GOOD


async def test_without_an_audience_no_token_is_an_operator_s() -> None:
    anywhere = issuer(config=IssuerConfig())

    operator = await anywhere.caller_of(token(aud="billing", scope="admin read"))
    nobody = await anywhere.caller_of(token(aud="billing", scope="admin", tenant=None))

    assert operator == Caller("acme", frozenset({Scope.READ}), "jwt:ada")
    assert nobody is None


async def test_audience_and_issuer_are_not_looked_at_when_they_are_not_set() -> None:
    assert await issuer(config=IssuerConfig()).caller_of(token(aud="other", iss=None)) == GOOD


NOT_GOOD = {
    "expired": {"exp": EPOCH},
    "without an end": {"exp": None},
    "an end that is text": {"exp": str(EPOCH + 60)},
    "an end that is true": {"exp": True},
    "an endless end": {"exp": 10**400},
    "not yet": {"nbf": EPOCH + 6},
    "a start that is text": {"nbf": "now"},
    "of another issuer": {"iss": "https://evil.example"},
    "without an issuer": {"iss": None},
    "for somebody else": {"aud": "other"},
    "for nobody": {"aud": None},
    "without a tenant": {"tenant": None},
    "a tenant that is a number": {"tenant": 7},
    "a tenant that is a list": {"tenant": ["acme"]},
    "a tenant with a NUL": {"tenant": "a\0b"},
    "an empty tenant": {"tenant": ""},
    "a long tenant": {"tenant": "x" * 129},
}


@pytest.mark.parametrize("fault", NOT_GOOD)
async def test_token_whose_claims_are_not_good_is_refused(fault: str) -> None:
    assert await issuer().caller_of(token(**NOT_GOOD[fault])) is None


def hostile() -> dict[str, str]:
    header, claims, signature = token().split(".")
    none = f"{part({'alg': 'none', 'typ': 'JWT'})}.{claims}"
    with_public_key_as_secret = hs256(pem_of(RSA).encode())
    return {
        "no algorithm, no signature": f"{none}.",
        "no algorithm, another's signature": f"{none}.{signature}",
        "None": f"{part({'alg': 'None'})}.{claims}.",
        "HS256 with the public key as the secret": with_public_key_as_secret,
        "HS256 with an empty secret": hs256(b""),
        "a claim changed": f"{header}.{part({**CLAIMS, 'tenant': 'zebra'})}.{signature}",
        "signature cut": f"{header}.{claims}.{signature[:-8]}",
        "signature empty": f"{header}.{claims}.",
        "of another key": token(OTHER_RSA),
        "ES256 where the key is RSA": token(EC, "ES256"),
        "RS512": token(RSA, "RS512"),
        "PS256": token(RSA, "PS256"),
        "ES384": token(WRONG_CURVE, "ES384"),
        "brings its own key": token(OTHER_RSA, header={"jwk": jwk(OTHER_RSA, "k1")}),
        "names its own set of keys": token(OTHER_RSA, header={"jku": "https://evil.example/jwks.json"}),
        "extension that must be understood": token(header={"crit": ["exp"], "exp": 1}),
        "detached payload": f"{part({'alg': 'RS256', 'b64': False, 'crit': ['b64']})}.{claims}.{signature}",
        "key id that is a number": f"{part({'alg': 'RS256', 'kid': 7})}.{claims}.{signature}",
        "header that is a list": f"{part(['RS256'])}.{claims}.{signature}",
        "header that is deep": f"{base64.urlsafe_b64encode(b'[' * 2000).decode()}.{claims}.{signature}",
        "claims that are a list": signed([1, 2]),
        "claims that are text": signed("x"),
        "two parts": f"{header}.{claims}",
        "five parts (encrypted)": ".".join([header, claims, signature, claims, signature]),
        "dots": "..",
        "not base64": "!.!.!",
        "text": "demo",
        "huge": "a" * 4096,
    }


def hs256(secret: bytes) -> str:
    signing_input = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(CLAIMS)}"
    digest = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def signed(payload: Any) -> str:
    return jwt.PyJWS().encode(json.dumps(payload).encode(), RSA, "RS256")


@pytest.mark.parametrize("fault", range(28))
async def test_hostile_token_is_refused(fault: int) -> None:
    cases = list(hostile().items())
    assert len(cases) == 28
    name, text = cases[fault]
    assert await issuer().caller_of(text) is None, name


@pytest.mark.parametrize("key", [SHORT_RSA, WRONG_CURVE])
def test_key_that_is_too_weak_or_of_another_curve_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="neither an RSA key"):
        read_pem(pem_of(key))


@pytest.mark.parametrize("text", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a public key"):
        read_pem(text)


def test_private_key_is_refused() -> None:
    private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ValueError, match="not a public key"):
        read_pem(private)


# ---- the issuer's set of keys


def jwk(key: Any, key_id: str | None, **fields: Any) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    said = json.loads(algorithm.to_jwk(key.public_key()))
    return {**said, **({} if key_id is None else {"kid": key_id}), **fields}


class Served:
    """An issuer's address. `fault` is raised in the place of an answer."""

    def __init__(self, *keys: Any) -> None:
        self.document: Any = {"keys": list(keys)}
        self.fault: Exception | None = None
        self.fetches = 0
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self) -> bytes:
        self.fetches += 1
        await self.open.wait()
        if self.fault is not None:
            raise self.fault
        return self.document if isinstance(self.document, bytes) else orjson.dumps(self.document)


AWAY = httpx.ConnectError("refused")


async def test_token_is_checked_with_the_key_it_names() -> None:
    served = Served(jwk(OTHER_RSA, "k1"), jwk(RSA, "k2"), jwk(EC, "k3"))
    with_set = Issuer(CONFIG, KeySet(served, Clock()), Clock())
    assert await with_set.caller_of(token(RSA, header={"kid": "k2"})) == GOOD
    assert await with_set.caller_of(token(EC, "ES256", header={"kid": "k3"})) == GOOD
    assert await with_set.caller_of(token(RSA, header={"kid": "k1"})) is None
    assert await with_set.caller_of(token(RSA, header={"kid": "k3"})) is None
    assert await with_set.caller_of(token(EC, "ES256")) == GOOD  # the only one of its algorithm
    assert await with_set.caller_of(token(RSA)) is None  # which of the two?
    assert served.fetches == 1


async def test_unknown_key_is_looked_for_at_most_every_thirty_seconds() -> None:
    served, clock = Served(jwk(EC, "k1")), Clock()
    keys = KeySet(served, clock)
    assert await keys.key_for("k2", "RS256") is None
    for _ in range(10):
        assert await keys.key_for("k2", "RS256") is None
    assert served.fetches == 1
    served.document = {"keys": [jwk(EC, "k1"), jwk(RSA, "k2")]}
    clock.forward(29.9)
    assert await keys.key_for("k2", "RS256") is None
    clock.forward(0.1)
    assert await keys.key_for("k2", "RS256") is not None
    assert served.fetches == 2


async def test_many_at_once_are_one_fetch() -> None:
    served = Served(jwk(RSA, "k1"))
    served.open.clear()
    keys = KeySet(served, Clock())
    waiting = [asyncio.create_task(keys.key_for("k1", "RS256")) for _ in range(50)]
    await asyncio.sleep(0)
    served.open.set()
    assert all(await asyncio.gather(*waiting))
    assert served.fetches == 1


async def test_issuer_away_costs_nothing_while_the_key_is_known() -> None:
    served, clock = Served(jwk(RSA, "k1")), Clock()
    keys = KeySet(served, clock)
    await keys.key_for("k1", "RS256")
    served.fault = AWAY
    for _ in range(100):
        clock.forward(60)
        assert await keys.key_for("k1", "RS256") is not None
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="issuer"):
        await keys.key_for("k2", "RS256")
    await keys.close()


async def test_issuer_that_is_away_is_not_asked_for_each_request() -> None:
    served, clock = Served(), Clock()
    served.fault = AWAY
    keys = KeySet(served, clock)
    for _ in range(10):
        with pytest.raises(Unavailable):
            await keys.key_for("k1", "RS256")
    assert served.fetches == 1
    served.fault, served.document = None, {"keys": [jwk(RSA, "k1")]}
    clock.forward(2.0)
    assert await keys.key_for("k1", "RS256") is not None


async def test_key_that_left_the_set_stops_working() -> None:
    served, clock = Served(jwk(RSA, "k1"), jwk(EC, "k2")), Clock()
    keys = KeySet(served, clock)
    await keys.key_for("k1", "RS256")
    served.document = {"keys": [jwk(EC, "k2")]}
    clock.forward(key_set.FRESH_S)
    assert await keys.key_for("k1", "RS256") is not None  # nobody waits for the fetch
    for _ in range(5):
        await asyncio.sleep(0)
    assert await keys.key_for("k1", "RS256") is None


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b"[]", b"{}", b'{"keys": 7}', b"[" * 100_000, b"\xff"],
)
async def test_answer_that_is_no_set_of_keys_counts_as_none(document: bytes) -> None:
    served = Served()
    served.document = document
    with pytest.raises(Unavailable):
        await KeySet(served, Clock()).key_for("k1", "RS256")


@pytest.mark.parametrize(
    "said",
    [
        7, {}, {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}, {"kty": "RSA", "kid": "k1"},
        {"kty": "RSA", "n": "!", "e": "!", "kid": "k1"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "k1"},
        jwk(SHORT_RSA, "k1"), jwk(WRONG_CURVE, "k1"), jwk(RSA, "k1", use="enc"), jwk(RSA, "k1", alg="RS512"),
        {**jwk(RSA, "k1"), "kid": 7},
    ],
)  # fmt: skip
async def test_key_that_is_for_something_else_is_passed_over(said: Any) -> None:
    keys = KeySet(Served(said, jwk(EC, "k2")), Clock())
    assert await keys.key_for("k1", "RS256") is None
    assert await keys.key_for("k2", "ES256") is not None


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_only_a_200_counts(status: int) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, json={"keys": []}, headers={"Location": "/x"}))
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(ValueError, match=str(status)):
            await fetch_from(http, "https://id.example/jwks.json")()


async def test_huge_answer_is_given_up() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65_536
            yield b" " * 65_536

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=endless()))
    async with httpx.AsyncClient(transport=transport) as http:
        with pytest.raises(ValueError, match="larger than"):
            await fetch_from(http, "https://id.example/jwks.json")()
    assert sent <= 2 * key_set.MAX_BYTES


async def test_slow_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_set, "TIMEOUT_S", 0.01)
    served = Served()
    served.open.clear()
    with pytest.raises(Unavailable):
        await KeySet(served, Clock()).key_for("k1", "RS256")


# ---- through the door


async def test_token_and_key_both_open_the_door() -> None:
    async with open_issuer(IssuerConfig(public_key_pem=pem_of(RSA))) as checked:
        checked._now = Clock()  # the tokens here are of the tests' time
        fakes = gateway_parts.build(is_open=False, issuer=checked)
        await fakes.parts.tenants.create("acme", "", OwnLimits(), EPOCH, By("tests"))
        async with (
            fakes.app.router.lifespan_context(fakes.app),
            httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as client,
        ):
            for text, tenant, status in (
                (token(), "acme", 202), (token(), "zebra", 403), (token(tenant="zebra"), "zebra", 403),
                (token(scope="read"), "acme", 403), (token(exp=EPOCH), "acme", 401), (hostile()["None"], "acme", 401),
                ("flik_live_x", "acme", 401),
            ):  # fmt: skip
                headers = {"Authorization": f"Bearer {text}"}
                answer = await client.post("/api/v1/tasks", json=body(tenantId=tenant), headers=headers)
                assert answer.status_code == status, answer.text
