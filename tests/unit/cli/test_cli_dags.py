"""`flik dag`: run, show, status, list, cancel, resume."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fakes_gateway import PICTURE, FakeGateway, busy, dag_id, problem, task_id
from invoking import Run, documents
from rich.console import Console
from starlette.responses import JSONResponse

from flik.cli.dag_follow import StepBars, StepLines
from flik.cli.progress import Bars
from flik.client.answers import read_dag

CHAIN = """
steps:
  - {id: describe, taskType: TEXT, payload: {prompt: a harbour}}
  - {id: draw, taskType: IMAGE}
"""
GRAPH = """
from flik.dags import InputNode, step
with InputNode() as inp:
    dag = step("IMAGE", id="draw").bind(step("TEXT", id="describe").bind(prompt=inp.prompt))
"""
TYPES = {"describe": "TEXT", "draw": "IMAGE"}
FAILED = {"status": "FAILED", "error": {"code": "step_failed", "message": "draw: boom", "stepId": "draw"}}


@pytest.fixture
def chain(tmp_path: Path) -> str:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    return str(path)


@pytest.fixture
def failing(tmp_path: Path) -> str:
    path = tmp_path / "failing.yaml"
    path.write_text(CHAIN.replace("a harbour", "fail"))
    return str(path)


@pytest.fixture
def graph(tmp_path: Path) -> str:
    path = tmp_path / "graph.py"
    path.write_text(GRAPH)
    return str(path)


# ---- run


def test_a_pipe_gets_a_line_a_change_from_the_dag_to_its_end(gateway: FakeGateway, run: Run, chain: str) -> None:
    result = run("dag", "run", chain)

    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.splitlines() == [
        f"{dag_id(1)}\tRUNNING",
        "describe\tQUEUED\tTEXT",
        "draw\tPENDING\tIMAGE",
        "describe\tPROCESSING\tTEXT\t50%",
        "describe\tCOMPLETED\tTEXT",
        "draw\tPROCESSING\tIMAGE\t50%",
        "draw\tCOMPLETED\tIMAGE",
        f"{dag_id(1)}\tCOMPLETED",
    ]


def test_json_gives_a_document_a_change(gateway: FakeGateway, run: Run, chain: str) -> None:
    result = run("dag", "run", chain, "--json")

    found = documents(result)
    assert result.exit_code == 0
    assert [each["status"] for each in found[-2:]] == ["RUNNING", "COMPLETED"]
    assert found[-1]["tasks"][0]["result"] == {"text": "rain on the roof"}


def test_a_dag_that_does_not_complete_exits_with_1_and_says_why(gateway: FakeGateway, run: Run, failing: str) -> None:
    result = run("dag", "run", failing)

    assert result.exit_code == 1
    assert "describe\tFAILED\tTEXT\tboom: it broke" in result.stdout.splitlines()
    assert "draw\tCANCELLED\tIMAGE\tparent_failed: describe failed" in result.stdout.splitlines()
    assert result.stderr == f"flik: dag {dag_id(1)} ended as FAILED: step_failed: describe failed\n"


def test_no_wait_prints_the_id_and_looks_no_further(gateway: FakeGateway, run: Run, chain: str) -> None:
    assert run("dag", "run", chain, "--no-wait").stdout == f"{dag_id(1)}\n"
    (document,) = documents(run("dag", "run", chain, "--no-wait", "--json"))

    assert document["dagId"] == dag_id(2) and document["statusUrl"].endswith(dag_id(2))
    assert gateway.paths() == ["POST /api/v1/dags"] * 2


def test_what_goes_beside_the_steps_comes_from_the_file_and_the_options_on_top(
    gateway: FakeGateway, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "beside.json"
    hook = {"url": "https://hooks.example.com/", "secret": "whsec_x", "kinds": ["dagStep"]}
    beside = {
        "tenantId": "acme", "priority": 2, "region": "us-west", "metadata": {"a": 1}, "deadlineS": 60, "webhook": hook,
    }  # fmt: skip
    path.write_text(json.dumps({"steps": [{"taskType": "TEXT"}], **beside}))

    run("dag", "run", str(path), "--no-wait")
    run("dag", "run", str(path), "--no-wait", "--tenant", "umbrella", "--priority", "0", "--deadline", "9",
        "--metadata", '{"b": 2}', "--region", "eu", "--idempotency-key", "order-7",
        "--webhook", "https://b.example/", "--webhook-secret", "whsec_y")  # fmt: skip

    first, second = gateway.requests
    assert first.body == {**beside, "steps": [{"taskType": "TEXT"}]}
    assert second.body == {
        "tenantId": "umbrella", "priority": 0, "region": "eu", "metadata": {"b": 2}, "deadlineS": 9.0,
        "webhook": {"url": "https://b.example/", "secret": "whsec_y"}, "steps": [{"taskType": "TEXT"}],
    }  # fmt: skip
    assert second.headers["idempotency-key"] == '"order-7"'


def test_a_graph_of_ray_is_run_with_its_input(gateway: FakeGateway, run: Run, graph: str) -> None:
    assert run("dag", "run", graph, "--input", "prompt=a=b").exit_code == 0
    assert run("dag", "run", graph, "--inputs", '{"prompt": "c"}', "--no-wait").exit_code == 0

    sent = [asked.body["steps"][0]["payload"] for asked in gateway.requests if asked.method == "POST"]
    assert sent == [{"prompt": "a=b"}, {"prompt": "c"}]


@pytest.mark.parametrize("command", ["run", "show"])
def test_a_graph_without_its_input_is_a_usage_error(run: Run, graph: str, command: str) -> None:
    result = run("dag", command, graph)

    assert result.exit_code == 2 and "reads 'prompt' of its input, which was not given" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--no-wait", "--out", "x"], "--no-wait goes without"),
        (["--input", "prompt"], "is not NAME=TEXT"),
        (["--input", "prompt=x"], "are for a graph"),
        (["--idempotency-key", "é"], "printable ASCII"),
    ],
    ids=["no wait", "input", "steps", "key"],
)
def test_what_does_not_go_together_is_a_usage_error(
    gateway: FakeGateway, run: Run, chain: str, args: list[str], said: str
) -> None:
    result = run("dag", "run", chain, *args)

    assert result.exit_code == 2 and said in result.stderr and gateway.requests == []


def test_a_refused_dag_names_its_fields(gateway: FakeGateway, run: Run, chain: str) -> None:
    errors = [{"pointer": "/steps/1/payload/width", "detail": "must be at least 64"}]
    gateway.answer_next(problem(422, "invalid_request", "1 field is wrong", errors=errors))

    result = run("dag", "run", chain)

    assert result.exit_code == 4 and "  /steps/1/payload/width: must be at least 64" in result.stderr


def test_what_was_made_is_downloaded_under_the_names_of_the_steps(
    gateway: FakeGateway, run: Run, chain: str, tmp_path: Path
) -> None:
    run("dag", "run", chain, "--out", str(tmp_path / "out"))

    (file,) = (tmp_path / "out").iterdir()
    assert file.name == f"{dag_id(1)}-draw-0.png" and file.read_bytes() == PICTURE


def test_a_person_sees_what_the_last_steps_made(
    gateway: FakeGateway, run: Run, chain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flik.cli.dag_run.is_terminal", lambda: True)
    monkeypatch.setattr("flik.cli.dag_follow.is_terminal", lambda: True)

    linked, kept = run("dag", "run", chain), run("dag", "run", chain, "--out", str(tmp_path))

    assert linked.stdout == f"{gateway.url}/artifacts/0?sig=secret\n"
    assert kept.stdout == f"{tmp_path}/{dag_id(2)}-draw-0.png\n"


def test_a_wait_that_takes_too_long_exits_with_1_and_the_dag_goes_on(
    gateway: FakeGateway, run: Run, chain: str
) -> None:
    gateway.looks_forever = True

    result = run("dag", "run", chain, "--timeout", "0.2")

    assert result.exit_code == 1 and f"dag {dag_id(1)} did not finish within 0.2 s (it is RUNNING)" in result.stderr


def test_a_gateway_that_goes_away_meanwhile_is_waited_for(gateway: FakeGateway, run: Run, chain: str) -> None:
    new = gateway.add_dag(1, TYPES, {"status": "COMPLETED"})
    gateway.answer_next(JSONResponse(gateway.dags[new], 202), JSONResponse(gateway.dags[new]), *[busy()] * 8)

    assert run("dag", "run", chain).exit_code == 0


def test_nobody_there_is_unavailable(run: Run, chain: str) -> None:
    assert run("--url", "http://127.0.0.1:1", "dag", "run", chain).exit_code == 5


def terminal(out: io.StringIO) -> Console:
    return Console(file=out, force_terminal=True, width=100, height=20, markup=False, emoji=False)


def shown(*changes: dict[str, Any], **fields: Any) -> Any:
    tasks = [
        {"taskId": task_id(n), "stepId": name, "taskType": TYPES[name], "status": "QUEUED", **changes[n]}
        for n, name in enumerate(TYPES)
    ]
    return read_dag({"dagId": "d-1", "status": "RUNNING", "tasks": tasks, **fields})


def test_a_terminal_gets_a_bar_a_step() -> None:
    out = io.StringIO()

    with StepBars(Bars(terminal(out), {task_id(0): "describe TEXT", task_id(1): "draw IMAGE"})) as display:
        display.show(shown({}, {}))
        display.show(shown({"status": "PROCESSING", "progress": 0.25}, {}))
        display.show(
            shown({"status": "COMPLETED"}, {"status": "FAILED", "error": {"code": "boom", "message": "\x1b]"}})
        )

    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"describe TEXT .* COMPLETED", drawn)
    assert re.search(r"draw IMAGE .* FAILED +boom: \\x1b\]", drawn)


def test_a_line_that_says_nothing_new_is_not_written() -> None:
    lines: list[str] = []
    display = StepLines(lines.append)

    display.show(shown({"status": "PROCESSING", "progress": 0.251}, {}))
    display.show(shown({"status": "PROCESSING", "progress": 0.252}, {}))
    display.show(shown({"status": "PROCESSING", "progress": 0.26, "taskType": "A\tB\n"}, {}, status="COMPLETED"))

    assert lines == [
        "d-1\tRUNNING", "describe\tPROCESSING\tTEXT\t25%", "draw\tQUEUED\tIMAGE",
        "describe\tPROCESSING\tA B\t26%", "d-1\tCOMPLETED",
    ]  # fmt: skip


# ---- show, status


def test_a_file_is_drawn_without_a_gateway(run: Run, chain: str, graph: str) -> None:
    for args in ((chain,), (graph, "--input", "prompt=x")):
        result = run("--url", "http://127.0.0.1:1", "dag", "show", *args)
        assert (result.exit_code, result.stdout) == (0, "○ describe  TEXT\n○ draw      IMAGE\n")

    assert run("dag", "show", chain, "--format", "mermaid").stdout.startswith("flowchart TD\n")
    assert run("dag", "show", chain, "--format", "svg").stdout.startswith("<svg ")
    assert documents(run("dag", "show", chain, "--json")) == [
        {"steps": [
            {"id": "describe", "taskType": "TEXT", "dependsOn": []},
            {"id": "draw", "taskType": "IMAGE", "dependsOn": ["describe"]},
        ]}
    ]  # fmt: skip


def test_a_dag_is_drawn_with_the_states_of_its_steps(gateway: FakeGateway, run: Run) -> None:
    gateway.add_dag(1, TYPES, {"describe": {"status": "COMPLETED"}, "draw": {"status": "PROCESSING", "progress": 0.4}})

    assert run("dag", "show", dag_id(1)).stdout == ("● describe  TEXT   COMPLETED\n◐ draw      IMAGE  PROCESSING 40%\n")
    assert "COMPLETED" in run("dag", "show", dag_id(1), "--format", "svg").stdout
    assert documents(run("dag", "show", dag_id(1), "--json"))[0]["dagId"] == dag_id(1)


WRONG = {
    "cycle": ("steps: [{id: a, taskType: T, dependsOn: [b]}, {id: b, taskType: T, dependsOn: [a]}]", "a -> b -> a"),
    "unknown": ("steps: [{taskType: TEXT, payload: {prompt: {$from: x}}}]", "/steps/0/payload/prompt: there is no"),
    "no type": ("steps: [{id: a}]", "/steps/0/taskType: is missing"),
    "no step": ("steps: [7]", "/steps/0: must be an object"),
    "odd fields": ("steps: [{id: 1, taskType: T, payload: [1], dependsOn: a}]", "/steps/0/dependsOn: is missing or"),
    "none": ("steps: []", "/steps: must have 1 to 100 steps"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_holds_no_dag_is_a_usage_error_with_the_place(run: Run, tmp_path: Path, case: str) -> None:
    content, said = WRONG[case]
    path = tmp_path / "wrong.yaml"
    path.write_text(content)

    result = run("dag", "show", str(path))

    assert result.exit_code == 2 and said in result.stderr


def test_a_dag_of_a_gateway_that_is_none_is_not_drawn(gateway: FakeGateway, run: Run) -> None:
    gateway.add_dag(1, TYPES)
    gateway.dags[dag_id(1)]["tasks"][0]["dependsOn"] = ["draw"]

    result = run("dag", "show", dag_id(1))

    assert result.exit_code == 5 and "its steps are no dag" in result.stderr


def test_status_tells_of_the_dag_and_each_step(gateway: FakeGateway, run: Run) -> None:
    done, lost = {"status": "COMPLETED", "attempt": 1}, {"status": "FAILED", "attempt": 4}
    gateway.add_dag(1, TYPES, {"describe": done, "draw": {**lost, "error": {"code": "boom", "message": "x"}}, **FAILED})

    result = run("dag", "status", dag_id(1))

    assert result.exit_code == 0
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        [f"{dag_id(1)}  FAILED  1/2 steps  step_failed: draw: boom"],
        ["STEP", "STATUS", "TYPE", "DETAIL", "AFTER", "ATTEMPT", "TASK"],
        ["describe", "COMPLETED", "TEXT", "", "", "1", task_id(100)],
        ["draw", "FAILED", "IMAGE", "boom: x", "describe", "4", task_id(101)],
    ]
    assert documents(run("dag", "status", dag_id(1), "--json"))[0]["status"] == "FAILED"


# ---- list, cancel, resume


def test_a_list_on_a_pipe_is_tab_separated_under_its_names(gateway: FakeGateway, run: Run) -> None:
    gateway.add_dag(1, TYPES, **FAILED)
    gateway.add_dag(2, TYPES)

    result = run("dag", "list")

    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["DAG", "STATUS", "STEPS", "DETAIL", "PRIORITY", "CREATED"],
        [dag_id(2), "RUNNING", "0/2", "", "1", "2026-01-31T08:00:02Z"],
        [dag_id(1), "FAILED", "0/2", "step_failed: draw: boom", "1", "2026-01-31T08:00:01Z"],
    ]


def test_filters_of_the_list_are_passed_on(gateway: FakeGateway, run: Run) -> None:
    run("dag", "list", "--status", "failed", "--since", "2026-01-31T08:00Z", "--tenant", "acme", "--limit", "7")

    assert gateway.requests[0].query == {
        "status": "FAILED", "createdAfter": "2026-01-31T08:00:00Z", "tenantId": "acme", "limit": "7"
    }  # fmt: skip


def test_all_walks_every_page_of_dags(gateway: FakeGateway, run: Run) -> None:
    for number in range(1, 151):
        gateway.add_dag(number, TYPES)

    (document,) = documents(run("dag", "list", "--all", "--json"))

    assert len(document["items"]) == 150 and len(gateway.requests) == 2


def test_cancel_and_resume_tell_how_it_came_out(gateway: FakeGateway, run: Run) -> None:
    gateway.add_dag(1, TYPES)
    gateway.add_dag(2, TYPES, **FAILED)

    assert run("dag", "cancel", dag_id(1)).stdout == f"{dag_id(1)} CANCELLED\n"
    assert documents(run("dag", "resume", dag_id(2), "--json"))[0]["status"] == "RUNNING"
    again = run("dag", "cancel", dag_id(1))
    assert again.exit_code == 4 and "a dag that is CANCELLED cannot be moved" in again.stderr


@pytest.mark.parametrize("command", ["status", "show", "cancel", "resume"])
def test_an_unknown_dag_exits_with_3_and_what_is_no_id_with_2(run: Run, command: str) -> None:
    assert run("dag", command, dag_id(9)).exit_code == 3
    assert run("dag", command, "../x").exit_code == 2


def test_each_command_of_dag_explains_itself(run: Run) -> None:
    for command in ("run", "show", "status", "list", "cancel", "resume"):
        assert run("dag", command, "--help").exit_code == 0
    assert "run as a program of yours" in " ".join(run("dag", "run", "--help").stdout.split())
