"""Steps as remote functions of Ray: described when they are made, never run by Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest
import ray

from flik.dags import output, step, steps_of


def test_a_step_is_a_remote_function_with_what_was_asked_of_it() -> None:
    draw = step("IMAGE", id="draw", priority=0, start_deadline_s=60, max_attempts=2, on_failure="skip")

    assert isinstance(draw, ray.remote_function.RemoteFunction)
    (made,) = steps_of(draw.bind(prompt="x"))
    assert made.task_type == "IMAGE" and made.step_id == "draw" and made.payload == {"prompt": "x"}
    assert (made.priority, made.start_deadline_s, made.max_attempts, made.on_failure) == (0, 60, 2, "skip")


@pytest.mark.parametrize("bad", ["", "1", "a b", "a" * 65])
def test_an_id_that_is_none_is_refused_at_once(bad: str) -> None:
    with pytest.raises(ValueError, match="is no id of a step"):
        step("TEXT", id=bad)


def test_only_the_two_ways_to_take_a_failure_are_known() -> None:
    with pytest.raises(ValueError, match="fail or skip, not 'ignore'"):
        step("TEXT", on_failure="ignore")  # type: ignore[arg-type]


def test_ray_is_told_that_the_step_is_not_its_own() -> None:
    draw = step("IMAGE")

    with pytest.raises(RuntimeError, match=r"FlikClient\.run_dag"):
        draw._function(prompt="x")


def test_a_part_of_what_a_step_gives_is_named_by_its_path() -> None:
    draw = step("IMAGE", id="draw").bind(prompt="x")

    film = steps_of(step("VIDEO").bind(input=[output(draw, "artifacts.1")], prompt=output(draw, "metadata.seed")))[-1]

    assert film.payload == {
        "input": [{"$from": "draw", "path": "artifacts.1"}],
        "prompt": {"$from": "draw", "path": "metadata.seed"},
    }


def test_a_graph_is_built_and_read_without_a_cluster() -> None:
    check = (
        "import ray; from flik.dags import InputNode, step, steps_of\n"
        "with InputNode() as inp: a = step('TEXT').bind(prompt=inp.prompt)\n"
        "print(len(steps_of(step('IMAGE').bind(a), {'prompt': 'x'})), ray.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", check], text=True, capture_output=True, check=True)

    assert done.stdout.split() == ["2", "False"]
