"""What the queue of a region is told of its tasks by other regions: what was committed or moved there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flik.domain.task import Ticket


class News(NamedTuple):
    """Tasks that were submitted, that wait for a worker again (followers know of these), and that were cancelled."""

    announced: Sequence[Ticket] = ()
    waiting: Sequence[Ticket] = ()
    cancelled: Sequence[str] = ()
