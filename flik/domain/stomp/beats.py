"""Heart-beats: how often each side sends something, and when silence means that the other one is gone.

Each side says in `heart-beat` what it can send and what it wants, in milliseconds. In a direction
there are beats each max(can, wants) ms, and none when either is 0. Whatever is sent counts as one,
an end of line when there is nothing else.

Sent each 0.8 of the time, so that one that is due is not late for those who count exactly. The other
side is taken for dead after twice the time, and 1 s more than the time at least: for 10 s after
20 s, for 0.1 s after 1.1 s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flik.errors import StreamMalformed

_EARLY = 0.8
_LEAST_MARGIN_S = 1.0
_HEADER = re.compile(r" *([0-9]{1,10}) *, *([0-9]{1,10}) *", re.ASCII)


@dataclass(frozen=True, slots=True)
class Beats:
    """What one side can send and what it wants: the milliseconds between heart-beats; 0: none."""

    sends_ms: int
    wants_ms: int

    def __str__(self) -> str:
        return f"{self.sends_ms},{self.wants_ms}"


NONE = Beats(0, 0)
OFFER = Beats(10_000, 10_000)


def read(header: str | None) -> Beats:
    """Return what a `heart-beat` header says; without one there are none.

    Raises:
        StreamMalformed: it is not two whole numbers.
    """
    if header is None:
        return NONE
    found = _HEADER.fullmatch(header)
    if found is None:
        raise StreamMalformed("heart-beat must be two numbers of milliseconds, as in 10000,10000")
    return Beats(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Pace:
    """What was agreed on: so often the server sends, so often the client does; None: it does not have to."""

    sends_s: float | None = None
    expects_s: float | None = None

    def due_at(self, sent_at: float) -> float | None:
        """Return when the next heart-beat is to be sent, after what was sent at `sent_at`."""
        return None if self.sends_s is None else sent_at + self.sends_s * _EARLY

    def dead_at(self, heard_at: float) -> float | None:
        """Return from when on the client counts as gone, if it was heard of at `heard_at` for the last time."""
        return None if self.expects_s is None else heard_at + self.expects_s + max(self.expects_s, _LEAST_MARGIN_S)


def agree(server: Beats, client: Beats) -> Pace:
    """Return the pace of a connection."""
    return Pace(_seconds(server.sends_ms, client.wants_ms), _seconds(client.sends_ms, server.wants_ms))


def _seconds(can_ms: int, wants_ms: int) -> float | None:
    return max(can_ms, wants_ms) / 1000 if can_ms and wants_ms else None
