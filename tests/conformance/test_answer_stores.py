"""What every store of answers does: the table, and the one in memory that group commit is tested with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import psycopg
import pytest
from making import EPOCH, keyed, new_task
from memory_answers import MemoryAnswers
from memory_store import MemoryStore

from flik.domain.idempotency import Answer, Keyed
from flik.domain.task import NewTask
from flik.storage.database import Database
from flik.storage.idempotency import AnswerStore
from flik.storage.tasks import TaskStore

TTL_S = 100.0
PLACE = ("acme", "k")


@dataclass
class Stores:
    answers: AnswerStore | MemoryAnswers
    tasks: TaskStore | MemoryStore

    async def are_stored(self, *tasks: NewTask) -> list[bool]:
        return [await self.tasks.get(task.task_id) is not None for task in tasks]


@pytest.fixture(params=["memory", "postgresql"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        tasks = MemoryStore()
        yield Stores(MemoryAnswers(tasks.insert, ttl_s=TTL_S), tasks)
        return
    url = request.getfixturevalue("database_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, idempotency_keys")
    database = await Database(url, connections=2).open()
    yield Stores(AnswerStore(database, max_attempts=4, ttl_s=TTL_S), TaskStore(database, max_attempts=4))
    await database.close()


async def insert(stores: Stores, *submissions: Keyed) -> list[bool]:
    """Insert, and say for each submission whether it was stored."""
    stored = await stores.answers.insert(submissions)
    assert stored <= {each.submission_id for each in submissions}
    return [each.submission_id in stored for each in submissions]


async def test_tasks_and_answer_are_stored_together_and_read_back(stores: Stores) -> None:
    tasks = (new_task(request_id="r", trace_id="t", start_deadline_at=EPOCH + 5), new_task(priority=2))
    answer = Answer(207, {"Location": "http://é/", "Retry-After": "1"}, '{"a":"é 🐈 \\u0000 \\" \\\\ \\n", "b" : 1}\n ')
    submission = Keyed(keyed(key='k "\\').asked, answer, tasks)
    assert await insert(stores, submission) == [True]
    view = await stores.tasks.get(tasks[0].task_id)
    assert view is not None
    assert (view.tenant_id, view.status, view.start_deadline_at, view.request_id) == ("acme", "QUEUED", EPOCH + 5, "r")
    assert view.max_attempts == 4
    assert await stores.are_stored(*tasks) == [True, True]
    (kept,) = (await stores.answers.find([submission.asked.place])).values()
    assert (kept.fingerprint, kept.expires_at, kept.answer) == (submission.asked.fingerprint, EPOCH + TTL_S, answer)


@pytest.mark.parametrize("body", ["a", "b"])
async def test_second_submission_under_a_key_stores_nothing(stores: Stores, body: str) -> None:
    first, second = keyed(), keyed(body=body, at=EPOCH + TTL_S - 0.01)
    assert await insert(stores, first) == [True]
    assert await insert(stores, second) == [False]
    assert await stores.are_stored(*first.tasks, *second.tasks) == [True, False]
    assert (await stores.answers.find([PLACE]))[PLACE].answer == first.answer


async def test_losers_of_a_statement_do_not_hold_up_the_others(stores: Stores) -> None:
    await insert(stores, keyed(key="b"))
    submissions = [keyed(new_task(), new_task(), key=key) for key in "cab"]
    assert await insert(stores, *submissions) == [True, True, False]
    assert await stores.are_stored(*(task for each in submissions for task in each.tasks)) == [True] * 4 + [False] * 2


async def test_keys_belong_to_their_tenant(stores: Stores) -> None:
    mine, theirs = keyed(tenant="acme"), keyed(tenant="other", body="b")
    assert await insert(stores, mine, theirs) == [True, True]
    found = await stores.answers.find([("acme", "k"), ("other", "k"), ("third", "k")])
    assert {place: kept.answer for place, kept in found.items()} == {
        ("acme", "k"): mine.answer,
        ("other", "k"): theirs.answer,
    }


async def test_keys_that_differ_in_case_or_by_a_space_are_different(stores: Stores) -> None:
    submissions = [keyed(key=key) for key in ("k", "K", "k ", " k", "%", "_")]
    assert await insert(stores, *submissions) == [True] * 6


async def test_repeated_statement_knows_its_own_record(stores: Stores) -> None:
    submission, other = keyed(), keyed(key="other")
    assert await insert(stores, submission) == [True]
    assert await insert(stores, submission, other) == [True, True]
    assert await stores.are_stored(*submission.tasks, *other.tasks) == [True, True]
    assert (await stores.answers.find([PLACE]))[PLACE].answer == submission.answer


async def test_expired_answer_makes_room_for_the_next(stores: Stores) -> None:
    first, second, third = keyed(), keyed(body="b", at=EPOCH + TTL_S), keyed(body="c", at=EPOCH + TTL_S)
    await insert(stores, first)
    assert await insert(stores, second) == [True]
    assert await insert(stores, third) == [False]
    kept = (await stores.answers.find([PLACE]))[PLACE]
    assert (kept.fingerprint, kept.answer) == (second.asked.fingerprint, second.answer)
    assert kept.expires_at == EPOCH + 2 * TTL_S
    assert await stores.are_stored(*first.tasks, *second.tasks, *third.tasks) == [True, True, False]


async def test_what_expired_is_forgotten_oldest_first(stores: Stores) -> None:
    submissions = [keyed(key=f"k{n}", at=EPOCH + n) for n in (3, 1, 2, 4)]
    await insert(stores, *submissions)
    assert await stores.answers.forget(EPOCH + TTL_S + 0.5, 10) == 0
    assert await stores.answers.forget(EPOCH + TTL_S + 3, 2) == 2
    left = await stores.answers.find([each.asked.place for each in submissions])
    assert {key for _, key in left} == {"k3", "k4"}
    assert await stores.answers.forget(EPOCH + TTL_S + 3, 2) == 1
    assert await stores.are_stored(*(task for each in submissions for task in each.tasks)) == [True] * 4


async def test_a_thousand_tasks_under_one_key_are_one_submission(stores: Stores) -> None:
    tasks = [new_task() for _ in range(1_000)]
    submission = Keyed(keyed().asked, Answer(207, {}, "x" * 600_000), tasks)
    assert await insert(stores, submission) == [True]
    assert all(await stores.are_stored(tasks[0], tasks[500], tasks[-1]))
    assert (await stores.answers.find([PLACE]))[PLACE].answer == submission.answer
