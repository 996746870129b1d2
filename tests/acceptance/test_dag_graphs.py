"""Random graphs on a running Flik whose queue is killed in the middle: each ends as the model of it says.

Steps fail for good, fail and are tried again, may be skipped, and have few attempts or many; some graphs are cancelled
on their way, whole or one step of them. The model is told what only chance decides, which attempts were lost with
the queue and when a cancel came, and says all else.

`FLIK_GRAPHS` says how many graphs are run; without it 20, and 200 in the long form (`make chaos`).
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.running import RunningFlik, eventually

GRAPHS = int(os.environ.get("FLIK_GRAPHS") or (200 if os.environ.get("FLIK_CHAOS") == "long" else 20))
MOST_ATTEMPTS = 4  # without `maxAttempts`: one, and one for each retry delay


@pytest.fixture(scope="module")
def mortal(data_folder: Path) -> Iterator[RunningFlik]:
    """A Flik whose queue may be killed, with fast models and short retries."""
    running = RunningFlik(
        data_folder / "graphs", WORKER_CONCURRENCY="4", FLIK_SIMULATED_SPEED="20", FLIK_RETRY_DELAYS_S="0.2,0.4,0.6"
    ).start()
    yield running
    running.stop()


class Graph(NamedTuple):
    """Steps as they are sent, in any order; and what is cancelled on the way: "dag", a step's id, or nothing."""

    steps: list[dict[str, Any]]
    cancel: str | None


def random_graph(chance: random.Random) -> Graph:
    """Up to 30 steps with any parents among those before them."""
    count, density = chance.choice((1, 2, 3, 5, 8, 12, 30)), chance.choice((0.1, 0.3, 0.7))
    steps = []
    for number in range(count):
        failures: list[dict[str, Any]] = []
        what = chance.random()
        if what < 0.1:
            failures = [{"code": "refused", "retryable": False}] * MOST_ATTEMPTS
        elif what < 0.3:
            failures = [{"code": "hiccup"}] * chance.choice((1, 1, 2, 4))
        script = {"durationS": chance.choice((0, 0, 0, 2.0)), "failures": failures}
        step = {
            "id": f"s{number}",
            "taskType": "TEXT",
            "dependsOn": [f"s{n}" for n in range(number) if chance.random() < density],
            "payload": {"prompt": "a test", "maxWords": 1, "script": script},
            "onFailure": chance.choice(("fail", "skip")),
        }
        if chance.random() < 0.3:
            step["maxAttempts"] = chance.randint(1, 3)
        steps.append(step)
    chance.shuffle(steps)
    return Graph(steps, chance.choice(("dag", f"s{chance.randrange(count)}")) if chance.random() < 0.15 else None)


def run_of(step: Mapping[str, Any], seen: Sequence[str]) -> tuple[str, list[str]]:
    """Return how a step that may run ends, and how its attempts end; of what was `seen` only losses are believed.

    An attempt that is lost counts, one that is handed back does not.
    """
    failures, allowed = step["payload"]["script"]["failures"], step.get("maxAttempts", MOST_ATTEMPTS)
    outcomes: list[str] = []
    attempt = 1
    while True:
        now_seen = seen[len(outcomes)] if len(outcomes) < len(seen) else ""
        if now_seen == "HANDED_BACK":
            outcomes.append(now_seen)
            continue
        if now_seen != "LOST" and attempt > len(failures):
            return "COMPLETED", [*outcomes, "COMPLETED"]
        outcomes.append("LOST" if now_seen == "LOST" else "FAILED")
        if attempt == allowed or (now_seen != "LOST" and not failures[attempt - 1].get("retryable", True)):
            return "FAILED", outcomes
        attempt += 1


