"""Steps that may reuse what an earlier run made: found when they are granted, and ended without a worker.

A step whose caller said `reuse` is looked up by what it would be made of (`flik/domain/dag/memo.py`) once that is
known: its parents have completed, and the grant says which model version would run it. What is found is its result.
What is not runs, and is remembered when it has completed; to forget one costs a run and nothing else.

A queue that no such step reaches does not load the catalog, which costs it 20 MB of pydantic.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from flik.domain.dag import memo, references
from flik.domain.dag.memo import Made
from flik.domain.task import Status, StoredArtifact
from flik.errors import InputError, Unavailable
from flik.storage.queue import GrantedRow, Settlement

Place = tuple[str, str]
"""Where something is remembered: (tenant id, key)."""
_log = logging.getLogger("flik.queue")


class Memos(Protocol):
    """Where it is remembered what runs made."""

    async def find_made(self, places: Sequence[Place]) -> Mapping[Place, Made]:
        """Return what completed under these keys; the others are left out."""

    async def remember(self, made: Sequence[tuple[str, str, str]]) -> None:
        """Note which tasks completed: (tenant id, key, task id)."""


class Reuse:
    """Looks up granted steps, and has completed ones remembered."""

    def __init__(self, memos: Memos) -> None:
        self._memos = memos

    async def look_up(self, rows: Sequence[GrantedRow], versions: Mapping[str, str]) -> Mapping[str, str | Settlement]:
        """Return, by task, how steps that may reuse something end, or the key to remember them by when they complete.

        Args:
            versions: the model version that would run each of the tasks.
        """
        places = {}
        for row in rows:
            if row.reuse and (key := _key_of(row, versions[row.task_id])) is not None:
                places[row.task_id] = (row.tenant_id, key)
        if not places:
            return {}
        try:
            made = await self._memos.find_made(list(places.values()))
        except Unavailable:
            made = {}
        tokens = {row.task_id: row for row in rows}
        return {
            task_id: _settlement(tokens[task_id], made[place]) if place in made else place[1]
            for task_id, place in places.items()
        }

    async def remember(self, made: Sequence[tuple[str, str, str]]) -> None:
        """Note which tasks completed: (tenant id, key, task id)."""
        try:
            await self._memos.remember(made)
        except Unavailable:
            _log.info("what steps made was not noted for others", extra={"count": len(made)})


def _key_of(row: GrantedRow, version: str) -> str | None:
    """Return the key of what a step would make; None when it cannot run, which is for its worker to say."""
    from flik.catalog import MAX_PROMPT_CHARS, read_payload  # noqa: PLC0415  # see above

    payload: dict[str, Any] = orjson.loads(row.payload)
    inputs: tuple[StoredArtifact, ...] = ()
    try:
        if row.outputs is not None:
            outputs = references.outputs_of(row.outputs)
            payload, inputs = references.fill(payload, outputs, max_prompt_chars=MAX_PROMPT_CHARS)
        return memo.key_of(row.task_type, version, read_payload(row.task_type, payload), inputs)
    except InputError:
        return None


def _settlement(row: GrantedRow, made: Made) -> Settlement:
    from flik.catalog import TASK_TYPES  # noqa: PLC0415  # see above

    result = memo.reused(made, str(TASK_TYPES[row.task_type].price_usd))
    return Settlement(
        row.task_id, row.lease_token, Status.COMPLETED, "COMPLETED", result=result, artifacts=made.artifacts
    )
