"""What every store of dags does: the one on PostgreSQL and the one in memory that the queue is tested with.

Random graphs go through random moves on both, and both must tell the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson
import psycopg
import pytest
from making import EPOCH, new_task, stored_file, task_id_at, worker
from memory_store import MemoryStore

from flik.domain.dag.graph import DagFilter, DagView, NewDag, NewStep
from flik.domain.event import log_of
from flik.domain.task import TERMINAL, Requeued, Status, Ticket
from flik.storage.dags import Advanced, DagStore
from flik.storage.database import Database
from flik.storage.events import HistoryStore
from flik.storage.queue import GrantedRow, QueueStore, Settlement

W1 = worker("w1")
GRAPHS = int(os.environ.get("FLIK_STORED_GRAPHS", "40"))


class PostgresStore(QueueStore):
    """All stores in one, as the one in memory is."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, "us-east")
        self.dags = DagStore(database, max_attempts=4)
        histories = HistoryStore(database)
        self.read, self.read_dag, self.positions = histories.read, histories.read_dag, histories.positions


Store = PostgresStore | MemoryStore


@pytest.fixture
async def postgresql(database_url: str) -> AsyncIterator[PostgresStore]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, attempts, artifacts, rounds, dags, dag_steps, dag_rounds, memos")
    database = await Database(database_url, connections=4, pinned_plans=True).open()
    yield PostgresStore(database)
    await database.close()


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest) -> Any:
    return MemoryStore() if request.param == "memory" else request.getfixturevalue("postgresql")


def make(
    *parents: tuple[int, ...], on_failure: tuple[str, ...] = (), deadline_at: float | None = None, **step: Any
) -> NewDag:
    """A dag of TEXT tasks named a, b, c ...; of each step the places of its parents."""
    dag_id = task_id_at(EPOCH)
    steps = tuple(
        NewStep(
            "abcdefghijklmnopqrstuvwxyzABCDEFGH"[place],
            new_task(dag_id=dag_id, waits=bool(of), payload=json.dumps({"prompt": str(place)})),
            of,
            on_failure[place] if on_failure else "fail",
            **step,
        )
        for place, of in enumerate(parents)
    )
    return NewDag(dag_id, "acme", 1, "us-east", EPOCH, deadline_at, '{"job": 7}', "r1", "t1", steps)


async def submitted(store: Store, dag: NewDag) -> NewDag:
    await store.dags.insert([dag])
    return dag


async def view_of(store: Store, dag: NewDag) -> DagView:
    view = await store.dags.get(dag.dag_id)
    assert view is not None
    return view


async def statuses(store: Store, dag: NewDag) -> dict[str, str]:
    return {step.step_id: step.task.status for step in (await view_of(store, dag)).steps}


async def grant(store: Store, ticket: Ticket, now: float) -> GrantedRow:
    (row,) = await store.grant([(ticket, str(uuid.uuid4()), W1)], now)
    return row


def ticket_of(view: Any) -> Ticket:
    return Ticket(view.task_id, view.tenant_id, view.task_type, view.priority, view.created_at, view.available_at)


def ending(row: GrantedRow, status: Status = Status.COMPLETED, **changes: Any) -> Settlement:
    if status is Status.COMPLETED:
        result = json.dumps({"text": f"from {row.payload}", "metadata": {"n": 1}})
        given = Settlement(row.task_id, row.lease_token, status, "COMPLETED", result=result, artifacts=(stored_file(),))
    else:
        given = Settlement(row.task_id, row.lease_token, status, "FAILED", error_code="x", error_message="why")
    return given._replace(**changes)


async def run(store: Store, dag: NewDag, step_id: str, now: float, status: Status = Status.COMPLETED) -> Advanced:
    task = next(step.task for step in (await view_of(store, dag)).steps if step.step_id == step_id)
    row = await grant(store, ticket_of(task), now)
    settled, advanced = await store.settle_steps([ending(row, status)], now, {dag.dag_id})
    assert len(settled) == 1
    return advanced


