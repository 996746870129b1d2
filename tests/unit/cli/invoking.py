"""What tests of the command line share besides fixtures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

Run = Callable[..., Result]


def documents(result: Result) -> list[Any]:
    """Each line of stdout as the JSON it must be."""
    return [json.loads(line) for line in result.stdout.splitlines()]
