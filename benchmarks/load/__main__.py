"""`python -m benchmarks.load`: one job as JSON on standard input, its answers as JSON on standard output."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

import orjson
import uvloop

from benchmarks.load.closed_loop import ClosedLoop, Tally
from benchmarks.load.connection import encode
from benchmarks.load.job import Answers, Job, Post
from benchmarks.load.open_loop import OpenLoop
from benchmarks.load.pool import Pool

PRELOAD_CONNECTIONS = 4


def main() -> None:
    """Do the job."""
    job = Job.from_json(sys.stdin.buffer.read())
    gc.disable()  # a pause of ours must not look like one of the server's; the process lives for seconds
    answers = uvloop.run(_run(job))
    # Whoever shares the pipe may have made it non-blocking, and an unbuffered standard output (PYTHONUNBUFFERED)
    # writes once and drops what did not fit: either would lose the end of a long text.
    os.set_blocking(sys.stdout.fileno(), True)
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(answers.to_json())


async def _run(job: Job) -> Answers:
    preloaded: list[str] = []
    if job.preload:
        requests = _requests(job, job.preload)
        loop = ClosedLoop(job.host, job.port, requests, len(requests), job.seconds)
        preloaded, _ = accepted_ids(await loop.run(PRELOAD_CONNECTIONS))
    if job.rate_per_s is None:
        return await _as_fast_as_possible(job, preloaded)
    return await _at_a_rate(job, preloaded)


async def _as_fast_as_possible(job: Job, preloaded: list[str]) -> Answers:
    loop = ClosedLoop(job.host, job.port, _requests(job, job.posts), job.count, job.seconds)
    tally = await loop.run(job.connections)
    task_ids, refused = accepted_ids(tally)
    return Answers(
        started_at=tally.started_at,
        elapsed_s=tally.ended_at - tally.started_at,
        statuses=Counter(str(status) for _, status, _ in tally.answers),
        refused=refused,
        unknown=tally.unknown,
        task_ids=task_ids,
        preloaded=preloaded,
        latencies_ms=tally.latencies_ms,
        samples=[],
    )


async def _at_a_rate(job: Job, preloaded: list[str]) -> Answers:
    pool = Pool(job.host, job.port)
    loop = OpenLoop(job, pool)
    await pool.warm(2)
    started_at = time.monotonic()
    await loop.run(_requests(job, job.posts))
    elapsed_s = time.monotonic() - started_at
    pool.close()
    return Answers(
        started_at=started_at,
        elapsed_s=elapsed_s,
        statuses=Counter(map(str, loop.statuses)),
        refused={},
        unknown=loop.unknown,
        task_ids=loop.task_ids,
        preloaded=preloaded,
        latencies_ms=[sample.submit_ms for sample in loop.samples],
        samples=loop.samples,
    )


def accepted_ids(tally: Tally) -> tuple[list[str], Counter[str]]:
    """Return the ids of all tasks that got a 202, and the statuses of batch items that did not."""
    task_ids: list[str] = []
    refused: Counter[str] = Counter()
    for _, status, body in tally.answers:
        if status == 202:
            answer = orjson.loads(body)
            task_ids += [each["taskId"] for each in answer.get("tasks", [answer])]  # those of a dag, or the one
        elif status == 207:
            for item in orjson.loads(body)["items"]:
                if item["status"] == 202:
                    task_ids.append(item["task"]["taskId"])
                else:
                    refused[str(item["status"])] += 1
    return task_ids, refused


def _requests(job: Job, posts: Sequence[Post]) -> list[bytes]:
    return [encode("POST", post.path, job.host, job.headers, post.body.encode()) for post in posts]


if __name__ == "__main__":
    main()
