"""`flik up --regions`: what it takes and what it refuses, what regions share and what each has of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import click
import psutil
import pytest
from invoking import Run

from flik import settings
from flik.cli import ray_environment
from flik.cli.instance import INSTANCE, instance_of, ray_temp_dir
from flik.cli.region import _fresh_temp_dir
from flik.cli.regions import Place, Region, Regions, read_places
from flik.cli.up import _settings_of, refuse_hopeless
from flik.errors import StartupRefused


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("FLIK_", "RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("us-east:8080,us-west:8081", [("us-east", 8080), ("us-west", 8081)]),
        (" a:1 , b:65535 ", [("a", 1), ("b", 65535)]),
        (f"{'x' * 32}:80", [("x" * 32, 80)]),
    ],
)
def test_regions_are_read(text: str, places: list[tuple[str, int]]) -> None:
    assert read_places(text) == [Place(*place) for place in places]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "REGION:PORT"),
        ("us-east", "REGION:PORT"),
        ("us-east:8080,", "REGION:PORT"),
        ("US-EAST:8080", "no name of a region"),
        (":8080", "no name of a region"),
        (f"{'x' * 33}:80", "no name of a region"),
        ("us_east:8080", "no name of a region"),
        ("ümlaut:8080", "no name of a region"),
        ("us-east:", "is no port"),
        ("us-east:0", "is no port"),
        ("us-east:65536", "is no port"),
        ("us-east:65536" + "0" * 5_000, "is no port"),
        ("us-east:-1", "is no port"),
        ("us-east:80:81", "is no port"),
        ("us-east:٨٠", "is no port"),
        ("a:8080,b:8081,a:8082", "names the region a twice"),
        ("a:8080,b:8080", "names the port 8080 twice"),
        (",".join(f"r{number}:{number + 8000}" for number in range(9)), "at most 8 regions, and there are 9"),
    ],
)
def test_regions_that_cannot_be_are_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        read_places(text)


@pytest.mark.parametrize("option", [("--port", "8080"), ("--region", "us-east")])
def test_regions_beside_one_region_or_port_are_refused(run: Run, option: tuple[str, str]) -> None:
    done = run("up", "--regions", "us-east:8080,us-west:8081", *option)
    assert done.exit_code == 2
    assert "leave --region and --port out" in done.stderr


def test_a_port_in_use_is_refused_whichever_region_it_is_of() -> None:
    with socket.socket() as taken, socket.socket() as free:
        for each in (taken, free):
            each.bind(("0.0.0.0", 0))
        taken.listen()
        ports = [each.getsockname()[1] for each in (free, taken)]
        free.close()
        places = [Place(f"r{port}", port) for port in ports]
        with pytest.raises(StartupRefused, match=f"port {ports[1]} is in use; choose another with --regions"):
            refuse_hopeless(_settings_of(places, {}))


def test_regions_know_one_another_and_share_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_RATE_SHARE", "0.5")
    each = _settings_of([Place("a", 8080), Place("b", 8081)], {"data_dir": tmp_path})
    environments = ray_environment.build(each, "postgresql:///x", "redis:///y")
    seen = [(env["FLIK_REGION"], env["FLIK_PORT"], env["FLIK_REGIONS"], env["FLIK_RATE_SHARE"]) for env in environments]
    assert seen == [("a", "8080", "a,b", "0.25"), ("b", "8081", "a,b", "0.25")]
    assert {env[INSTANCE] for env in environments} == {instance_of(tmp_path)}
    monkeypatch.setattr(os, "environ", environments[1])
    read = settings.load()
    assert (read.region, read.port, read.regions, read.rate_share) == ("b", 8081, ("a", "b"), 0.25)


def test_no_two_regions_have_a_port_in_common() -> None:
    picked = ray_environment.pick_ports(8)
    size = ray_environment.REPLICA_PORTS
    used = [
        port
        for each in picked
        for port in (
            *(each.metrics, each.stats, each.fallback_http, each.fallback_grpc),
            *range(each.replicas_http, each.replicas_http + size),
        )
    ]
    assert len(used) == len(set(used))


def test_ray_s_folder_is_the_region_s_own_and_leaves_room_for_sockets(tmp_path: Path) -> None:
    folders = {ray_temp_dir(tmp_path, name) for name in ("us-east", "us-west")}
    folders.add(ray_temp_dir(tmp_path / "other", "us-east"))
    assert len(folders) == 3
    longest = "session_2026-11-27_16-47-40_123456_4194304/sockets/plasma_store"
    assert all(len(f"{folder}/{longest}") < 104 for folder in folders)


def test_haproxy_s_files_are_with_ray_s_and_leave_room_for_its_socket(tmp_path: Path) -> None:
    (chosen,) = _settings_of([Place("a", 8080)], {"data_dir": tmp_path})
    (environment,) = ray_environment.build([chosen], "postgresql:///x", "redis:///y")
    ends = ("_LOC", "SOCKET_PATH", "STATE_BASE", "STATE_FILE")
    files = [value for name, value in environment.items() if "_HAPROXY_" in name and name.endswith(ends)]
    assert len(files) == 5
    assert all(Path(each).is_relative_to(ray_temp_dir(tmp_path, "a")) for each in files)
    folder, name = os.path.split(environment["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    assert len(f"{folder}/{'f' * 56}/{name}.4194304.tmp") < 108, "the id of a node, and what HAProxy binds first"


def test_what_a_killed_ray_still_writes_does_not_keep_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    folder = ray_temp_dir(tmp_path, "us-east")
    (folder / "session").mkdir(parents=True)
    remove, failures = shutil.rmtree, iter(range(3))

    def written_to(path: Path, *, ignore_errors: bool) -> None:
        if next(failures, None) is None:  # else something was written meanwhile, and it is not empty
            remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", written_to)
    assert list(_fresh_temp_dir(tmp_path, "us-east").iterdir()) == []
    folder.rmdir()


class Child(Region):
    """A region whose process does nothing but live."""

    def __init__(self, data_dir: Path, name: str) -> None:
        super().__init__(data_dir, {"FLIK_REGION": name, INSTANCE: instance_of(data_dir)}, None)
        self.starts = 0

    def start(self) -> None:
        self.starts += 1
        self._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True)


def test_a_region_that_ends_is_started_again_and_the_other_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    east, west = regions = [Child(tmp_path, name) for name in ("us-east", "us-west")]
    stop, server = threading.Event(), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    spared = {
        str(child.pid): child.pid for child in psutil.Process().children()
    }  # the server, and those of other tests
    with Regions(regions, lambda: spared) as running:
        before = east.pid
        assert west._process is not None
        west._process.kill()
        threading.Timer(2.0, stop.set).start()
        running.keep_running(stop)
        assert (east.pid, east.starts, west.starts) == (before, 1, 2)
        assert west.pid is not None
    assert (east.pid, west.pid) == (None, None)
    assert server.poll() is None
    server.kill()
    server.wait()
    assert "the region us-west ended unasked; starting it again" in capsys.readouterr().err
