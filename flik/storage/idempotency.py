"""Answers under idempotency keys: stored in one statement with the tasks they are about, found again, swept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from flik.domain.idempotency import Answer, Kept, Keyed, Place
from flik.storage import dags, queries
from flik.storage.database import Database
from flik.storage.tasks import own_webhooks_of, rows_of, storing

_SQL = queries.load("idempotency")
_INSERT_KEYED = _SQL["insert_keyed"].format(
    storing=storing("winners, json_to_recordset(winners.tasks)"), **dags.INSERTS
)


class AnswerStore:
    """The table of answers. `ttl_s`: how long one is kept."""

    def __init__(self, database: Database, *, max_attempts: int, ttl_s: float) -> None:
        self._database = database
        self._max_attempts = max_attempts
        self._ttl_s = ttl_s

    async def insert(self, submissions: Sequence[Keyed]) -> frozenset[str]:
        """Commit the submissions whose key is free, with their answers, in one transaction; return their ids.

        No two of them may have one key. A submission that is stored already, because the reply to
        an earlier try was lost, counts as stored.

        Raises:
            Unavailable: PostgreSQL is away; whether they were stored is unknown.
        """
        records = [self._record_of(submission) for submission in submissions]
        parameters = {
            "records": orjson.dumps(records).decode(),
            "own_webhooks": own_webhooks_of(
                (task for each in submissions for task in each.tasks),
                (each.dag for each in submissions if each.dag is not None),
            ),
            "max_attempts": self._max_attempts,
            "ttl_s": self._ttl_s,
        }
        return frozenset(row[0] for row in await self._database.repeatable(_INSERT_KEYED, parameters))

    def _record_of(self, submission: Keyed) -> dict[str, Any]:
        asked, answer = submission.asked, submission.answer
        record = {
            "tenant_id": asked.tenant_id,
            "key": asked.key,
            "fingerprint": asked.fingerprint,
            "submission_id": submission.submission_id,
            "expires_at": asked.asked_at + self._ttl_s,
            "status": answer.status,
            "headers": answer.headers,
            "body": answer.body,
            "tasks": rows_of(submission.tasks),
        }
        if submission.dag is not None:
            record |= {"dags": [dags.row_of(submission.dag)], "steps": dags.step_rows_of(submission.dag)}
        return record

    async def find(self, places: Collection[Place]) -> Mapping[Place, Kept]:
        """Return what is kept in these places, expired or not; places without an answer are left out.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        wanted = [{"tenant_id": tenant_id, "key": key} for tenant_id, key in places]
        rows = await self._database.repeatable(_SQL["find_kept"], {"places": orjson.dumps(wanted).decode()})
        return {(row[0], row[1]): Kept(row[2], row[3], Answer(*row[4:])) for row in rows}

    async def forget(self, now: float, limit: int) -> int:
        """See `forget_expired`."""
        return await forget_expired(self._database, now, limit)


async def forget_expired(database: Database, now: float, limit: int) -> int:
    """Delete up to `limit` answers that expired by `now`, oldest first; return how many.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    ((forgotten,),) = await database.repeatable(_SQL["forget_expired"], {"now": now, "limit": limit})
    return int(forgotten)
