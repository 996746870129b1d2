"""Chains and graphs on a running Flik: what parents made reaches their children, and each dag ends as its steps do.

The examples run here for real. Random graphs are in `test_dag_graphs.py`.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import yaml
from PIL import Image, ImageChops, ImageStat
from websockets.sync.client import connect

from flik import dags, schemas
from flik.client import SyncFlikClient
from flik.client.sse import Reader
from flik.domain.stomp.frames import Frame, Parser, Version
from tests.acceptance.running import RunningFlik

ROOT = Path(__file__).parents[2]
SMALL = {"width": 128, "height": 96}
CHAIN: list[dict[str, Any]] = [
    {"id": "describe", "taskType": "TEXT", "payload": {"prompt": "a harbour at dawn", "maxWords": 20, "seed": 11}},
    {"id": "draw", "taskType": "IMAGE", "payload": {**SMALL, "seed": 11}},
    {
        "id": "film", "taskType": "VIDEO",
        "payload": {"prompt": {"$from": "describe"}, **SMALL, "lengthS": 0.5, "fps": 12, "seed": 11},
    },
]  # fmt: skip
FAILS = {"durationS": 0, "failures": [{"code": "refused", "retryable": False}]}


def text(step_id: str, *parents: str, script: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A step that writes one word, at once unless its script says otherwise."""
    payload = {"prompt": "a test", "maxWords": 1, "script": script or {"durationS": 0}}
    return {"id": step_id, "taskType": "TEXT", "dependsOn": list(parents), "payload": payload, **fields}


def slow(seconds: float) -> dict[str, Any]:
    """A script that takes so long: the shared Flik runs at twenty times the speed."""
    return {"durationS": 20 * seconds}


def steps_of(dag: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["stepId"]: step for step in dag["tasks"]}


def statuses(dag: dict[str, Any]) -> dict[str, str]:
    return {step["stepId"]: step["status"] for step in dag["tasks"]}


def artifact(flik: RunningFlik, step: dict[str, Any]) -> bytes:
    answer = flik.http.get(step["result"]["artifacts"][0]["url"])
    assert answer.status_code == 200
    return answer.content


# ---- what goes from step to step


def test_a_chain_hands_on_what_each_step_makes(flik: RunningFlik) -> None:
    started = flik.submit_dag(CHAIN, metadata={"job": 7})
    assert [(step["stepId"], step["status"], step["dependsOn"]) for step in started["tasks"]] == [
        ("describe", "QUEUED", []), ("draw", "PENDING", ["describe"]), ("film", "PENDING", ["draw", "describe"]),
    ]  # fmt: skip
    dag = flik.wait_dag(started["dagId"])
    schemas.DagAnswer.model_validate(dag)
    assert (dag["status"], dag["metadata"]) == ("COMPLETED", {"job": 7})
    assert dag["steps"] == {"total": 3, "completed": 3, "open": 0}
    describe, draw, film = dag["tasks"]
    assert film["parentTaskIds"] == [draw["taskId"], describe["taskId"]]

    written = describe["result"]["text"]
    plain = flik.wait(flik.submit("IMAGE", payload={"prompt": written, **SMALL, "seed": 11}))
    picture = draw["result"]["artifacts"][0]
    assert picture["sha256"] == plain["result"]["artifacts"][0]["sha256"]
    assert film["result"]["metadata"]["inputs"] == [picture["sha256"]]
    other = flik.wait(flik.submit("IMAGE", payload={"prompt": written, **SMALL, "seed": 12}))
    first = first_frame(artifact(flik, film))
    assert difference(first, artifact(flik, draw)) < difference(first, artifact(flik, other)) / 2


