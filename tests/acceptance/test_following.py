"""Following over two gateways: either tells the same, and whatever is cut or killed nothing is missed or told twice.

The short form harms Flik a few times while one load of tasks and chains runs; `make chaos` goes round many times.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.followers import (
    ENDED,
    OF_TENANT,
    TRANSPORTS,
    CutBy,
    Follow,
    Follower,
    Place,
    library,
)
from tests.acceptance.lines import Lines, Made, anywhere, lines_to, seldom_at_once
from tests.acceptance.running import RunningFlik, eventually, task

LONG = os.environ.get("FLIK_CHAOS") == "long"
ROUNDS = 20 if LONG else 1
TASKS, DAGS = 6, 3
LIVE_AT_EACH = len(TRANSPORTS + OF_TENANT) - 1  # a poll comes and goes
FOLLOWED_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def flik(data_folder: Path) -> Iterator[RunningFlik]:
    """Flik with two gateways; short retries."""
    running = RunningFlik(
        data_folder / "following",
        FLIK_GATEWAY_REPLICAS="2",
        WORKER_CONCURRENCY="20",
        FLIK_RETRY_DELAYS_S="0.2,0.4,0.6",
    ).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def key(flik: RunningFlik) -> str:
    """A key of the tenant that submits: whoever follows a whole tenant must be of one."""
    return flik.key_of("tests", "read")


def named(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(event["seq"], event["event"]) for event in events if "seq" in event]


def log_of(flik: RunningFlik, place: Place) -> list[tuple[int, str]]:
    """Return the whole log; the gateway that is asked may be killed meanwhile."""

    def ask() -> list[dict[str, Any]] | None:
        answer = flik.http.get(f"/api/v1/{place.of}/{place.subject}/events", params={"since": 0})
        return answer.json()["events"] if answer.status_code == 200 else None

    return named(eventually(ask, within_s=30, what="the log") or [])


# ---- either gateway


def doors_of(flik: RunningFlik) -> list[str]:
    """Return where each gateway replica answers by itself, without HAProxy before it."""
    doors = []
    for replica in flik.find("gateway"):
        listening = [each.laddr for each in replica.net_connections("tcp4") if each.status == "LISTEN"]
        (port,) = [address.port for address in listening if address.ip == "0.0.0.0"]
        doors.append(f"http://127.0.0.1:{port}")
    return doors


def both_are_followed(flik: RunningFlik, by_at_least: int = 1) -> bool:
    """Return whether so many follow at each gateway replica, as one scrape shows it."""
    metrics = flik.http.get("/metrics").text
    counts = re.findall(r'^flik_followers\{replica="\w+"\} (\S+)$', metrics, re.MULTILINE)
    return sum(float(count) >= by_at_least for count in counts) >= 2


def test_status_reaches_followers_on_either_gateway_wherever_the_task_was_submitted(
    flik: RunningFlik, key: str
) -> None:
    doors = doors_of(flik)
    assert len(set(doors)) == 2
    ways = [(follow, door) for follow in TRANSPORTS + OF_TENANT for door in doors]
    for submitted_at in doors:
        body = task(payload={"prompt": "x", "script": {"durationS": 3}})
        answer = flik.http.post(f"{submitted_at}/api/v1/tasks", json=body)
        assert answer.status_code == 202, answer.text
        place = Place("", key, answer.json()["taskId"])
        with ThreadPoolExecutor(len(ways)) as pool:
            following = [pool.submit(to_the_end, follow, place._replace(url=door)) for follow, door in ways]
            try:
                eventually(
                    lambda: both_are_followed(flik, LIVE_AT_EACH), within_s=3, what="all of them on each gateway"
                )
                told = {way: named(each.result(30)) for way, each in zip(ways, following, strict=True)}
            finally:
                flik.http.post(f"/api/v1/tasks/{place.subject}/cancel")  # else who was not told waits on
        whole = [(1, "queued"), (2, "processing"), (3, "artifact"), (4, "completed")]
        assert told == dict.fromkeys(ways, whole)


def to_the_end(follow: Follow, place: Place) -> list[dict[str, Any]]:
    """Follow to the end over one transport; a poll asks again and again."""
    told: list[dict[str, Any]] = []
    while True:
        since = max((event.get("seq", 0) for event in told), default=0)
        for event in follow(place._replace(since=since)):
            told.append(event)
            if event.get("status") in ENDED:
                return told


# ---- whatever is cut or killed


def flush(flik: RunningFlik, _: random.Random) -> None:
    """Empty Valkey; it may be on its way down or up."""
    with redis.Redis(unix_socket_path=str(flik.data_dir.resolve() / "valkey" / "valkey.sock")) as connection:
        try:
            connection.flushall()
        except redis.ConnectionError:
            return


def kill_valkey(flik: RunningFlik, _: random.Random) -> None:
    """Kill Valkey, unless that was done just now."""
    if flik.find("valkey"):
        flik.kill("valkey")


def kill_a_gateway(flik: RunningFlik, chance: random.Random) -> None:
    """Kill one gateway replica; the other one, where there is one by now, goes on."""
    if replicas := flik.find("gateway"):
        chance.choice(replicas).kill()


HARMS: tuple[Callable[[RunningFlik, random.Random], None], ...] = (flush, kill_valkey, kill_a_gateway)


@pytest.mark.chaos
@pytest.mark.timeout(1800 if LONG else 180)
def test_followers_miss_nothing_whatever_is_cut_or_killed(flik: RunningFlik, key: str) -> None:
    """Promise 6: each follower's events are gapless, in order, and not repeated."""
    seed = int(os.environ.get("FLIK_CHAOS_SEED", str(random.randrange(10**6))))
    sys.stderr.write(f"FLIK_CHAOS_SEED={seed}\n")
    chance = random.Random(seed)
    made: list[Made] = []
    for _ in range(ROUNDS):
        eventually(lambda: len(flik.find("gateway")) == 2, within_s=30, what="the start of both gateways")
        eventually(lambda: flik.http.get("/health").status_code == 200, within_s=30, what="health")
        with lines_to(flik.port) as lines:
            followers = follow_some(flik, key, lines, chance)
            try:
                if not made:  # later on there may be metrics of one that was killed
                    eventually(lambda: both_are_followed(flik), within_s=5, what="followers on both gateways")
                do_harm(flik, chance)
                assert_each_saw_all(flik, followers)
            finally:
                for each in followers:
                    each.stop.set()
        made += lines.made
    assert {each.name for each in made} == {each.__name__ for each in (*TRANSPORTS, *OF_TENANT, library)}
    assert {each.in_head for each in made} == {True, False}, "in heads, and in what comes after them"
    assert not ports_lost(flik), "there are only so many for gateways"


