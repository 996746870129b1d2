"""`flik up`: starts everything, stays in the foreground, and takes everything down with it.

In order: the data folder is locked, left-overs of a crashed run are ended, the embedded
servers start, the schema is brought up to date, the operator's key is found or made (`admin_key`
in the data folder), the region's process starts Ray with the applications. When the region ends
unasked it is started again.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console

from flik import settings as settings_module
from flik.cli import memory, ray_environment
from flik.cli.instance import INSTANCE, instance_of
from flik.embedded import Servers
from flik.errors import StartupRefused
from flik.live.check import check_redis
from flik.pipeline.bootstrap import FILE_NAME as ADMIN_KEY_FILE
from flik.pipeline.bootstrap import HEADER_FILE_NAME, AdminKey, ensure_operator
from flik.processes import become_subreaper, end_all, find_by_environ, reap_orphans
from flik.settings import Settings
from flik.storage.check import check_database
from flik.storage.migrate import migrate

STOP_REGION_WITHIN_S = 9.0
_STAGES = {
    "ray": "starting Ray",
    "serve": "starting Ray Serve",
    "applications": "starting the gateway, the queue and the models",
}


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where to listen (FLIK_PORT, else 8080).")
@click.option("--region", help="The name of this region (FLIK_REGION, else us-east).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="The data folder (FLIK_DATA_DIR, else .flik).")
@click.option("--demo", is_flag=True, help="Run one task of each type, then go on serving.")
@click.option("--dashboard/--no-dashboard", default=True, help="Ray's dashboard, on loopback.")
def up(port: int | None, region: str | None, data_dir: Path | None, demo: bool, dashboard: bool) -> None:
    """Start Flik here and stay in the foreground; Ctrl-C stops all it started.

    Without DATABASE_URL and REDIS_URL, PostgreSQL and Valkey start in the data folder.
    """
    overrides = {"port": port, "region": region, "data_dir": data_dir}
    chosen = settings_module.load(**{name: value for name, value in overrides.items() if value is not None})
    console = Console(stderr=True)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    refuse_hopeless(chosen)
    become_subreaper()
    with (
        _servers(chosen, console) as (servers, environment, admin),
        Region(chosen, environment, servers.pids, dashboard=dashboard) as running,
    ):
        with console.status("starting") as status:
            running.wait_until_ready(stop, lambda stage: status.update(_STAGES.get(stage, stage)))
        if not stop.is_set():
            _announce(chosen, running, admin)
        if demo and not stop.is_set():
            from flik.cli.demo import run_demo  # noqa: PLC0415  # the client stays in memory

            run_demo(_url(chosen), admin.key, chosen.data_dir / "demo", stop)
        running.keep_running(stop)
        console.print("stopping ...")
    console.print("stopped")


def refuse_hopeless(chosen: Settings) -> None:
    """Refuse to start where it cannot work, before anything is started.

    Raises:
        StartupRefused: the port is taken or memory is short.
    """
    if not ray_environment.is_free(chosen.port, "0.0.0.0"):  # noqa: S104 - HAProxy listens there
        raise StartupRefused(f"port {chosen.port} is in use; choose another with --port")
    available = memory.available_bytes()
    if available < memory.LEAST_BYTES:
        raise StartupRefused(
            f"{available >> 20} MiB of memory are available and Flik needs {memory.LEAST_BYTES >> 20} MiB; "
            "end something else first"
        )


@contextmanager
def _servers(chosen: Settings, console: Console) -> Iterator[tuple[Servers, dict[str, str], AdminKey]]:
    """Hold the data folder and the servers; yield them, the environment that a region needs, and the operator's key."""
    with console.status("starting PostgreSQL and Valkey"):
        servers = Servers(chosen.data_dir, chosen.database_url, chosen.redis_url)
        addresses = servers.start()
    try:
        # The folder is ours now: whatever carries its mark was left behind by a run that crashed.
        end_all(find_by_environ(INSTANCE, instance_of(chosen.data_dir)), grace_s=2.0)
        for warning in (*check_database(addresses.database_url), *check_redis(addresses.redis_url)):
            console.print(f"warning: {warning}")
        migrate(addresses.database_url)
        admin = ensure_operator(addresses.database_url, chosen.data_dir)
        yield servers, ray_environment.build(chosen, addresses.database_url, addresses.redis_url), admin
    finally:
        servers.stop()


