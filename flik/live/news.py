"""News for the queues of other regions, over Redis: a channel for each region, which its queue listens to.

At most once, and nothing is kept: a queue that misses some finds what waits by its scan, and what was cancelled
when it compares what it has leased with what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import orjson
from redis.exceptions import RedisError

from flik.domain.news import News
from flik.domain.task import Ticket, compact_ticket
from flik.errors import Unavailable
from flik.live import keys
from flik.live.channel import listen
from flik.live.connect import connect

MAX_TASKS = 1_000  # of one message


class NewsWriter:
    """Tells the queues of other regions. Not thread-safe: it lives on one event loop."""

    def __init__(self, url: str) -> None:
        self._redis = connect(url)

    async def tell(self, region: str, news: News) -> None:
        """Send news to the queue of a region; whether it listens is not known.

        Raises:
            Unavailable: Redis is away.
        """
        try:
            for part in _parts(news):
                await self._redis.publish(keys.news(region), pack(part))
        except (RedisError, OSError) as error:
            raise Unavailable("redis") from error

    async def announce(self, region: str, tickets: Sequence[Ticket]) -> None:
        """Tell the queue of a region of committed tasks; see `tell`."""
        await self.tell(region, News(announced=tickets))

    async def close(self) -> None:
        """Give the connection up."""
        await self._redis.aclose()


class NewsReader:
    """Hears what the queue of one region is told."""

    def __init__(self, url: str, region: str, hear: Callable[[News], None]) -> None:
        self._url = url
        self._region = region
        self._hear = hear

    async def run(self) -> None:
        """Listen until cancelled."""
        await listen(self._url, keys.news(self._region), lambda message: self._hear(unpack(message)))


def pack(news: News) -> bytes:
    """Return news as one message."""
    announced, waiting = ([tuple(ticket) for ticket in kind] for kind in (news.announced, news.waiting))
    return orjson.dumps({"announced": announced, "waiting": waiting, "cancelled": news.cancelled})


def unpack(message: bytes) -> News:
    """Return the news of a message; none when another version of Flik wrote it in another form."""
    try:
        found = orjson.loads(message)
        return News(
            [compact_ticket(each) for each in found["announced"]],
            [compact_ticket(each) for each in found["waiting"]],
            [str(each) for each in found["cancelled"]],
        )
    except (TypeError, ValueError, KeyError):
        return News()


def _parts(news: News) -> Iterator[News]:
    """Yield the news in messages of at most `MAX_TASKS` of each kind."""
    for start in range(0, max(map(len, news)), MAX_TASKS):
        end = start + MAX_TASKS
        yield News(news.announced[start:end], news.waiting[start:end], news.cancelled[start:end])
