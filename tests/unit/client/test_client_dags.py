"""What `FlikClient` asks of a gateway about dags, and makes of the answers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes_gateway import FakeGateway, busy, dag_id, problem, task_id
from starlette.responses import JSONResponse

from flik.client import (
    Dag,
    FlikApiError,
    FlikClient,
    FlikUnreachable,
    StepSpec,
    SyncFlikClient,
    TaskWebhook,
    UnreadableAnswer,
    WaitTimedOut,
)
from flik.client.answers import StepCounts, read_dag
from flik.client.transport import quoted_key

CHAIN = [
    StepSpec("describe", "TEXT", {"prompt": "a harbour"}),
    StepSpec("draw", "IMAGE", {"prompt": {"$from": "describe"}}, on_failure="skip"),
]
TYPES = {"describe": "TEXT", "draw": "IMAGE"}


# ---- what is asked


async def test_steps_are_sent_as_the_wire_has_them(gateway: FakeGateway, client: FlikClient) -> None:
    full = StepSpec("film", "VIDEO", {"lengthS": 2}, ("draw",), 0, 60.0, 2, "skip", True)

    await client.submit_dag([*CHAIN, full, {"taskType": "TEXT", "payload": {"prompt": "x"}}, StepSpec(None, "TEXT")])

    asked = gateway.requests[0]
    assert (asked.method, asked.path) == ("POST", "/api/v1/dags")
    assert asked.body == {
        "tenantId": "demo",
        "steps": [
            {"id": "describe", "taskType": "TEXT", "payload": {"prompt": "a harbour"}},
            {"id": "draw", "taskType": "IMAGE", "payload": {"prompt": {"$from": "describe"}}, "onFailure": "skip"},
            {
                "id": "film",
                "taskType": "VIDEO",
                "payload": {"lengthS": 2},
                "dependsOn": ["draw"],
                "priority": 0,
                "startDeadlineS": 60.0,
                "maxAttempts": 2,
                "onFailure": "skip",
                "reuse": True,
            },
            {"taskType": "TEXT", "payload": {"prompt": "x"}},
            {"taskType": "TEXT"},
        ],
    }


async def test_an_empty_list_of_parents_is_sent_as_it_makes_a_graph(gateway: FakeGateway, client: FlikClient) -> None:
    await client.submit_dag([StepSpec("a", "TEXT", {}, ())])

    assert gateway.requests[0].body["steps"][0]["dependsOn"] == []


async def test_what_is_of_the_whole_dag_goes_beside_the_steps(gateway: FakeGateway, client: FlikClient) -> None:
    await client.submit_dag(
        CHAIN, priority=2, region="us-west", metadata={"order": 7}, deadline_s=3600, idempotency_key='order "7"'
    )

    asked = gateway.requests[0]
    rest = {name: value for name, value in asked.body.items() if name != "steps"}
    assert rest == {
        "tenantId": "demo", "priority": 2, "region": "us-west", "metadata": {"order": 7}, "deadlineS": 3600
    }  # fmt: skip
    assert asked.headers["idempotency-key"] == r'"order \"7\""'


async def test_a_dag_brings_its_webhook(gateway: FakeGateway, client: FlikClient) -> None:
    hook = {"url": "https://hooks.example.com/", "secret": "whsec_x", "kinds": ["dagStep"]}

    await client.submit_dag(CHAIN, webhook=TaskWebhook(**hook))
    await client.run_dag(CHAIN, webhook=hook)
    await client.run_dag(CHAIN)

    assert [asked.body.get("webhook") for asked in gateway.requests] == [hook, hook, None]


async def test_a_dag_without_a_key_has_one_of_its_own_for_all_its_tries(
    gateway: FakeGateway, client: FlikClient
) -> None:
    gateway.answer_next(busy(), busy())

    await client.submit_dag(CHAIN)
    await client.submit_dag(CHAIN)

    keys = [asked.headers["idempotency-key"] for asked in gateway.requests]
    assert len(keys) == 4 and len(set(keys[:3])) == 1 and keys[3] != keys[0]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "é"])
async def test_a_key_that_cannot_be_sent_is_refused(gateway: FakeGateway, client: FlikClient, key: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 printable"):
        await client.submit_dag(CHAIN, idempotency_key=key)

    assert gateway.requests == []


def test_a_key_is_quoted_as_structured_fields_want_it() -> None:
    assert quoted_key("order-7") == '"order-7"'
    assert quoted_key('a"\\') == r'"a\"\\"'


async def test_a_refused_dag_names_the_fields(gateway: FakeGateway, client: FlikClient) -> None:
    errors = [{"pointer": "/steps/1/dependsOn/0", "detail": "there is no step x"}]
    gateway.answer_next(problem(422, "invalid_request", "1 field is wrong", errors=errors))

    with pytest.raises(FlikApiError) as caught:
        await client.submit_dag(CHAIN)

    assert caught.value.errors[0].pointer == "/steps/1/dependsOn/0"


# ---- what comes back


async def test_a_submitted_dag_has_its_tasks_and_links(client: FlikClient) -> None:
    dag = await client.submit_dag(CHAIN)

    assert (dag.dag_id, dag.status, dag.is_terminal) == (dag_id(1), "RUNNING", False)
    assert [(step.step_id, step.task.status, step.depends_on) for step in dag.steps] == [
        ("describe", "QUEUED", ()),
        ("draw", "PENDING", ("describe",)),
    ]
    assert dag.counts == StepCounts(2, 0, 2)
    assert dag.resume_url is not None and dag.resume_url.endswith("/resume")
    assert dag.created_at == datetime(2026, 1, 31, 8, 0, 1, tzinfo=UTC)


async def test_one_dag_is_read_with_its_results(gateway: FakeGateway, client: FlikClient) -> None:
    done = {"describe": {"status": "COMPLETED", "result": {"text": "fog"}}, "draw": {"status": "FAILED"}}
    error = {"code": "step_failed", "message": "draw: boom", "stepId": "draw"}
    gateway.add_dag(1, TYPES, {**done, "status": "FAILED", "error": error}, metadata={"order": 7})

    dag = await client.dag(dag_id(1))

    assert dag.is_terminal and not dag.is_completed
    assert dag.task("describe").text == "fog" and dag.task("draw").status == "FAILED"
    assert dag.error is not None and (dag.error.code, dag.error.step_id) == ("step_failed", "draw")
    assert dag.metadata == {"order": 7} and dag.counts == StepCounts(2, 1, 0)
    with pytest.raises(KeyError):
        dag.task("film")


async def test_dags_are_listed_with_counts_page_by_page(gateway: FakeGateway, client: FlikClient) -> None:
    for number in range(1, 131):
        gateway.add_dag(number, TYPES)

    found = [dag async for dag in client.dags()]
    some = [dag async for dag in client.dags(status="RUNNING", tenant="demo", limit=3)]

    assert [dag.dag_id for dag in found] == [dag_id(number) for number in range(130, 0, -1)]
    assert found[0].counts == StepCounts(2, 0, 2) and found[0].steps == ()
    assert some == found[:3]
    assert gateway.requests[-1].query == {"status": "RUNNING", "tenantId": "demo", "limit": "3"}


async def test_cancel_and_resume_answer_the_dag_or_say_why_not(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add_dag(1, TYPES)
    gateway.add_dag(2, TYPES, status="FAILED")

    assert (await client.cancel_dag(dag_id(1))).status == "CANCELLED"
    assert (await client.resume_dag(dag_id(2))).status == "RUNNING"
    for again in (client.cancel_dag, client.resume_dag):
        with pytest.raises(FlikApiError) as caught:
            await again(dag_id(1))
        assert caught.value.status == 409
    with pytest.raises(FlikApiError) as caught:
        await client.dag(dag_id(9))
    assert (caught.value.status, caught.value.code) == (404, "dag_not_found")


@pytest.mark.parametrize("bad", ["", "..", "a/b", "x?y", "-x"])
async def test_what_cannot_be_an_id_of_a_dag_never_becomes_part_of_a_path(
    gateway: FakeGateway, client: FlikClient, bad: str
) -> None:
    for call in (client.dag, client.cancel_dag, client.resume_dag, client.wait_dag):
        with pytest.raises(ValueError, match="is not the id of a dag"):
            await call(bad)

    assert gateway.requests == []


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"dagId": "../x", "status": "RUNNING"},
        {"dagId": "d", "status": 7},
        {"dagId": "d", "status": "RUNNING", "tasks": [7]},
        {"dagId": "d", "status": "RUNNING", "tasks": [{"taskId": "t", "status": "QUEUED"}]},
        {"dagId": "d", "status": "RUNNING", "tasks": [{"taskId": "t", "status": "QUEUED", "stepId": "../x"}]},
    ],
    ids=["empty", "id", "status", "task", "no step", "step"],
)
async def test_an_answer_that_is_no_dag_is_not_believed(
    gateway: FakeGateway, client: FlikClient, broken: dict[str, Any]
) -> None:
    gateway.answer_next(JSONResponse(broken))

    with pytest.raises(UnreadableAnswer):
        await client.dag(dag_id(1))


def test_the_least_answer_is_enough_and_odd_fields_are_absent() -> None:
    odd = {"steps": [], "error": "x", "tasks": {}, "createdAt": 7, "metadata": [], "mood": "good"}

    dag = read_dag({"dagId": "d-1", "status": "DREAMING", **odd})

    assert not dag.is_terminal and dag.steps == () and dag.error is None and dag.counts == StepCounts(0, 0, 0)
    assert dag.raw["mood"] == "good"


# ---- until the end


async def test_wait_ends_with_the_dag_and_tells_each_change_once(gateway: FakeGateway, client: FlikClient) -> None:
    seen: list[Dag] = []
    submitted = await client.submit_dag(CHAIN)

    dag = await client.wait_dag(submitted.dag_id, on_change=seen.append)

    assert dag.is_completed and seen[-1] is dag
    assert [[step.task.status for step in each.steps] for each in seen[:4]] == [
        ["QUEUED", "PENDING"],
        ["PROCESSING", "PENDING"],
        ["COMPLETED", "PENDING"],
        ["COMPLETED", "PROCESSING"],
    ]


async def test_looks_grow_apart_up_to_a_second(gateway: FakeGateway, client: FlikClient, pauses: list[float]) -> None:
    gateway.add_dag(1, TYPES, *[{}] * 9, {"status": "COMPLETED"})

    await client.wait_dag(dag_id(1))

    assert pauses[:3] == pytest.approx([0.1, 0.15, 0.225]) and pauses[-1] == 1.0


async def test_a_gateway_that_goes_away_meanwhile_is_waited_for(gateway: FakeGateway, client: FlikClient) -> None:
    gateway.add_dag(1, TYPES, {"status": "COMPLETED"})
    gateway.answer_next(JSONResponse(gateway.dags[dag_id(1)]), *[busy() for _ in range(8)])

    assert (await client.wait_dag(dag_id(1))).is_completed


async def test_a_wait_that_takes_too_long_says_that_the_dag_goes_on(gateway: FakeGateway) -> None:
    gateway.add_dag(1, TYPES)

    async with FlikClient() as client:
        with pytest.raises(WaitTimedOut, match=rf"dag {dag_id(1)} did not finish.*it is RUNNING.*it goes on") as caught:
            await client.wait_dag(dag_id(1), timeout_s=0.05)

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# ---- graphs of Ray's


async def test_a_graph_of_ray_is_run_with_its_input(gateway: FakeGateway, client: FlikClient) -> None:
    from flik.dags import InputNode, step

    with InputNode() as inp:
        text = step("TEXT", id="describe").bind(prompt=inp.prompt)
        graph = step("IMAGE", id="draw").bind(text, width=512)

    dag = await client.run_dag(graph, {"prompt": "a harbour"}, wait=True, priority=0)

    assert dag.is_completed and dag.task("describe").text == "rain on the roof"
    assert gateway.requests[0].body["priority"] == 0
    assert gateway.requests[0].body["steps"] == [
        {"id": "describe", "taskType": "TEXT", "payload": {"prompt": "a harbour"}, "dependsOn": []},
        {"id": "draw", "taskType": "IMAGE", "payload": {"width": 512}, "dependsOn": ["describe"]},
    ]


async def test_steps_are_run_as_they_are_and_take_no_input(gateway: FakeGateway, client: FlikClient) -> None:
    assert not (await client.run_dag(CHAIN)).is_terminal
    with pytest.raises(ValueError, match="inputs are for a graph"):
        await client.run_dag(CHAIN, {"prompt": "x"})
    assert gateway.paths() == ["POST /api/v1/dags"]


async def test_a_graph_that_flik_cannot_run_is_not_sent(gateway: FakeGateway, client: FlikClient) -> None:
    for no_graph in (object(), 7, None):
        with pytest.raises(ValueError, match="a dag is made of nodes"):
            await client.run_dag(no_graph)

    assert gateway.requests == []


def test_steps_are_run_without_loading_ray(gateway: FakeGateway) -> None:
    check = (
        "import sys; from flik.client import StepSpec, SyncFlikClient\n"
        "with SyncFlikClient() as client: dag = client.run_dag([StepSpec('a', 'TEXT', {'prompt': 'x'})], wait=True)\n"
        "print(dag.status, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], text=True, capture_output=True, check=True)

    assert done.stdout.split() == ["COMPLETED", "False"]


def test_the_sync_client_does_the_same(gateway: FakeGateway) -> None:
    with SyncFlikClient() as client:
        dag = client.run_dag(CHAIN, wait=True)
        listed = list(client.dags(limit=5))

    assert dag.is_completed and dag.task("draw").artifacts[0].content_type == "image/png"
    assert [each.dag_id for each in listed] == [dag.dag_id] and dag.task("describe").task_id == task_id(100)


async def test_nobody_there_is_unreachable() -> None:
    async with FlikClient("http://127.0.0.1:1", "k") as client:
        with pytest.raises(FlikUnreachable):
            await client.dag(dag_id(1))
