"""What every store of tasks does: the one on PostgreSQL and the one in memory that the queue is tested with."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from making import EPOCH, new_task, stored_file, ticket_of, worker
from memory_store import MemoryStore

from flik.domain.event import Event, log_of
from flik.domain.task import NewTask, Status, TaskFilter, TaskView, Ticket
from flik.domain.window import Page
from flik.storage.database import Database
from flik.storage.events import HistoryStore
from flik.storage.queue import Ended, GrantedRow, QueueStore, Requeued, Settlement
from flik.storage.tasks import TaskStore

NOW = EPOCH + 100.0
W1, W2 = worker("w1"), worker("w2")


class PostgresStore(QueueStore):
    """Both stores in one, as the one in memory is."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "us-east")
        tasks = TaskStore(database, max_attempts=4)
        self.insert, self.get, self.find, self.dead_letters = tasks.insert, tasks.get, tasks.find, tasks.dead_letters
        histories = HistoryStore(database)
        self.read, self.positions = histories.read, histories.positions


Store = PostgresStore | MemoryStore


@pytest.fixture(params=["memory", "postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    url = request.getfixturevalue("database_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, attempts, artifacts, rounds")
    database = await Database(url, connections=2, pinned_plans=True).open()
    yield PostgresStore(database)
    await database.close()


async def submit(store: Store, count: int = 1, **changes: Any) -> list[NewTask]:
    tasks = [new_task(**changes) for _ in range(count)]
    await store.insert(tasks)
    return tasks


async def grant(store: Store, *tasks: NewTask, who: Any = W1, now: float = NOW) -> list[GrantedRow]:
    rows: list[GrantedRow] = await store.grant([(ticket_of(task), str(uuid.uuid4()), who) for task in tasks], now)
    return rows


async def granted(store: Store, **changes: Any) -> GrantedRow:
    (task,) = await submit(store, **changes)
    (row,) = await grant(store, task)
    return row


def completion(row: GrantedRow, text: str = "done", **changes: Any) -> Settlement:
    result = json.dumps({"text": text, "metadata": {}})
    return Settlement(row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result=result)._replace(**changes)


def failure(row: GrantedRow, **changes: Any) -> Settlement:
    settlement = Settlement(
        row.task_id, row.lease_token, Status.FAILED, "FAILED", error_code="overloaded", error_message="too much"
    )
    return settlement._replace(**changes)


def again(row: GrantedRow, at: float, **changes: Any) -> Settlement:
    return failure(row, status=Status.QUEUED, available_at=at, **changes)


async def seen(store: Store, task: NewTask | GrantedRow) -> TaskView:
    view = await store.get(task.task_id)
    assert view is not None
    found: TaskView = view
    return found


# ---- insert


async def test_what_was_inserted_is_read_back(store: Store) -> None:
    (task,) = await submit(store, start_deadline_at=EPOCH + 9.5, request_id="r1", trace_id="t1", priority=2)
    assert await seen(store, task) == TaskView(
        task.task_id, "acme", "TEXT", 2, "us-east", "QUEUED", 0, 4, EPOCH, EPOCH, EPOCH + 9.5,
        None, None, None, None, None, None, "r1",
    )  # fmt: skip
    assert await store.get(new_task().task_id) is None


async def test_inserting_again_changes_nothing(store: Store) -> None:
    tasks = await submit(store, 2)
    await grant(store, tasks[0])
    third = new_task()
    await store.insert([tasks[0]._replace(tenant_id="other"), third])
    view = await seen(store, tasks[0])
    assert (view.tenant_id, view.status) == ("acme", "PROCESSING")
    assert (await seen(store, third)).status == "QUEUED"


async def test_payloads_come_back_as_they_went(store: Store) -> None:
    payload = {"prompt": 'naïve 猫 🐈 " \\ \n', "deep": [{"a": [1, 2.5, None, True, {"": []}]}], "n": 2**63 - 1}
    row = await granted(store, payload=json.dumps(payload))
    assert json.loads(row.payload) == payload


# ---- grant


async def test_a_grant_starts_an_attempt(store: Store) -> None:
    (task,) = await submit(store, request_id="r1", trace_id="t1", priority=0, start_deadline_at=EPOCH + 200.0)
    token = str(uuid.uuid4())
    (row,) = await store.grant([(ticket_of(task), token, W1)], NOW)
    assert row[:7] == (task.task_id, token, "acme", "TEXT", 0, 1, 4)
    assert row[8:] == (EPOCH, "r1", "t1", "us-east", EPOCH + 200.0, 2, None, None, False)
    view = await seen(store, task)
    assert (view.status, view.attempt, view.started_at) == ("PROCESSING", 1, NOW)
    assert (view.worker_id, view.version) == ("w1", "v1")


async def test_a_task_is_granted_once(store: Store) -> None:
    (task,) = await submit(store)
    assert len(await grant(store, task)) == 1
    assert await grant(store, task, who=W2) == []
    assert (await seen(store, task)).worker_id == "w1"


async def test_each_worker_gets_the_tasks_picked_for_it(store: Store) -> None:
    tasks = await submit(store, 6)
    picks = [(ticket_of(task), str(uuid.uuid4()), (W1, W2)[n % 2]) for n, task in enumerate(tasks)]
    rows = {row.task_id: row for row in await store.grant(picks, NOW)}
    for ticket, token, who in picks:
        assert rows[ticket.task_id].lease_token == token
        assert (await seen(store, rows[ticket.task_id])).worker_id == who.worker_id


async def test_what_is_not_to_be_had_is_left_out_of_a_grant(store: Store) -> None:
    good, gone, late = await submit(store, 3)
    await store.cancel(gone.task_id, NOW)
    expired, in_time = new_task(start_deadline_at=NOW), new_task(start_deadline_at=NOW + 0.001)
    await store.insert([expired, in_time])
    rows = await grant(store, good, gone, new_task(), expired, in_time, late)
    assert {row.task_id for row in rows} == {good.task_id, in_time.task_id, late.task_id}


async def test_granting_nothing_is_allowed(store: Store) -> None:
    assert await store.grant([], NOW) == []
    assert await store.settle([], NOW) == []


# ---- settle


async def test_a_completion_stores_result_and_artifacts(store: Store) -> None:
    row = await granted(store)
    files = (stored_file(1, width=None, height=None, duration_s=1.5, upload_attempts=3), stored_file(0))
    (moved,) = await store.settle([completion(row, "naïve 猫", artifacts=files)], NOW + 5)
    assert moved == (row.task_id, "COMPLETED", 1, 5, "TEXT", "acme", "v1", NOW, None)
    view = await seen(store, row)
    assert (view.status, view.completed_at, view.attempt) == ("COMPLETED", NOW + 5, 1)
    assert (view.task_type, view.version, view.started_at) == ("TEXT", "v1", NOW)
    assert view.result == {"text": "naïve 猫", "metadata": {}}
    assert view.artifacts == (files[1], files[0])


async def test_only_the_current_token_settles(store: Store) -> None:
    row = await granted(store)
    stale = row._replace(lease_token=str(uuid.uuid4()))
    for settlement in (completion(stale), failure(stale), again(stale, NOW)):
        assert await store.settle([settlement], NOW) == []
    assert (await seen(store, row)).status == "PROCESSING"
    assert len(await store.settle([completion(row)], NOW)) == 1


async def test_a_token_does_not_settle_another_task(store: Store) -> None:
    one, two = await granted(store), await granted(store)
    assert await store.settle([completion(one._replace(lease_token=two.lease_token))], NOW) == []
    assert (await seen(store, one)).status == (await seen(store, two)).status == "PROCESSING"


async def test_a_settlement_takes_effect_once(store: Store) -> None:
    row = await granted(store)
    assert len(await store.settle([completion(row, "first")], NOW)) == 1
    assert await store.settle([completion(row, "second")], NOW + 1) == []
    view = await seen(store, row)
    assert (view.result, view.completed_at) == ({"text": "first", "metadata": {}}, NOW)


async def test_the_token_of_an_earlier_attempt_is_refused(store: Store) -> None:
    row = await granted(store)
    await store.settle([again(row, NOW)], NOW)
    (second,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W2)], NOW)
    assert second.attempt == 2
    assert await store.settle([completion(row, "late")], NOW) == []
    assert len(await store.settle([completion(second)], NOW)) == 1


