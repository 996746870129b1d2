"""Where a name leads: asked once, in threads of its own, and refused if any of its addresses is.

One bad address among good ones refuses them all: who answers so for a name has no honest reason to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from flik.domain.webhook.address import Address, read_address, why_refused
from flik.domain.webhook.target import Allowed, Refused, Target

MAX_ADDRESSES = 32
NOWHERE = Refused("names a host that leads to no public address")
"""The one answer for names, so that nobody learns from it which names a private network has."""
Lookup = Callable[[str, int], Awaitable[list[str]]]
_THREADS = 32  # made when needed; a name server that does not answer holds one for half a minute
_pool: ThreadPoolExecutor | None = None


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a host in the order in which the system prefers them.

    Raises:
        OSError: it has none, or nobody can tell.
    """
    global _pool  # noqa: PLW0603 - the first lookup of a process makes it
    _pool = _pool or ThreadPoolExecutor(_THREADS, "flik-lookup")
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_pool, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def addresses_of(target: Target, allowed: Allowed, lookup: Lookup = look_up) -> list[Address] | Refused:
    """Return the addresses that a target leads to, all of which may be connected to; or why not."""
    found = [target.address] if target.address is not None else await _found(target, lookup)
    if not found:
        return NOWHERE
    if (target.host, target.port) in allowed.places:
        return found
    why = next(filter(None, (why_refused(address, allowed.networks) for address in found)), None)
    if why is None:
        return found
    return NOWHERE if target.address is None else Refused(f"leads to an address that is {why}")


async def _found(target: Target, lookup: Lookup) -> list[Address]:
    """Return all addresses of a name; none when one of them cannot be read, or when they are too many to be honest."""
    try:
        texts = await lookup(target.host, target.port)
    except (OSError, UnicodeError):
        return []
    read = [address for text in texts[:MAX_ADDRESSES] if (address := read_address(text)) is not None]
    return read if len(read) == len(texts) else []
