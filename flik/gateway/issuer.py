"""Bearer tokens of a company's own issuer (JWT, RFC 7519) as an alternative to API keys.

Only RS256 and ES256 are accepted, and the algorithm follows from the key, never from the token alone
(RFC 8725, section 3.1). `exp` must be there; `nbf`, and issuer and audience where they are set, must fit. The
tenant and the scopes are claims whose names are settings; scopes that Flik does not have are passed over.

A token cannot be revoked one by one: it works until it expires or its key leaves the issuer's set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flik.domain.identity import ISSUED, Caller, Scope, is_tenant_id
from flik.gateway.issuer_config import IssuerConfig

CLOCK_SKEW_S = 5.0  # for `nbf` alone: an issuer's clock may be ahead
MAX_SUBJECT_CHARS = 200
_RSA_BITS = range(2_048, 8_193)  # RFC 7518, section 3.3; the upper bound is what a check may cost
PublicKey = RSAPublicKey | EllipticCurvePublicKey


class KeySource(Protocol):
    """Where the issuer's keys are found."""

    async def key_for(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Return the key of a token; None when the issuer has none. Raises Unavailable when it cannot be asked."""


class Issuer:
    """Says whom a token stands for."""

    def __init__(self, config: IssuerConfig, keys: KeySource, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._keys = keys
        self._now = now
        self._options: Any = {
            "require": ["exp"],
            "verify_aud": config.audience is not None,
            "verify_iss": config.issuer is not None,
            **dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_sub", "verify_jti"), False),
        }

    async def caller_of(self, token: str) -> Caller | None:
        """Return whom a token stands for; None when it is not good.

        Raises:
            Unavailable: its key is not known, and the issuer cannot be asked for it.
        """
        header = _header_of(token)
        if header is None:
            return None
        key = await self._keys.key_for(header.get("kid"), header["alg"])
        claims = None if key is None else self._verified(token, key, header["alg"])
        return None if claims is None or not self._is_current(claims) else self._caller(claims)

    def _verified(self, token: str, key: PublicKey, algorithm: str) -> Mapping[str, Any] | None:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                options=self._options,
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return None
        return claims

    def _is_current(self, claims: Mapping[str, Any]) -> bool:
        now = self._now()
        expires_at, valid_from = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
        return (
            expires_at is not None and now < expires_at and valid_from is not None and valid_from <= now + CLOCK_SKEW_S
        )

    def _caller(self, claims: Mapping[str, Any]) -> Caller | None:
        scopes = _scopes(claims.get(self._config.scopes_claim))
        if self._config.audience is None:
            scopes -= {Scope.ADMIN}  # a token made for another service of the company must not open everything here
        tenant_id = claims.get(self._config.tenant_claim)
        if tenant_id is None and Scope.ADMIN not in scopes:
            return None
        if tenant_id is not None and not (isinstance(tenant_id, str) and is_tenant_id(tenant_id)):
            return None
        return Caller(tenant_id, scopes, f"{ISSUED}{_subject(claims.get('sub'))}", _seconds(claims.get("exp")))


def algorithm_of(key: object) -> str | None:
    """Return the one algorithm that a public key is good for; None for a key that Flik does not accept."""
    if isinstance(key, RSAPublicKey) and key.key_size in _RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return None


class OneKey:
    """The issuer's key from a PEM."""

    def __init__(self, key: PublicKey) -> None:
        self._key = key
        self._algorithm = algorithm_of(key)

    async def key_for(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Return the key if the token is of its algorithm; which key id the token names does not matter."""
        del key_id
        return self._key if algorithm == self._algorithm else None


def read_pem(text: str) -> PublicKey:
    """Return the public key in a PEM.

    Raises:
        ValueError: there is none, or it is neither RSA of 2048 to 8192 bits nor EC P-256.
    """
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("it is not a public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if algorithm_of(key) is None or not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise ValueError("it is neither an RSA key of 2048 to 8192 bits nor an EC key on P-256")
    return key


def _header_of(token: str) -> dict[str, Any] | None:
    """Return the header of a token that could be good: one of our algorithms, a key id that is text, no extensions."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    key_id = header.get("kid")
    if header.get("alg") not in ("RS256", "ES256") or "crit" in header or "b64" in header:
        return None
    return header if key_id is None or isinstance(key_id, str) else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _scopes(claim: Any) -> frozenset[Scope]:
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(scope for scope in Scope if scope.value in words)


def _subject(claim: Any) -> str:
    said = claim if isinstance(claim, str) else ""
    return "".join(char if char.isprintable() else "?" for char in said[:MAX_SUBJECT_CHARS]) or "unnamed"
