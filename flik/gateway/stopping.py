"""Lets followers go when Serve stops this replica: they come back to another one, or to the next.

Serve calls a replica's own shutdown hook (the end of the ASGI lifespan) when no request is open any more. A follower's
never ends by itself: so the hook would not be called, and after `graceful_shutdown_timeout_s` all would be cut off.
What can be seen before: behind HAProxy, the first thing that Serve does is to close the replica's listener. So while
somebody follows, it is tried every `WATCH_S` whether this replica still takes connections. WebSockets the server itself
closes at that moment, with the same 1012. Without HAProxy there is no such sign, and followers are cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from flik.errors import GatewayStops
from flik.pipeline.followers import Followers
from flik.processes import listens_on

WATCH_S = 1.0
_MAX_SEEN = 16
Address = tuple[str, int]


class Listener:
    """Where this replica listens, as its own requests tell; some of them come through a proxy, and name that."""

    def __init__(self, is_ours: Callable[[int], bool] = listens_on) -> None:
        self._is_ours = is_ours
        self._seen: set[Address] = set()
        self._address: Address | None = None

    def note(self, scope: Scope) -> None:
        """Take the address that a request came to."""
        server = scope.get("server")
        if self._address is None and server is not None and server[1] and len(self._seen) < _MAX_SEEN:
            self._seen.add((server[0], server[1]))

    async def is_closed(self) -> bool:
        """Return whether connections are refused there; any other trouble says nothing."""
        if self._address is None:
            self._address = await self._find()
        if self._address is None:
            return False
        try:
            async with asyncio.timeout(WATCH_S):
                _, writer = await asyncio.open_connection(*self._address)
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return False

    async def _find(self) -> Address | None:
        for address in tuple(self._seen):
            if await asyncio.to_thread(self._is_ours, address[1]):
                return address
        return None


class NotingListener:
    """Middleware: tells of each connection where it came to."""

    def __init__(self, app: ASGIApp, *, listener: Listener) -> None:
        self._app = app
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        self._listener.note(scope)
        await self._app(scope, receive, send)


async def let_go(followers: Followers, listener: Listener) -> None:
    """Return when this replica is being stopped and its followers were told."""
    while not (len(followers) and await listener.is_closed()):  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(WATCH_S)
    followers.stop(GatewayStops("the gateway"))
