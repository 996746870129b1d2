"""Steps that reuse what an earlier run made, on a running Flik; also when a file of it is gone."""

from __future__ import annotations

from typing import Any

from tests.acceptance.running import RunningFlik
from tests.acceptance.test_dags import SMALL, artifact, statuses


def chain(prompt: str, last: str = "a film of it") -> list[dict[str, Any]]:
    """A text, a picture and a film; `last` is the prompt of the film."""
    return [
        {"id": "describe", "taskType": "TEXT", "reuse": True, "payload": {"prompt": prompt, "maxWords": 8, "seed": 5}},
        {"id": "draw", "taskType": "IMAGE", "reuse": True, "payload": {**SMALL, "seed": 5}},
        {
            "id": "film", "taskType": "VIDEO", "reuse": True,
            "payload": {"prompt": last, **SMALL, "lengthS": 0.5, "fps": 12, "seed": 5},
        },
    ]  # fmt: skip


def run(flik: RunningFlik, steps: list[dict[str, Any]], tenant: str) -> dict[str, Any]:
    return flik.wait_dag(flik.submit_dag(steps, tenantId=tenant)["dagId"])


def made(dag: dict[str, Any]) -> list[str]:
    return [step["result"]["artifacts"][0]["sha256"] for step in dag["tasks"]]


def runs_of(flik: RunningFlik, dag: dict[str, Any]) -> int:
    """Return how many generations workers made for a dag: each has its uploads."""
    listed = ", ".join(f"'{step['taskId']}'" for step in dag["tasks"])
    return int(flik.query(f"SELECT count(DISTINCT lease_token) FROM uploads WHERE task_id IN ({listed})")[0][0])


def test_the_second_run_of_a_chain_takes_what_the_first_one_made(flik: RunningFlik) -> None:
    first, second = (run(flik, chain("a lighthouse"), "reuse") for _ in range(2))
    assert (first["status"], second["status"]) == ("COMPLETED", "COMPLETED")
    assert (runs_of(flik, first), runs_of(flik, second)) == (3, 0)
    assert made(second) == made(first)
    for before, step in zip(first["tasks"], second["tasks"], strict=True):
        result = step["result"]
        assert "reusedFrom" not in before["result"]
        assert result["reusedFrom"] == before["taskId"]
        assert result["saved"]["seconds"] >= 0
        assert float(result["saved"]["usd"]) > 0
        assert artifact(flik, step) == artifact(flik, before)
    ended = flik.outcomes(step["taskId"] for step in second["tasks"])
    assert list(ended.values()) == [["COMPLETED"]] * 3

    other = run(flik, chain("a lighthouse", "another film"), "reuse")
    assert runs_of(flik, other) == 1, "its last step is another"
    assert runs_of(flik, run(flik, chain("a lighthouse"), "reuse-stranger")) == 3
    plain = [{**step, "reuse": False} for step in chain("a lighthouse")]
    assert runs_of(flik, run(flik, plain, "reuse")) == 3


def test_a_picture_that_is_gone_is_drawn_anew_when_the_dag_is_resumed(flik: RunningFlik) -> None:
    first = run(flik, chain("a windmill"), "reuse-gone")
    drawn = first["tasks"][1]["taskId"]
    ((key,),) = flik.query(f"SELECT key FROM artifacts WHERE task_id = '{drawn}'")
    (flik.data_dir / "artifacts" / key).unlink()

    started = flik.submit_dag(chain("a windmill", "one more film"), tenantId="reuse-gone")
    failed = flik.wait_dag(started["dagId"])
    assert statuses(failed) == {"describe": "COMPLETED", "draw": "COMPLETED", "film": "FAILED"}
    error = failed["tasks"][2]["error"]
    assert error["code"] == "input_gone"
    assert "resume the dag" in error["message"]

    assert flik.http.post(started["resumeUrl"]).status_code == 202
    whole = flik.wait_dag(started["dagId"])
    assert statuses(whole) == {"describe": "COMPLETED", "draw": "COMPLETED", "film": "COMPLETED"}
    assert made(whole)[:2] == made(first)[:2], "seeds make the same again"
    assert artifact(flik, whole["tasks"][1])
    again = run(flik, chain("a windmill", "one more film"), "reuse-gone")
    assert runs_of(flik, again) == 0
    assert again["tasks"][1]["result"]["reusedFrom"] == whole["tasks"][1]["taskId"]


def test_a_link_that_leads_nowhere_has_the_file_made_anew(flik: RunningFlik) -> None:
    picture = [{"taskType": "IMAGE", "reuse": True, "payload": {"prompt": "a quay", **SMALL, "seed": 6}}]
    first = run(flik, picture, "reuse-link")
    ((key,),) = flik.query(f"SELECT key FROM artifacts WHERE task_id = '{first['tasks'][0]['taskId']}'")
    (flik.data_dir / "artifacts" / key).unlink()
    second = run(flik, picture, "reuse-link")
    assert runs_of(flik, second) == 0
    assert flik.http.get(second["tasks"][0]["result"]["artifacts"][0]["url"]).status_code == 404
    third = run(flik, picture, "reuse-link")
    assert runs_of(flik, third) == 1
    assert artifact(flik, third["tasks"][0])