def _ticket(row: GrantedRow) -> Ticket:
    return Ticket(row.task_id, row.tenant_id, row.task_type, row.priority, row.queued_at, row.queued_at)


async def test_a_failure_to_be_tried_again_waits_for_its_time(store: Store) -> None:
    row = await granted(store)
    (moved,) = await store.settle([again(row, NOW + 5.25)], NOW)
    assert (moved.status, moved.attempt) == ("QUEUED", 1)
    assert moved.ticket == _ticket(row)._replace(available_at=NOW + 5.25)
    view = await seen(store, row)
    assert (view.status, view.available_at, view.completed_at, view.attempt) == ("QUEUED", NOW + 5.25, None, 1)
    assert (view.error_code, view.error_message) == ("overloaded", "too much")


async def test_a_failure_for_good_says_why(store: Store) -> None:
    row = await granted(store)
    (moved,) = await store.settle([failure(row)], NOW + 1)
    assert (moved.status, moved.ticket) == ("FAILED", None)
    view = await seen(store, row)
    assert (view.status, view.completed_at, view.error_code) == ("FAILED", NOW + 1, "overloaded")


async def test_an_attempt_that_does_not_count_gives_its_number_back(store: Store) -> None:
    row = await granted(store)
    back = Settlement(row.task_id, row.lease_token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=NOW)
    (moved,) = await store.settle([back], NOW)
    assert (moved.status, moved.attempt) == ("QUEUED", 0)
    (second,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W1)], NOW)
    assert second.attempt == 1