def ports_lost(flik: RunningFlik) -> list[str]:
    """Return the ports that Ray Serve gives to no gateway any more, as one could not be had once."""
    (log,) = (flik.data_dir / "logs").glob("ray-*/serve/controller_*.log")
    return re.findall(r"Released and blocked RequestProtocol.HTTP port (\d+)", log.read_text())


def follow_some(flik: RunningFlik, key: str, lines: Lines, chance: random.Random) -> list[Follower]:
    """Submit tasks and chains that take some seconds, and follow each in every way; return who follows."""
    tasks = [Place(flik.url, key, submit_text(flik, chance)) for _ in range(TASKS)]
    dags = [Place(flik.url, key, submit_chain(flik, chance), "dags") for _ in range(DAGS)]
    texts = [place._replace(chunk=-1) for place in tasks]
    ways: list[tuple[list[Place], tuple[Follow, ...], CutBy]] = [
        (tasks + texts + dags * 3, TRANSPORTS, anywhere), (tasks, OF_TENANT, anywhere),
        (tasks + texts, (library,), seldom_at_once),
    ]  # fmt: skip
    followers = [
        Follower(lines.open(), place, chance.getrandbits(32), transports, cut)
        for places, transports, cut in ways
        for place in places
    ]
    for each in followers:
        each.start()
    return followers


def submit_text(flik: RunningFlik, chance: random.Random) -> str:
    """Submit a text that is written for some seconds, perhaps after a failure."""
    failures = [{"code": "hiccup", "retryable": True}] * chance.randrange(2)
    script = {"durationS": chance.uniform(2, 6), "progressSteps": 20, "failures": failures}
    return flik.submit("TEXT", payload={"maxWords": 200, "script": script})


def submit_chain(flik: RunningFlik, chance: random.Random) -> str:
    """Submit a chain of three texts."""
    steps = [
        {"id": name, "taskType": "TEXT", "payload": {"prompt": "x", "script": {"durationS": chance.uniform(0.5, 2)}}}
        for name in ("first", "second", "third")
    ]
    dag_id: str = flik.submit_dag(steps)["dagId"]
    return dag_id


def do_harm(flik: RunningFlik, chance: random.Random) -> None:
    """Do each harm once and two of them again, in any order and at any moments."""
    harms = [*HARMS, *chance.choices(HARMS, k=2)]
    for harm in chance.sample(harms, len(harms)):
        time.sleep(chance.uniform(0.1, 1.2))
        harm(flik, chance)


def assert_each_saw_all(flik: RunningFlik, followers: list[Follower]) -> None:
    """Wait for the end; what each has seen is the log, from 1 on, gapless, in order and not repeated."""
    logs: dict[str, list[tuple[int, str]]] = {}
    for each in followers:
        each.join(FOLLOWED_WITHIN_S)
        assert not each.is_alive(), each.seen
        assert each.failure is None, each.failure
        log = logs.setdefault(each.place.subject, log_of(flik, each.place))
        assert [number for number, _ in log] == list(range(1, len(log) + 1))
        assert named(each.seen) == log