class Region:
    """The region's process: started, watched, started again when it ends unasked, stopped."""

    def __init__(
        self, chosen: Settings, environment: dict[str, str], servers: Callable[[], dict[str, int]], *, dashboard: bool
    ) -> None:
        self.dashboard_port = ray_environment.free_ports(1)[0] if dashboard else None
        if dashboard and ray_environment.is_free(8265, "127.0.0.1"):
            self.dashboard_port = 8265
        self._chosen = chosen
        self._environment = environment
        self._servers = servers
        self._process: subprocess.Popen[str] | None = None
        self._stages: list[dict[str, Any]] = []

    def __enter__(self) -> Region:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        log = (self._chosen.data_dir / "logs" / "region.log").open("ab")
        arguments = [str(self.dashboard_port)] if self.dashboard_port is not None else []
        self._stages = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flik.cli.region", str(self._chosen.data_dir), *arguments],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; the region is stopped in order
        )
        log.close()
        threading.Thread(target=self._listen, args=(self._process, self._stages), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], stages: list[dict[str, Any]]) -> None:
        for line in process.stdout or ():
            if line.startswith("{"):
                stages.append(json.loads(line))

    def wait_until_ready(self, stop: threading.Event, show: Any) -> None:
        """Return when the region works, or when `stop` is set.

        Raises:
            StartupRefused: the region ended instead.
        """
        while not stop.wait(0.05):
            latest = self._stages[-1] if self._stages else {"stage": "starting"}
            if latest["stage"] == "ready":
                return
            show(latest["stage"])
            if self._process is None or self._process.poll() is not None:
                reason = latest.get("reason") or f"the region did not start; see {self._log_path}"
                raise StartupRefused(reason)

    def keep_running(self, stop: threading.Event) -> None:
        """Return when `stop` is set; start the region again whenever it ends before."""
        while not stop.wait(0.5):
            reap_orphans({*self._servers().values(), *([self._process.pid] if self._process else [])})
            if self._process is not None and self._process.poll() is not None:
                click.echo("the region ended unasked; starting it again", err=True)
                self._end_leftovers()
                self._start()
                time.sleep(1.0)

    @property
    def _log_path(self) -> Path:
        return self._chosen.data_dir / "logs" / "region.log"

    def _stop(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_REGION_WITHIN_S)
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """End the region and whatever of it is left: all our descendants but the servers.

        Orphans come back to us as their subreaper. The mark in the environment is not enough
        here, because Ray's agents write their titles over it.
        """
        servers = set(self._servers().values())
        ours = [child for child in psutil.Process().children() if child.pid not in servers]
        end_all([*ours, *find_by_environ(INSTANCE, self._environment[INSTANCE])], 1.0)
        if self._process is not None:
            self._process.wait(1.0)


def _url(chosen: Settings) -> str:
    return f"http://127.0.0.1:{chosen.port}"


def _announce(chosen: Settings, running: Region, admin: AdminKey) -> None:
    url = _url(chosen)
    dashboard = f"\n  Ray        http://127.0.0.1:{running.dashboard_port}" if running.dashboard_port else ""
    click.echo(
        f"Flik is up in region {chosen.region} (pid {os.getpid()}).\n\n"
        f"  API        {url}/api/v1/tasks\n  Health     {url}/health\n  Metrics    {url}/metrics{dashboard}\n"
        f"  Data       {chosen.data_dir}\n{_about_key(chosen, admin)}\n\nTry it:\n\n"
        f"{first_call(url, chosen.data_dir / HEADER_FILE_NAME)}\n\nCtrl-C stops everything."
    )


def first_call(url: str, header_file: Path) -> str:
    """Return a command that submits a task; curl itself reads the key, so no list of processes shows it."""
    body = json.dumps({"tenantId": "demo", "taskType": "IMAGE", "payload": {"prompt": "a lighthouse at dusk"}})
    return (
        f"  curl -s {url}/api/v1/tasks -H {shlex.quote(f'@{header_file}')} \\\n"
        f"    -H 'Content-Type: application/json' -d '{body}'"
    )


def _about_key(chosen: Settings, admin: AdminKey) -> str:
    """Return the lines about who may call. The key itself is for a terminal only: other output is kept as a log."""
    made = ", made by this start" if admin.is_new else ""
    lines = [f"  Admin key  {chosen.data_dir / ADMIN_KEY_FILE}{made}"]
    if sys.stdout.isatty():
        lines.append(f"             {admin.key}")
    if chosen.auth == "open":
        lines.append("\nwarning: FLIK_AUTH is open: whoever reaches the port may do everything, with any bearer token.")
    return "\n".join(lines)