async def test_what_has_no_attempt_left_fails_instead_of_waiting_for_ever(store: Store) -> None:
    row = await granted(store)
    for _ in range(3):
        await store.settle([again(row, NOW)], NOW)
        (row,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W1)], NOW)
    (moved,) = await store.settle([again(row, NOW + 60)], NOW + 1)
    assert (moved.status, moved.attempt, moved.ticket) == ("FAILED", 4, None)
    view = await seen(store, row)
    assert (view.status, view.attempt, view.completed_at) == ("FAILED", 4, NOW + 1)


async def test_the_last_attempt_handed_back_may_be_made_again(store: Store) -> None:
    row = await granted(store)
    for _ in range(3):
        await store.settle([again(row, NOW)], NOW)
        (row,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W1)], NOW)
    back = Settlement(row.task_id, row.lease_token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=NOW)
    (moved,) = await store.settle([back], NOW)
    assert (moved.status, moved.attempt) == ("QUEUED", 3)


async def test_one_call_settles_many_and_skips_the_stale(store: Store) -> None:
    rows = [await granted(store) for _ in range(4)]
    stale = completion(rows[1]._replace(lease_token=str(uuid.uuid4())), artifacts=(stored_file(),))
    moved = await store.settle(
        [completion(rows[0], artifacts=(stored_file(),)), stale, failure(rows[2]), again(rows[3], NOW)], NOW
    )
    assert {view.task_id: view.status for view in moved} == {
        rows[0].task_id: "COMPLETED", rows[2].task_id: "FAILED", rows[3].task_id: "QUEUED",
    }  # fmt: skip
    assert (await seen(store, rows[0])).artifacts == (stored_file(),)
    assert (await seen(store, rows[1])).status == "PROCESSING"


async def test_a_later_success_wipes_the_error_out(store: Store) -> None:
    row = await granted(store)
    await store.settle([again(row, NOW)], NOW)
    (row,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W1)], NOW)
    await store.settle([completion(row)], NOW)
    view = await seen(store, row)
    assert (view.error_code, view.error_message) == (None, None)


async def test_a_result_that_cannot_be_stored_is_refused_as_a_whole(store: Store) -> None:
    one, two = await granted(store), await granted(store)
    with pytest.raises(Exception, match=r"Unicode|NUL"):
        await store.settle([completion(one), completion(two, "a\0b")], NOW)
    assert (await seen(store, one)).status == "PROCESSING"
    assert len(await store.settle([completion(one)], NOW)) == 1


# ---- cancel


async def test_what_waits_is_cancelled(store: Store) -> None:
    (task,) = await submit(store)
    assert await store.cancel(task.task_id, NOW) == (Status.QUEUED, Ended(task.task_id, "acme", 2))
    view = await seen(store, task)
    assert (view.status, view.completed_at) == ("CANCELLED", NOW)
    assert await grant(store, task) == []


