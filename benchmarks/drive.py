"""Runs the load client in a process of its own and reads what it saw."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.load.job import Answers, Job, Post
from benchmarks.service import ROOT

TENANTS = 20
HEADERS = {"authorization": "Bearer x"}
GRACE_S = 60.0


class ClientFailed(Exception):
    """The load client ended without an answer: (the end of what it said)."""

    def __init__(self, said: str) -> None:
        super().__init__(said)


def drive(job: Job) -> Answers:
    """Do `job` and return the answers.

    Raises:
        ClientFailed: the client could not connect, or broke.
    """
    limit_s = 2 * job.seconds + job.give_up_s + GRACE_S
    client = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        output, said = client.communicate(job.to_json(), timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise ClientFailed(f"the load client did not end within {limit_s:.0f} s") from None
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()
    if client.returncode != 0:
        raise ClientFailed(said.decode(errors="replace").strip()[-800:])
    return Answers.from_json(output)


def single_posts(priority: int = 1) -> list[Post]:
    """Return the same small task for each of the 20 tenants `bench-0` to `bench-19`."""
    return [Post("/api/v1/tasks", _task(tenant, priority)) for tenant in range(TENANTS)]


def batch_posts(size: int, priority: int = 1) -> list[Post]:
    """Return a batch of `size` tasks for each of the 20 tenants."""
    return [
        Post("/api/v1/tasks:batch", f'{{"tasks":[{",".join([_task(tenant, priority)] * size)}]}}')
        for tenant in range(TENANTS)
    ]


def chain_posts(steps: int, tenant_id: str | None = None) -> list[Post]:
    """Return a chain of so many small steps for each of the 20 tenants, or for one."""
    tenants = [tenant_id] if tenant_id else [f"bench-{tenant}" for tenant in range(TENANTS)]
    chain = ",".join(['{"taskType":"TEXT","payload":{"prompt":"x"}}'] * steps)
    return [Post("/api/v1/dags", f'{{"tenantId":"{tenant}","steps":[{chain}]}}') for tenant in tenants]


def _task(tenant: int, priority: int) -> str:
    return f'{{"tenantId":"bench-{tenant}","taskType":"TEXT","priority":{priority},"payload":{{"prompt":"x"}}}}'
