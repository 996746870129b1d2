"""How much memory there is for Flik, and how much it takes."""

from __future__ import annotations

from pathlib import Path

import psutil

NEEDED_BYTES = 2 << 30
"""What a region takes: Ray, the servers and the models."""
LEAST_BYTES = 1536 << 20
"""With less it does not start."""
_CONTAINER = Path("/sys/fs/cgroup")


def available_bytes(container: Path = _CONTAINER) -> int:
    """Return what the machine, or the container if that is less, can still give."""
    machine = int(psutil.virtual_memory().available)
    try:
        limit = int((container / "memory.max").read_text())
        used = int((container / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return machine
    return min(machine, max(0, limit - used))