async def test_what_runs_is_cancelled_and_its_completion_refused(store: Store) -> None:
    row = await granted(store)
    assert await store.cancel(row.task_id, NOW) == (Status.PROCESSING, Ended(row.task_id, "acme", 3, 1, "w1", "v1"))
    assert await store.settle([completion(row)], NOW) == []
    assert (await seen(store, row)).status == "CANCELLED"


async def test_what_is_finished_or_unknown_is_not_cancelled(store: Store) -> None:
    row = await granted(store)
    await store.settle([completion(row)], NOW)
    assert await store.cancel(row.task_id, NOW) == (Status.COMPLETED, None)
    assert await store.cancel(new_task().task_id, NOW) is None
    assert (await seen(store, row)).status == "COMPLETED"


# ---- retry and replay


async def test_a_failed_task_gets_a_round_of_attempts_more(store: Store) -> None:
    row = await granted(store, start_deadline_at=NOW + 1)
    await store.settle([failure(row)], NOW)
    found = await store.retry(row.task_id, 4, NOW + 50)
    assert found == (Status.FAILED, Requeued(4, _ticket(row)._replace(available_at=NOW + 50)))
    view = await seen(store, row)
    assert (view.status, view.attempt, view.max_attempts, view.start_deadline_at) == ("QUEUED", 1, 5, None)
    assert (view.completed_at, view.error_code) == (None, None)


@pytest.mark.parametrize(("own", "attempts"), [(None, 4), (1, 1), (20, 20)])
async def test_a_task_may_say_how_often_it_is_tried(store: Store, own: int | None, attempts: int) -> None:
    row = await granted(store, max_attempts=own)
    assert (row.max_attempts, (await seen(store, row)).max_attempts) == (attempts, attempts)


async def test_what_is_not_failed_is_not_retried(store: Store) -> None:
    (task,) = await submit(store)
    assert await store.retry(task.task_id, 4, NOW) == (Status.QUEUED, None)
    assert await store.retry(new_task().task_id, 4, NOW) is None


async def test_dead_letters_that_match_come_the_oldest_first(store: Store) -> None:
    rows = [await granted(store, tenant_id=tenant) for tenant in ("a", "a", "b", "a", "a")]
    await store.settle([failure(row) for row in rows[:4]], NOW)
    found = await store.dead_letters(TaskFilter(tenant_id="a", limit=2))
    assert found == [(row.task_id, "a", row.task_type, row.priority) for row in rows[:2]]
    assert [each.task_id for each in await store.dead_letters(TaskFilter())] == [row.task_id for row in rows[:4]]


async def test_dead_letters_can_be_chosen_by_their_error_code(store: Store) -> None:
    rows = [await granted(store) for _ in range(3)]
    await store.settle([failure(rows[0]), failure(rows[1], error_code="refused"), failure(rows[2])], NOW)
    found = await store.dead_letters(TaskFilter(error_code="refused", limit=50))
    assert [each.task_id for each in found] == [rows[1].task_id]


async def test_replay_queues_those_named_that_have_failed_and_nothing_else(store: Store) -> None:
    rows = [await granted(store) for _ in range(4)]
    await store.settle([failure(row, lease_token=row.lease_token) for row in rows[:3]], NOW)
    asked = [rows[0].task_id, rows[2].task_id, rows[3].task_id, new_task().task_id, rows[0].task_id]
    requeued = await store.replay(asked, 4, NOW + 50)
    tickets = [each.ticket for each in requeued]
    assert [each.seq for each in requeued] == [4, 4]
    assert {ticket.task_id for ticket in tickets} == {rows[0].task_id, rows[2].task_id}
    assert {ticket.available_at for ticket in tickets} == {NOW + 50}
    assert [(await seen(store, row)).status for row in rows] == ["QUEUED", "FAILED", "QUEUED", "PROCESSING"]
    assert (await seen(store, rows[0])).max_attempts == 1 + 4
    assert await store.replay(asked, 4, NOW + 60) == []


# ---- expire


