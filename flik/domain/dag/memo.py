"""What a step can be remembered by: two runs with one key would make the same, as far as their caller says so.

The key is made of the task type, the model version, the parameters as the provider sees them, seed included, and the
digests of the files that it starts from; texts of parents are parameters by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from flik.domain.task import StoredArtifact


class Made(NamedTuple):
    """What an earlier run of a tenant made: its task, its result as JSON text, its files, and how long it took."""

    task_id: str
    result: str
    artifacts: tuple[StoredArtifact, ...]
    ran_s: float


def key_of(task_type: str, version: str, payload: Mapping[str, Any], inputs: Sequence[StoredArtifact]) -> str:
    """Return the key of a run, in hexadecimal."""
    parts = [task_type, version, payload, [each.sha256 for each in inputs]]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def reused(made: Made, price_usd: str) -> str:
    """Return the result of a step that reuses what was made, as JSON text: with where it is from, and what it saved."""
    saved = {"seconds": round(made.ran_s, 3), "usd": price_usd}
    return orjson.dumps({**orjson.loads(made.result), "reused": {"from": made.task_id, "saved": saved}}).decode()