# ---- what it does


async def test_a_dag_is_stored_with_its_steps(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (0, 1)))
    await store.dags.insert([dag])  # an earlier try had committed
    view = await view_of(store, dag)
    assert (view.dag_id, view.tenant_id, view.status, view.metadata) == (dag.dag_id, "acme", "RUNNING", {"job": 7})
    assert [(each.step_id, each.parents, each.task.status) for each in view.steps] == [
        ("a", (), "QUEUED"), ("b", (0,), "PENDING"), ("c", (0, 1), "PENDING"),
    ]  # fmt: skip
    assert all(each.task.dag_id == dag.dag_id for each in view.steps)
    assert await store.dags.get(task_id_at(EPOCH)) is None


async def test_metadata_comes_back_as_it_was(store: Store) -> None:
    written = b'{"large":1e30,"small":1e-30,"most":9223372036854775807}'
    dag = await submitted(store, make(())._replace(metadata=written.decode()))
    assert (await view_of(store, dag)).metadata == orjson.loads(written)
    orjson.dumps((await view_of(store, dag)).metadata)  # as an answer is written


async def test_a_step_that_completes_releases_its_children_in_the_same_transaction(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    (released,) = (await run(store, dag, "a", EPOCH + 5)).released
    assert released == Requeued(2, Ticket(dag.steps[1].task.task_id, "acme", "TEXT", 1, EPOCH, EPOCH + 5))
    assert await statuses(store, dag) == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    await run(store, dag, "b", EPOCH + 6)
    advanced = await run(store, dag, "c", EPOCH + 7)
    assert (await view_of(store, dag)).status == "COMPLETED"
    assert (await view_of(store, dag)).completed_at == EPOCH + 7
    (moved,) = advanced.dags
    assert moved.end is not None
    assert (moved.seq, moved.end.status) == (5, "COMPLETED")  # running, three ends, completed


async def test_a_granted_step_is_given_what_its_parents_brought_forth(store: Store) -> None:
    dag = await submitted(store, make((), (), (1, 0)))
    for step_id in "ab":
        await run(store, dag, step_id, EPOCH + 1)
    row = await grant(store, ticket_of((await view_of(store, dag)).steps[2].task), EPOCH + 2)
    outputs = json.loads(row.outputs or "")
    assert [(each["step_id"], json.loads(each["text"].removeprefix("from "))) for each in outputs] == [
        ("b", {"prompt": "1"}), ("a", {"prompt": "0"}),
    ]  # fmt: skip
    (file,) = outputs[0]["artifacts"]
    assert (file["key"], file["content_type"], file["width"]) == ("key/0", "image/png", 8)
    assert outputs[0]["metadata"] == {"n": 1}


async def test_a_step_that_may_reuse_something_is_granted_so(store: Store) -> None:
    dag = await submitted(store, make((), (0,), reuse=True))
    root = await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH)
    assert (root.reuse, root.outputs) == (True, None)
    plain = await submitted(store, make(()))
    assert (await grant(store, ticket_of((await view_of(store, plain)).steps[0].task), EPOCH)).reuse is False


async def test_running_steps_that_may_reuse_something_are_found_as_they_were_granted(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,), reuse=True))
    await run(store, dag, "a", EPOCH + 1)
    row = await grant(store, ticket_of((await view_of(store, dag)).steps[1].task), EPOCH + 2)
    plain = await submitted(store, make(()))
    await grant(store, ticket_of((await view_of(store, plain)).steps[0].task), EPOCH + 2)
    assert row.outputs is not None
    assert await store.reusing() == [(row, W1.version)]


