"""What `FlikClient` asks of a gateway and makes of the answers."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timezone

import pytest
from fakes_gateway import FakeGateway, busy, problem, task_id
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from flik.client import (
    FlikApiError,
    FlikClient,
    FlikUnreachable,
    Submitted,
    Task,
    TaskRequest,
    TaskWebhook,
    UnreadableAnswer,
    WaitTimedOut,
)
from flik.client import calls as module
from flik.errors import FieldError


async def test_submit_sends_key_tenant_and_task(gateway: FakeGateway, client: FlikClient) -> None:
    submitted = await client.submit("IMAGE", {"prompt": "a lighthouse"}, priority=0, region="us-west")

    asked = gateway.requests[0]
    assert asked.headers["authorization"] == "Bearer demo"
    assert asked.body == {
        "tenantId": "demo",
        "taskType": "IMAGE",
        "priority": 0,
        "payload": {"prompt": "a lighthouse"},
        "region": "us-west",
    }
    assert (submitted.task_id, submitted.status) == (task_id(1), "QUEUED")
    assert submitted.cancel_url is not None and submitted.cancel_url.endswith("/cancel")


async def test_webhook_of_a_task_goes_with_its_submit(gateway: FakeGateway, client: FlikClient) -> None:
    hook = TaskWebhook("https://hooks.example.com/", "whsec_x", ["failed"])
    await client.submit("TEXT", {"prompt": "rain"}, webhook=hook)
    await client.submit_many([TaskRequest("TEXT", {"prompt": "rain"}, webhook=TaskWebhook(hook.url, hook.secret))])

    one, many = (asked.body for asked in gateway.requests)
    assert one["webhook"] == {"url": "https://hooks.example.com/", "secret": "whsec_x", "kinds": ["failed"]}
    assert many["tasks"][0]["webhook"] == {"url": "https://hooks.example.com/", "secret": "whsec_x"}
    assert "whsec_x" not in repr(hook)


async def test_refused_submit_names_the_fields(client: FlikClient) -> None:
    with pytest.raises(FlikApiError) as caught:
        await client.submit("IMAGE", {"seed": 1})

    assert (caught.value.status, caught.value.code, caught.value.request_id) == (422, "invalid_request", "r-9")
    assert caught.value.errors == (FieldError("/payload/prompt", "is missing"),)


async def test_a_payload_json_cannot_say_is_refused_before_anything_is_sent(
    gateway: FakeGateway, client: FlikClient
) -> None:
    for value in (float("nan"), "\udcff", object()):
        with pytest.raises(ValueError, match="cannot be sent as JSON"):
            await client.submit("TEXT", {"prompt": value})

    assert gateway.requests == []


async def test_batch_answers_come_in_order_with_refusals_among_them(client: FlikClient) -> None:
    good, bad = TaskRequest("TEXT", {"prompt": "x"}), TaskRequest("SOUND", {"prompt": "x"})

    first, second, third = await client.submit_many([good, bad, good])

    assert isinstance(first, Submitted) and isinstance(third, Submitted)
    assert isinstance(second, FlikApiError)
    assert second.errors[0].pointer == "/taskType"


@pytest.mark.parametrize("count", [0, 1001])
async def test_batch_outside_its_bounds_is_not_sent(gateway: FakeGateway, client: FlikClient, count: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        await client.submit_many([TaskRequest("TEXT", {"prompt": "x"})] * count)

    assert gateway.requests == []


async def test_batch_with_too_few_answers_is_not_believed(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(JSONResponse({"items": []}, 207))

    with pytest.raises(UnreadableAnswer, match="0 answers to 1 tasks"):
        await client.submit_many([TaskRequest("TEXT", {"prompt": "x"})])


async def test_get_reads_the_whole_task(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add_finished(1, text="done", version="v1.0.0")

    task = await client.get(task_id(1))

    assert task.is_completed and task.text == "done"
    assert task.created_at == datetime(2026, 1, 31, 8, 0, 1, tzinfo=UTC)
    assert task.artifacts[0].content_type == "image/png"


async def test_unknown_task_is_a_404(client: FlikClient) -> None:
    with pytest.raises(FlikApiError) as caught:
        await client.get(task_id(9))

    assert (caught.value.status, caught.value.code) == (404, "task_not_found")


@pytest.mark.parametrize("bad", ["", "..", "a/b", "x?y", "a b", "-x", "é", "x" * 200])
async def test_what_cannot_be_an_id_never_becomes_part_of_a_path(
    gateway: FakeGateway, client: FlikClient, bad: str
) -> None:
    for call in (client.get, client.cancel, client.retry, client.replay, client.wait):
        with pytest.raises(ValueError, match="is not a task id"):
            await call(bad)

    assert gateway.requests == []


async def test_list_walks_every_page_and_stops_at_the_limit(gateway: FakeGateway, client: FlikClient) -> None:
    for number in range(1, 231):
        gateway.add(number)

    everything = [task.task_id async for task in client.list()]
    some = [task.task_id async for task in client.list(limit=150)]

    assert everything == [task_id(number) for number in range(230, 0, -1)]
    assert some == everything[:150]
    assert [asked.query["limit"] for asked in gateway.requests] == ["100", "100", "100", "100", "50"]


async def test_list_sends_only_the_filters_that_were_given(gateway: FakeGateway, client: FlikClient) -> None:
    after = datetime(2026, 1, 31, 9, 0, tzinfo=timezone.utc)  # noqa: UP017  # any aware zone will do

    assert [task async for task in client.list(status="FAILED", created_after=after, limit=5)] == []

    assert gateway.requests[0].query == {"status": "FAILED", "createdAfter": "2026-01-31T09:00:00Z", "limit": "5"}


async def test_a_time_without_a_zone_is_refused(client: FlikClient) -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        client.list(created_after=datetime(2026, 1, 31))


async def test_list_that_leads_in_a_circle_ends(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(*(JSONResponse({"items": [], "nextCursor": "same"}) for _ in range(5)))

    with pytest.raises(UnreadableAnswer, match="circle"):
        _ = [task async for task in client.list()]


async def test_a_page_longer_than_asked_for_is_cut_at_the_limit(gateway: FakeGateway, client: FlikClient) -> None:
    items = [{"taskId": task_id(number), "status": "QUEUED"} for number in range(5000)]
    gateway.answer_next(JSONResponse({"items": items, "nextCursor": None}))

    assert len([task async for task in client.list(limit=3)]) == 3


async def test_wait_reports_each_change_once_and_returns_the_end(
    gateway: FakeGateway, client: FlikClient, pauses: list[float]
) -> None:
    half, done = {"status": "PROCESSING", "progress": 0.5}, {"status": "COMPLETED"}
    gateway.add(1, {}, {}, half, {}, done)
    seen: list[Task] = []

    task = await client.wait(task_id(1), on_change=seen.append)

    assert task.is_completed
    assert [look.status for look in seen] == ["QUEUED", "PROCESSING", "COMPLETED"]
    assert pauses == pytest.approx([0.1, 0.15, 0.225])


async def test_wait_never_pauses_longer_than_a_second_unless_asked_to(
    gateway: FakeGateway, client: FlikClient, pauses: list[float]
) -> None:
    gateway.add(1, *[{}] * 10, {"status": "FAILED"})
    look = JSONResponse({"taskId": task_id(1), "status": "QUEUED"}, headers={"Retry-After": "7"})
    gateway.answer_next(look)

    await client.wait(task_id(1))

    assert pauses[0] == 7.0
    assert max(pauses[1:]) == 1.0


async def test_wait_gives_up_after_its_time_and_says_where_the_task_was(gateway: FakeGateway) -> None:
    gateway.add(1)
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    async with FlikClient(sleep=sleep) as client:
        with pytest.raises(WaitTimedOut, match=r"it is QUEUED.*it goes on"):
            await client.wait(task_id(1), timeout_s=0.3)


async def test_wait_outlives_a_gateway_that_restarts(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add(1, {}, {"status": "COMPLETED"})
    await client.get(task_id(1))
    gateway.scripts[task_id(1)].appendleft({})
    queued = JSONResponse({"taskId": task_id(1), "status": "QUEUED"})
    gateway.answer_next(queued, *(busy() for _ in range(9)))

    assert (await client.wait(task_id(1))).is_completed


async def test_wait_for_a_gateway_that_stays_away_ends(
    gateway: FakeGateway, client: FlikClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OUTAGES_IN_A_ROW", 2)
    queued = JSONResponse({"taskId": task_id(1), "status": "QUEUED"})
    gateway.answer_next(queued, *(busy() for _ in range(60)))

    with pytest.raises(FlikApiError) as caught:
        await client.wait(task_id(1))

    assert caught.value.status == 503
    assert len(gateway.requests) == 1 + 4 * 3


async def test_cancel_retry_and_replay_return_the_task(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add(1)
    gateway.add(2, status="FAILED")
    gateway.add(3, status="FAILED")

    assert (await client.cancel(task_id(1))).status == "CANCELLED"
    assert (await client.retry(task_id(2))).status == "QUEUED"
    assert (await client.replay(task_id(3))).status == "QUEUED"


async def test_cancelling_what_has_ended_is_refused(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add_finished(1)

    with pytest.raises(FlikApiError) as caught:
        await client.cancel(task_id(1))

    assert (caught.value.status, caught.value.code) == (409, "state_conflict")


async def test_dead_letters_are_listed_and_replayed_by_filter(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add(1, status="FAILED", taskType="TEXT")
    gateway.add(2, status="FAILED")
    gateway.add(3)

    assert [task.task_id async for task in client.dead_letters()] == [task_id(2), task_id(1)]
    assert await client.replay_many(task_type="TEXT", error_code="boom") == (1, False)
    assert gateway.requests[-1].body == {"taskType": "TEXT", "errorCode": "boom"}


async def test_health_reads_up_and_down_alike(gateway: FakeGateway, client: FlikClient) -> None:
    up = await client.health()
    gateway.answer_next(JSONResponse({"status": "DOWN", "components": {"postgresql": "DOWN"}}, 503))
    down = await client.health()

    assert up.is_up and up.components == {"queue": "UP", "postgresql": "UP"}
    assert not down.is_up and down.components == {"postgresql": "DOWN"}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refused_submit_is_tried_again_after_the_time_the_server_asks_for(
    gateway: FakeGateway, client: FlikClient, pauses: list[float], status: int
) -> None:
    gateway.answer_next(busy(status, "3"))

    await client.submit("TEXT", {"prompt": "x"})

    assert len(gateway.tasks) == 1
    assert len(pauses) == 1 and 3.0 <= pauses[0] <= 3.75


async def test_trying_again_ends_and_the_refusal_says_when_to_come_back(
    gateway: FakeGateway, client: FlikClient
) -> None:
    gateway.answer_next(*(busy(429, "2") for _ in range(10)))

    with pytest.raises(FlikApiError) as caught:
        await client.submit("TEXT", {"prompt": "x"})

    assert (caught.value.status, caught.value.retry_after_s, len(gateway.requests)) == (429, 2.0, 4)


async def test_a_server_that_asks_for_too_much_patience_is_not_waited_for(
    gateway: FakeGateway, client: FlikClient, pauses: list[float]
) -> None:
    gateway.answer_next(busy(429, "3600"))

    with pytest.raises(FlikApiError):
        await client.get(task_id(1))

    assert pauses == []


@pytest.mark.parametrize(
    ("status", "code"),
    [(502, "gateway_lost"), (503, "unavailable"), (504, "gateway_timeout"), (409, "idempotency_in_flight")],
)
async def test_a_submit_that_may_have_been_taken_is_sent_again_under_the_same_key(
    gateway: FakeGateway, client: FlikClient, status: int, code: str
) -> None:
    gateway.answer_next(problem(status, code, "oops"))

    await client.submit("TEXT", {"prompt": "x"})
    await client.submit("TEXT", {"prompt": "x"})

    first, again, other = (request.headers["idempotency-key"] for request in gateway.requests)
    assert first == again != other


async def test_a_fault_of_the_gateway_is_not_tried_again(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(problem(500, "internal", "oops"))

    with pytest.raises(FlikApiError, match="oops"):
        await client.submit("TEXT", {"prompt": "x"})

    assert len(gateway.requests) == 1


async def test_another_write_is_not_sent_again_when_it_may_have_taken_effect(
    gateway: FakeGateway, client: FlikClient
) -> None:
    gateway.add(1)
    gateway.answer_next(problem(503, "unavailable", "oops"))

    with pytest.raises(FlikApiError, match="oops"):
        await client.cancel(task_id(1))

    assert len(gateway.requests) == 1


async def test_a_read_is_tried_again_after_a_bad_gateway(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add(1)
    gateway.answer_next(Response(status_code=502), Response(status_code=504))

    assert (await client.get(task_id(1))).status == "QUEUED"


async def test_refused_connection_is_tried_four_times_and_named(pauses: list[float]) -> None:
    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with FlikClient(url, sleep=sleep) as client:
            with pytest.raises(FlikUnreachable, match="nothing listens there") as caught:
                await client.submit("TEXT", {"prompt": "x"})

    assert len(pauses) == 3
    assert not caught.value.maybe_done


async def test_a_submit_whose_answer_is_lost_says_that_it_may_have_been_taken(pauses: list[float]) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)

    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, FlikClient(url, sleep=sleep) as client:
        with pytest.raises(FlikUnreachable, match="may have taken effect"):
            await client.submit("TEXT", {"prompt": "x"})

    assert len(pauses) == 3


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("<html>hello</html>"),
        JSONResponse([1, 2]),
        JSONResponse({"hello": "world"}),
        JSONResponse({"taskId": 7, "status": "QUEUED"}),
        Response(b"\xff\xfe\x00"),
        Response(b"[" * 100_000),
        Response(b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["html", "list", "stranger", "mistyped", "bytes", "deep", "gzip"],
)
async def test_an_answer_that_is_not_fliks_is_an_error_not_a_crash(
    gateway: FakeGateway, client: FlikClient, answer: Response
) -> None:
    gateway.answer_next(answer)

    with pytest.raises(UnreadableAnswer, match="is it a Flik gateway"):
        await client.get(task_id(1))


async def test_an_answer_without_end_is_not_read_to_its_end(
    gateway: FakeGateway, client: FlikClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flik.client.transport.MAX_ANSWER_BYTES", 10_000)
    gateway.answer_next(JSONResponse({"items": ["x" * 20_000]}))

    with pytest.raises(UnreadableAnswer, match="larger than 10,000 bytes"):
        await client.get(task_id(1))


async def test_a_refusal_without_a_problem_is_explained(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(PlainTextResponse("no", 404))

    with pytest.raises(FlikApiError, match="404 Not Found and gave no reason; is it a Flik gateway"):
        await client.get(task_id(1))


async def test_a_problem_with_mistyped_members_is_read_as_far_as_possible(
    gateway: FakeGateway, client: FlikClient
) -> None:
    body = {"code": 7, "detail": None, "title": "Oops", "errors": ["x", {"detail": 1}], "retryAfterMs": "soon"}
    gateway.answer_next(Response(json.dumps(body), 400))

    with pytest.raises(FlikApiError) as caught:
        await client.get(task_id(1))

    assert (caught.value.code, caught.value.detail, caught.value.retry_after_s) == ("unknown", "Oops", None)
    assert caught.value.errors == (FieldError("", "1"),)


async def test_a_redirect_is_shown_and_the_key_does_not_follow_it(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.answer_next(RedirectResponse("https://elsewhere.test/"))

    with pytest.raises(FlikApiError, match=r"sends us to https://elsewhere\.test/"):
        await client.get(task_id(1))

    assert len(gateway.requests) == 1
