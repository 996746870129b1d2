"""Reads the named queries in `sql/`: `-- name: what_it_does` starts one, the next name ends it."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def load(file: str) -> dict[str, str]:
    """Return the queries of `sql/<file>.sql` by name; comments above a query stay with it."""
    text = resources.files("flik.storage").joinpath("sql", f"{file}.sql").read_text()
    parts = _NAME.split(text)
    return {name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)}