async def test_waiting_tasks_expire_at_their_start_deadline_the_earliest_first(store: Store) -> None:
    tasks = [new_task(start_deadline_at=NOW + after) for after in (0.0, -5.0, 0.001, -9.0)] + [new_task()]
    await store.insert(tasks)
    assert {each.task_id for each in await store.expire(2, NOW)} == {tasks[3].task_id, tasks[1].task_id}
    assert await store.expire(10, NOW) == [Ended(tasks[0].task_id, "acme", 2)]
    assert [(await seen(store, task)).status for task in tasks] == ["EXPIRED", "EXPIRED", "QUEUED", "EXPIRED", "QUEUED"]
    assert (await seen(store, tasks[0])).completed_at == NOW


async def test_what_has_started_is_granted_again_after_its_start_deadline_and_never_expires(store: Store) -> None:
    rows = [await granted(store, start_deadline_at=NOW + 10) for _ in range(3)]
    lost, failed, back = rows
    after = NOW + 20
    await store.settle(
        [
            again(lost, after, outcome="LOST"), again(failed, after),
            Settlement(*back[:2], Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=after),
        ],
        after,
    )  # fmt: skip
    assert await store.expire(10, after) == []
    again_granted = await store.grant([(_ticket(row), str(uuid.uuid4()), W2) for row in rows], after)
    assert sorted((row.task_id, row.attempt) for row in again_granted) == sorted(
        [(lost.task_id, 2), (failed.task_id, 2), (back.task_id, 1)]
    )


async def test_what_runs_does_not_expire(store: Store) -> None:
    row = await granted(store, start_deadline_at=NOW + 1)
    assert await store.expire(10, NOW + 2) == []
    assert (await seen(store, row)).status == "PROCESSING"


# ---- the log


async def log(store: Store, task: NewTask | GrantedRow) -> list[Event]:
    history = await store.read(task.task_id)
    assert history is not None
    assert history.task == await seen(store, task)
    events = log_of(history)
    assert [event.seq for event in events] == list(range(1, history.seq + 1))
    assert await store.positions([task.task_id]) == {task.task_id: history.seq}
    return events


async def test_the_log_of_a_task_tells_its_whole_life(store: Store) -> None:
    (task,) = await submit(store)
    (row,) = await grant(store, task, now=NOW)
    await store.settle([again(row, NOW + 6)], NOW + 1)
    (row,) = await grant(store, task, who=W2, now=NOW + 6)
    back = Settlement(row.task_id, row.lease_token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=NOW + 7)
    await store.settle([back], NOW + 7)
    (row,) = await grant(store, task, now=NOW + 7)
    await store.settle([failure(row, outcome="TIMED_OUT", error_code="run_timeout")], NOW + 8)
    await store.retry(task.task_id, 4, NOW + 50)
    (row,) = await grant(store, task, who=W2, now=NOW + 51)
    files = (stored_file(0), stored_file(1))
    await store.settle([completion(row, artifacts=files)], NOW + 52)

    task_id, w1, w2 = task.task_id, ("w1", "v1"), ("w2", "v1")
    why = {"error_code": "overloaded", "error_message": "too much"}
    assert await log(store, task) == [
        Event(task_id, 1, "queued", EPOCH),
        Event(task_id, 2, "processing", NOW, 1, *w1),
        Event(task_id, 3, "retryScheduled", NOW + 1, 1, *w1, "FAILED", NOW + 6, **why),
        Event(task_id, 4, "processing", NOW + 6, 2, *w2),
        Event(task_id, 5, "retryScheduled", NOW + 7, 2, *w2, "HANDED_BACK", NOW + 7),
        Event(task_id, 6, "processing", NOW + 7, 2, *w1),
        Event(task_id, 7, "failed", NOW + 8, 2, *w1, error_code="run_timeout", error_message="too much"),
        Event(task_id, 8, "queued", NOW + 50),
        Event(task_id, 9, "processing", NOW + 51, 3, *w2),
        Event(task_id, 10, "artifact", NOW + 52, 3, *w2, artifact=files[0]),
        Event(task_id, 11, "artifact", NOW + 52, 3, *w2, artifact=files[1]),
        Event(task_id, 12, "completed", NOW + 52, 3, *w2, task=await seen(store, task)),
    ]


