"""Group commit, and the announcement that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from making import EPOCH, keyed, new_task, ticket_of
from memory_answers import MemoryAnswers
from memory_store import MemoryStore

from flik.domain.idempotency import Answer, Keyed
from flik.domain.task import NewTask, Ticket
from flik.errors import IdempotencyInFlight, IdempotencyKeyReused, Unavailable
from flik.pipeline import flush, submit
from flik.pipeline.submit import Announcer, GroupCommit


class Store:
    """Takes batches one by one when the test says so; `refused` tasks cannot be stored."""

    def __init__(self) -> None:
        self.batches: list[list[NewTask]] = []
        self.failures: list[Exception | None] = []
        self.refused: set[str] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()

    async def insert(self, tasks: Sequence[NewTask]) -> None:
        self.batches.append(list(tasks))
        self.arrived.set()
        await self.open.wait()
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        if self.refused & {task.task_id for task in tasks}:
            raise ValueError("not storable")


class Told:
    """The queue's side of the announcer."""

    def __init__(self) -> None:
        self.calls: list[list[Ticket]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.failures: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, tickets: list[Ticket]) -> None:
        self.calls.append(tickets)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.open.wait()
        self.in_flight -= 1
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def announcer(told: Told) -> Announcer:
    return Announcer("us-east", told)


@pytest.fixture
async def answers(store: Store) -> MemoryAnswers:
    return MemoryAnswers(Store().insert, ttl_s=100.0)


@pytest.fixture
async def group(store: Store, answers: MemoryAnswers, announcer: Announcer) -> GroupCommit:
    return GroupCommit(store, answers, announcer, dags=MemoryStore().dags)


async def settle_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# ---- group commit


async def test_a_single_caller_is_stored_at_once(group: GroupCommit, store: Store) -> None:
    task = new_task()
    await group.commit([task])
    assert store.batches == [[task]]


async def test_callers_during_a_flush_share_the_next_in_their_order(group: GroupCommit, store: Store) -> None:
    store.open.clear()
    tasks = [new_task() for _ in range(6)]
    first = asyncio.create_task(group.commit(tasks[:1]))
    await store.arrived.wait()
    others = [asyncio.create_task(group.commit([task])) for task in tasks[1:4]]
    others.append(asyncio.create_task(group.commit(tasks[4:])))
    await settle_loop()
    store.open.set()
    await asyncio.gather(first, *others)
    assert store.batches == [tasks[:1], tasks[1:]]


async def test_nothing_is_acknowledged_before_the_insert_returned(group: GroupCommit, store: Store) -> None:
    store.open.clear()
    commit = asyncio.create_task(group.commit([new_task()]))
    await store.arrived.wait()
    await settle_loop()
    assert not commit.done()
    store.open.set()
    await commit


async def test_the_next_commit_finds_the_flusher_idle_again(group: GroupCommit, store: Store) -> None:
    for _ in range(3):
        await group.commit([new_task()])
    assert [len(batch) for batch in store.batches] == [1, 1, 1]


async def test_unavailable_reaches_every_caller_of_the_batch_and_no_other(group: GroupCommit, store: Store) -> None:
    store.open.clear()
    store.failures = [None, Unavailable("postgresql", 3.0), None]
    first = asyncio.create_task(group.commit([new_task()]))
    await store.arrived.wait()
    second = [asyncio.create_task(group.commit([new_task()])) for _ in range(3)]
    await settle_loop()
    store.open.set()
    answers = await asyncio.gather(first, *second, return_exceptions=True)
    assert answers[0] is None
    assert [str(answer) for answer in answers[1:]] == [str(Unavailable("postgresql", 3.0))] * 3
    assert len({id(answer) for answer in answers[1:]}) == 3  # one each: a traceback belongs to one caller
    await group.commit([new_task()])


