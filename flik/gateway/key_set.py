"""The issuer's set of keys (JWKS, RFC 7517), fetched when it is needed and kept.

A set is fetched again when it is 300 s old, in the background, and when a token names a key that is not in
it, at most every 30 s, as an issuer changes its keys without telling. An issuer that does not answer costs
nothing while the key is known; for a key that is not, callers are told to come back. An answer may have
256 KiB and take 3 s; redirects are not followed. One fetch is in flight at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from flik import __version__
from flik.errors import Unavailable
from flik.gateway.issuer import Issuer, OneKey, PublicKey, algorithm_of, read_pem
from flik.gateway.issuer_config import IssuerConfig

FRESH_S = 300.0
AT_MOST_EVERY_S = 30.0
AGAIN_AFTER_FAILURE_S = 2.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
TIMEOUT_S = 3.0
_log = logging.getLogger("flik.gateway")
Fetch = Callable[[], Awaitable[bytes]]


class KeySet:
    """The keys by id. `fetch` returns the document; it may raise httpx.HTTPError, ValueError or TimeoutError."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: list[tuple[str | None, str, PublicKey]] | None = None
        self._fetched_at = -math.inf
        self._failed_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None

    async def key_for(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        """Return the key of a token; without an id, the only one of its algorithm.

        Raises:
            Unavailable: it is not known, and the issuer does not answer.
        """
        key = self._find(key_id, algorithm)
        age_s = self._clock() - self._fetched_at
        if key is not None:
            if age_s >= FRESH_S and self._may_ask():
                self._start()
            return key
        if age_s >= AT_MOST_EVERY_S:
            await self._ask()
        return self._find(key_id, algorithm)

    async def close(self) -> None:
        """End a fetch that runs."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _find(self, key_id: str | None, algorithm: str) -> PublicKey | None:
        fitting = [(each_id, key) for each_id, good_for, key in self._keys or () if good_for == algorithm]
        if key_id is None:
            return fitting[0][1] if len(fitting) == 1 else None
        return next((key for each_id, key in fitting if each_id == key_id), None)

    def _may_ask(self) -> bool:
        return self._clock() - self._failed_at >= AGAIN_AFTER_FAILURE_S

    def _start(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_once())
        return self._fetching

    async def _ask(self) -> None:
        if self._fetching is not None or self._may_ask():
            await asyncio.shield(self._start())
        if self._clock() - self._fetched_at >= AT_MOST_EVERY_S:
            raise Unavailable("issuer", AGAIN_AFTER_FAILURE_S)

    async def _fetch_once(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._keys = _read(await self._fetch())
            self._fetched_at = self._clock()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
            self._failed_at = self._clock()
            _log.warning("the issuer's keys could not be fetched: %s", error or type(error).__name__)
        finally:
            self._fetching = None


def fetch_from(http: httpx.AsyncClient, url: str) -> Fetch:
    """Return what fetches the document at `url`, bounded in size."""

    async def fetch() -> bytes:
        async with http.stream("GET", url, headers={"Accept": "application/json"}, follow_redirects=False) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"it answered {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"the answer is larger than {MAX_BYTES:,} bytes")
            return bytes(body)

    return fetch


def _read(document: bytes) -> list[tuple[str | None, str, PublicKey]]:
    """Return the keys of a set that Flik can use: (id, algorithm, key).

    Raises:
        ValueError: it is not a set of keys.
    """
    said = orjson.loads(document)
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is not a set of keys")
    read = (_read_key(each) for each in listed[:MAX_KEYS])
    return [each for each in read if each is not None]


def _read_key(said: Any) -> tuple[str | None, str, PublicKey] | None:
    """Return one key; None for one that is for something else, or broken (RFC 7517, section 5)."""
    if not isinstance(said, dict) or said.get("use", "sig") != "sig" or said.get("kty") not in ("RSA", "EC"):
        return None
    try:
        key = jwt.PyJWK({**said, "alg": None}).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithm, key_id = algorithm_of(key), said.get("kid")
    if algorithm is None or said.get("alg", algorithm) != algorithm or not isinstance(key_id, str | None):
        return None
    return (key_id, algorithm, key) if isinstance(key, RSAPublicKey | EllipticCurvePublicKey) else None


@asynccontextmanager
async def open_issuer(config: IssuerConfig) -> AsyncIterator[Issuer]:
    """Yield what checks an issuer's tokens.

    Raises:
        ValueError: the PEM holds no key that Flik accepts.
    """
    if config.jwks_url is None:
        yield Issuer(config, OneKey(read_pem(config.public_key_pem or "")))
        return
    async with httpx.AsyncClient(timeout=TIMEOUT_S, headers={"User-Agent": f"flik/{__version__}"}) as http:
        keys = KeySet(fetch_from(http, config.jwks_url))
        try:
            yield Issuer(config, keys)
        finally:
            await keys.close()
