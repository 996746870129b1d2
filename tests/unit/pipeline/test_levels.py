from __future__ import annotations

from collections.abc import Sequence

from flik.domain.pressure import Level, Load
from flik.errors import Unavailable
from flik.pipeline.levels import FORGET_AFTER, QueueLevels


class AskedQueue:
    def __init__(self) -> None:
        self.load: Load | Exception = Load({})
        self.asked: list[tuple[str, ...]] = []

    async def __call__(self, tenants: Sequence[str]) -> Load:
        self.asked.append(tuple(tenants))
        if isinstance(self.load, Exception):
            raise self.load
        return self.load


async def test_level_is_that_of_the_queue_plus_what_was_sent_since() -> None:
    queue = AskedQueue()
    levels = QueueLevels(queue)
    queue.load = Load({"TEXT": Level(100, 7.0)})
    await levels.ask_once()

    levels.note_sent("TEXT", "acme", 20)

    assert levels.level("TEXT") == Level(120, 7.0)
    assert levels.level("IMAGE") == Level(0, 0.0)


async def test_what_was_sent_before_the_question_is_in_the_answer_and_what_came_later_is_added() -> None:
    queue = AskedQueue()
    levels = QueueLevels(queue)
    levels.note_sent("TEXT", "acme", 20)

    async def answer_after_more_was_sent(tenants: Sequence[str]) -> Load:
        levels.note_sent("TEXT", "acme", 3)
        return Load({"TEXT": Level(20, 1.0)}, {"acme": 20})

    levels._ask = answer_after_more_was_sent
    await levels.ask_once()

    assert levels.level("TEXT") == Level(23, 1.0)
    assert await levels.queued_by("acme") == 23


async def test_while_the_queue_is_away_the_last_level_holds_and_grows_by_what_is_sent() -> None:
    queue = AskedQueue()
    levels = QueueLevels(queue)
    queue.load = Load({"TEXT": Level(100, 7.0)})
    await levels.ask_once()
    queue.load = Unavailable("queue")

    for _ in range(3):
        levels.note_sent("TEXT", "acme", 10)
        await levels.ask_once()

    assert levels.level("TEXT") == Level(130, 7.0)


async def test_queue_is_asked_only_about_tenants_that_sent_lately() -> None:
    queue = AskedQueue()
    levels = QueueLevels(queue)
    await levels.queued_by("acme")

    for _ in range(FORGET_AFTER + 2):
        await levels.ask_once()

    assert queue.asked[0] == ("acme",)
    assert queue.asked[FORGET_AFTER - 1] == ("acme",)
    assert queue.asked[FORGET_AFTER] == ()
