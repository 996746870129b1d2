"""One call to the gateway: send, read a bounded answer, try again where that is safe, explain failures.

httpx stays behind this file. The key is sent to the gateway only, never to an address that
an answer names. Redirects are not followed for calls. An answer over 32 MiB is refused, and
so is one that is not JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Self
from uuid import uuid4

import httpx

from flik import __version__
from flik.client.access import Access
from flik.client.failures import ClientError, FlikApiError, FlikUnreachable, UnreadableAnswer
from flik.client.patience import Mishap, Patience
from flik.domain.idempotency import MAX_KEY_CHARS
from flik.errors import FieldError

MAX_ANSWER_BYTES = 32 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 40.0  # a stream of events has something to say every 15 s
_LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the JSON document, and how long the server asks to wait before the next look."""

    status: int
    document: Any
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a stream of events. `last_id`: after which one; None: from its beginning."""

    method: str
    path: str
    params: Mapping[str, str]
    body: Any = None
    last_id: str | None = None


class Transport:
    """A connection pool to one gateway. `sleep` and `chance` are passed in by tests."""

    def __init__(
        self,
        access: Access,
        timeout_s: float,
        patience: Patience | None = None,
        sleep: Sleep = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._access = access
        self._patience = patience or Patience()
        self._sleep = sleep
        self._chance = chance
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
            headers={"User-Agent": f"flik/{__version__}"},
            mounts=dict.fromkeys(_LOOPBACK),  # a proxy never leads to this machine
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; a second call does nothing."""
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
        also_good: Collection[int] = (),
        once: bool = False,
        key: str | None = None,
        wait_s: int = 0,
    ) -> Answer:
        """Call the gateway and return its answer, which is 2xx or one of `also_good`.

        `once`: the call goes with an idempotency key, the caller's `key` or one of its own, the same for every try,
        so that whatever becomes of a try, the next one does nothing twice. `wait_s`: the gateway may take so long to
        answer, if the task has ended then.

        Raises:
            FlikApiError, FlikUnreachable, UnreadableAnswer: after the last try.
            ValueError: the body is not JSON, or the key cannot be sent.
        """
        request = self._request(method, path, params, body)
        if wait_s:
            request.headers["Prefer"] = f"wait={wait_s}"
        if once:
            request.headers["Idempotency-Key"] = quoted_key(str(uuid4()) if key is None else key)
        tries_made = 0
        while True:
            tries_made += 1
            try:
                return await self._try(request, also_good)
            except _Mishap as failed:
                delay_s = self._patience.next_delay_s(
                    method, failed.mishap, tries_made, failed.asked_s, self._chance(), once=once
                )
                if delay_s is None:
                    raise failed.error from None
            await self._sleep(delay_s)

    @asynccontextmanager
    async def stream(self, url: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open an artifact's URL, without the key, and hand out its bytes as they come.

        Raises:
            FlikApiError, FlikUnreachable: also while the bytes come.
        """
        full_url = self._access.absolute(url)
        try:
            async with self._http.stream("GET", full_url, follow_redirects=True) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _refusal(response, _document(await _read(response)), self._access.base_url)
                yield response.aiter_bytes()
        except (httpx.HTTPError, httpx.InvalidURL, _TooLarge) as error:
            raise FlikUnreachable(_origin(full_url), _reason(error)) from None

    @asynccontextmanager
    async def events(self, asked: Asked) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """Open a stream of events, and hand out its bytes; None when it has ended.

        Raises:
            FlikApiError, FlikUnreachable: also while the bytes come.
        """
        request = self._request(asked.method, asked.path, asked.params, asked.body)
        request.headers["Accept"] = "text/event-stream"
        if asked.last_id is not None:
            request.headers["Last-Event-ID"] = asked.last_id
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": SILENCE_S}
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
                    raise _refusal(response, _document(await _read(response)), self._access.base_url)
                yield response.aiter_bytes() if response.status_code == HTTPStatus.OK else None
            finally:
                await response.aclose()
        except (httpx.HTTPError, _TooLarge) as error:
            raise FlikUnreachable(self._access.base_url, _reason(error)) from None

    def _request(self, method: str, path: str, params: Mapping[str, Any] | None, body: Any) -> httpx.Request:
        headers = {"Authorization": f"Bearer {self._access.api_key}", "Accept": "application/json"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = to_json(body)
        url = self._access.base_url + path
        sent = {name: value for name, value in (params or {}).items() if value is not None}
        return self._http.build_request(method, url, params=sent or None, headers=headers, content=content)

    async def _try(self, request: httpx.Request, also_good: Collection[int]) -> Answer:
        base_url = self._access.base_url
        try:
            response = await self._http.send(request, stream=True)
            try:
                content = await _read(response)
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Mishap(Mishap.NEVER_SENT, FlikUnreachable(base_url, _reason(error))) from None
        except httpx.DecodingError as error:
            raise UnreadableAnswer(base_url, _reason(error)) from None
        except _TooLarge:
            raise UnreadableAnswer(base_url, f"it is larger than {MAX_ANSWER_BYTES:,} bytes") from None
        except httpx.TransportError as error:
            maybe_done = request.method != "GET"
            raise _Mishap(Mishap.LOST, FlikUnreachable(base_url, _reason(error), maybe_done)) from None
        return _judge(response, content, also_good, base_url)


class _Mishap(Exception):
    """A failed try that may be worth another."""

    def __init__(self, mishap: Mishap, error: ClientError, asked_s: float | None = None) -> None:
        super().__init__(mishap, error, asked_s)
        self.mishap = mishap
        self.error = error
        self.asked_s = asked_s


class _TooLarge(Exception):
    """The answer is larger than the client reads."""


def quoted_key(key: str) -> str:
    """Return an idempotency key as its header has it, a string of RFC 9651, section 3.3.3.

    Raises:
        ValueError: it is empty, longer than 255 characters, or has others than printable ASCII.
    """
    if not 1 <= len(key) <= MAX_KEY_CHARS or not all(" " <= char <= "~" for char in key):
        raise ValueError(f"an idempotency key is 1 to {MAX_KEY_CHARS} printable ASCII characters")
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


def to_json(value: Any) -> bytes:
    """Return the value as JSON (UTF-8).

    Raises:
        ValueError: it holds what JSON cannot say: NaN, a lone surrogate, an object of another type.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        reason = "text that is not valid UTF-8" if isinstance(error, UnicodeEncodeError) else str(error)
        raise ValueError(f"the request cannot be sent as JSON: {reason}") from None


async def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise _TooLarge
    return bytes(content)


def _judge(response: httpx.Response, content: bytes, also_good: Collection[int], base_url: str) -> Answer:
    status, document = response.status_code, _document(content)
    if response.is_success or (status in also_good and isinstance(document, dict)):
        if document is None:
            raise UnreadableAnswer(base_url, "it is not JSON")
        return Answer(status, document, retry_after_s(response.headers.get("Retry-After")))
    error = _refusal(response, document, base_url)
    mishap = Mishap.REFUSED if error.code == "idempotency_in_flight" else _MISHAPS.get(status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and error.code == "unavailable":
        mishap = Mishap.UNKNOWN
    if mishap is None:
        raise error
    raise _Mishap(mishap, error, error.retry_after_s)


_MISHAPS = {429: Mishap.REFUSED, 503: Mishap.REFUSED, 502: Mishap.BAD_GATEWAY, 504: Mishap.BAD_GATEWAY}


def _document(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _refusal(response: httpx.Response, document: Any, base_url: str) -> FlikApiError:
    problem = document if isinstance(document, dict) else {}
    said = problem.get("detail") or problem.get("title")
    return FlikApiError(
        response.status_code,
        problem["code"] if isinstance(problem.get("code"), str) else "unknown",
        said if isinstance(said, str) else _unexplained(response, base_url),
        field_errors(problem),
        problem["requestId"] if isinstance(problem.get("requestId"), str) else response.headers.get("X-Request-ID"),
        _asked_s(problem, response),
    )


def _unexplained(response: httpx.Response, base_url: str) -> str:
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if response.is_redirect:
        target = response.headers.get("Location", "elsewhere")
        return f"{base_url} sends us to {target} ({status}); use that as the URL if you trust it"
    if response.is_server_error:
        return f"{base_url} answered {status}"
    return f"{base_url} answered {status} and gave no reason; is it a Flik gateway?"


def field_errors(problem: Mapping[str, Any]) -> tuple[FieldError, ...]:
    """Return the field errors of a problem document, leaving out what cannot be read."""
    errors = problem.get("errors")
    found = [item for item in errors if isinstance(item, Mapping)] if isinstance(errors, list) else []
    return tuple(FieldError(str(item.get("pointer", "")), str(item.get("detail", ""))) for item in found)


def _asked_s(problem: Mapping[str, Any], response: httpx.Response) -> float | None:
    wait_ms = problem.get("retryAfterMs")
    if isinstance(wait_ms, int | float) and not isinstance(wait_ms, bool):
        return max(0.0, wait_ms / 1000)
    return retry_after_s(response.headers.get("Retry-After"))


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Read a `Retry-After` (RFC 9110, section 10.2.3): seconds or a date; None if there is none to read."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ConnectError):
        return "nothing listens there" if "All connection attempts failed" in str(error) else str(error)
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error) or type(error).__name__


def _origin(url: str) -> str:
    """Return the URL without its path: signed links stay out of messages."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return "an address that is no URL"
    return f"{parts.scheme}://{parts.netloc.decode()}"
