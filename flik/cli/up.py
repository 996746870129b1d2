"""`flik up`: starts everything, stays in the foreground, and takes everything down with it.

In order: the data folder is locked, left-overs of a crashed run are ended, ports and memory are looked at, the
embedded servers start, the schema is brought up to date, the operator's key is found or made (`admin_key` in the
data folder), each region's process (`flik/cli/regions.py`) starts Ray with the applications.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flik import settings as settings_module
from flik.cli import memory, open_files, ray_environment
from flik.cli.instance import INSTANCE, instance_of, ray_temp_dirs
from flik.cli.regions import Place, Region, Regions, read_places
from flik.embedded import Servers
from flik.errors import StartupRefused
from flik.live.check import check_redis
from flik.pipeline.bootstrap import FILE_NAME as ADMIN_KEY_FILE
from flik.pipeline.bootstrap import HEADER_FILE_NAME, AdminKey, ensure_operator
from flik.processes import become_subreaper, end_all, find_by_environ, find_by_files
from flik.settings import Settings
from flik.storage.check import check_database
from flik.storage.migrate import migrate

DASHBOARD_PORT = 8265


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Where to listen (FLIK_PORT, else 8080).")
@click.option("--region", help="The name of this region (FLIK_REGION, else us-east).")
@click.option("--regions", metavar="REGION:PORT,...", help="Several regions, as in us-east:8080,us-west:8081.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="The data folder (FLIK_DATA_DIR, else .flik).")
@click.option("--demo", is_flag=True, help="Run one task of each type, then go on serving.")
@click.option("--dashboard/--no-dashboard", default=True, help="Ray's dashboard, on loopback.")
def up(
    *, port: int | None, region: str | None, regions: str | None, data_dir: Path | None, demo: bool, dashboard: bool
) -> None:
    """Start Flik here and stay in the foreground; Ctrl-C stops all it started.

    Without DATABASE_URL and REDIS_URL, PostgreSQL and Valkey start in the data folder.

    With --regions each region is a Ray cluster of its own, with its own port; they share PostgreSQL, Redis and the
    data folder. A task may name any of them, at any of the ports.
    """
    if regions is not None and (port is not None or region is not None):
        raise click.UsageError("--regions names regions and ports itself: leave --region and --port out")
    overrides = {"port": port, "region": region, "data_dir": data_dir}
    given = {name: value for name, value in overrides.items() if value is not None}
    each = [settings_module.load(**given)] if regions is None else _settings_of(read_places(regions), given)
    console = Console(stderr=True)
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    become_subreaper()
    with (
        _servers(each, console) as (servers, environments, admin),
        Regions(_regions(each[0].data_dir, environments, dashboard=dashboard), servers.pids) as running,
    ):
        with console.status("starting") as status:
            running.wait_until_ready(stop, status.update)
        if not stop.is_set():
            _announce(each, running, admin)
        if demo and not stop.is_set():
            from flik.cli.demo import run_demo  # noqa: PLC0415  # the client stays in memory

            run_demo(_url(each[0]), admin.key, each[0].data_dir / "demo", stop)
        running.keep_running(stop)
        console.print("stopping ...")
    console.print("stopped")


def _settings_of(places: Sequence[Place], given: Mapping[str, Any]) -> list[Settings]:
    """Return the settings of each region. They share the limits while Redis is away, and each knows all."""
    names = tuple(place.region for place in places)
    share = settings_module.load(**given).rate_share / len(places)
    return [
        settings_module.load(**given, region=region, port=port, regions=names, rate_share=share)
        for region, port in places
    ]


def refuse_hopeless(each: Sequence[Settings]) -> None:
    """Refuse to start where it cannot work, before a server or a region is started.

    Raises:
        StartupRefused: a port is taken or memory is short.
    """
    for chosen in each:
        if not ray_environment.is_free(chosen.port, "0.0.0.0"):  # noqa: S104 - HAProxy listens there
            option = "--port" if len(each) == 1 else "--regions"
            raise StartupRefused(f"port {chosen.port} is in use; choose another with {option}")
    available, needed = memory.available_bytes(), memory.LEAST_BYTES * len(each)
    if available < needed:
        raise StartupRefused(
            f"{available >> 20} MiB of memory are available and Flik needs {needed >> 20} MiB; end something else first"
        )


@contextmanager
def _servers(
    each: Sequence[Settings], console: Console
) -> Iterator[tuple[Servers, Sequence[dict[str, str]], AdminKey]]:
    """Hold the data folder and the servers; yield them, the environment of each region, and the operator's key."""
    shared = each[0]
    servers = Servers(shared.data_dir, shared.database_url, shared.redis_url)
    servers.hold()
    try:
        _end_earlier_run(shared.data_dir)
        refuse_hopeless(each)
        with console.status("starting PostgreSQL and Valkey"):
            addresses = servers.start()
        short = open_files.shortage(shared, open_files.most_open_files())
        warnings = [*check_database(addresses.database_url), *check_redis(addresses.redis_url), *filter(None, [short])]
        for warning in warnings:
            console.print(f"warning: {warning}")
        migrate(addresses.database_url)
        admin = ensure_operator(addresses.database_url, shared.data_dir)
        yield servers, ray_environment.build(each, addresses.database_url, addresses.redis_url), admin
    finally:
        servers.stop()


def _end_earlier_run(data_dir: Path) -> None:
    """End what a run that was killed left behind: it may hold a port. The folder must be ours."""
    left = find_by_environ(INSTANCE, instance_of(data_dir)) + find_by_files(ray_temp_dirs(data_dir))
    end_all(left, grace_s=2.0)


def _regions(data_dir: Path, environments: Sequence[dict[str, str]], *, dashboard: bool) -> list[Region]:
    ports: list[int | None] = [None] * len(environments)
    if dashboard:
        ports = [*ray_environment.free_ports(len(environments))]
        if ray_environment.is_free(DASHBOARD_PORT, "127.0.0.1"):
            ports[0] = DASHBOARD_PORT
    return [Region(data_dir, environment, port) for environment, port in zip(environments, ports, strict=True)]


def _url(chosen: Settings) -> str:
    return f"http://127.0.0.1:{chosen.port}"


def _announce(each: Sequence[Settings], running: Regions, admin: AdminKey) -> None:
    first = each[0]
    names = ", ".join(chosen.region for chosen in each)
    click.echo(
        f"Flik is up in {'region' if len(each) == 1 else 'the regions'} {names} (pid {os.getpid()}).\n\n"
        + "".join(map(_about_region, each, running.all))
        + f"  Data       {first.data_dir}\n{_about_key(first, admin)}\n\nTry it:\n\n"
        f"{first_call(_url(first), first.data_dir / HEADER_FILE_NAME)}\n\nCtrl-C stops everything."
    )


def _about_region(chosen: Settings, running: Region) -> str:
    url = _url(chosen)
    lines = [f"  API        {url}/api/v1/tasks", f"  Health     {url}/health", f"  Metrics    {url}/metrics"]
    if chosen.regions:
        lines.insert(0, f"  {chosen.region}")
    if running.dashboard_port:
        lines.append(f"  Ray        http://127.0.0.1:{running.dashboard_port}")
    return "\n".join(lines) + "\n" * (2 if chosen.regions else 1)


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
