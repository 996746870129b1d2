"""From a validated task to the 202: group commit, then the announcement.

All submissions that are waiting at one moment are stored by one INSERT. When nothing is
being stored, a submission is stored at once; so a single caller waits for one fsync, and a
thousand callers share one. A submission is acknowledged after its commit, never before.

Submissions under an idempotency key have flushes of their own, since they may have to wait for
another gateway that is taking the same key; those without a key never do. Of two submissions
under one key in this gateway, the second is refused while the first is in flight.

The queue is told afterwards, in batches, one call at a time. That may fail or never happen:
the queue finds committed tasks by itself, the announcement only makes it fast.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from flik.domain.dag.graph import NewDag
from flik.domain.idempotency import Answer, Kept, Keyed, KeyedRequest, Place, Verdict, decide
from flik.domain.task import NewTask, Ticket
from flik.errors import IdempotencyInFlight, IdempotencyKeyReused, RequestError, Unavailable
from flik.pipeline.flush import DagSubmission, Flusher, KeyedSubmission, Submission

MAX_UNANNOUNCED = 100_000
_log = logging.getLogger("flik.submit")


class Inserts(Protocol):
    """Where tasks are stored."""

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        """Commit all of the tasks, or raise."""


class Dags(Protocol):
    """Where dags are stored, with their tasks."""

    async def insert(self, dags: Sequence[NewDag]) -> None:
        """Commit all of the dags, or raise."""


class Answers(Protocol):
    """Where answers under idempotency keys are kept, with their tasks."""

    async def insert(self, submissions: Sequence[Keyed]) -> Collection[str]:
        """Commit the submissions whose key is free, and return their ids; or raise."""

    async def find(self, places: Collection[Place]) -> Mapping[Place, Kept]:
        """Return what is kept in these places."""


class Announces(Protocol):
    """Whoever tells of committed tasks."""

    def announce(self, tasks: Sequence[NewTask]) -> None:
        """Tell soon of what can run; returns at once."""


class GroupCommit:
    """Stores submissions together. Not thread-safe: it lives on one event loop."""

    def __init__(
        self,
        store: Inserts,
        answers: Answers,
        announcer: Announces,
        on_commit: Callable[[int], None] = lambda tasks: None,
        *,
        dags: Dags,
    ) -> None:
        self._store = store
        self._store_of_dags = dags
        self._answers = answers
        self._announcer = announcer
        self._on_commit = on_commit
        self._in_flight: set[Place] = set()
        self._plain = Flusher(self._store_plain)
        self._dags = Flusher(self._store_dags)
        self._keyed = Flusher(self._store_keyed, self._leave)

    async def commit(self, tasks: Sequence[NewTask]) -> None:
        """Return when all `tasks` are on disk; they are stored in one transaction.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        await self._plain.put(Submission(tasks))

    async def commit_dag(self, dag: NewDag) -> None:
        """Return when a dag is on disk with the tasks of its steps.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        await self._dags.put(DagSubmission(dag.tasks, dag=dag))

    async def commit_once(self, keyed: Keyed) -> Answer | None:
        """Return None when the tasks and their answer are on disk, or the answer that was kept before.

        Raises:
            IdempotencyInFlight: the first request under the key has no answer yet.
            IdempotencyKeyReused: the key stands for another request.
            Unavailable: PostgreSQL is away; a repeat finds out whether the tasks were stored.
        """
        self._refuse_in_flight(keyed.asked)
        self._in_flight.add(keyed.asked.place)
        return await self._keyed.put(KeyedSubmission(keyed.tasks, keyed=keyed))

    async def replay_of(self, asked: KeyedRequest) -> Answer | None:
        """Return the answer that is kept for a request; None when it has to be run.

        Raises:
            IdempotencyInFlight: the first request under the key has no answer yet.
            IdempotencyKeyReused: the key stands for another request.
            Unavailable: PostgreSQL is away.
        """
        self._refuse_in_flight(asked)
        return _replay(asked, (await self._answers.find((asked.place,))).get(asked.place))

    def _refuse_in_flight(self, asked: KeyedRequest) -> None:
        if asked.place in self._in_flight:
            raise IdempotencyInFlight(asked.key)

    def _leave(self, submissions: Sequence[KeyedSubmission]) -> None:
        self._in_flight.difference_update(each.keyed.asked.place for each in submissions)

    async def _store_plain(self, submissions: Sequence[Submission]) -> None:
        await self._store.insert([task for submission in submissions for task in submission.tasks])
        self._acknowledge(submissions)

    async def _store_dags(self, submissions: Sequence[DagSubmission]) -> None:
        await self._store_of_dags.insert([submission.dag for submission in submissions])
        self._acknowledge(submissions)

    async def _store_keyed(self, submissions: Sequence[KeyedSubmission]) -> None:
        stored = await self._answers.insert([each.keyed for each in submissions])
        self._acknowledge([each for each in submissions if each.keyed.submission_id in stored])
        await self._answer_again([each for each in submissions if each.keyed.submission_id not in stored])

    def _acknowledge(self, submissions: Sequence[Submission]) -> None:
        for submission in submissions:
            submission.end()
        # After the callers were woken: a call to an actor takes longer than an answer.
        if tasks := [task for submission in submissions for task in submission.tasks]:
            self._announcer.announce(tasks)
            self._on_commit(len(tasks))

    async def _answer_again(self, submissions: Sequence[KeyedSubmission]) -> None:
        """End submissions whose key was taken since `replay_of` looked."""
        kept = await self._answers.find([each.keyed.asked.place for each in submissions]) if submissions else {}
        for submission in submissions:
            asked = submission.keyed.asked
            try:
                submission.end(_replay(asked, kept.get(asked.place)) or _refuse(asked))
            except RequestError as error:
                submission.fail(error)


def _replay(asked: KeyedRequest, kept: Kept | None) -> Answer | None:
    verdict = decide(asked, kept)
    if verdict is Verdict.REUSED:
        raise IdempotencyKeyReused(asked.key)
    return kept.answer if kept and verdict is Verdict.REPLAY else None


def _refuse(asked: KeyedRequest) -> Answer:
    """Raise that another try is needed: the record that was in the way expired and was swept at this moment."""
    raise IdempotencyInFlight(asked.key)


class Announcer:
    """Tells one region's queue of committed tasks: one call in flight, what arrives meanwhile goes with the next."""

    def __init__(self, region: str, tell: Callable[[list[Ticket]], Awaitable[None]]) -> None:
        self._region = region
        self._tell = tell
        self._waiting: list[Ticket] = []
        self._teller: asyncio.Task[None] | None = None

    def announce(self, tasks: Sequence[NewTask]) -> None:
        """Tell the queue soon of what can run of its region; what it is not told of it finds by scanning."""
        room = max(0, MAX_UNANNOUNCED - len(self._waiting))
        self._waiting += [_ticket_of(task) for task in tasks if task.region == self._region and not task.waits][:room]
        if self._waiting and self._teller is None:
            self._teller = asyncio.create_task(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._waiting:
                tickets, self._waiting = self._waiting, []
                try:
                    await self._tell(tickets)
                except Unavailable:
                    _log.warning("the queue was not told; it will find them", extra={"count": len(tickets)})
        finally:
            self._teller = None


class Announcers:
    """Tells each region's queue of its tasks."""

    def __init__(self, announcers: Iterable[Announces]) -> None:
        self._announcers = tuple(announcers)

    def announce(self, tasks: Sequence[NewTask]) -> None:
        """Tell each queue soon of what can run of its region."""
        for each in self._announcers:
            each.announce(tasks)


def _ticket_of(task: NewTask) -> Ticket:
    at = task.created_at
    return Ticket(task.task_id, task.tenant_id, task.task_type, task.priority, at, at)
