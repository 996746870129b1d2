"""Whatever requests meet under whatever keys: each is answered as a simple model says.

Two gateways with a group commit each over one store, in memory and on PostgreSQL. Rounds of requests
that run at once, of two tenants with two keys and two bodies, and time that passes between the rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import EPOCH, keyed
from memory_answers import MemoryAnswers
from memory_store import MemoryStore

from flik.domain.idempotency import Answer, Keyed, Place
from flik.domain.task import NewTask, Ticket
from flik.errors import IdempotencyInFlight, IdempotencyKeyReused
from flik.pipeline.submit import Announcer, GroupCommit
from flik.storage.dags import DagStore
from flik.storage.database import Database
from flik.storage.idempotency import AnswerStore
from flik.storage.tasks import TaskStore

TTL_S = 100.0
SEQUENCES = int(os.environ.get("FLIK_SEQUENCES", "1000"))
_EXAMPLES = itertools.count()

Said = Answer | type[Exception]


@dataclass(frozen=True)
class Ask:
    """One request: through which gateway, under which key, for what; `ticks` is how late it comes in its round."""

    gateway: int
    tenant: str
    key: str
    body: str
    ticks: int


@dataclass(frozen=True)
class Round:
    """Requests that run at once, after `pause_s`."""

    pause_s: float
    asks: list[Ask]


asks = st.builds(
    Ask, st.integers(0, 1), st.sampled_from(["acme", "other"]), st.sampled_from(["k", "K"]), st.sampled_from("aab"),
    st.integers(0, 6),
)  # fmt: skip
rounds = st.lists(
    st.builds(Round, st.sampled_from([0.0, 1.0, TTL_S / 2, TTL_S]), st.lists(asks, min_size=1, max_size=10)),
    min_size=1,
    max_size=5,
)


@dataclass
class World:
    """Two gateways over the stores, and what they should have said."""

    gateways: list[GroupCommit]
    tasks: TaskStore | MemoryStore
    number: int = field(default_factory=lambda: next(_EXAMPLES))  # sets the tenants of an example apart
    kept: dict[Place, tuple[str, float, Answer]] = field(default_factory=dict)
    sent: list[tuple[NewTask, bool]] = field(default_factory=list)

    async def send(self, ask: Ask, submission: Keyed) -> Said:
        for _ in range(ask.ticks):
            await asyncio.sleep(0)
        gateway = self.gateways[ask.gateway]
        try:
            kept = await gateway.replay_of(submission.asked)
            return kept or await gateway.commit_once(submission) or submission.answer
        except (IdempotencyInFlight, IdempotencyKeyReused) as refused:
            return type(refused)

    async def run(self, wanted: Sequence[Round]) -> None:
        now = EPOCH
        for each in wanted:
            now += each.pause_s
            made = [keyed(key=a.key, body=a.body, at=now, tenant=f"{a.tenant}-{self.number}") for a in each.asks]
            said = await asyncio.gather(*(self.send(ask, it) for ask, it in zip(each.asks, made, strict=True)))
            for place in {it.asked.place for it in made}:
                here = [(it, word) for it, word in zip(made, said, strict=True) if it.asked.place == place]
                self.check(place, here, now)
        for task, stored in self.sent:
            assert (await self.tasks.get(task.task_id) is not None) == stored

    def check(self, place: Place, said: Sequence[tuple[Keyed, Said]], now: float) -> None:
        body, expires_at, answer = self.kept.get(place, ("", 0.0, None))
        first = None
        if expires_at <= now:
            (first,) = [it for it, word in said if word == it.answer]  # one and only one runs
            body, answer = first.asked.fingerprint, first.answer
            self.kept[place] = (body, now + TTL_S, answer)
        for it, word in said:
            self.sent.append((it.tasks[0], it is first))
            right = answer if it.asked.fingerprint == body else IdempotencyKeyReused
            assert word == right or (first is not None and word is IdempotencyInFlight)


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    tasks = MemoryStore()
    answers = MemoryAnswers(tasks.insert, ttl_s=TTL_S)
    yield World([GroupCommit(tasks, answers, Announcer("us-east", told), dags=tasks.dags) for _ in range(2)], tasks)


@asynccontextmanager
async def on_postgresql(url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        gateways = []
        for _ in range(2):
            database = await Database(url, connections=2).open()
            stack.push_async_callback(database.close)
            tasks = TaskStore(database, max_attempts=4)
            answers = AnswerStore(database, max_attempts=4, ttl_s=TTL_S)
            dags = DagStore(database, max_attempts=4)
            gateways.append(GroupCommit(tasks, answers, Announcer("us-east", told), dags=dags))
        yield World(gateways, tasks)


async def told(tickets: list[Ticket]) -> None:
    """The queue takes every announcement."""


@pytest.mark.timeout(600)
@settings(max_examples=SEQUENCES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rounds)
def test_requests_under_keys_are_answered_as_the_model_says(wanted: list[Round]) -> None:
    async def example() -> None:
        async with in_memory() as world:
            await world.run(wanted)

    asyncio.run(example())


@pytest.mark.timeout(600)
@settings(
    max_examples=max(1, SEQUENCES // 20),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rounds)
def test_requests_under_keys_are_answered_as_the_model_says_on_postgresql(
    database_url: str, wanted: list[Round]
) -> None:
    async def example() -> None:
        async with on_postgresql(database_url) as world:
            await world.run(wanted)

    asyncio.run(example())
