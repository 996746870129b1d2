"""The mark of a data folder's processes, and where the Ray of a region keeps its session."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

INSTANCE = "FLIK_INSTANCE"  # marks every process that belongs to one data folder


def instance_of(data_dir: Path) -> str:
    """Return the mark of a data folder's processes."""
    return _digest(data_dir)[:16]


def ray_temp_dir(data_dir: Path, region: str) -> Path:
    """Return where Ray keeps its session: a short path, because unix sockets lie below it."""
    name = f"flik-ray-{os.getuid()}-{_digest(data_dir, region)[:8]}"
    return Path("/tmp") / name  # noqa: S108 - made 0700 by the region


def _digest(data_dir: Path, *more: str) -> str:
    return hashlib.sha256(b"\0".join([os.fsencode(data_dir.resolve()), *map(str.encode, more)])).hexdigest()
