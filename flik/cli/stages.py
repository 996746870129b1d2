"""How the processes of a region tell `flik up` what stage they reached: one JSON line each on standard output."""

from __future__ import annotations

import json


def tell(**fields: str) -> None:
    """Tell of a stage, as long as somebody listens."""
    try:
        print(json.dumps(fields), flush=True)
    except BrokenPipeError:
        return  # nobody listens any more; stopping goes on
