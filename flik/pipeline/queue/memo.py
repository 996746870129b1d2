"""Steps that may reuse what an earlier run made: found when they are granted, and ended without a worker.

A step whose caller said `reuse` is looked up by what it would be made of (`flik/domain/dag/memo.py`) once that is
known: its parents have completed, and the grant says which model version would run it. What is found is its result.
What is not runs, and is remembered when it has completed; to forget one costs a run and nothing else.

No worker hears of a step that reuses something, so its attempt is never lost: what does not get stored is granted
anew, uncounted (`Lease.reused`). A queue that restarts looks up the steps that were granted by the one before it.

Whether files are still there is not asked here: whoever finds one gone, a step that was to start from it or a gateway
that was to send it, has its run forgotten, and the next run is remembered in its place.

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

    async def forget(self, steps: Sequence[str]) -> None:
        """Forget what was made by the parents of these steps."""

    async def reusing(self) -> Sequence[tuple[GrantedRow, str]]:
        """Return the running steps that may reuse something, each with the model version that would run it."""


class Reuse:
    """Looks up granted steps, and has completed ones remembered."""

    def __init__(self, memos: Memos) -> None:
        self._memos = memos

    async def look_up(self, rows: Sequence[GrantedRow], versions: Mapping[str, str]) -> Mapping[str, str | Settlement]:
        """Return, by task, how steps that may reuse something end, or the key to remember them by when they complete.

        Args:
            versions: the model version that would run each of the tasks.
        """
        places = _places_of(rows, versions)
        try:
            found = await self._find(rows, places)
        except Unavailable:
            found = {}
        return {task_id: found.get(task_id, key) for task_id, (_, key) in places.items()}

    async def of_running(self) -> Mapping[str, Settlement]:
        """Return, by task, how running steps end that an earlier run has made.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        running = await self._memos.reusing()
        rows = [row for row, _ in running]
        return await self._find(rows, _places_of(rows, {row.task_id: version for row, version in running}))

    async def _find(self, rows: Sequence[GrantedRow], places: Mapping[str, Place]) -> dict[str, Settlement]:
        if not places:
            return {}
        made = await self._memos.find_made(list(places.values()))
        by_task = {row.task_id: row for row in rows}
        return {
            task_id: _settlement(by_task[task_id], made[place]) for task_id, place in places.items() if place in made
        }

    async def remember(self, made: Sequence[tuple[str, str, str]]) -> None:
        """Note which tasks completed: (tenant id, key, task id)."""
        try:
            await self._memos.remember(made)
        except Unavailable:
            _log.info("what steps made was not noted for others", extra={"count": len(made)})

    async def forget(self, steps: Sequence[str]) -> None:
        """Have nobody reuse what the parents of these steps made: a file of theirs is gone."""
        try:
            await self._memos.forget(steps)
        except Unavailable:  # whoever reuses it next finds the same
            _log.warning("files that are gone were not forgotten", extra={"count": len(steps)})


def _places_of(rows: Sequence[GrantedRow], versions: Mapping[str, str]) -> dict[str, Place]:
    """Return, by task, where it is remembered what steps would make, of those that may reuse it."""
    return {
        row.task_id: (row.tenant_id, key)
        for row in rows
        if row.reuse and (key := _key_of(row, versions[row.task_id])) is not None
    }


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
