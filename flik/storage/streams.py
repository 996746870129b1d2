"""Streams by name: a name is taken in one statement with the task that it stands for, found again, swept."""

from __future__ import annotations

import orjson

from flik.domain.idempotency import Place
from flik.domain.task import NewTask
from flik.storage import queries
from flik.storage.database import Database
from flik.storage.tasks import own_webhooks_of, rows_of, storing

_SQL = queries.load("streams")
_START = _SQL["start_stream"].format(storing=storing("winners, json_to_recordset(winners.tasks)"))


class StreamStore:
    """The table of streams. `ttl_s`: how long a name stands for its task after that has ended."""

    def __init__(self, database: Database, *, max_attempts: int, ttl_s: float) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._ttl_s = ttl_s

    async def start(self, place: Place, task: NewTask, now: float) -> bool:
        """Commit a task under a name if the name is free; return whether it is stored.

        Raises:
            Unavailable: PostgreSQL is away; whether it is stored is unknown.
        """
        parameters = {
            **self._named(place, now),
            "task_id": task.task_id,
            "tasks": orjson.dumps(rows_of((task,))).decode(),
            "own_webhooks": own_webhooks_of((task,)),
            "max_attempts": self._max_attempts,
        }
        return bool(await self._database.repeatable(_START, parameters))

    async def find(self, place: Place, now: float) -> str | None:
        """Return the id of the task that a name stands for; None when it is free.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        rows = await self._database.repeatable(_SQL["find_stream"], self._named(place, now))
        return rows[0][0] if rows else None

    def _named(self, place: Place, now: float) -> dict[str, object]:
        tenant_id, key = place
        return {"tenant_id": tenant_id, "key": key, "now": now, "ttl_s": self._ttl_s}


async def forget_streams(database: Database, now: float, limit: int) -> int:
    """Delete up to `limit` names whose stream has been over for a day; return how many.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    ((forgotten,),) = await database.repeatable(_SQL["forget_streams"], {"now": now, "limit": limit})
    return int(forgotten)
