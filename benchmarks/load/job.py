"""What the load client is told to do, and what it answers; both travel as JSON.

Times are of `time.monotonic()`, which all processes of one machine share on Linux.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import orjson


@dataclass(frozen=True)
class Post:
    """One request to make, over and over."""

    path: str
    body: str


@dataclass(frozen=True)
class Job:
    """A load: `posts` are taken in turn.

    `rate_per_s` None: closed loop, every connection sends its next request when the last was
    answered, until `count` requests or `seconds` are used up. With a rate: open loop, a
    request starts at each tick whatever became of the ones before it, `count` in all;
    `follow` then asks for each task every `poll_s` until it has settled.
    `preload` goes out first, closed loop, and is not timed.
    """

    host: str
    port: int
    posts: Sequence[Post]
    count: int
    seconds: float
    connections: int = 1
    rate_per_s: float | None = None
    follow: bool = False
    poll_s: float = 0.002
    give_up_s: float = 30.0
    preload: Sequence[Post] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the job as JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read a job back. Raises TypeError or KeyError for anything but `to_json`'s text."""
        fields = orjson.loads(text)
        for name in ("posts", "preload"):
            fields[name] = [Post(**post) for post in fields[name]]
        return cls(**fields)


@dataclass(frozen=True)
class Sample:
    """One followed task: when it was sent, how long its 202 took, and when it was seen settled (None: never)."""

    sent_at: float
    submit_ms: float
    settled_ms: float | None


@dataclass(frozen=True)
class Answers:
    """What came back.

    `statuses` counts HTTP statuses of requests, `refused` those of single tasks inside a
    batch. `unknown` requests got no answer (cut off or too late): the server may or may not
    have accepted them. `preloaded` and `task_ids` are accepted tasks only.
    """

    started_at: float
    elapsed_s: float
    statuses: Mapping[str, int]
    refused: Mapping[str, int]
    unknown: int
    task_ids: Sequence[str]
    preloaded: Sequence[str]
    latencies_ms: Sequence[float]
    samples: Sequence[Sample]

    @property
    def answered(self) -> int:
        """Requests that got a 2xx answer."""
        return sum(count for status, count in self.statuses.items() if status.startswith("2"))

    @property
    def accepted(self) -> int:
        """Tasks that got a 202, preloaded ones included."""
        return len(self.task_ids) + len(self.preloaded)

    def to_json(self) -> bytes:
        """Return the answers as JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read answers back. Raises TypeError or KeyError for anything but `to_json`'s text."""
        fields = orjson.loads(text)
        fields["samples"] = [Sample(**sample) for sample in fields["samples"]]
        return cls(**fields)
