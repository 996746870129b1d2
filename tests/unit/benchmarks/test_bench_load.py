import asyncio
from contextlib import asynccontextmanager, suppress

from benchmarks.load.__main__ import accepted_ids
from benchmarks.load.closed_loop import ClosedLoop, Tally
from benchmarks.load.connection import encode
from benchmarks.load.job import Answers, Job, Post, Sample
from benchmarks.load.open_loop import OpenLoop
from benchmarks.load.pool import Pool

REQUEST = encode("POST", "/", "h", {}, b"{}")
ACCEPTED = b'HTTP/1.1 202 A\r\ncontent-length: 14\r\n\r\n{"taskId":"a"}'


@asynccontextmanager
async def answering(answer):
    """Serve `answer(number of the request)` for each request; None hangs up. Yields port and a list of requests."""
    seen = []
    handlers = set()

    async def handle(reader, writer):
        handlers.add(asyncio.current_task())
        with suppress(ConnectionError):
            while await reader.read(4096):
                seen.append(1)
                reply = answer(len(seen))
                if reply is None:
                    break
                writer.write(reply)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await asyncio.gather(*handlers)


async def test_a_closed_loop_sends_each_request_once_and_counts_each_answer():
    async with answering(lambda _: ACCEPTED) as (port, seen):
        tally = await ClosedLoop("127.0.0.1", port, [REQUEST, REQUEST], 50, 5.0).run(4)

    assert (len(seen), len(tally.answers), len(tally.latencies_ms), tally.unknown) == (50, 50, 50, 0)
    assert {status for _, status, _ in tally.answers} == {202}


async def test_a_request_whose_connection_was_cut_counts_as_unknown_and_the_load_goes_on():
    async with answering(lambda number: None if number == 3 else ACCEPTED) as (port, seen):
        tally = await ClosedLoop("127.0.0.1", port, [REQUEST], 10, 5.0).run(1)

    assert (len(seen), len(tally.answers), tally.unknown) == (10, 9, 1)


async def test_a_closed_loop_ends_with_its_seconds():
    async with answering(lambda _: ACCEPTED) as (port, _):
        tally = await ClosedLoop("127.0.0.1", port, [REQUEST], 10**9, 0.05).run(2)

    assert tally.answers
    assert tally.ended_at - tally.started_at < 5


async def test_an_open_loop_does_not_wait_for_earlier_answers():
    async with answering(lambda _: ACCEPTED) as (port, seen):
        job = Job("127.0.0.1", port, [Post("/", "{}")], count=20, seconds=1, rate_per_s=1000)
        pool = Pool("127.0.0.1", port)
        loop = OpenLoop(job, pool)
        await loop.run([REQUEST])
        pool.close()

    assert (len(seen), loop.statuses, len(loop.samples)) == (20, [202] * 20, 20)
    assert loop.task_ids == ["a"] * 20


async def test_an_open_loop_counts_a_cut_request_as_unknown():
    async with answering(lambda number: None if number == 1 else ACCEPTED) as (port, _):
        job = Job("127.0.0.1", port, [Post("/", "{}")], count=3, seconds=1, rate_per_s=100)
        pool = Pool("127.0.0.1", port)
        loop = OpenLoop(job, pool)
        await loop.run([REQUEST])
        pool.close()

    assert (loop.unknown, loop.statuses) == (1, [202, 202])


def test_only_accepted_tasks_count_whatever_the_shape_of_the_answer():
    batch = b'{"items":[{"status":202,"task":{"taskId":"b"}},{"status":429},{"status":202,"task":{"taskId":"c"}}]}'
    tally = Tally(answers=[(0, 202, b'{"taskId":"a"}'), (0, 429, b"{}"), (0, 207, batch), (0, 500, b"oops")])

    assert accepted_ids(tally) == (["a", "b", "c"], {"429": 1})


def test_a_job_and_its_answers_survive_the_way_to_the_client_and_back():
    job = Job("h", 1, [Post("/p", "{}")], 2, 3.0, preload=[Post("/q", "[]")], headers={"a": "b"})
    answers = Answers(1.0, 2.0, {"202": 3}, {}, 1, ["a"], ["b"], [0.5], [Sample(1.0, 2.0, None)])

    assert Job.from_json(job.to_json()) == job
    assert Answers.from_json(answers.to_json()) == answers
    assert (answers.answered, answers.accepted) == (3, 2)
