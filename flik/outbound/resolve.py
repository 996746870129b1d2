"""Where a name leads: asked once, in threads of its own, and refused if any of its addresses is.

One bad address among good ones refuses them all: who answers so for a name has no honest reason to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flik.domain.webhook.address import Address, read_address, why_refused
from flik.domain.webhook.target import Allowed, Refused, Target

MAX_ADDRESSES = 32
THREADS = 64  # made when needed; a name server that does not answer holds one for half a minute
NOWHERE = Refused("names a host that leads to no public address")
"""The one answer for names, so that nobody learns from it which names a private network has."""
Lookup = Callable[[str], Awaitable[list[str]]]
_pool: ThreadPoolExecutor | None = None


async def look_up(host: str) -> list[str]:
    """Return the addresses of a host in the order in which the system prefers them.

    Whoever stops waiting stops nothing: the system is asked until it answers (`lookups.py`).

    Raises:
        OSError: it has none, or nobody can tell.
    """
    global _pool  # noqa: PLW0603 - the first lookup of a process makes it
    _pool = _pool or ThreadPoolExecutor(THREADS, "flik-lookup")
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_pool, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def addresses_of(target: Target, allowed: Allowed, lookup: Lookup) -> list[Address] | Refused:
    """Return the addresses that a target leads to, all of which may be connected to; or why not.

    What `lookup` raises beyond OSError is raised.
    """
    return judge(target, allowed, () if target.address is not None else await answer_of(target.host, lookup))


async def answer_of(host: str, lookup: Lookup) -> list[str]:
    """Return what a lookup says of a name; nothing for one that nobody knows."""
    try:
        return await lookup(host)
    except (OSError, UnicodeError):
        return []


def judge(target: Target, allowed: Allowed, answer: Sequence[str]) -> list[Address] | Refused:
    """Return the addresses that a target leads to if the lookup of its name said `answer`; or why it leads nowhere."""
    found = [target.address] if target.address is not None else _read(answer)
    if not found:
        return NOWHERE
    if (target.host, target.port) in allowed.places:
        return found
    why = next(filter(None, (why_refused(address, allowed.networks) for address in found)), None)
    if why is None:
        return found
    return NOWHERE if target.address is None else Refused(f"leads to an address that is {why}")


def _read(answer: Sequence[str]) -> list[Address]:
    """Return all addresses of a name; none when one of them cannot be read, or when they are too many to be honest."""
    read = [address for text in answer[:MAX_ADDRESSES] if (address := read_address(text)) is not None]
    return read if len(read) == len(answer) else []
