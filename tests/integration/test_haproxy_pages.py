"""A real HAProxy, started as Ray Serve starts it, answers with problems where it used to answer with text."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from flik import schemas
from flik.cli import error_pages, haproxy
from tests.acceptance.running import eventually, free_port

CONFIGURATION = """\
global
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 200ms
    errorfile 503 {folder}/text.http
    errorfile 504 {folder}/text.http
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind 127.0.0.1:{port}
    use_backend silent if {{ path /silent }}
    use_backend rude if {{ path /rude }}
    use_backend undeployed if {{ path /undeployed }}
    default_backend nobody
backend undeployed
    http-request return status 404 content-type text/plain lf-string "Path \'%[path]\' not found."
backend nobody
    server gone 127.0.0.1:{nobody}
backend silent
    server silent 127.0.0.1:{silent}
backend rude
    server rude 127.0.0.1:{rude}
"""


class Running(NamedTuple):
    """A HAProxy, and where it takes requests."""

    process: psutil.Process
    port: int


def listen() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(30)
    return server


def hang_up(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.recv(65_536)
        connection.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """HAProxy before a server that is gone, one that says nothing, and one that hangs up."""
    folder = tmp_path_factory.mktemp("haproxy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(haproxy, "HEAD_WITHIN_S", 1)
        program = haproxy.prepare(folder / "pages")
    error_pages.write(folder / "pages")
    assert program is not None
    (folder / "text.http").write_text("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\ntext")
    port, configuration = free_port(), folder / "haproxy.cfg"
    with listen() as silent, listen() as rude:
        ports = {
            "nobody": free_port(),
            "metrics": free_port(),
            "silent": silent.getsockname()[1],
            "rude": rude.getsockname()[1],
        }
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, **ports))
        threading.Thread(target=hang_up, args=(rude,), daemon=True).start()
        process = subprocess.Popen([str(program), "-db", "-f", str(configuration), "-dR"])
        try:
            eventually(lambda: _is_open(port), within_s=10, what="HAProxy's start")
            yield Running(psutil.Process(process.pid), port)
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def port(running: Running) -> int:
    return running.port


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("sent", "status", "code", "retryable"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 503, "unavailable", True),
        (b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n", 504, "gateway_timeout", True),
        (b"GET /rude HTTP/1.1\r\nHost: x\r\n\r\n", 502, "gateway_lost", True),
        (b"GET /undeployed HTTP/1.1\r\nHost: x\r\n\r\n", 503, "unavailable", True),
    ],
    ids=["gone", "silent", "rude", "undeployed"],
)
def test_haproxys_own_answer_is_a_problem(port: int, sent: bytes, status: int, code: str, retryable: bool) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer
    headers = head.lower().split(b"\r\n")
    assert b"content-type: application/problem+json" in headers
    assert b"x-content-type-options: nosniff" in headers
    assert (b"retry-after: 1" in headers) == (status == 503)
    said = schemas.Problem.model_validate_json(content)
    assert (said.status, said.code, said.retryable, said.request_id) == (status, code, retryable, "")


def test_its_metrics_are_not_on_the_network(running: Running) -> None:
    listening = [each.laddr.ip for each in running.process.net_connections("inet4") if each.status == "LISTEN"]
    assert listening == ["127.0.0.1"] * 2


@pytest.mark.parametrize(
    ("sent", "status"), [(b"this is no HTTP\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", 408)]
)
def test_what_is_no_whole_head_is_refused_in_haproxys_own_words(port: int, sent: bytes, status: int) -> None:
    """Its parser has no page for it (3.2); docs/errors.md says so. When this fails, it has one."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        connection.sendall(sent)
        answer = connection.recv(65_536)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert b"content-type: text/html" in answer.lower()
        assert connection.recv(65_536) == b""


@pytest.mark.parametrize("name", ["two words", "a|b", "it's"])
def test_folder_that_would_have_to_be_quoted_is_left_alone(tmp_path: Path, name: str) -> None:
    assert haproxy.prepare(tmp_path / name) is None


def test_pages_and_program_are_made_anew_at_each_start(tmp_path: Path) -> None:
    for _ in range(2):
        program = haproxy.prepare(tmp_path)
        error_pages.write(tmp_path)
        assert program is not None
        assert os.access(program, os.X_OK)
    assert {path.name for path in tmp_path.glob("*.http")} == {f"{status}.http" for status in haproxy.STATUSES}
