"""Where a follower of one task stands, and what is to be done with an event that it hears of.

Events come over a feed that may lose some, tell some twice and mix up their order; the log has them all.
So the numbers decide: the next one is delivered, an earlier one has been, and a later one means that
the log must be read. What passes by without a number is delivered while the attempt runs that it tells of.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from flik.domain.event import Event, Kind


class Verdict(Enum):
    """What to do with an event."""

    DELIVER = "deliver"
    SKIP = "skip"
    READ_LOG = "read the log"


class Position:
    """How far one follower is: `seq` is the number of the last event that it was given."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.ended = False
        self._attempt: int | None = None  # the one that runs

    def judge(self, event: Event) -> Verdict:
        """Return what to do with an event of the feed; its files must stand before a `completed`."""
        if not event.is_durable:
            runs = self._attempt is not None and event.attempt == self._attempt
            return Verdict.DELIVER if runs else Verdict.SKIP
        if event.seq <= self.seq:
            return Verdict.SKIP
        return Verdict.DELIVER if event.seq == self.seq + 1 else Verdict.READ_LOG

    def pass_over(self, log: Iterable[Event]) -> list[Event]:
        """Take in a log from its start; return the events of it that the follower was not given yet."""
        fresh = []
        for event in log:
            is_fresh = event.seq > self.seq
            if is_fresh:
                fresh.append(event)
            self.note(event)
        return fresh

    def note(self, event: Event) -> None:
        """Note that a durable event is given to the follower, or was."""
        self.seq = max(self.seq, event.seq)
        self.ended = event.ends
        if event.kind != Kind.ARTIFACT:
            self._attempt = event.attempt if event.kind == Kind.PROCESSING else None
