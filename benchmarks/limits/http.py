"""How many POSTs a second others answer that do no work: fixed bytes, bare FastAPI, FastAPI in Ray Serve.

The same client, body and number of connections as for Flik's own row.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import httpx

from benchmarks.drive import drive, single_posts
from benchmarks.load.job import Job
from benchmarks.measurement import Measurement, Outcome, percentile
from benchmarks.plan import RATE_PER_S, Plan
from benchmarks.service import ROOT, Recipe, Service, listens, running

WARM_UP_S = 1.0
MANY = 1_000_000  # the seconds of the plan end the load
APP = "benchmarks.limits.fastapi_app:app"


def measure_static(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """Fixed bytes from a raw asyncio responder."""
    recipe = _recipe("static HTTP", "-m", "benchmarks.limits.static_http", "{port}")
    return _measure("static", recipe, plan, data_home, left_behind)


def measure_fastapi(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """FastAPI with a pydantic body under one uvicorn process."""
    recipe = _recipe("FastAPI", "-m", "uvicorn", APP, "--port", "{port}", "--no-access-log", "--log-level", "warning")
    return _measure("fastapi", recipe, plan, data_home, left_behind)


def measure_serve(plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    """The same application in Ray Serve behind HAProxy."""
    recipe = replace(
        _recipe("Ray Serve", "-m", "benchmarks.limits.serve_app", "{port}"),
        is_ready=_answers_posts,
        ready_within_s=90.0,
        stop_signal=signal.SIGTERM,
        stop_within_s=30.0,
    )
    return _measure("serve", recipe, plan, data_home, left_behind)


def _recipe(name: str, *arguments: str) -> Recipe:
    return Recipe(name, (sys.executable, *arguments), listens, {}, ROOT)


def _answers_posts(port: int) -> bool:
    post = single_posts()[0]
    headers = {"content-type": "application/json"}
    try:
        return httpx.post(f"http://127.0.0.1:{port}{post.path}", content=post.body, headers=headers).is_success
    except httpx.HTTPError:
        return False


def _measure(name: str, recipe: Recipe, plan: Plan, data_home: Path, left_behind: list[str]) -> Outcome:
    with running(recipe, data_home, left_behind) as service:
        drive(_job(service, plan, WARM_UP_S))
        before_s = service.group.cpu_s()
        answers = drive(_job(service, plan, plan.limit_s))
        cpu_us = (service.group.cpu_s() - before_s) / max(1, answers.answered) * 1e6
        paced = drive(replace(_job(service, plan, plan.limit_s), count=plan.paced_requests // 3, rate_per_s=RATE_PER_S))
    wrong = {status: count for status, count in answers.statuses.items() if status != "200"}
    note = f"{answers.answered:,} answers" + (f", not 200: {wrong}" if wrong else "")
    return Outcome(
        (
            Measurement(f"{name}_posts_per_s", answers.answered / answers.elapsed_s, "requests/s", note),
            Measurement(f"{name}_cpu_us", cpu_us, "us/request"),
            Measurement(f"{name}_p50_ms", percentile(paced.latencies_ms, 0.5), "ms", "at 20 requests/s"),
        )
    )


def _job(service: Service, plan: Plan, seconds: float) -> Job:
    return Job("127.0.0.1", service.port, single_posts(), MANY, seconds, plan.connections)