async def test_what_completed_is_found_by_its_key_and_the_latest_run_counts(store: Store) -> None:
    one, two, failed = [await submitted(store, make(())) for _ in range(3)]
    for dag, status in ((one, Status.COMPLETED), (two, Status.COMPLETED), (failed, Status.FAILED)):
        await run(store, dag, "a", EPOCH + 1, status)
    mine, other, gone = ("acme", "a" * 64), ("globex", "a" * 64), ("acme", "b" * 64)
    await store.remember([(*mine, one.tasks[0].task_id), (*gone, failed.tasks[0].task_id)])
    found = await store.find_made([mine, mine, other, gone])
    assert list(found) == [mine]
    made = found[mine]
    assert (made.task_id, made.artifacts, made.ran_s) == (one.tasks[0].task_id, (stored_file(),), 0.0)
    assert json.loads(made.result)["metadata"] == {"n": 1}
    assert await store.find_made([]) == {}
    await store.remember([(*mine, one.tasks[0].task_id), (*mine, two.tasks[0].task_id)])
    assert (await store.find_made([mine]))[mine].task_id == two.tasks[0].task_id


async def test_what_is_gone_is_forgotten_whoever_made_or_reused_it(store: Store) -> None:
    maker, other, reuser = [await submitted(store, make((), (0,))) for _ in range(3)]
    for dag in (maker, other):
        await run(store, dag, "a", EPOCH + 1)
    made, kept = ("acme", "a" * 64), ("acme", "b" * 64)
    notes = [(*made, maker.tasks[0].task_id), (*kept, other.tasks[0].task_id)]
    root = await grant(store, ticket_of((await view_of(store, reuser)).steps[0].task), EPOCH + 2)
    result = json.dumps({"text": "x", "metadata": {}, "reused": {"from": maker.tasks[0].task_id, "saved": {}}})
    await store.settle_steps([ending(root, result=result)], EPOCH + 2, {reuser.dag_id})
    for child_of in (maker, reuser):
        await store.remember(notes)
        await store.forget([child_of.tasks[1].task_id])
        assert list(await store.find_made([made, kept])) == [kept]
    await store.remember(notes)
    await store.dags.forget(other.tasks[0].task_id)
    assert list(await store.find_made([made, kept])) == [made]


async def test_a_dag_that_found_a_file_gone_is_resumed_with_the_step_that_made_it(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    for step_id in "ab":
        await run(store, dag, step_id, EPOCH + 1)
    row = await grant(store, ticket_of((await view_of(store, dag)).steps[2].task), EPOCH + 2)
    await store.settle_steps([ending(row, Status.FAILED, error_code="input_gone")], EPOCH + 2, {dag.dag_id})
    old = await view_of(store, dag)
    found = await store.resume_dag(dag.dag_id, EPOCH + 3)
    assert found is not None
    assert await statuses(store, dag) == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    for step_id in "bc":
        await run(store, dag, step_id, EPOCH + 4)
    view = await view_of(store, dag)
    assert view.status == "COMPLETED"
    assert view.steps[1].task.task_id != old.steps[1].task.task_id
    history = await store.read_dag(dag.dag_id)
    assert history is not None
    assert [event.seq for event in history.events()] == list(range(1, history.seq + 1))


async def test_a_root_is_granted_without_outputs(store: Store) -> None:
    dag = await submitted(store, make(()))
    assert (await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH)).outputs is None


async def test_a_failure_ends_what_follows_and_says_why(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,), ()))
    advanced = await run(store, dag, "a", EPOCH + 1, Status.FAILED)
    assert sorted(each.task_id for each in advanced.stopped) == sorted(dag.tasks[n].task_id for n in (1, 2))
    view = await view_of(store, dag)
    assert view.status == "RUNNING"
    assert {(each.task.error_code, each.task.error_message) for each in view.steps[1:3]} == {
        ("parent_failed", "step a is FAILED (x)")
    }
    await run(store, dag, "d", EPOCH + 2)
    view = await view_of(store, dag)
    assert (view.status, view.error_step, view.error_code) == ("FAILED", "a", "step_failed")


async def test_a_try_again_releases_nothing(store: Store) -> None:
    dag = await submitted(store, make((), (0,)))
    row = await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH)
    again = ending(row, Status.QUEUED, available_at=EPOCH + 5)
    assert (await store.settle_steps([again], EPOCH, {dag.dag_id}))[1] == Advanced()
    assert await statuses(store, dag) == {"a": "QUEUED", "b": "PENDING"}


