"""What the methods of `FlikClient` stand on: one gateway, its answers read, its lists walked, ends waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, Self, TypeVar

from flik.client.access import Access, resolve
from flik.client.answers import PageOf
from flik.client.failures import FlikApiError, FlikUnreachable, UnreadableAnswer
from flik.client.patience import MAX_OUTAGES_IN_A_ROW, passes
from flik.client.transport import Answer, Sleep, Transport

MAX_PAGE = 100
FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0
LONGEST_ASKED_S = 30.0


@dataclass(frozen=True, slots=True)
class TaskWebhook:
    """Where one task, or one dag, is told of. Without `kinds` that is how it ends.

    `secret` is `whsec_` and the base64 of 24 to 64 random bytes; `verify_webhook` checks with it what comes.
    """

    url: str
    secret: str = field(repr=False)
    kinds: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as a submit has it."""
        return {"url": self.url, "secret": self.secret, **({"kinds": [*self.kinds]} if self.kinds else {})}


class Ending(Protocol):
    """What has a state, and ends: a task, a dag."""

    @property
    def status(self) -> str:
        """The state, in the server's word."""
        ...

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended."""
        ...


T = TypeVar("T")
E = TypeVar("E", bound=Ending)


class Seen(Generic[E]):
    """The last look at something that ends; reports each that differs from the one before."""

    def __init__(self, on_change: Callable[[E], None] | None) -> None:
        self.last: E | None = None
        self._on_change = on_change

    @property
    def status(self) -> str | None:
        """The state seen last; None before the first look."""
        return None if self.last is None else self.last.status

    def update(self, found: E) -> None:
        """Note what was found."""
        changed = found != self.last
        self.last = found
        if changed and self._on_change is not None:
            self._on_change(found)


class Calls:
    """A caller's hand on one gateway; an async context manager.

    What is not given comes from `FLIK_URL`, `FLIK_API_KEY`, `FLIK_TENANT` and defaults
    (`flik.client.access`). `timeout_s` bounds each try, not the wait for a task.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        tenant: str | None = None,
        timeout_s: float = 30.0,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.access: Access = resolve(base_url, api_key, tenant)
        self._transport = Transport(self.access, timeout_s, sleep=sleep)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        await self._transport.close()

    async def _until_end(self, look: Callable[[], Awaitable[tuple[E, float | None]]], seen: Seen[E]) -> E:
        """Look until it has ended: after 0.1 s, then ever more seldom up to once a second, or as the gateway asks.

        A gateway that goes away after the first look is waited for, about half a minute.
        """
        outages = 0
        delay_s = FIRST_LOOK_S
        while True:
            asked_s = None
            try:
                found, asked_s = await look()
            except (FlikUnreachable, FlikApiError) as error:
                outages += 1
                if seen.last is None or outages > MAX_OUTAGES_IN_A_ROW or not passes(error):
                    raise
            else:
                outages = 0
                seen.update(found)
                if found.is_terminal:
                    return found
            await self._sleep(max(delay_s, min(asked_s or 0.0, LONGEST_ASKED_S)))
            delay_s = min(LONGEST_LOOK_S, delay_s * 1.5)

    async def _items(
        self, path: str, filters: Mapping[str, Any], limit: int | None, read: Callable[[Any], PageOf[T]]
    ) -> AsyncIterator[T]:
        left = limit
        cursor: str | None = None
        cursors: set[str] = set()
        while left is None or left > 0:
            params = {**filters, "limit": min(left or MAX_PAGE, MAX_PAGE), "cursor": cursor}
            page = self._as(read, await self._transport.call("GET", path, params=params))
            for item in page.items[:left]:
                yield item
            left = None if left is None else left - len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in cursors:
                raise self._unreadable("the list leads in a circle")
            cursors.add(cursor)

    def _as(self, read: Callable[[Any], T], answer: Answer) -> T:
        try:
            return read(answer.document)
        except ValueError as error:
            raise self._unreadable(str(error)) from None

    def _unreadable(self, reason: str) -> UnreadableAnswer:
        return UnreadableAnswer(self.access.base_url, reason)


def timestamp(moment: datetime | None) -> str | None:
    """Return a time as it is sent.

    Raises:
        ValueError: it has no zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone; pass an aware datetime")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def given(**values: Any) -> dict[str, Any]:
    """Return the values that were given: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}
