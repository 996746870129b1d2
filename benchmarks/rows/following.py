"""Following live: from a submit to its last event on a stream, and what many who only wait cost.

`live` opens the stream when the 202 is there, as a caller does; the time counts from sending the submit.
`followers` has one task wait (its tenant may run none), opens so many streams on it, lets it run, and sees when
the last of them is told. The client shares the machine, and the time to read 2,000 sockets counts too.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import orjson

from benchmarks.drive import HEADERS, single_posts
from benchmarks.load.connection import encode
from benchmarks.load.crowd import Crowd
from benchmarks.measurement import Measurement, Outcome, p50_p99
from benchmarks.plan import RATE_PER_S, Plan
from benchmarks.region import GATEWAY, KNOWN_WITHIN_S, Region

TENANT = "bench-crowd"
TELL_WITHIN_S = 60.0
KEY = HEADERS["authorization"].removeprefix("Bearer ")


def measure_live(region: Region, plan: Plan) -> Outcome:
    """From sending the request to the last byte of the event that ends the task."""
    latencies_ms = asyncio.run(_paced(region, plan.paced_requests))
    missing = plan.paced_requests - len(latencies_ms)
    violations = (f"{missing} streams did not tell of the end",) if missing else ()
    return Outcome(p50_p99("live", latencies_ms), violations)


async def _paced(region: Region, count: int) -> list[float]:
    posts = single_posts()
    bodies = [encode("POST", post.path, region.host, HEADERS, post.body.encode()) for post in posts]
    start = time.monotonic()
    running = []
    for number in range(count):
        await asyncio.sleep(start + number / RATE_PER_S - time.monotonic())
        running.append(asyncio.create_task(_one(region, bodies[number % len(bodies)])))
    ended = await asyncio.gather(*running, return_exceptions=True)
    return [each for each in ended if isinstance(each, float)]


async def _one(region: Region, body: bytes) -> float:
    """Return the milliseconds from a submit to the end of its task, on one connection."""
    reader, writer = await asyncio.open_connection(region.host, region.port)
    try:
        async with asyncio.timeout(TELL_WITHIN_S):
            sent_at = time.monotonic()
            writer.write(body)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            task_id = orjson.loads(await reader.readexactly(size))["taskId"]
            headers = {**HEADERS, "accept": "text/event-stream"}
            writer.write(encode("GET", f"/api/v1/tasks/{task_id}/events", region.host, headers))
            await reader.readuntil(b"event: completed")
            await reader.readuntil(b"\n\n")
            return (time.monotonic() - sent_at) * 1000
    finally:
        writer.close()


def measure_followers(region: Region, plan: Plan) -> Outcome:
    """Memory of the gateway with so many idle followers, and the time until the last of them hears of the end."""
    return asyncio.run(_crowd(region, plan.followers))


async def _crowd(region: Region, count: int) -> Outcome:
    region.limit(TENANT, maxRunning=0)
    await asyncio.sleep(KNOWN_WITHIN_S)
    body = {"tenantId": TENANT, "taskType": "TEXT", "payload": {"prompt": "x"}}
    task_id = region.client.post("/api/v1/tasks", json=body).json()["taskId"]
    before = region.held_bytes(GATEWAY)
    crowd = Crowd(region.host, region.port, KEY, f"/api/v1/tasks/{task_id}/events")
    try:
        await crowd.gather(count)
        held = region.held_bytes(GATEWAY)
        region.limit(TENANT, maxRunning=1)
        await crowd.wait(TELL_WITHIN_S)
    finally:
        await crowd.leave()
    ended_at = datetime.fromisoformat(region.client.get(f"/api/v1/tasks/{task_id}").json()["completedAt"]).timestamp()
    grown_mb = None if before is None or held is None else (held - before) / 1e6
    note = f"{count} streams on one task"
    violations = () if len(crowd.told_at) == count else (f"{count - len(crowd.told_at)} were not told",)
    figures = (
        Measurement("followers_mb", grown_mb, "MB", note if region.group else "needs --pid with --url"),
        Measurement("followers_told_s", max(crowd.told_at, default=ended_at) - ended_at, "s", note),
    )
    return Outcome(figures, violations)