async def test_a_stale_settlement_releases_nothing(store: Store) -> None:
    dag = await submitted(store, make((), (0,)))
    row = await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH)
    late = ending(row, lease_token=str(uuid.uuid4()))
    assert await store.settle_steps([late], EPOCH, {dag.dag_id}) == ([], Advanced())


async def test_the_dags_of_tasks_are_found(store: Store) -> None:
    dag = await submitted(store, make((), (0,)))
    assert await store.dags_of([dag.tasks[1].task_id, task_id_at(EPOCH)]) == {dag.dag_id}
    assert await store.dags_of([]) == set()


async def test_a_cancelled_step_is_a_failed_one(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    found, advanced = await store.cancel_step(dag.tasks[1].task_id, EPOCH + 1, {dag.dag_id})
    assert found is not None
    assert (found[0], found[1] is not None) == (Status.PENDING, True)
    assert [each.task_id for each in advanced.stopped] == [dag.tasks[2].task_id]
    await run(store, dag, "a", EPOCH + 2)
    assert (await view_of(store, dag)).error_step == "b"


async def test_a_dag_is_cancelled_with_all_its_steps_at_once(store: Store) -> None:
    dag = await submitted(store, make((), (), (0, 1)))
    await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH)
    found = await store.cancel_dag(dag.dag_id, EPOCH + 1)
    assert found is not None
    before, cancelled = found
    assert (before, cancelled is not None) == ("RUNNING", True)
    assert cancelled is not None
    assert {each.task_id for each in cancelled.ended} == {task.task_id for task in dag.tasks}
    view = await view_of(store, dag)
    assert (view.status, view.completed_at, view.counts) == ("CANCELLED", EPOCH + 1, {"CANCELLED": 3})
    assert await store.cancel_dag(dag.dag_id, EPOCH + 2) == ("CANCELLED", None)
    assert await store.cancel_dag(task_id_at(EPOCH), EPOCH) is None


async def test_a_failed_dag_is_resumed_with_new_tasks_for_what_did_not_complete(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    await run(store, dag, "a", EPOCH + 1)
    await run(store, dag, "b", EPOCH + 2, Status.FAILED)
    old = await view_of(store, dag)
    found = await store.resume_dag(dag.dag_id, EPOCH + 3)
    assert found is not None
    before, (requeued,) = found
    view = await view_of(store, dag)
    assert (before, view.status, view.completed_at, view.error_code) == ("FAILED", "RUNNING", None, None)
    assert view.steps[0].task.task_id == old.steps[0].task.task_id
    assert view.steps[1].task.task_id == requeued.ticket.task_id != old.steps[1].task.task_id
    assert await statuses(store, dag) == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    assert await store.resume_dag(dag.dag_id, EPOCH + 3) == ("RUNNING", ())
    await run(store, dag, "b", EPOCH + 4)
    await run(store, dag, "c", EPOCH + 5)
    assert (await view_of(store, dag)).status == "COMPLETED"
    assert await store.resume_dag(task_id_at(EPOCH), EPOCH) is None


async def test_a_step_has_the_attempts_that_it_asks_for_and_has_them_again_when_it_is_resumed(store: Store) -> None:
    dag = make((), (0,), ())
    asked = zip((2, 7, None), dag.steps, strict=True)
    steps = tuple(step._replace(task=step.task._replace(max_attempts=most)) for most, step in asked)
    await submitted(store, dag._replace(steps=steps))
    assert [step.task.max_attempts for step in (await view_of(store, dag)).steps] == [2, 7, 4]
    await run(store, dag, "a", EPOCH + 1, Status.FAILED)
    await run(store, dag, "c", EPOCH + 1, Status.FAILED)
    await store.resume_dag(dag.dag_id, EPOCH + 2)
    view = await view_of(store, dag)
    assert [step.task.max_attempts for step in view.steps] == [2, 7, 4]
    for attempt in (1, 2):  # and no more are made
        row = await grant(store, ticket_of((await view_of(store, dag)).steps[0].task), EPOCH + 2)
        assert (row.attempt, row.max_attempts) == (attempt, 2)
        again = ending(row, Status.QUEUED, available_at=EPOCH + 2)
        ((settled,), _) = await store.settle_steps([again], EPOCH + 2, {dag.dag_id})
        assert settled.status == ("QUEUED" if attempt == 1 else "FAILED")


async def test_a_step_may_start_for_so_long_from_its_release_and_never_after_the_deadline(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,), deadline_at=EPOCH + 25, start_within_s=10.0))
    await run(store, dag, "a", EPOCH + 5)
    assert (await view_of(store, dag)).steps[1].task.start_deadline_at == EPOCH + 15
    await run(store, dag, "b", EPOCH + 14)
    assert (await view_of(store, dag)).steps[2].task.start_deadline_at == EPOCH + 24
    assert await store.late_dags(10, EPOCH + 23) == []
    assert await store.late_dags(10, EPOCH + 26) == [dag.dag_id]
    assert await store.expire(10, EPOCH + 26) == [], "a step is expired under the lock of its dag"
    ended, _ = await store.expire_steps(10, EPOCH + 26, {dag.dag_id})
    assert [each.task_id for each in ended] == [dag.tasks[2].task_id]
    assert (await view_of(store, dag)).status == "FAILED"


