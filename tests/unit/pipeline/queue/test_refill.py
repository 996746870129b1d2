"""What is brought into memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from making import task_id_at, ticket_of
from memory_store import MemoryStore
from queue_scene import Scene, turn

from flik.domain.task import Ticket
from flik.domain.window import MIN_SHARE, PAGE_ROWS, Page
from flik.errors import Unavailable
from flik.pipeline.queue import refill


async def test_a_task_that_nobody_announced_is_found(scene: Scene) -> None:
    task = await scene.submit(announced=False)
    assert await scene.lease() == []
    await scene.scan()
    assert (await scene.lease_one()).task_id == task.task_id


async def test_the_walk_finds_an_old_task_page_by_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refill, "WALK_ROWS", 2)
    monkeypatch.setattr(refill, "RECENT_ROWS", 0)
    for _ in range(5):
        await scene.submit(announced=False)
    found = []
    for _ in range(3):
        await scene.scan()
        found.append((await scene.waiting())[1])
    assert found == [2, 4, 5]


async def test_a_scan_while_postgresql_is_away_says_so(scene: Scene) -> None:
    for call in ("scan_recent", "scan_waiting"):
        scene.store.fail_before = {call}
        with pytest.raises(Unavailable):
            await scene.scan()


async def test_depth_is_right_with_a_rest_beyond_the_window_however_often_it_is_scanned() -> None:
    async with Scene(window=100) as scene:
        for _ in range(300):
            await scene.submit()
        for _ in range(3):
            await scene.scan()
        assert await scene.waiting() == [0, 300, 0]
        assert (await scene.queue.stats())["types"]["TEXT"]["inMemory"] == 100


async def test_a_backlog_beyond_the_window_is_granted_to_its_end_in_order() -> None:
    async with Scene(window=100) as scene:
        tasks = [await scene.submit() for _ in range(300)]
        granted = []
        while grants := await scene.lease(slots=30):
            granted += [grant.task_id for grant in grants]
            await scene.queue.refilling.read_pages()
        assert granted == [task.task_id for task in tasks]


async def test_a_backlog_is_read_whole_when_something_of_it_was_announced_before_the_rebuild() -> None:
    async with Scene(window=100) as scene:
        tasks = [await scene.submit(announced=False) for _ in range(300)]
        scene.queue = scene._queue()
        await scene.queue.announce([ticket_of(tasks[-1])])
        await scene.queue.rebuild()
        assert (await scene.queue.stats())["types"]["TEXT"]["inMemory"] <= 100
        assert len(await _grant_all(scene)) == 300


async def _grant_all(scene: Scene) -> set[str]:
    granted: set[str] = set()
    while grants := await scene.lease(slots=30):
        granted |= {grant.task_id for grant in grants}
        await scene.queue.refilling.read_pages()
    return granted


async def test_small_pages_are_read_together_few_statements_at_a_time_however_many_backlogs_there_are() -> None:
    async with Scene(window=PAGE_ROWS) as scene:
        backlogs = 3 * PAGE_ROWS // MIN_SHARE
        for n in range(backlogs):
            await scene.submit(announced=False, tenant_id=f"tenant{n}")
        scene.store._page = _page_of(scene.store)  # type: ignore[method-assign]  # the table is not indexed
        scene.store.gates_before["pages"] = gate = asyncio.Event()
        scene.queue = scene._queue()
        rebuilding = scene.start(scene.queue.rebuild())
        await turn()
        assert scene.store.calls["pages"] == refill.READERS
        gate.set()
        await rebuilding
        assert scene.store.calls["pages"] == 3
        assert await scene.waiting() == [0, backlogs, 0]


def _page_of(store: MemoryStore) -> Callable[[str, Page], list[Ticket]]:
    """Read pages of tenants with one task each."""
    by_key = {(row.task.priority, row.task.tenant_id): row.ticket for row in store.rows.values()}
    return lambda _, page: [by_key[page.key]]


async def test_looks_at_more_recent_tasks_than_fit_go_on_where_the_last_one_ended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refill, "RECENT_ROWS", 2)
    monkeypatch.setattr(refill, "WALK_ROWS", 0)
    for _ in range(5):
        await scene.submit(announced=False)
    found = []
    for _ in range(3):
        await scene.scan()
        found.append((await scene.waiting())[1])
    assert found == [2, 4, 5]
    late = await scene.submit(announced=False, task_id=task_id_at(scene.clock() - 2.0))  # committed late
    await scene.scan()
    assert [grant.task_id for grant in await scene.lease(slots=9)].count(late.task_id) == 1