def test_the_example_of_the_interface_runs_as_it_stands(flik: RunningFlik) -> None:
    body = {
        "tenantId": flik.tenant("tenant-abc"),
        "priority": 0,
        "region": "us-east",
        "steps": [
            {"taskType": "TEXT", "payload": {"prompt": "Generate description"}},
            {"taskType": "IMAGE", "payload": {"action": "upscale"}},
            {"taskType": "VIDEO", "payload": {"action": "watermark"}},
        ],
    }
    answer = flik.http.post("/api/v1/dags", json=body)
    started = answer.json()
    assert (answer.status_code, started["status"]) == (202, "RUNNING")
    assert [step["status"] for step in started["tasks"]] == ["QUEUED", "PENDING", "PENDING"]
    assert "parentTaskId" not in started["tasks"][0]
    for parent, child in pairwise(started["tasks"]):
        assert child["parentTaskId"] == parent["taskId"]
    dag = flik.wait_dag(started["dagId"])
    assert dag["status"] == "COMPLETED", dag
    text, picture, film = dag["tasks"]

    assert artifact(flik, text).decode() == text["result"]["text"]
    assert len(text["result"]["text"].split()) > 20
    plain = {"prompt": text["result"]["text"], "seed": picture["result"]["metadata"]["seed"]}
    drawn = flik.wait(flik.submit("IMAGE", payload=plain))
    upscaled = artifact(flik, picture)
    with Image.open(io.BytesIO(upscaled)) as large, Image.open(io.BytesIO(artifact(flik, drawn))) as small:
        assert large.size == (2 * small.width, 2 * small.height)
        assert difference(large.convert("RGB"), artifact(flik, drawn)) < 2, "the same, but larger"

    assert film["result"]["metadata"]["inputs"] == [picture["result"]["artifacts"][0]["sha256"]]
    frame = first_frame(artifact(flik, film))
    assert frame.size == (film["result"]["artifacts"][0]["width"], film["result"]["artifacts"][0]["height"])
    unmarked = first_frame(
        artifact(flik, flik.wait_dag(flik.submit_dag(without_mark(text, picture))["dagId"])["tasks"][-1])
    )
    assert difference(frame, upscaled) < 40, "it begins with the picture"
    corner = (frame.width * 7 // 8, frame.height * 7 // 8, frame.width, frame.height)
    rest = (0, 0, frame.width, frame.height * 7 // 8)
    assert changed(frame, unmarked, corner) > 5 * changed(frame, unmarked, rest), "it bears the mark"


def without_mark(text: dict[str, Any], picture: dict[str, Any]) -> list[dict[str, Any]]:
    """The same chain again, but for the mark; seeds make its pictures the same."""
    seed = picture["result"]["metadata"]["seed"]
    return [
        {"taskType": "TEXT", "payload": {"prompt": "Generate description", "seed": text["result"]["metadata"]["seed"]}},
        {"taskType": "IMAGE", "payload": {"action": "upscale", "seed": seed}},
        {"taskType": "VIDEO", "payload": {}},
    ]


def changed(one: Image.Image, other: Image.Image, box: tuple[int, int, int, int]) -> float:
    """Return how much two pictures differ in a part of them, from 0 to 255."""
    apart = ImageChops.difference(one.convert("RGB").crop(box), other.convert("RGB").crop(box))
    return sum(ImageStat.Stat(apart).mean) / 3


def first_frame(film: bytes) -> Image.Image:
    with av.open(io.BytesIO(film)) as file:
        frame: Image.Image = next(file.decode(video=0)).to_image()
        return frame


def difference(one: Image.Image, other: bytes) -> float:
    """Return how much two pictures differ, from 0 to 255."""
    with Image.open(io.BytesIO(other)) as picture:
        size = (32, 24)
        changed = ImageChops.difference(one.convert("RGB").resize(size), picture.convert("RGB").resize(size))
    return sum(ImageStat.Stat(changed).mean) / 3


def test_a_task_of_a_step_is_read_as_any_other(flik: RunningFlik) -> None:
    started = flik.submit_dag([text("one"), text("two", "one")])
    dag = flik.wait_dag(started["dagId"])
    for step in dag["tasks"]:
        found = flik.get(step["taskId"])
        assert (found["status"], found["dagId"]) == ("COMPLETED", dag["dagId"])
        log = flik.http.get(f"/api/v1/tasks/{step['taskId']}/events", params={"since": 0}).json()["events"]
        assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
        begins = ["pending", "queued"] if step["dependsOn"] else ["queued"]
        assert [event["event"] for event in log] == [*begins, "processing", "artifact", "completed"]


def test_a_diamond_joins_what_its_parents_made(flik: RunningFlik) -> None:
    started = flik.submit_dag(
        [
            {"id": "film", "taskType": "VIDEO", "payload": {
                "prompt": "both", "input": [{"$from": "night"}, {"$from": "day", "path": "artifacts.0"}],
                **SMALL, "lengthS": 0.5, "fps": 12}},
            {"id": "words", "taskType": "TEXT", "dependsOn": ["again", "describe"], "payload": {"maxWords": 5}},
            {"id": "again", "taskType": "TEXT", "payload": {
                "prompt": {"$from": "describe", "path": "text"}, "maxWords": 5,
                "seed": {"$from": "describe", "path": "metadata.seed"}}},
            {"id": "day", "taskType": "IMAGE", "dependsOn": ["describe"], "payload": {**SMALL, "seed": 1}},
            {"id": "night", "taskType": "IMAGE", "dependsOn": ["describe"], "payload": {**SMALL, "seed": 2}},
            {"id": "describe", "taskType": "TEXT", "payload": {"prompt": "a pier", "maxWords": 10, "seed": 77}},
        ]
    )  # fmt: skip
    dag = flik.wait_dag(started["dagId"])
    assert dag["status"] == "COMPLETED", dag
    steps = steps_of(dag)
    shown = [steps[name]["result"]["artifacts"][0]["sha256"] for name in ("night", "day")]
    assert steps["film"]["result"]["metadata"]["inputs"] == shown
    assert steps["again"]["result"]["metadata"]["seed"] == 77
    assert steps["film"]["dependsOn"] == ["night", "day"]
    ended = {name: step["completedAt"] for name, step in steps.items()}
    for step in steps.values():
        assert all(ended[parent] <= step["startedAt"] for parent in step["dependsOn"])


# ---- what fails, and what goes on


def test_a_step_that_fails_stops_what_depends_on_it(flik: RunningFlik) -> None:
    again = {"durationS": 0, "failures": [{"code": "hiccup"}]}
    started = flik.submit_dag(
        [
            text("bad", script=FAILS), text("child", "bad"), text("grandchild", "child"),
            text("flaky", script=again), text("beside", "flaky"),
        ]
    )  # fmt: skip
    dag = flik.wait_dag(started["dagId"])
    assert dag["status"] == "FAILED"
    assert dag["error"] == {"code": "step_failed", "message": "step bad is FAILED (refused)", "stepId": "bad"}
    assert statuses(dag) == {
        "bad": "FAILED", "child": "CANCELLED", "grandchild": "CANCELLED", "flaky": "COMPLETED", "beside": "COMPLETED",
    }  # fmt: skip
    steps = steps_of(dag)
    assert steps["flaky"]["attempt"] == 2
    for name in ("child", "grandchild"):
        assert steps[name]["error"] == {"code": "parent_failed", "message": "step bad is FAILED (refused)"}
        assert steps[name]["attempt"] == 0


def test_a_step_that_may_be_skipped_leaves_out_only_what_depends_on_it(flik: RunningFlik) -> None:
    started = flik.submit_dag(
        [text("bad", script=FAILS, onFailure="skip"), text("child", "bad"), text("beside"), text("last", "beside")]
    )
    dag = flik.wait_dag(started["dagId"])
    assert (dag["status"], dag.get("error")) == ("COMPLETED", None)
    assert statuses(dag) == {"bad": "FAILED", "child": "CANCELLED", "beside": "COMPLETED", "last": "COMPLETED"}
    assert steps_of(dag)["child"]["error"]["code"] == "parent_skipped"


def test_retrying_a_step_is_refused_as_it_goes_on_with_its_dag(flik: RunningFlik) -> None:
    dag = flik.wait_dag(flik.submit_dag([text("bad", script=FAILS)])["dagId"])
    (step,) = dag["tasks"]
    refused = flik.http.post(f"/api/v1/tasks/{step['taskId']}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "step_of_dag")
    assert flik.get(step["taskId"])["status"] == "FAILED"


# ---- cancel, resume, deadlines


def test_after_a_cancel_nothing_of_a_dag_completes(flik: RunningFlik) -> None:
    started = flik.submit_dag([text("done"), text("runs", "done", script=slow(1.0)), text("waits", "runs")])
    dag_id, ids = started["dagId"], {step["stepId"]: step["taskId"] for step in started["tasks"]}
    flik.wait(ids["runs"], until=("PROCESSING",))
    cancelled = flik.http.post(started["cancelUrl"])
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELLED")
    expected = {"done": "COMPLETED", "runs": "CANCELLED", "waits": "CANCELLED"}
    assert statuses(cancelled.json()) == expected
    for refused in (flik.http.delete(f"/api/v1/dags/{dag_id}"), flik.http.post(started["resumeUrl"])):
        assert (refused.status_code, refused.json()["code"]) == (409, "dag_state_conflict")
    time.sleep(1.5)  # beyond the end that it would have had
    assert statuses(flik.get_dag(dag_id)) == expected
    assert flik.outcomes(ids.values()) == {ids["done"]: ["COMPLETED"], ids["runs"]: ["CANCELLED"]}


def test_a_resumed_dag_keeps_what_completed(flik: RunningFlik) -> None:
    started = flik.submit_dag([text("kept"), text("cut", "kept", script=slow(0.5)), text("last", "cut", "kept")])
    before = {step["stepId"]: step["taskId"] for step in started["tasks"]}
    flik.wait(before["cut"], until=("PROCESSING",))
    assert flik.http.delete(f"/api/v1/tasks/{before['cut']}").status_code == 200
    failed = flik.wait_dag(started["dagId"])
    assert (failed["status"], failed["error"]["stepId"]) == ("FAILED", "cut")
    assert statuses(failed) == {"kept": "COMPLETED", "cut": "CANCELLED", "last": "CANCELLED"}

    resumed = flik.http.post(started["resumeUrl"])
    assert (resumed.status_code, resumed.json()["status"]) == (202, "RUNNING")
    assert "error" not in resumed.json()
    dag = flik.wait_dag(started["dagId"])
    assert dag["status"] == "COMPLETED"
    after = {step["stepId"]: step["taskId"] for step in dag["tasks"]}
    assert after["kept"] == before["kept"]
    assert not {after["cut"], after["last"]} & set(before.values())
    assert flik.outcomes(after.values()) == {task_id: ["COMPLETED"] for task_id in after.values()}
    assert steps_of(dag)["last"]["parentTaskIds"] == [after["cut"], after["kept"]]
    assert flik.get(before["cut"])["status"] == "CANCELLED"  # what was tried before can still be read


def test_nothing_starts_after_the_deadline(flik: RunningFlik) -> None:
    started = flik.submit_dag([text("first", script=slow(2.0)), text("late", "first")], deadlineS=1.9)
    dag = flik.wait_dag(started["dagId"])
    assert statuses(dag) == {"first": "COMPLETED", "late": "EXPIRED"}
    assert (dag["status"], dag["error"]["stepId"]) == ("FAILED", "late")
    assert flik.outcomes([step["taskId"] for step in dag["tasks"]]) == {dag["tasks"][0]["taskId"]: ["COMPLETED"]}
    assert flik.http.post(started["resumeUrl"]).status_code == 202  # which takes the deadline away
    assert flik.wait_dag(started["dagId"])["status"] == "COMPLETED"


# ---- what is answered


def test_a_dag_sent_again_under_its_key_is_the_same_dag(flik: RunningFlik) -> None:
    body = {"tenantId": "dags-again", "steps": [text("one"), text("two", "one")]}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first, again = (flik.http.post("/api/v1/dags", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert (again.headers["idempotency-replayed"], again.headers["location"]) == ("true", first.headers["location"])
    other = flik.http.post("/api/v1/dags", json={**body, "priority": 2}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(listed(flik, tenantId="dags-again")) == 1
    assert flik.wait_dag(first.json()["dagId"])["status"] == "COMPLETED"


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a cycle": ([text("a", "c"), text("b", "a"), text("c", "b")], "/steps/0/dependsOn/0"),
    "an unknown parent": ([text("a", "nobody")], "/steps/0/dependsOn/0"),
    "itself": ([text("a", "a")], "/steps/0/dependsOn/0"),
    "an unknown reference": (
        [{"taskType": "TEXT", "payload": {"prompt": {"$from": "nobody"}}}], "/steps/0/payload/prompt",
    ),
    "a reference to itself": (
        [{"id": "a", "taskType": "TEXT", "payload": {"prompt": {"$from": "a"}}}], "/steps/0/payload/prompt",
    ),
    "an id twice": ([text("a"), text("a")], "/steps/1/id"),
    "101 steps": ([text(f"s{n}") for n in range(101)], "/steps"),
    "51 steps on one way": ([text(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(51)], "/steps/50"),
    "no prompt": ([{"taskType": "IMAGE"}], "/steps/0/payload/prompt"),
    "a payload that no model takes": (
        [text("a"), {"taskType": "IMAGE", "payload": {"width": 1, "prompt": "x"}}], "/steps/1/payload/width",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_dag_is_refused_with_its_place(flik: RunningFlik, name: str) -> None:
    steps, pointer = REFUSED[name]
    answer = flik.http.post("/api/v1/dags", json={"tenantId": "dags-refused", "steps": steps})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert listed(flik, tenantId="dags-refused") == []


def test_another_tenant_does_not_see_a_dag(flik: RunningFlik) -> None:
    started = flik.submit_dag([text("one", script=slow(0.5))])
    headers = {"Authorization": f"Bearer {flik.key_of('dags-stranger', 'submit', 'read')}"}
    path = f"{flik.url}/api/v1/dags/{started['dagId']}"
    with httpx.Client(headers=headers, timeout=30) as stranger:
        for answer in (
            stranger.get(path), stranger.delete(path), stranger.post(f"{path}/cancel"), stranger.post(f"{path}/resume")
        ):  # fmt: skip
            assert (answer.status_code, answer.json()["code"]) == (404, "dag_not_found")
        assert stranger.get(f"{flik.url}/api/v1/dags").json()["items"] == []
    assert flik.wait_dag(started["dagId"])["status"] == "COMPLETED"


def listed(flik: RunningFlik, **query: Any) -> list[str]:
    """Return the ids of all pages."""
    ids: list[str] = []
    while True:
        answer = flik.http.get("/api/v1/dags", params=query)
        assert answer.status_code == 200, answer.text
        page = schemas.DagPage.model_validate(answer.json())
        ids += [item.dag_id for item in page.items]
        if page.next_cursor is None:
            return ids
        query["cursor"] = page.next_cursor


def test_lists_are_filtered_and_go_on_at_their_cursor(flik: RunningFlik) -> None:
    bodies = [[text("a")], [text("a", script=FAILS)], [text("a"), text("b", "a")], [text("a")], [text("a")]]
    ids = []
    for body in bodies:
        ids.append(flik.submit_dag(body, tenantId="dags-listed")["dagId"])
        time.sleep(0.002)  # ids of one millisecond are in no order
    dags = [flik.wait_dag(dag_id) for dag_id in ids]
    for limit in (1, 2, 5):
        assert listed(flik, tenantId="dags-listed", limit=limit) == ids[::-1]
    assert listed(flik, tenantId="dags-listed", status="FAILED") == [ids[1]]
    assert listed(flik, tenantId="dags-listed", status="COMPLETED") == [ids[4], ids[3], ids[2], ids[0]]
    after = dags[3]["createdAt"]
    assert listed(flik, tenantId="dags-listed", createdAfter=after) == [ids[4], ids[3]]
    assert listed(flik, tenantId="dags-listed", createdBefore=after) == [ids[2], ids[1], ids[0]]
    item = flik.http.get("/api/v1/dags", params={"tenantId": "dags-listed", "limit": 3}).json()["items"][2]
    assert item["steps"] == {"total": 2, "completed": 2, "open": 0}
    assert "tasks" not in item


# ---- from the command line


def run(flik: RunningFlik, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return flik.run(*command, tenant="dags-cli", cwd=ROOT)


def dag_command(flik: RunningFlik, *arguments: str | Path) -> str:
    ended = run(flik, sys.executable, "-m", "flik", "dag", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def is_film(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"ftyp"


def test_the_example_with_curl_brings_a_film(flik: RunningFlik, tmp_path: Path) -> None:
    ended = run(flik, ROOT / "examples" / "chain.sh", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert is_film(tmp_path / "film.mp4")


def test_the_example_in_python_brings_a_film(flik: RunningFlik, tmp_path: Path) -> None:
    ended = run(flik, sys.executable, ROOT / "examples" / "chain.py", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert is_film(tmp_path / "film.mp4")


@pytest.mark.parametrize(("name", "steps"), [("chain.yaml", 3), ("diamond.yaml", 4)], ids=["chain", "diamond"])
def test_the_example_in_a_file_is_run_and_shown(flik: RunningFlik, tmp_path: Path, name: str, steps: int) -> None:
    said = dag_command(flik, "run", ROOT / "examples" / name, "--out", tmp_path)
    dag_id = said.splitlines()[0].split("\t")[0]
    assert f"{dag_id}\tCOMPLETED" in said.splitlines()
    assert any(is_film(path) for path in tmp_path.rglob("*.mp4"))
    shown = dag_command(flik, "show", dag_id)
    assert shown.count("COMPLETED") == steps
    assert any(line.startswith(dag_id) and "COMPLETED" in line for line in dag_command(flik, "list").splitlines())


def test_a_dag_is_cancelled_and_resumed_from_the_command_line(flik: RunningFlik) -> None:
    flik.tenant("dags-cli")
    started = flik.submit_dag([text("one", script=slow(30))], tenantId="dags-cli")
    assert "CANCELLED" in dag_command(flik, "cancel", started["dagId"])
    assert flik.get_dag(started["dagId"])["status"] == "CANCELLED"
    started = flik.submit_dag([text("one", script=slow(1.0))], tenantId="dags-cli")
    assert flik.http.delete(f"/api/v1/tasks/{started['tasks'][0]['taskId']}").status_code == 200
    assert flik.get_dag(started["dagId"])["status"] == "FAILED"
    assert "RUNNING" in dag_command(flik, "resume", started["dagId"])
    assert flik.wait_dag(started["dagId"])["status"] == "COMPLETED"


# ---- in YAML and in Python

WRITTEN = """
steps:
  - {id: describe, taskType: TEXT, reuse: true, payload: {prompt: a quiet pier, maxWords: 5, seed: 3}}
  - id: draw
    taskType: IMAGE
    priority: 0
    maxAttempts: 2
    onFailure: skip
    dependsOn: [describe]
    payload: {width: 128, height: 96, seed: 4}
  - id: film
    taskType: VIDEO
    startDeadlineS: 600
    payload:
      prompt: {$from: describe, path: text}
      input: [{$from: draw, path: artifacts.0}]
      width: 128
      height: 96
      lengthS: 0.5
      fps: 12
  - {id: last, taskType: TEXT, dependsOn: [film, draw], payload: {maxWords: 3}}
"""


def composed() -> Any:
    """The same with Ray's `bind()`."""
    describe = dags.step("TEXT", id="describe", reuse=True)
    draw = dags.step("IMAGE", id="draw", priority=0, max_attempts=2, on_failure="skip")
    film = dags.step("VIDEO", id="film", start_deadline_s=600)
    with dags.InputNode() as inp:
        text_ = describe.bind(prompt=inp.prompt, maxWords=5, seed=3)
        picture = draw.bind(text_, width=128, height=96, seed=4)
        whole = film.bind(
            prompt=dags.output(text_, "text"),
            input=[dags.output(picture, "artifacts.0")],
            width=128,
            height=96,
            lengthS=0.5,
            fps=12,
        )
        return dags.step("TEXT", id="last").bind(whole, picture, maxWords=3)


def stored_plan(flik: RunningFlik, dag_id: str) -> list[tuple[Any, ...]]:
    """Return all that PostgreSQL holds of a dag's plan, but for ids and times."""
    return flik.query(
        "SELECT s.place, s.step_id, s.parents, s.on_failure, s.start_within_s, s.waited, s.reuse, "
        "t.task_type, t.priority, t.max_attempts, t.payload, d.priority, d.region, d.tenant_id, d.metadata "
        "FROM dag_steps s JOIN tasks t USING (task_id) JOIN dags d ON d.dag_id = s.dag_id "
        f"WHERE s.dag_id = '{dag_id}' ORDER BY s.place"
    )


def test_a_dag_written_and_one_composed_are_the_same_durable_plan(flik: RunningFlik, tmp_path: Path) -> None:
    written = tmp_path / "written.yaml"
    written.write_text(WRITTEN)
    dag_ids = [dag_command(flik, "run", written, "--no-wait").strip()]
    with SyncFlikClient(flik.url, flik.key, tenant="dags-cli") as client:
        dag_ids.append(client.run_dag(composed(), {"prompt": "a quiet pier"}).dag_id)
        dag_ids.append(client.run_dag(dags.graph_of(yaml.safe_load(WRITTEN)["steps"])).dag_id)
    plans = [stored_plan(flik, dag_id) for dag_id in dag_ids]
    assert [(row[1], row[2]) for row in plans[0]] == [
        ("describe", []),
        ("draw", [0]),
        ("film", [0, 1]),
        ("last", [2, 1]),
    ]
    assert plans[1] == plans[0]
    assert plans[2] == plans[0]
    assert [flik.wait_dag(dag_id)["status"] for dag_id in dag_ids] == ["COMPLETED"] * 3


# ---- followed


def by_stream(flik: RunningFlik, dag_id: str) -> Iterator[dict[str, Any]]:
    reader = Reader()
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "0"}
    with flik.http.stream("GET", f"/api/v1/dags/{dag_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_bytes():
            for message in reader.feed(chunk):
                event = json.loads(message.data)
                assert message.last_id == str(event["seq"])
                yield event


def by_json_socket(flik: RunningFlik, dag_id: str) -> Iterator[dict[str, Any]]:
    with connect(flik.url.replace("http", "ws") + "/ws/json", proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": flik.key}))
        socket.send(json.dumps({"type": "subscribe", "id": "a", "dagId": dag_id, "fromSeq": 0}))
        while True:
            said = json.loads(socket.recv(timeout=30))
            assert said["type"] != "error", said
            if said["type"] in ("event", "reset"):
                yield said["event"]


def by_stomp(flik: RunningFlik, dag_id: str) -> Iterator[dict[str, Any]]:
    parser = Parser(version=Version.V1_2)
    with connect(flik.url.replace("http", "ws") + "/ws", subprotocols=["v12.stomp"], proxy=None) as socket:  # type: ignore[list-item]  # a name is one
        socket.send(f"CONNECT\naccept-version:1.2\nhost:flik\npasscode:{flik.key}\n\n\0")
        socket.send(f"SUBSCRIBE\nid:s\ndestination:/topic/dags/{dag_id}\nfrom-seq:0\n\n\0")
        while True:
            while not isinstance(part := parser.take(), Frame):
                data = socket.recv(timeout=30)
                parser.feed(data.encode() if isinstance(data, str) else data)
            assert part.command != "ERROR", part
            if part.command == "MESSAGE":
                yield json.loads(part.body)


@pytest.mark.parametrize("follow", [by_stream, by_json_socket, by_stomp])
@pytest.mark.parametrize("fails", [False, True], ids=["completes", "fails"])
def test_a_dag_is_followed_without_a_gap_to_its_end(
    flik: RunningFlik, follow: Callable[[RunningFlik, str], Iterator[dict[str, Any]]], fails: bool
) -> None:
    middle = text("middle", "first", script=FAILS if fails else slow(0.2))
    started = flik.submit_dag([text("first", script=slow(0.3)), middle, text("last", "middle"), text("beside")])
    told = []
    for event in follow(flik, started["dagId"]):  # from before its first step ends
        told.append(event)
        if event["event"] in ("completed", "failed", "cancelled"):
            break
    assert [event["seq"] for event in told] == list(range(1, 7))
    assert [event["event"] for event in told] == ["running", *["step"] * 4, "failed" if fails else "completed"]
    steps = {event["step"]["stepId"]: event["step"]["status"] for event in told[1:5]}
    assert steps == statuses(flik.get_dag(started["dagId"]))
    assert all(event["dagId"] == started["dagId"] for event in told)
    log = flik.http.get(f"/api/v1/dags/{started['dagId']}/events", params={"since": 0}).json()["events"]
    assert [(event["seq"], event["event"], event.get("step")) for event in log] == [
        (event["seq"], event["event"], event.get("step")) for event in told
    ]


# ---- what callers never see


def test_parts_of_a_task_s_work_are_no_tasks(flik: RunningFlik) -> None:
    picture = {"taskType": "IMAGE", "payload": {"prompt": "a pier", **SMALL, "numOutputs": 2}}
    dag = flik.wait_dag(flik.submit_dag([text("words"), picture], tenantId="dags-parts")["dagId"])
    task_ids = [each["taskId"] for each in dag["tasks"]]
    listed = ", ".join(f"'{task_id}'" for task_id in task_ids)
    uploads = flik.query(f"SELECT task_id::text, lease_token::text FROM uploads WHERE task_id IN ({listed})")
    assert len(uploads) == 3, "each file is a unit of work"
    tokens = {token for _, token in uploads}
    assert tokens == {
        row[0] for row in flik.query(f"SELECT lease_token::text FROM attempts WHERE task_id IN ({listed})")
    }
    for token in tokens:
        for path in (f"tasks/{token}", f"tasks/{token}/events", f"tasks/{token}/deliveries", f"dags/{token}"):
            assert flik.http.get(f"/api/v1/{path}").status_code == 404
        for path in (f"tasks/{token}/cancel", f"tasks/{token}/retry", f"dags/{token}/cancel", f"dags/{token}/resume"):
            assert flik.http.post(f"/api/v1/{path}").status_code == 404
    shown = flik.http.get("/api/v1/tasks", params={"tenantId": "dags-parts", "limit": 100}).json()["items"]
    assert sorted(item["taskId"] for item in shown) == sorted(task_ids)
    letters = flik.http.get("/api/v1/dead-letters", params={"tenantId": "dags-parts"})
    assert (letters.status_code, letters.json()["items"]) == (200, [])