async def test_a_step_that_has_started_is_tried_again_after_its_start_deadline(store: Store) -> None:
    dag = await submitted(store, make((), (0,), deadline_at=EPOCH + 25, start_within_s=10.0))
    await run(store, dag, "a", EPOCH + 5)
    await run(store, dag, "b", EPOCH + 14, status=Status.QUEUED)
    assert await store.late_dags(10, EPOCH + 26) == []
    assert (await store.expire_steps(10, EPOCH + 26, {dag.dag_id}))[0] == []
    await run(store, dag, "b", EPOCH + 26)
    assert (await view_of(store, dag)).status == "COMPLETED"


async def test_a_resumed_step_has_a_start_deadline_of_its_own(store: Store) -> None:
    dag = await submitted(store, make((), start_within_s=10.0))
    await run(store, dag, "a", EPOCH + 5, status=Status.FAILED)
    await store.resume_dag(dag.dag_id, EPOCH + 30)
    (step,) = (await view_of(store, dag)).steps
    assert (step.task.start_deadline_at, step.task.started_at) == (EPOCH + 40, None)
    assert await store.late_dags(10, EPOCH + 40) == [dag.dag_id]


async def test_steps_are_not_retried_or_replayed_alone(store: Store) -> None:
    dag = await submitted(store, make((), (0,)))
    await run(store, dag, "a", EPOCH + 1, Status.FAILED)
    task_id = dag.tasks[0].task_id
    assert await store.retry(task_id, 4, EPOCH + 2) == (Status.FAILED, None)
    assert await store.replay([task_id], 4, EPOCH + 2) == []


