"""Starting, refusing to start, stopping, starting again; as a person at a terminal meets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import av
import httpx
import psutil
import psycopg
import pytest
import redis
from PIL import Image

from flik.embedded import Servers
from tests.acceptance.running import RunningFlik, eventually, free_port, task

pytestmark = pytest.mark.timeout(240)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
DEMO = {"TEXT": "text.txt", "IMAGE": "image.png", "VIDEO": "video.mp4"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short path."""
    made = Path(tempfile.mkdtemp(prefix="flik-start-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def up(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `flik up` to its end, for starts that are refused."""
    return subprocess.run(
        [sys.executable, "-m", "flik", "up", "--no-dashboard", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def assert_refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a start failed with one sentence that holds these words, and without a traceback."""
    assert run.returncode not in (0, 70), run.stderr
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in run.stderr


def left_over(folder: Path) -> list[psutil.Process]:
    """Return the processes that mention a data folder."""
    everything = psutil.process_iter(["cmdline"])
    return [each for each in everything if any(str(folder) in word for word in each.info["cmdline"] or ())]


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended; what nobody reaped has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_port_in_use_is_refused(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert_refused(up("--port", str(port), "--data-dir", str(folder)), f"port {port} is in use")
    assert left_over(folder) == []


def test_data_folder_that_is_a_file_is_refused(folder: Path) -> None:
    blocked = folder / "file"
    blocked.write_text("in the way")
    assert_refused(up("--port", str(free_port()), "--data-dir", str(blocked)), "data folder")
    assert left_over(folder) == []


def test_impossible_setting_is_named(folder: Path) -> None:
    run = up("--port", str(free_port()), "--data-dir", str(folder), FLIK_LEASE_S="soon")
    assert_refused(run, "FLIK_LEASE_S")


def test_unreachable_database_is_named_without_its_password(folder: Path) -> None:
    url = f"postgresql://flik:secret-word@127.0.0.1:{free_port()}/flik"
    run = up("--port", str(free_port()), "--data-dir", str(folder), DATABASE_URL=url)
    assert_refused(run, "PostgreSQL", "127.0.0.1")
    assert "secret-word" not in run.stderr
    assert left_over(folder) == []


def assert_open_to_anybody(flik: RunningFlik) -> None:
    """Check that it says so, and takes any token, but not none."""
    assert "FLIK_AUTH is open" in flik.log()
    with httpx.Client(base_url=flik.url, headers={"Authorization": "Bearer anything"}, timeout=30) as anybody:
        assert anybody.get("/health").json()["auth"] == "open"
        answer = anybody.post("/api/v1/tasks", json=task(tenantId="nobody-made-it"))
        assert answer.status_code == 202
        assert anybody.get(f"/api/v1/tasks/{answer.json()['taskId']}").status_code == 200
    assert httpx.get(f"{flik.url}/api/v1/tasks").status_code == 401  # a token must be there


def assert_told_in_the_log(flik: RunningFlik, task_id: str) -> None:
    """Check that the end of an attempt is a line of JSON in a log, with all that is known of it."""
    logs = flik.data_dir / "logs"
    (line,) = eventually(
        lambda: [
            line
            for log in logs.glob("ray-*/worker-*.err")
            for line in log.read_text().splitlines()
            if task_id in line and "attempt ended" in line
        ],
        within_s=10,
        what="the line in the log",
    )
    said = json.loads(line)
    assert {name: said[name] for name in ("level", "logger", "taskType", "requestId", "traceId")} == {
        "level": "INFO", "logger": "flik.worker", "taskType": "IMAGE", "requestId": "journey-1", "traceId": TRACE,
    }  # fmt: skip
    assert (said["taskId"], said["tenantId"], said["message"]) == (task_id, "tests", "attempt ended: Completed")
    assert said["durationMs"] >= 100
    assert datetime.fromisoformat(said["timestamp"]).tzinfo is not None


def assert_demo_made_what_opens(flik: RunningFlik) -> None:
    """Check that a text, a picture and a film lie where the demo says, and can be read, seen and played."""
    made = {kind: flik.data_dir / "demo" / name for kind, name in DEMO.items()}
    eventually(lambda: all(str(path) in flik.log() for path in made.values()), within_s=60, what="the demo")
    assert made["TEXT"].read_text().strip()
    with Image.open(made["IMAGE"]) as picture:
        picture.load()
    with av.open(made["VIDEO"]) as film:
        assert sum(1 for _ in film.decode(video=0)) > 1


def test_starts_stops_within_15_s_and_starts_again_with_its_data_open_this_time(folder: Path) -> None:
    """What runs when it is stopped is handed back, not counted, and done by the next start."""
    flik = RunningFlik(folder / "data", FLIK_SIMULATED_SPEED="20").start("--demo")
    try:
        assert_demo_made_what_opens(flik)
        headers = {"X-Request-ID": "journey-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        task_id = flik.http.post("/api/v1/tasks", json=task("IMAGE"), headers=headers).json()["taskId"]
        assert flik.wait(task_id)["status"] == "COMPLETED"
        assert_told_in_the_log(flik, task_id)

        second = up("--port", str(free_port()), "--data-dir", str(folder / "data"))
        assert_refused(second, "is in use by flik", f"pid {flik.processes()[0].pid}")
    finally:
        took_s = flik.stop()
    assert took_s < 15
    assert left_over(folder) == []

    again = RunningFlik(folder / "data", FLIK_SIMULATED_SPEED="20", FLIK_AUTH="open").start()
    try:
        assert again.get(task_id)["status"] == "COMPLETED"
        assert_open_to_anybody(again)
        running = again.submit("VIDEO", payload={"script": {"durationS": 200}})
        held_by = again.wait(running, until=("PROCESSING",))["workerId"]
    finally:
        took_s = again.stop()
    assert took_s < 15

    third = RunningFlik(folder / "data", FLIK_SIMULATED_SPEED="20").start()
    try:
        assert third.wait(running)["status"] == "COMPLETED"
        attempts = third.query(
            "SELECT attempt, outcome::text, worker_id, error_code FROM attempts "
            f"WHERE task_id = '{running}' ORDER BY started_at"
        )
        assert attempts[0] == (1, "HANDED_BACK", held_by, None)
        assert [row[:2] for row in attempts[1:]] == [(1, "COMPLETED")], "what was handed back is not counted"
    finally:
        third.stop()


@pytest.mark.parametrize("roles", [(), ("region",)], ids=["alone", "with its region"])
def test_starts_again_at_once_after_it_was_killed(folder: Path, roles: tuple[str, ...]) -> None:
    flik = RunningFlik(folder / "data", FLIK_SIMULATED_SPEED="20").start()
    task_id = flik.submit("IMAGE")
    assert flik.wait(task_id)["status"] == "COMPLETED"
    family, proxies = flik.processes(), flik.find("haproxy")
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        flik.kill_up(*roles)
        assert any(map(runs, proxies))  # on the port that is wanted again
        flik.restart()
        assert flik.get(task_id)["status"] == "COMPLETED"
        assert flik.wait(flik.submit("IMAGE"))["status"] == "COMPLETED"
        assert [process for process in family if runs(process)] == []
        assert stranger.poll() is None
        assert flik.stop() < 15
        assert left_over(folder) == []
    finally:
        stranger.kill()
        stranger.wait()
        for process in filter(runs, family):
            process.kill()
        with suppress(psutil.NoSuchProcess):
            flik.kill_all()


@pytest.mark.skipif(os.environ.get("FLIK_CHAOS") != "long", reason="the long form: make chaos")
@pytest.mark.chaos
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_serve_run_starts_the_whole_application(folder: Path) -> None:
    config = (Path(__file__).parents[2] / "serve_config.yaml").read_text()
    port = free_port()
    (folder / "serve.yaml").write_text(config.replace("port: 8080", f"port: {port}"))
    environment = {**os.environ, "FLIK_DATA_DIR": str(folder / "data"), "FLIK_SIMULATED_SPEED": "20",
                   "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}  # fmt: skip
    with (folder / "serve.log").open("wb") as log:
        serve = subprocess.Popen(
            [Path(sys.executable).with_name("serve"), "run", str(folder / "serve.yaml")],
            env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    client = RunningFlik(folder / "data")
    client.port, client.url = port, f"http://127.0.0.1:{port}"
    client.http.base_url = client.url
    family: list[psutil.Process] = []
    try:
        eventually(lambda: client.http.get("/health").status_code == 200, within_s=120, every_s=0.5, what="serve run")
        client.take_key()
        assert client.wait(client.submit("IMAGE"))["status"] == "COMPLETED"
    finally:
        family = psutil.Process(serve.pid).children(recursive=True)
        serve.send_signal(signal.SIGINT)
        try:
            serve.wait(60)
        except subprocess.TimeoutExpired:
            serve.kill()
        _, alive = psutil.wait_procs(family, timeout=15)
        for process in alive:
            process.kill()
        client.http.close()
    assert [process for process in alive if "postgres" in process.name()] == []


def test_servers_of_ones_own_are_used_instead_of_embedded_ones(folder: Path) -> None:
    with Servers(folder / "own") as own:
        addresses = own.addresses
        flik = RunningFlik(
            folder / "data", FLIK_SIMULATED_SPEED="20",
            DATABASE_URL=addresses.database_url, REDIS_URL=addresses.redis_url,
        ).start()  # fmt: skip
        try:
            task_id = flik.submit("IMAGE")
            assert flik.wait(task_id)["status"] == "COMPLETED"
            assert flik.find("postgresql") == flik.find("valkey") == []
            with psycopg.connect(addresses.database_url) as connection:
                stored = connection.execute("SELECT status::text FROM tasks WHERE task_id = %s", (task_id,)).fetchall()
            assert stored == [("COMPLETED",)]
            with redis.Redis.from_url(addresses.redis_url) as hot:
                assert hot.exists(f"flik:result:{task_id}") == 1
        finally:
            flik.stop()
        assert not (folder / "data" / "postgres").exists()


def test_database_that_would_lose_accepted_tasks_is_refused(folder: Path) -> None:
    with Servers(folder / "own") as own:
        url = own.addresses.database_url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
        run = up("--port", str(free_port()), "--data-dir", str(folder / "data"), DATABASE_URL=url)
    assert_refused(run, "synchronous_commit")
