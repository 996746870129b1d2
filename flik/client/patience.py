"""How often and how long the client tries again: a pure decision, made before each new try.

A refusal that says when to come back (429, a full queue) is always worth another try, since
the server did nothing. So is a connection that was never made. Anything else, a 503 because a
dependency is away among it, may have taken effect: it is tried again for reads, and for writes
that carry an idempotency key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flik.client.failures import FlikApiError, FlikUnreachable

READS = frozenset({"GET", "HEAD"})
MAX_OUTAGES_IN_A_ROW = 10  # of what is followed or waited for: half a minute without a gateway


class Mishap(Enum):
    """How a try went wrong."""

    REFUSED = "429, or 503 from a full queue"
    NEVER_SENT = "no connection was made"
    UNKNOWN = "503: a dependency was away, perhaps after it did what was asked"
    LOST = "the connection broke, or the answer took too long"
    BAD_GATEWAY = "502 or 504"


@dataclass(frozen=True, slots=True)
class Patience:
    """At most `tries` tries, 0.2, 0.4, 0.8 ... s apart (at most `longest_s`), or what the server asks for.

    Up to a quarter is added at random, so that callers refused together don't come back
    together. A server that asks for more than `longest_asked_s` is not waited for.
    """

    tries: int = 4
    first_s: float = 0.2
    longest_s: float = 5.0
    longest_asked_s: float = 30.0

    def next_delay_s(
        self, method: str, mishap: Mishap, tries_made: int, asked_s: float | None, chance: float, *, once: bool = False
    ) -> float | None:
        """Return the seconds to wait before the next try, or None to give up; `chance` is from 0 to 1.

        `once`: the call carries an idempotency key.
        """
        safe = once or method in READS or mishap in (Mishap.REFUSED, Mishap.NEVER_SENT)
        if not safe or tries_made >= self.tries or (asked_s or 0) > self.longest_asked_s:
            return None
        backoff_s = min(self.longest_s, self.first_s * 2.0 ** (tries_made - 1))
        return max(backoff_s, asked_s or 0) * (1 + chance / 4)


def passes(error: FlikUnreachable | FlikApiError) -> bool:
    """Tell whether the failure is one that a restart or less load ends."""
    return isinstance(error, FlikUnreachable) or error.status in (429, 502, 503, 504)