async def test_a_refused_submission_does_not_harm_the_others(
    group: GroupCommit, store: Store, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    store.open.clear()
    first = asyncio.create_task(group.commit([new_task()]))
    await store.arrived.wait()
    tasks = [new_task() for _ in range(3)]
    store.refused = {tasks[1].task_id}
    commits = [asyncio.create_task(group.commit([task])) for task in tasks]
    await settle_loop()
    store.open.set()
    await first
    good, bad, also_good = await asyncio.gather(*commits, return_exceptions=True)
    assert (good, also_good) == (None, None)
    assert isinstance(bad, ValueError)
    assert "a submission could not be stored" in caplog.text
    await settle_loop()
    announced = {ticket.task_id for call in told.calls for ticket in call}
    assert tasks[1].task_id not in announced
    assert {tasks[0].task_id, tasks[2].task_id} < announced


async def test_a_batch_holds_at_most_the_tasks_of_one_commit(
    group: GroupCommit, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flush, "MAX_TASKS_A_COMMIT", 5)
    store.open.clear()
    first = asyncio.create_task(group.commit([new_task()]))
    await store.arrived.wait()
    sizes = [3, 2, 1, 9, 4]
    commits = [asyncio.create_task(group.commit([new_task() for _ in range(size)])) for size in sizes]
    await settle_loop()
    store.open.set()
    await asyncio.gather(first, *commits)
    assert [len(batch) for batch in store.batches] == [1, 5, 1, 9, 4]


async def test_a_caller_that_left_does_not_harm_the_others(group: GroupCommit, store: Store) -> None:
    store.open.clear()
    first = asyncio.create_task(group.commit([new_task()]))
    await store.arrived.wait()
    leaving, staying = (asyncio.create_task(group.commit([new_task()])) for _ in range(2))
    await settle_loop()
    leaving.cancel()
    await settle_loop()
    store.open.set()
    await asyncio.gather(first, staying)
    assert len(store.batches[1]) == 2


async def test_on_commit_counts_the_tasks_that_shared_a_commit(
    store: Store, answers: MemoryAnswers, announcer: Announcer
) -> None:
    counts: list[int] = []
    group = GroupCommit(store, answers, announcer, counts.append, dags=MemoryStore().dags)
    await group.commit([new_task(), new_task()])
    store.failures = [Unavailable("postgresql")]
    with pytest.raises(Unavailable):
        await group.commit([new_task()])
    assert counts == [2]


# ---- under idempotency keys


async def test_first_request_under_a_key_is_stored_and_announced(
    group: GroupCommit, answers: MemoryAnswers, store: Store, told: Told
) -> None:
    submission = keyed()
    assert await group.replay_of(submission.asked) is None
    assert await group.commit_once(submission) is None
    assert (answers.batches, store.batches) == ([[submission]], [])
    await settle_loop()
    assert told.calls == [[ticket_of(submission.tasks[0])]]


async def test_second_request_gets_the_answer_of_the_first_before_and_instead_of_a_commit(
    group: GroupCommit, answers: MemoryAnswers, told: Told
) -> None:
    first, second = keyed(), keyed()
    await group.commit_once(first)
    assert await group.replay_of(second.asked) == first.answer
    assert len(answers.batches) == 1
    assert await group.commit_once(second) == first.answer
    await settle_loop()
    assert told.calls == [[ticket_of(first.tasks[0])]]


async def test_another_request_under_the_key_is_refused_before_and_instead_of_a_commit(group: GroupCommit) -> None:
    await group.commit_once(keyed(body="a"))
    for ask in (lambda other: group.replay_of(other.asked), group.commit_once):
        with pytest.raises(IdempotencyKeyReused):
            await ask(keyed(body="b"))


async def test_while_the_first_is_in_flight_the_second_is_refused_and_later_answered(
    group: GroupCommit, answers: MemoryAnswers
) -> None:
    answers.open.clear()
    first, second = keyed(), keyed()
    committing = asyncio.create_task(group.commit_once(first))
    await answers.arrived.wait()
    for ask in (lambda: group.replay_of(second.asked), lambda: group.commit_once(second)):
        with pytest.raises(IdempotencyInFlight) as refused:
            await ask()
        assert refused.value.retry_after_s > 0
    assert await group.replay_of(keyed(tenant="other").asked) is None
    answers.open.set()
    assert await committing is None
    assert await group.replay_of(second.asked) == first.answer


async def test_two_under_one_key_that_wait_for_one_flush_are_told_apart(
    group: GroupCommit, answers: MemoryAnswers
) -> None:
    answers.open.clear()
    blocking = asyncio.create_task(group.commit_once(keyed(key="blocks")))
    await answers.arrived.wait()
    same = [asyncio.create_task(group.commit_once(keyed(body=body))) for body in "aab"]
    other = asyncio.create_task(group.commit_once(keyed(key="other")))
    await settle_loop()
    answers.open.set()
    first, *refused = await asyncio.gather(*same, return_exceptions=True)
    assert first is None
    assert [type(error) for error in refused] == [IdempotencyInFlight] * 2
    assert (await blocking, await other) == (None, None)
    assert [len(batch) for batch in answers.batches] == [1, 2]


async def test_key_stays_in_flight_when_its_caller_left(group: GroupCommit, answers: MemoryAnswers) -> None:
    answers.open.clear()
    blocking = asyncio.create_task(group.commit_once(keyed(key="blocks")))
    await answers.arrived.wait()
    left = keyed()
    leaving = asyncio.create_task(group.commit_once(left))
    await settle_loop()
    leaving.cancel()
    await settle_loop()
    with pytest.raises(IdempotencyInFlight):
        await group.commit_once(keyed())
    answers.open.set()
    await blocking
    await settle_loop()
    assert await group.commit_once(keyed()) == left.answer


async def test_submissions_without_a_key_do_not_wait_for_those_with_one(
    group: GroupCommit, answers: MemoryAnswers, store: Store
) -> None:
    answers.open.clear()
    committing = asyncio.create_task(group.commit_once(keyed()))
    await answers.arrived.wait()
    task = new_task()
    await group.commit([task])
    assert store.batches == [[task]]
    assert not committing.done()
    answers.open.set()
    await committing


async def test_losers_of_a_flush_are_answered_as_their_keys_say(group: GroupCommit, answers: MemoryAnswers) -> None:
    taken = [keyed(key="a"), keyed(key="b")]
    await answers.insert(taken)  # by another gateway
    answers.open.clear()
    blocking = asyncio.create_task(group.commit_once(keyed(key="blocks")))
    await settle_loop()
    submissions = [keyed(key="a"), keyed(key="b", body="other"), keyed(key="c"), keyed(key="d")]
    asked = [asyncio.create_task(group.commit_once(submission)) for submission in submissions]
    await settle_loop()
    answers.open.set()
    replayed, reused, *stored = await asyncio.gather(*asked, return_exceptions=True)
    await blocking
    assert replayed == taken[0].answer
    assert isinstance(reused, IdempotencyKeyReused)
    assert stored == [None, None]


async def test_loser_whose_record_is_gone_is_told_to_try_again(group: GroupCommit, answers: MemoryAnswers) -> None:
    class Swept(MemoryAnswers):
        async def insert(self, submissions: Sequence[Keyed]) -> frozenset[str]:
            return frozenset()

    group._answers = Swept(Store().insert)
    with pytest.raises(IdempotencyInFlight):
        await group.commit_once(keyed())
    group._answers = answers
    assert await group.commit_once(keyed()) is None


@pytest.mark.parametrize("took_effect", [False, True])
async def test_after_an_outage_the_key_is_free_or_answers_with_what_was_stored(
    group: GroupCommit, answers: MemoryAnswers, took_effect: bool
) -> None:
    (answers.after if took_effect else answers.before).append(Unavailable("postgresql", 3.0))
    first, second = keyed(), keyed()
    with pytest.raises(Unavailable):
        await group.commit_once(first)
    assert await group.replay_of(second.asked) == (first.answer if took_effect else None)
    assert await group.commit_once(second) == (first.answer if took_effect else None)


async def test_refused_submission_under_a_key_does_not_harm_the_others_and_frees_its_key(
    group: GroupCommit, answers: MemoryAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    answers.open.clear()
    blocking = asyncio.create_task(group.commit_once(keyed(key="blocks")))
    await answers.arrived.wait()
    answers.before = [None, ValueError("one of them"), None, ValueError("this one"), None]
    asked = [asyncio.create_task(group.commit_once(keyed(key=key))) for key in "abc"]
    await settle_loop()
    answers.open.set()
    await blocking
    good, bad, also_good = await asyncio.gather(*asked, return_exceptions=True)
    assert (good, also_good) == (None, None)
    assert isinstance(bad, ValueError)
    assert "a submission could not be stored" in caplog.text
    assert await group.commit_once(keyed(key="b")) is None


async def test_expired_answer_is_not_said_again(group: GroupCommit) -> None:
    await group.commit_once(keyed(body="a"))
    later = keyed(body="b", at=EPOCH + 100.0)
    assert await group.replay_of(later.asked) is None
    assert await group.commit_once(later) is None
    assert await group.replay_of(later.asked) == later.answer


async def test_kept_answer_is_the_one_that_was_given(group: GroupCommit) -> None:
    answer = Answer(207, {"Retry-After": "1"}, '{ "odd" : "spacing é" }')
    await group.commit_once(Keyed(keyed().asked, answer, [new_task(), new_task()]))
    assert await group.replay_of(keyed().asked) == answer


# ---- announcer


async def test_what_is_committed_is_announced_and_nothing_else(group: GroupCommit, store: Store, told: Told) -> None:
    task = new_task(priority=0)
    await group.commit([task])
    store.failures = [Unavailable("postgresql")]
    with pytest.raises(Unavailable):
        await group.commit([new_task()])
    await settle_loop()
    assert told.calls == [[ticket_of(task)]]


async def test_one_announcement_is_in_flight_and_the_rest_goes_together(announcer: Announcer, told: Told) -> None:
    told.open.clear()
    tasks = [new_task() for _ in range(4)]
    for task in tasks:
        announcer.announce([task])
        await settle_loop()
    told.open.set()
    await settle_loop()
    assert told.calls == [[ticket_of(tasks[0])], [ticket_of(task) for task in tasks[1:]]]
    assert told.most_in_flight == 1


async def test_a_lost_announcement_does_not_stop_the_next(announcer: Announcer, told: Told) -> None:
    told.failures = [Unavailable("queue")]
    for _ in range(2):
        announcer.announce([new_task()])
        await settle_loop()
    assert len(told.calls) == 2


async def test_a_commit_does_not_wait_for_its_announcement(group: GroupCommit, told: Told) -> None:
    told.open.clear()
    await group.commit([new_task()])
    await group.commit([new_task()])
    assert told.in_flight <= 1
    told.open.set()
    await settle_loop()


async def test_tasks_of_another_region_are_not_announced_here(announcer: Announcer, told: Told) -> None:
    announcer.announce([new_task(region="eu-west")])
    await settle_loop()
    assert told.calls == []


async def test_announcements_that_pile_up_are_dropped_beyond_a_bound(
    announcer: Announcer, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "MAX_UNANNOUNCED", 3)
    told.open.clear()
    announcer.announce([new_task()])
    await settle_loop()
    announcer.announce([new_task() for _ in range(10)])
    told.open.set()
    await settle_loop()
    assert [len(call) for call in told.calls] == [1, 3]
