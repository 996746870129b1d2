"""The histories of tasks and dags; their logs are read off them (`flik/domain/event.py`, `flik/domain/dag/log.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from flik.domain.dag.graph import DagView
from flik.domain.dag.log import DagHistory, EndedRound, EndedStep
from flik.domain.event import EndedAttempt, History, Round
from flik.domain.task import StoredArtifact, TaskView
from flik.storage import dags, queries
from flik.storage.database import Database
from flik.storage.tasks import COLUMNS

_SQL = queries.load("events")
_GET_DAG = _SQL["get_dag_history"].format(columns=f"{dags.COLUMNS}, {dags.COUNTS}")
_GET = _SQL["get_history"].format(columns=COLUMNS)


class HistoryStore:
    """What happened to tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, task_id: str) -> History | None:
        """Return all that happened to a task; None when there is none.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        rows = await self._database.repeatable(_GET, {"task_id": task_id})
        if not rows:
            return None
        *columns, seq, attempts, rounds, artifacts, step = rows[0]
        files = tuple(StoredArtifact(*each) for each in artifacts or ())
        return History(
            TaskView(*columns)._replace(artifacts=files),
            seq,
            [EndedAttempt._make(each) for each in attempts or ()],
            [Round._make(each) for each in rounds or ()],
            *(step or ()),
        )

    async def read_dag(self, dag_id: str) -> DagHistory | None:
        """Return all that happened to a dag; None when there is none.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        rows = await self._database.repeatable(_GET_DAG, {"dag_id": dag_id})
        if not rows:
            return None
        *columns, seq, steps, rounds = rows[0]
        return DagHistory(
            DagView(*columns),
            seq,
            [EndedStep._make(each) for each in steps or ()],
            [EndedRound._make(each) for each in rounds or ()],
        )

    async def positions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the number of the latest event of each task and each dag that there is.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        return dict(await self._database.repeatable(_SQL["list_positions"], {"ids": list(ids)}))