async def test_the_log_of_a_step_tells_that_it_waited(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    await run(store, dag, "a", EPOCH + 1)
    await run(store, dag, "b", EPOCH + 2, Status.FAILED)
    for place, kinds in ((1, ["pending", "queued", "processing", "failed"]), (2, ["pending", "cancelled"])):
        history = await store.read(dag.tasks[place].task_id)
        assert history is not None
        log = log_of(history)
        assert [(event.seq, event.kind) for event in log] == list(enumerate(kinds, 1))
    assert (log[-1].error_code, log[-1].error_message) == ("parent_failed", "step b is FAILED (x)")


async def test_the_log_of_a_dag_tells_how_each_step_ended_and_is_kept_when_it_is_resumed(store: Store) -> None:
    dag = await submitted(store, make((), (0,), (1,)))
    await run(store, dag, "a", EPOCH + 1)
    await run(store, dag, "b", EPOCH + 2, Status.FAILED)
    await store.resume_dag(dag.dag_id, EPOCH + 3)
    for at, step_id in enumerate("bc", 4):
        await run(store, dag, step_id, EPOCH + at)
    history = await store.read_dag(dag.dag_id)
    assert history is not None
    told = [(event.seq, event.kind, event.at - EPOCH, event.dag and event.dag[:4]) for event in history.events()]
    assert [(seq, kind, at, note and (note[0], note[1], note[3])) for seq, kind, at, note in told] == [
        (1, "running", 0, ("RUNNING", None, None)),
        (2, "step", 1, ("RUNNING", "a", "COMPLETED")),
        (3, "step", 2, ("RUNNING", "b", "FAILED")),
        (4, "step", 2, ("RUNNING", "c", "CANCELLED")),
        (5, "failed", 2, ("FAILED", "b", None)),
        (6, "resumed", 3, ("RUNNING", None, None)),
        (7, "step", 4, ("RUNNING", "b", "COMPLETED")),
        (8, "step", 5, ("RUNNING", "c", "COMPLETED")),
        (9, "completed", 5, ("COMPLETED", None, None)),
    ]
    assert await store.positions([dag.dag_id, dag.tasks[0].task_id, task_id_at(EPOCH)]) == {
        dag.dag_id: 9, dag.tasks[0].task_id: 4,
    }  # fmt: skip
    assert await store.read_dag(task_id_at(EPOCH)) is None


async def test_dags_are_found_newest_first_by_each_filter(store: Store) -> None:
    one, two = await submitted(store, make(())), await submitted(store, make((), (0,)))
    await run(store, one, "a", EPOCH + 1)
    found = await store.dags.find(DagFilter(tenant_id="acme"))
    assert [view.dag_id for view in found] == [two.dag_id, one.dag_id]
    assert found[0].counts == {"QUEUED": 1, "PENDING": 1}
    assert found[0].steps == ()
    for wanted, expected in (
        (DagFilter(tenant_id="globex"), []),
        (DagFilter(status="COMPLETED"), [one.dag_id]),
        (DagFilter(before_id=two.dag_id), [one.dag_id]),
        (DagFilter(limit=1), [two.dag_id]),
        (DagFilter(created_from=EPOCH + 1), []),
        (DagFilter(created_until=EPOCH + 1), [two.dag_id, one.dag_id]),
    ):
        assert [view.dag_id for view in await store.dags.find(wanted)] == expected


# ---- at once


async def test_parents_that_complete_at_once_release_their_child_once(postgresql: PostgresStore) -> None:
    for _ in range(20):
        dag = await submitted(postgresql, make((), (), (), (0, 1, 2)))
        rows = [
            await grant(postgresql, ticket_of(step.task), EPOCH) for step in (await view_of(postgresql, dag)).steps[:3]
        ]
        done = await asyncio.gather(*(postgresql.settle_steps([ending(row)], EPOCH, {dag.dag_id}) for row in rows))
        assert sum(len(advanced.released) for _, advanced in done) == 1


async def test_moves_that_race_block_nobody_and_every_dag_ends(postgresql: PostgresStore) -> None:
    for _ in range(10):
        dag = await submitted(postgresql, make((), (), (0, 1), (2,), (2,)))
        rows = [
            await grant(postgresql, ticket_of(step.task), EPOCH) for step in (await view_of(postgresql, dag)).steps[:2]
        ]
        await asyncio.wait_for(
            asyncio.gather(
                postgresql.settle_steps([ending(row) for row in rows], EPOCH, {dag.dag_id}),
                postgresql.cancel_step(dag.tasks[2].task_id, EPOCH, {dag.dag_id}),
                postgresql.cancel_step(dag.tasks[0].task_id, EPOCH, {dag.dag_id}),
                postgresql.cancel_dag(dag.dag_id, EPOCH),
            ),
            5.0,
        )
        view = await view_of(postgresql, dag)
        assert view.status in {"CANCELLED", "FAILED"}
        assert all(step.task.status in TERMINAL for step in view.steps)


# ---- both stores tell the same


def random_dag(chance: random.Random) -> NewDag:
    count = chance.randint(1, 9)
    parents = [tuple(chance.sample(range(place), chance.randint(0, min(place, 3)))) for place in range(count)]
    policies = tuple(chance.choice(["fail", "fail", "skip"]) for _ in range(count))
    return make(*parents, on_failure=policies, start_within_s=chance.choice([None, 20.0]))


async def play(store: Store, dag: NewDag, seed: int) -> list[Any]:
    """Move a dag at random until it has ended; return what the store told on the way, without ids."""
    chance, now, told = random.Random(seed), EPOCH, []
    await submitted(store, dag)
    for _ in range(60):
        now += chance.choice([1.0, 1.0, 15.0])
        view = await view_of(store, dag)
        names = {step.task.task_id: step.step_id for step in view.steps}
        ready = [step.task for step in view.steps if step.task.status == "QUEUED"]
        what = chance.random()
        if view.status != "RUNNING":
            if view.status != "FAILED" or what < 0.5:
                break
            found = await store.resume_dag(dag.dag_id, now)
            told.append(("resumed", found and (found[0], len(found[1]))))
        elif what < 0.05:
            found_cancel = await store.cancel_dag(dag.dag_id, now)
            assert found_cancel is not None
            assert found_cancel[1] is not None
            told.append(("cancelled", sorted(names[each.task_id] for each in found_cancel[1].ended)))
        elif what < 0.12:
            task = chance.choice(view.steps).task
            found_step, advanced = await store.cancel_step(task.task_id, now, {dag.dag_id})
            told.append(("step cancelled", found_step and found_step[0], seen(advanced, names)))
        elif late := await store.late_dags(10, now):
            ended, advanced = await store.expire_steps(10, now, late)
            told.append(("expired", sorted(names[each.task_id] for each in ended), seen(advanced, names)))
        elif ready:
            granted = [
                await grant(store, ticket_of(task), now) for task in chance.sample(ready, chance.randint(1, len(ready)))
            ]
            outputs = [json.loads(row.outputs) if row.outputs else None for row in granted]
            settlements = [ending(row, chance.choice([Status.COMPLETED] * 5 + [Status.FAILED])) for row in granted]
            settled, advanced = await store.settle_steps(settlements, now, {dag.dag_id})
            told.append((outputs, sorted((names[s.task_id], s.status) for s in settled), seen(advanced, names)))
    view = await view_of(store, dag)
    told.append((view.status, view.error_step, view.error_message, dict(view.counts)))
    told += [(s.step_id, s.task.status, s.task.error_message, s.task.start_deadline_at) for s in view.steps]
    story = await store.read_dag(dag.dag_id)
    assert story is not None
    assert [event.seq for event in story.events()] == list(range(1, story.seq + 1))
    for event in story.events():
        assert event.dag is not None
        told.append(
            (event.kind, event.at, event.error_code, event.error_message, event.dag.step_id, event.dag.step_status)
        )
    for step in view.steps:
        history = await store.read(step.task.task_id)
        assert history is not None
        log = log_of(history)
        assert [event.seq for event in log] == list(range(1, history.seq + 1))
        told.append([(event.kind, event.at, event.error_code) for event in log])
    return told


def seen(advanced: Advanced, names: dict[str, str]) -> Any:
    return (
        sorted((names[each.ticket.task_id], each.seq, each.ticket.available_at) for each in advanced.released),
        sorted((names[each.task_id], each.seq, each.error_code, each.error_message) for each in advanced.stopped),
        [(each.tenant_id, each.seq, each.end) for each in advanced.dags],
    )


async def test_both_stores_tell_the_same_of_random_dags(postgresql: PostgresStore) -> None:
    for seed in range(GRAPHS):
        dag = random_dag(random.Random(seed))
        assert await play(MemoryStore(), dag, seed) == await play(postgresql, dag, seed), seed