def check(graph: Graph, dag: Mapping[str, Any], seen: Mapping[str, list[str]], cancelled: str | None) -> None:
    """Hold a dag that has ended against the model. `cancelled`: what was, of that which was to be."""
    by_id = {step["id"]: step for step in graph.steps}
    found = {step["stepId"]: step for step in dag["tasks"]}
    ends = {step_id: step["status"] for step_id, step in found.items()}
    guilty = False
    for step_id in sorted(by_id, key=lambda name: int(name[1:])):
        step, shown = by_id[step_id], found[step_id]
        outcomes = seen.get(shown["taskId"], [])
        end, expected = "CANCELLED", list[str]()
        if all(ends[parent] == "COMPLETED" for parent in step["dependsOn"]):
            end, expected = run_of(step, outcomes)
            if cancelled in (step_id, "dag") and shown["status"] == "CANCELLED":  # somewhere on its way
                end, done = "CANCELLED", [each for each in outcomes if each != "CANCELLED"]
                assert outcomes in (done, [*done, "CANCELLED"])
                assert done == expected[: len(done)]
                assert done != expected
                expected = outcomes
        by_itself = "error" not in shown or end != "CANCELLED"  # not because of a parent, also if one failed later
        guilty = guilty or (end != "COMPLETED" and by_itself and step["onFailure"] == "fail")
        assert (shown["status"], outcomes) == (end, expected), step_id
        if "startedAt" in shown:
            assert all(found[parent]["completedAt"] <= shown["startedAt"] for parent in step["dependsOn"])
    if cancelled == "dag":
        assert dag["status"] == "CANCELLED"
    else:
        assert dag["status"] == ("FAILED" if guilty else "COMPLETED")


def cancel(flik: RunningFlik, graph: Graph, started: Mapping[str, Any]) -> str | None:
    """Cancel what is to be of a dag; return what was, None when it had ended before."""
    task_ids = {step["stepId"]: step["taskId"] for step in started["tasks"]}
    path = f"tasks/{task_ids[graph.cancel]}" if graph.cancel in task_ids else f"dags/{started['dagId']}"

    def settled() -> int | None:
        status = flik.http.delete(f"/api/v1/{path}").status_code
        return status if status in (200, 409) else None  # while there is no queue it is 503

    status = eventually(settled, within_s=60, what="a cancel")
    if status == 409:  # ended, maybe by a cancel whose answer was lost
        shown = flik.http.get(f"/api/v1/{path}").json()
        return graph.cancel if shown["status"] == "CANCELLED" and "error" not in shown else None
    return graph.cancel


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_every_graph_runs_in_its_order_and_ends_as_it_must(mortal: RunningFlik) -> None:
    seed = int(os.environ.get("FLIK_GRAPHS_SEED") or random.randrange(10**6))
    sys.stderr.write(f"FLIK_GRAPHS_SEED={seed}\n")
    chance = random.Random(seed)
    graphs = [random_graph(chance) for _ in range(GRAPHS)]
    all_started = [
        mortal.submit_dag(graph.steps, tenantId=f"graphs-{n % 3}", priority=n % 3) for n, graph in enumerate(graphs)
    ]
    to_cancel = {n for n, graph in enumerate(graphs) if graph.cancel is not None}
    early = set(chance.sample(sorted(to_cancel), len(to_cancel) // 2))
    cancelled = {n: cancel(mortal, graphs[n], all_started[n]) for n in sorted(early)}
    running = "SELECT count(*) FROM dags WHERE status = 'RUNNING'"
    assert mortal.query(running)[0][0] > 0, "it is killed in the middle"
    mortal.kill("queue")
    cancelled |= {n: cancel(mortal, graphs[n], all_started[n]) for n in sorted(to_cancel - early)}

    lost = 0
    for n, (graph, started) in enumerate(zip(graphs, all_started, strict=True)):
        dag = mortal.wait_dag(started["dagId"], within_s=90 + GRAPHS)
        seen = mortal.outcomes(step["taskId"] for step in dag["tasks"])
        check(graph, dag, seen, cancelled.get(n))
        lost += sum(outcomes.count("LOST") for outcomes in seen.values())
    assert lost <= 8, "one queue that dies takes what is under way at most"  # the slots, and what was being granted