@pytest.mark.parametrize("runs", [False, True])
async def test_a_cancel_is_the_last_event(store: Store, runs: bool) -> None:
    (task,) = await submit(store)
    if runs:
        await grant(store, task)
    await store.cancel(task.task_id, NOW + 1)
    cancelled = Event(task.task_id, 2 + runs, "cancelled", NOW + 1)
    assert (await log(store, task))[-1] == cancelled._replace(**(
        {"attempt": 1, "worker_id": "w1", "version": "v1"} if runs else {}
    ))  # fmt: skip


async def test_a_missed_start_deadline_is_the_last_event(store: Store) -> None:
    (task,) = await submit(store, start_deadline_at=NOW)
    await store.expire(10, NOW + 1)
    assert (await log(store, task))[1:] == [Event(task.task_id, 2, "expired", NOW + 1)]


async def test_what_was_tried_for_the_last_time_is_failed_in_the_log(store: Store) -> None:
    row = await granted(store)
    for _ in range(3):
        await store.settle([again(row, NOW)], NOW)
        (row,) = await store.grant([(_ticket(row), str(uuid.uuid4()), W1)], NOW)
    await store.settle([again(row, NOW + 60)], NOW + 1)
    *_, last = await log(store, row)
    assert (last.kind, last.seq, last.attempt, last.available_at) == ("failed", 9, 4, None)


async def test_a_replay_begins_a_round_in_the_log(store: Store) -> None:
    row = await granted(store)
    await store.settle([failure(row)], NOW)
    await store.replay([row.task_id], 4, NOW + 9)
    assert (await log(store, row))[-1] == Event(row.task_id, 4, "queued", NOW + 9)


async def test_an_unknown_task_has_no_log(store: Store) -> None:
    assert await store.read(new_task().task_id) is None
    assert await store.positions([new_task().task_id]) == {}


# ---- reading


async def test_backlogs_are_counted_by_type_priority_and_tenant(store: Store) -> None:
    await submit(store, 3)
    await submit(store, 2, tenant_id="globex", priority=0)
    await submit(store, 1, task_type="IMAGE")
    await submit(store, 1, region="eu-west")
    await granted(store)
    assert sorted(await store.backlogs()) == [("IMAGE", 1, "acme", 1), ("TEXT", 0, "globex", 2), ("TEXT", 1, "acme", 3)]


async def page(store: Store, after: str, limit: int) -> list[Ticket]:
    (tickets,) = await store.pages("TEXT", [Page((1, "acme"), after, limit)])
    return list(tickets)


async def test_pages_of_many_backlogs_are_read_together(store: Store) -> None:
    acme, globex, urgent = (
        await submit(store, 3),
        await submit(store, 3, tenant_id="globex"),
        await submit(store, 2, priority=0),
    )
    await submit(store, 2, task_type="IMAGE")
    places = [
        Page((1, "globex"), "", 2), Page((1, "nobody"), "", 5), Page((0, "acme"), urgent[0].task_id, 5),
        Page((1, "acme"), acme[0].task_id, 1),
    ]  # fmt: skip
    found = await store.pages("TEXT", places)
    assert found == [
        [ticket_of(task) for task in globex[:2]], [], [ticket_of(urgent[1])], [ticket_of(acme[1])],
    ]  # fmt: skip


async def test_a_backlog_is_read_page_by_page_in_the_order_of_ids(store: Store) -> None:
    tasks = await submit(store, 5)
    await submit(store, 3, tenant_id="globex")
    await submit(store, 3, priority=0)
    await submit(store, 3, region="eu-west")
    first = await page(store, "", 2)
    assert first == [ticket_of(task) for task in tasks[:2]]
    assert await page(store, first[-1].task_id, 50) == [ticket_of(task) for task in tasks[2:]]
    assert await page(store, tasks[-1].task_id, 50) == []


async def test_a_retry_is_read_with_its_own_time(store: Store) -> None:
    row = await granted(store)
    await store.settle([again(row, NOW + 15)], NOW)
    assert await page(store, "", 50) == [_ticket(row)._replace(available_at=NOW + 15)]


async def test_recent_tasks_are_found_by_id(store: Store) -> None:
    tasks = await submit(store, 4)
    await submit(store, 1, region="eu-west")
    await grant(store, tasks[2])
    assert await store.scan_recent(tasks[0].task_id, 50) == [ticket_of(tasks[1]), ticket_of(tasks[3])]
    assert await store.scan_recent(tasks[0].task_id, 1) == [ticket_of(tasks[1])]


