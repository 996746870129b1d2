"""Sends one request to a URL that a tenant chose, and tells of the answer no more than its status.

The URL is read and its name resolved anew each time, as what a name leads to can change; what is connected to is
the very address that was looked at. TLS still goes by the name: SNI, and the certificate. No redirect is followed,
no proxy is asked, no cookie kept, no connection used twice. All of it has 5 s. Of the answer at most 64 KiB are
read, and thrown away: its text could tell a tenant what only our network may see.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx

from flik import __version__
from flik.domain.webhook.address import Address
from flik.domain.webhook.attempt import Answered, Outcome, Unreached
from flik.domain.webhook.message import MAX_BODY_BYTES
from flik.domain.webhook.target import Allowed, Refused, Target, read_url
from flik.errors import Unavailable
from flik.outbound.lookups import Lookups
from flik.outbound.resolve import Lookup, addresses_of

TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
_MAX_TRIED = 3  # addresses of one name, when the first ones cannot be connected to
_TOOK_TOO_LONG = Unreached(f"no answer within {TIMEOUT_S:g} s")
_NOT_LOOKED_UP = Unreached("the lookup of the host's name timed out")


async def refusal_of(url: str, allowed: Allowed, lookup: Lookup) -> Refused | Target:
    """Return where a URL leads, looked at as when something is sent; or why nothing would be.

    Raises:
        Unavailable: nobody tells now where its name leads.
    """
    target = read_url(url, allowed)
    if isinstance(target, Refused):
        return target
    found = await addresses_of(target, allowed, lookup)
    return found if isinstance(found, Refused) else target


class GuardedSender:
    """Sends to places that `allowed` and the rules of `flik/domain/webhook` leave. `verify`: how TLS trusts."""

    def __init__(
        self, allowed: Allowed, *, lookups: Lookups | None = None, verify: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        self._allowed = allowed
        self._lookups = lookups or Lookups()
        self._verify = verify
        self._timeout_s = timeout_s
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def send(self, tenant_id: str, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST once to a URL of a tenant; whatever goes wrong is an outcome, in words of our own.

        Raises:
            ValueError: the body is larger than 64 KiB.
        """
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"a body has at most {MAX_BODY_BYTES:,} bytes, not {len(body):,}")
        target = read_url(url, self._allowed)
        if isinstance(target, Refused):
            return Unreached(f"the URL {target.why}")
        until = asyncio.get_running_loop().time() + self._timeout_s
        try:
            found = await addresses_of(target, self._allowed, self._lookups.of(tenant_id))
        except Unavailable:
            return _NOT_LOOKED_UP
        if isinstance(found, Refused):
            return Unreached(f"the URL {found.why}")
        try:
            async with asyncio.timeout_at(until) as limit:
                return await self._send(target, found, headers, body, limit)
        except TimeoutError:
            return _TOOK_TOO_LONG

    async def close(self) -> None:
        """Close what is open."""
        if self._transport is not None:
            await self._transport.aclose()

    async def _send(
        self, target: Target, found: list[Address], headers: Mapping[str, str], body: bytes, limit: asyncio.Timeout
    ) -> Outcome:
        outcome: Outcome = Unreached("no connection")
        for address in found[:_MAX_TRIED]:
            try:
                return await self._post(target, address, headers, body, limit)
            except httpx.ConnectError as error:
                outcome = Unreached(_words(error))
            except httpx.TimeoutException:
                return _TOOK_TOO_LONG
            except (httpx.TransportError, httpx.InvalidURL):
                return Unreached("the connection broke before an answer")
        return outcome

    async def _post(
        self, target: Target, address: Address, headers: Mapping[str, str], body: bytes, limit: asyncio.Timeout
    ) -> Outcome:
        request = httpx.Request(
            "POST",
            httpx.URL(f"{target.scheme}://placeholder{target.rest}").copy_with(host=str(address), port=target.port),
            headers={
                "host": target.authority, "user-agent": f"Flik/{__version__}", "accept": "*/*", "connection": "close",
                **headers,
            },
            content=body,
            extensions={"timeout": httpx.Timeout(self._timeout_s).as_dict(), "sni_hostname": target.host},
        )  # fmt: skip
        answer = await self._open().handle_async_request(request)
        try:
            deadline = limit.when()
            limit.reschedule(None)  # from here on there is an answer, however slowly the rest of it comes
            await _drain(answer, deadline)
            return Answered(answer.status_code, _retry_after_s(answer.headers))
        finally:
            await answer.aclose()

    def _open(self) -> httpx.AsyncHTTPTransport:
        if self._transport is None:  # its trust store takes 20 ms and a megabyte to read: not before it is needed
            verify: Any = self._verify or httpx.create_ssl_context()
            # A connection that is kept would be taken for the next host at the same address, unchecked.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits, retries=0)
        return self._transport


async def _drain(answer: httpx.Response, deadline: float | None) -> None:
    """Read an answer, so that its end is orderly; what it says is known by its status already."""
    read = 0
    stream: Any = answer.stream
    with suppress(httpx.TransportError, TimeoutError):
        async with asyncio.timeout_at(deadline):
            async for chunk in stream:
                read += len(chunk)
                if read > MAX_ANSWER_BYTES:
                    return


def _retry_after_s(headers: httpx.Headers) -> float | None:
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _words(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "the certificate is not valid for the host"
        if isinstance(cause, ssl.SSLError):
            return "TLS failed"
        cause = cause.__cause__ or cause.__context__
    return "no connection"
