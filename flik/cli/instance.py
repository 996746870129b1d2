"""The mark of a data folder's processes, and where the Ray of a region keeps its session."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

INSTANCE = "FLIK_INSTANCE"  # marks every process that belongs to one data folder


def instance_of(data_dir: Path) -> str:
    """Return the mark of a data folder's processes."""
    return hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]


def ray_temp_dir(data_dir: Path, region: str) -> Path:
    """Return where Ray keeps its session: a short path, because unix sockets lie below it."""
    return Path(ray_temp_dirs(data_dir) + hashlib.sha256(region.encode()).hexdigest()[:6])


def ray_temp_dirs(data_dir: Path) -> str:
    """Return with what the paths of `ray_temp_dir` begin, whatever the region."""
    return f"/tmp/flik-ray-{os.getuid()}-{instance_of(data_dir)[:8]}"  # noqa: S108 - made 0700 by the region