async def test_the_walk_meets_everything_that_waits_once(store: Store) -> None:
    for changes in ({"priority": 2}, {"tenant_id": "globex"}, {"task_type": "IMAGE"}, {"priority": 0}, {}):
        await submit(store, 3, **changes)
    await submit(store, 1, region="eu-west")
    walked, after = [], None
    while page := await store.scan_waiting(after, 4):
        walked += page
        after = page[-1]
    places = [(t.task_type, t.priority, t.tenant_id, t.task_id) for t in walked]
    assert len(walked) == 15
    assert places == sorted(set(places))


async def test_what_runs_is_listed_with_its_lease(store: Store) -> None:
    row = await granted(store)
    await submit(store)
    await granted(store, region="eu-west")
    (running,) = await store.running()
    assert running == (row.task_id, row.lease_token, "w1", "TEXT", 1, "acme", EPOCH, 1, 4, NOW, None)


# ---- find


async def test_tasks_are_found_newest_first_by_each_filter(store: Store) -> None:
    (one,) = await submit(store)
    (two,) = await submit(store, tenant_id="globex", priority=0, at=EPOCH + 10)
    (three,) = await submit(store, task_type="IMAGE", at=EPOCH + 20)
    await store.cancel(one.task_id, NOW)
    everything = [three.task_id, two.task_id, one.task_id]
    for wanted, expected in (
        (TaskFilter(), everything),
        (TaskFilter(limit=2), everything[:2]),
        (TaskFilter(tenant_id="acme"), [three.task_id, one.task_id]),
        (TaskFilter(status="CANCELLED"), [one.task_id]),
        (TaskFilter(status="FAILED"), []),
        (TaskFilter(task_type="IMAGE"), [three.task_id]),
        (TaskFilter(priority=0), [two.task_id]),
        (TaskFilter(created_from=EPOCH + 10), everything[:2]),
        (TaskFilter(created_until=EPOCH + 10), [one.task_id]),
        (TaskFilter(created_from=EPOCH + 0.001, created_until=EPOCH + 19.9), [two.task_id]),
        (TaskFilter(before_id=three.task_id, tenant_id="acme"), [one.task_id]),
    ):
        assert [view.task_id for view in await store.find(wanted)] == expected, wanted


async def test_paging_sees_each_task_once_while_others_arrive(store: Store) -> None:
    tasks = await submit(store, 10)
    found: list[str] = []
    before: str | None = None
    while page := await store.find(TaskFilter(limit=3, before_id=before)):
        found += [view.task_id for view in page]
        before = page[-1].task_id
        await submit(store, 2)
    assert found == [task.task_id for task in reversed(tasks)]


async def test_found_tasks_carry_their_artifacts(store: Store) -> None:
    rows = [await granted(store) for _ in range(2)]
    await store.settle([completion(rows[0], artifacts=(stored_file(0), stored_file(1))), completion(rows[1])], NOW)
    assert [len(view.artifacts) for view in await store.find(TaskFilter())] == [0, 2]


# ---- races


async def test_of_many_that_settle_one_attempt_at_once_one_wins(store: Store) -> None:
    row = await granted(store)
    answers = await asyncio.gather(*(store.settle([completion(row, f"text {n}")], NOW) for n in range(6)))
    assert sum(map(len, answers)) == 1


async def test_of_a_cancel_and_a_completion_at_once_one_wins(store: Store) -> None:
    for _ in range(10):
        row = await granted(store)
        cancelled, settled = await asyncio.gather(store.cancel(row.task_id, NOW), store.settle([completion(row)], NOW))
        assert cancelled is not None
        assert cancelled[1] != bool(settled)
        assert (await seen(store, row)).status == ("CANCELLED" if cancelled[1] else "COMPLETED")


async def test_of_two_grants_of_one_task_at_once_one_wins(store: Store) -> None:
    tasks = await submit(store, 10)
    one, two = await asyncio.gather(grant(store, *tasks), grant(store, *reversed(tasks), who=W2))
    assert len(one) + len(two) == 10
    assert not {row.task_id for row in one} & {row.task_id for row in two}
