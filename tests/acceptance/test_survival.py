"""Promises 1 and 2: whatever is killed, every accepted task ends, and is done once.

Each test has 200 tasks in flight, kills one part with SIGKILL, and waits for all of them.
The short form kills each part once; `make chaos` goes round many times at random moments.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import redis

from tests.acceptance.running import RunningFlik, eventually, task

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
LONG = os.environ.get("FLIK_CHAOS") == "long"
IN_FLIGHT = 200
PARTS = ("gateway", "queue", "text", "postgresql", "valkey", "haproxy", "all")
HARMS = (*PARTS, "flush")


@pytest.fixture(scope="module")
def victim(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik of our own to kill parts of."""
    running = RunningFlik(data_folder / "victim", WORKER_CONCURRENCY="20", FLIK_RETRY_DELAYS_S="0.2,0.4,0.6").start()
    yield running
    running.stop()


@pytest.fixture
def pair(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik with two replicas a model, whose leases are long enough for what is to happen within one."""
    running = RunningFlik(data_folder / "pair", FLIK_MODEL_REPLICAS="2", FLIK_LEASE_S="6").start()
    yield running
    running.stop()


def seeded() -> random.Random:
    """Return chance; its seed is printed, and FLIK_CHAOS_SEED repeats it."""
    seed = int(os.environ.get("FLIK_CHAOS_SEED", str(random.randrange(10**6))))
    sys.stderr.write(f"FLIK_CHAOS_SEED={seed}\n")
    return random.Random(seed)


def submit_in_flight(victim: RunningFlik, seconds: float = 0.3) -> list[str]:
    """Submit tasks of five tenants and three priorities that keep the replica busy for about 3 s."""
    payload = {"prompt": "x", "script": {"durationS": seconds}}
    return victim.submit_many(
        [task("TEXT", tenantId=f"tenant-{i % 5}", priority=i % 3, payload=payload) for i in range(IN_FLIGHT)]
    )


def count(victim: RunningFlik, sql: str) -> int:
    """Return the one number that a query answers."""
    return int(victim.query(sql)[0][0])


def all_ended(victim: RunningFlik) -> bool:
    """Return whether no task is on its way; False while PostgreSQL is away."""
    try:
        return count(victim, "SELECT count(*) FROM tasks WHERE completed_at IS NULL") == 0
    except psycopg.OperationalError:
        return False


def assert_each_completed_once(victim: RunningFlik, ids: list[str]) -> None:
    """Wait for the end, then check the database's own record of what happened."""
    eventually(lambda: all_ended(victim), within_s=60, what="the end of all tasks")
    listed = ", ".join(f"'{task_id}'" for task_id in ids)
    assert count(victim, f"SELECT count(*) FROM tasks WHERE status = 'COMPLETED' AND task_id IN ({listed})") == len(ids)
    once = f"SELECT task_id FROM attempts WHERE outcome = 'COMPLETED' AND task_id IN ({listed}) GROUP BY 1"
    assert count(victim, f"SELECT count(*) FROM ({once} HAVING count(*) = 1) AS done") == len(ids)


def left_of(before: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run."""
    return [process for process in before if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("part", PARTS)
def test_tasks_in_flight_survive_the_killing_of(victim: RunningFlik, part: str) -> None:
    ids = submit_in_flight(victim)
    eventually(lambda: count(victim, "SELECT count(*) FROM tasks WHERE status = 'PROCESSING'"), within_s=20)

    if part == "all":
        before = victim.processes()
        victim.kill_all()
        victim.restart()
        assert left_of(before) == []
    else:
        victim.kill(part)

    assert_each_completed_once(victim, ids)
    eventually(lambda: victim.http.get("/health").status_code == 200, within_s=30, what="health")


def flush(victim: RunningFlik) -> None:
    """Empty Redis."""
    with redis.Redis(unix_socket_path=str(victim.data_dir.resolve() / "valkey" / "valkey.sock")) as connection:
        connection.flushall()


def harm(victim: RunningFlik, part: str) -> None:
    """Kill a part if it runs, kill everything and start again, or empty Redis."""
    if part == "all":
        victim.kill_all()
        victim.restart()
    elif part == "flush":
        with suppress(redis.ConnectionError):  # it was killed a moment ago
            flush(victim)
    elif victim.find(part):
        victim.kill(part)


def test_flushing_redis_loses_nothing(victim: RunningFlik) -> None:
    chance = seeded()
    ids = submit_in_flight(victim, chance.uniform(0.3, 0.6))
    mine = "task_id IN ({})".format(", ".join(f"'{task_id}'" for task_id in ids))
    first, completed = chance.randrange(IN_FLIGHT * 3 // 4), f"SELECT count(*) FROM tasks WHERE {mine} AND completed_at"
    eventually(lambda: count(victim, f"{completed} IS NOT NULL") > first, within_s=60, what=f"{first} completions")

    flush(victim)
    assert count(victim, f"{completed} IS NULL"), "nothing was in flight"
    assert_each_completed_once(victim, ids)
    assert victim.get(ids[0])["result"]["text"]


def stale_settlements(flik: RunningFlik) -> float:
    """Return how many outcomes were refused for their lease token."""
    text = flik.http.get("/metrics").text
    return sum(float(found) for found in re.findall(r"^flik_stale_settlements_total\{.*\} (\S+)$", text, re.MULTILINE))


def test_replica_paused_beyond_its_lease_cannot_complete(pair: RunningFlik) -> None:
    """Its outcome comes while the other replica is at the second attempt: only the token tells the two apart."""
    task_id = pair.submit("TEXT", payload={"script": {"durationS": 8.0}})
    held_by = pair.wait(task_id, until=("PROCESSING",))["workerId"]
    started = time.monotonic()
    (replica,) = [each for each in pair.find("text") if str(each.pid) == held_by.split(":")[1]]
    (queue,) = pair.find("queue")

    replica.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: pair.get(task_id)["attempt"] == 2, within_s=20, what="the second attempt")
        time.sleep(max(0.0, started + 8.5 - time.monotonic()))  # until the first, once woken, is done at once
        queue.send_signal(signal.SIGSTOP)  # else its next beat would tell it to stop before it reports
    finally:
        replica.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    queue.send_signal(signal.SIGCONT)

    eventually(lambda: stale_settlements(pair) > 0, within_s=10, what="the refusal of the first one's outcome")
    assert pair.get(task_id)["status"] == "PROCESSING"
    ended = pair.wait(task_id)
    assert (ended["status"], ended["attempt"]) == ("COMPLETED", 2)
    first, second = pair.query(f"SELECT outcome, worker_id FROM attempts WHERE task_id = '{task_id}' ORDER BY attempt")
    assert first == ("LOST", held_by)
    assert second[0] == "COMPLETED"
    assert second[1] != held_by


def test_task_runs_again_soon_after_its_replica_was_killed(victim: RunningFlik) -> None:
    task_id = victim.submit("TEXT", payload={"script": {"durationS": 1.0}})
    victim.wait(task_id, until=("PROCESSING",))
    victim.kill("text")
    killed_at = time.monotonic()

    def runs_again() -> bool:
        return victim.get(task_id)["attempt"] == 2

    eventually(runs_again, within_s=10, what="the second attempt")
    assert time.monotonic() - killed_at < 10
    assert victim.wait(task_id)["status"] == "COMPLETED"


def submit_refused_in_s(victim: RunningFlik) -> float:
    """Return how long a submit took that was answered with 503."""
    started = time.monotonic()
    assert victim.http.post("/api/v1/tasks", json=task()).status_code == 503
    return time.monotonic() - started


def submit_at_once(victim: RunningFlik, tasks: int) -> list[httpx.Response]:
    """Submit tasks on ten connections at a time."""
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda _: victim.http.post("/api/v1/tasks", json=task()), range(tasks)))


def test_postgresql_away_is_answered_with_503_and_retry_after(victim: RunningFlik) -> None:
    (postmaster,) = victim.find("postgresql")
    backends = postmaster.children()
    for process in (postmaster, *backends):
        process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        health = victim.http.get("/health")
        assert health.status_code == 503
        assert health.json()["components"]["postgresql"] == "DOWN"
        assert time.monotonic() - started < 5
        eventually(lambda: submit_refused_in_s(victim) < 0.5, within_s=20, what="a quick refusal")
        started = time.monotonic()
        refused = submit_at_once(victim, 100)
        assert time.monotonic() - started < 3.0  # without the breaker: 5 s for each ten
        assert {answer.status_code for answer in refused} == {503}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    finally:
        for process in (postmaster, *backends):
            process.send_signal(signal.SIGCONT)
    eventually(lambda: victim.http.post("/api/v1/tasks", json=task()).status_code == 202, within_s=5, what="writing")
    victim.kill("postgresql")
    answers = [victim.http.post("/api/v1/tasks", json=task()) for _ in range(5)]
    for answer in answers:
        assert answer.status_code in (202, 503)
        if answer.status_code == 503:
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["code"] == "unavailable"
    accepted = [answer.json()["taskId"] for answer in answers if answer.status_code == 202]
    eventually(lambda: victim.http.post("/api/v1/tasks", json=task()).status_code == 202, within_s=5, what="writing")
    for task_id in accepted:
        assert victim.wait(task_id)["status"] == "COMPLETED"


@pytest.mark.skipif(not LONG, reason="the long form: make chaos")
@pytest.mark.timeout(1800)
def test_anything_may_be_killed_at_any_moment(victim: RunningFlik) -> None:
    chance = seeded()
    for _ in range(40):
        ids = submit_in_flight(victim, chance.uniform(0.05, 0.5))
        time.sleep(chance.uniform(0, 2.5))
        part = chance.choice(HARMS)
        harm(victim, part)
        assert_each_completed_once(victim, ids)
        eventually(lambda: victim.http.get("/health").status_code == 200, within_s=60, what=f"health after {part}")


@pytest.mark.timeout(240)
def test_region_that_ends_unasked_is_started_again(victim: RunningFlik) -> None:
    task_id = victim.submit("TEXT", payload={"script": {"durationS": 2.0}})
    victim.wait(task_id, until=("PROCESSING",))
    assert "starting it again" not in victim.log()
    (region,) = victim.find("region")
    region.kill()
    eventually(lambda: "starting it again" in victim.log(), within_s=20, what="the word that it starts again")
    statuses: list[int] = []

    def completed() -> bool:
        answer = victim.http.get(f"/api/v1/tasks/{task_id}")
        statuses.append(answer.status_code)
        return answer.status_code == 200 and answer.json()["status"] == "COMPLETED"

    eventually(completed, within_s=150, what="the task's end")
    assert set(statuses) <= {200, 503}  # never that there is no such task


# ---- chains: what follows from a step is written with its end, so nothing that is killed can lose it

CHAINS = 50


def submit_chains(victim: RunningFlik, seconds: float) -> list[dict[str, Any]]:
    """Submit dags, each a chain of three steps with one beside the second, that keep the replica busy for a while."""
    payload = {"prompt": "x", "maxWords": 5, "script": {"durationS": seconds}}
    steps = [
        {"id": "first", "taskType": "TEXT", "payload": payload},
        {"id": "middle", "taskType": "TEXT", "dependsOn": ["first"], "payload": payload},
        {"id": "beside", "taskType": "TEXT", "dependsOn": ["first"], "payload": payload},
        {"id": "last", "taskType": "TEXT", "dependsOn": ["middle", "beside"], "payload": payload},
    ]
    return [victim.submit_dag(steps, tenantId=f"tenant-{n % 5}", priority=n % 3) for n in range(CHAINS)]


def assert_each_step_completed_once(victim: RunningFlik, chains: list[dict[str, Any]]) -> None:
    """Wait for the end; no step began before its parents had ended, and none was done twice."""
    assert_each_completed_once(victim, [step["taskId"] for chain in chains for step in chain["tasks"]])
    listed = ", ".join(f"'{chain['dagId']}'" for chain in chains)
    completed = f"SELECT count(*) FROM dags WHERE status = 'COMPLETED' AND dag_id IN ({listed})"
    assert count(victim, completed) == len(chains)
    too_early = (
        "SELECT count(*) FROM dag_steps c JOIN attempts ran ON ran.task_id = c.task_id "
        "JOIN dag_steps p ON p.dag_id = c.dag_id AND p.place = ANY(c.parents) "
        "JOIN tasks parent ON parent.task_id = p.task_id "
        f"WHERE ran.started_at < parent.completed_at AND c.dag_id IN ({listed})"
    )
    assert count(victim, too_early) == 0
    gaps = f"SELECT count(*) FROM dags WHERE seq <> 1 + 4 + 1 AND dag_id IN ({listed})"
    assert count(victim, gaps) == 0, "the log of a dag tells its submit, the ends of its steps, and its own"


@pytest.mark.parametrize("part", ["queue", "text", "all"])
def test_chains_in_flight_survive_the_killing_of(victim: RunningFlik, part: str) -> None:
    chains = submit_chains(victim, 0.2)
    released = (
        "SELECT count(*) FROM dag_steps JOIN dags USING (dag_id) WHERE status = 'RUNNING' AND released_at IS NOT NULL"
    )
    eventually(lambda: count(victim, released) > 5, within_s=20, what="steps that follow others")

    if part == "all":
        victim.kill_all()
        victim.restart()
    else:
        victim.kill(part)

    assert_each_step_completed_once(victim, chains)
    eventually(lambda: victim.http.get("/health").status_code == 200, within_s=30, what="health")


@pytest.mark.skipif(not LONG, reason="the long form: make chaos")
@pytest.mark.timeout(1800)
def test_chains_survive_whatever_is_killed_at_any_moment(victim: RunningFlik) -> None:
    chance = seeded()
    for _ in range(20):
        chains = submit_chains(victim, chance.uniform(0.02, 0.3))
        time.sleep(chance.uniform(0, 2.5))
        part = chance.choice(HARMS)
        harm(victim, part)
        assert_each_step_completed_once(victim, chains)
        eventually(lambda: victim.http.get("/health").status_code == 200, within_s=60, what=f"health after {part}")
