"""What the queue does when dags go on: what was released waits for workers, and followers are told."""

from __future__ import annotations

from flik.domain.event import Notice
from flik.pipeline.queue import telling
from flik.pipeline.queue.measures import Measures
from flik.pipeline.queue.telling import Feed
from flik.pipeline.queue.waiting import Waiting
from flik.storage.dags import Advanced


class Dags:
    """Takes in what followed from the moves of steps."""

    def __init__(self, feed: Feed, *, waiting: Waiting, measures: Measures) -> None:
        self._feed = feed
        self._waiting = waiting
        self._measures = measures

    def take_in(self, advanced: Advanced, now: float) -> None:
        """Hold the tickets of what was released at `now`, and tell what happened."""
        self._waiting.offer(each.ticket for each in advanced.released)
        self._measures.note_announced([each.ticket for each in advanced.released])
        told: list[Notice] = [*telling.requeued(advanced.released)]
        told += (telling.moved(each.dag_id, each.tenant_id, now) for each in advanced.dags)
        for step in advanced.stopped:
            self._measures["flik_tasks_cancelled"].labels(step.task_type).inc()
            told.append(telling.stopped(step, now))
        if told:
            self._feed.tell(told)
