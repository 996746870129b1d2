"""Serve takes the gateway away, as when it is deployed anew: who follows is told, and the replica leaves in time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance.running import RunningFlik, eventually

pytestmark = pytest.mark.timeout(240)
DELETE = "import ray; from ray import serve; ray.init('auto', log_to_driver=False); serve.delete('flik')"


@pytest.fixture
def running() -> Iterator[RunningFlik]:
    folder = Path(tempfile.mkdtemp(prefix="flik-gone-"))
    folder.chmod(0o755)
    flik = RunningFlik(folder / "data").start()
    yield flik
    flik.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_followers_are_told_when_serve_stops_the_gateway(running: RunningFlik) -> None:
    task_id = running.submit("TEXT", payload={"script": {"durationS": 600}})
    running.wait(task_id, until=("PROCESSING",))
    streamed: list[bytes] = []
    with connect(f"{running.url.replace('http', 'ws')}/ws/json", proxy=None,
                 additional_headers={"Authorization": f"Bearer {running.key}"}) as socket:  # fmt: skip
        reading = threading.Thread(target=_read, args=(running, task_id, streamed), daemon=True)
        reading.start()
        eventually(lambda: b"processing" in b"".join(streamed), within_s=20, what="the stream's beginning")
        (replica,) = running.find("gateway")
        _delete_gateway(running)
        reading.join(10)
        assert not reading.is_alive()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    *_, comment, retry = b"".join(streamed).decode().strip().split("\n")
    assert comment.startswith(": the gateway is being stopped")
    assert retry.startswith("retry: ")
    psutil.wait_procs([replica], timeout=10)
    assert not replica.is_running()


def _delete_gateway(running: RunningFlik) -> None:
    """Delete the gateway's application; returns when Serve has stopped its replica."""
    (region,) = running.find("region")
    environment = region.environ() | {"RAY_ADDRESS": _address(running)}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", DELETE], env=environment, check=True, timeout=60, capture_output=True)
    assert time.monotonic() - began < 30


def _address(running: RunningFlik) -> str:
    """Return where Ray's head is, as its own processes are told."""
    words = [word for process in running.processes() for word in process.cmdline()]
    return next(word.partition("=")[2] for word in words if word.startswith("--gcs-address="))


def _read(running: RunningFlik, task_id: str, streamed: list[bytes]) -> None:
    headers = {"Authorization": f"Bearer {running.key}", "Accept": "text/event-stream"}
    url = f"{running.url}/api/v1/tasks/{task_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=60) as answer:
        for piece in answer.iter_bytes():
            streamed.append(piece)
