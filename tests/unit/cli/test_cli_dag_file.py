"""Files that hold a dag: what is read, and what is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from flik.cli.dag_file import BESIDE, plan_of, read_dag_file
from flik.schemas import DagRequest

CHAIN = """
metadata: {order: 7}
deadlineS: 3600
steps:
  - id: describe
    taskType: TEXT
    payload: {prompt: a harbour}
  - {id: draw, taskType: IMAGE, payload: {prompt: {$from: describe}}}
"""


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(click.UsageError) as caught:
        read_dag_file(path)
    return caught.value.message


def test_yaml_and_json_are_what_the_gateway_takes(tmp_path: Path) -> None:
    import json

    import yaml

    from_yaml = read_dag_file(put(tmp_path, "chain.yaml", CHAIN))
    from_json = read_dag_file(put(tmp_path, "chain.json", json.dumps(yaml.safe_load(CHAIN))))

    assert from_yaml == from_json
    assert from_yaml.dag[1] == {"id": "draw", "taskType": "IMAGE", "payload": {"prompt": {"$from": "describe"}}}
    assert from_yaml.beside == {"metadata": {"order": 7}, "deadline_s": 3600} and not from_yaml.is_graph


def test_all_that_the_gateway_takes_beside_the_steps_may_stand_in_a_file() -> None:
    assert {"steps", *BESIDE} == {field.alias for field in DagRequest.model_fields.values()}


def test_a_list_is_the_steps(tmp_path: Path) -> None:
    assert read_dag_file(put(tmp_path, "a.yml", "- {taskType: TEXT}\n- {taskType: IMAGE}\n")).dag == [
        {"taskType": "TEXT"},
        {"taskType": "IMAGE"},
    ]


def test_python_defines_a_graph_and_its_input(tmp_path: Path) -> None:
    put(tmp_path, "words.py", "PROMPT = 'a harbour'")
    found = read_dag_file(
        put(
            tmp_path,
            "chain.py",
            "from flik.dags import InputNode, step\n"
            "from words import PROMPT\n"
            "inputs = {'prompt': PROMPT}\n"
            "with InputNode() as inp:\n"
            "    dag = step('IMAGE').bind(step('TEXT').bind(prompt=inp.prompt, style=inp.style))\n"
            "if __name__ == '__main__':\n"
            "    raise AssertionError\n",
        )
    ).reading({"prompt": "other", "style": "x"}, [("style", "y")])

    steps = plan_of(found).steps
    assert found.is_graph and steps[0].spec.payload == {"prompt": "other", "style": "y"}
    assert [step.spec.task_type for step in steps] == ["TEXT", "IMAGE"]


def test_python_defines_steps_as_well(tmp_path: Path) -> None:
    code = "from flik.client import StepSpec\nsteps = [StepSpec('a', 'TEXT'), {'taskType': 'IMAGE'}]\n"

    assert [step.step_id for step in plan_of(read_dag_file(put(tmp_path, "s.py", code))).steps] == ["a", "step-2"]


def test_steps_read_no_input(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="are for a graph"):
        read_dag_file(put(tmp_path, "chain.yaml", CHAIN)).reading(None, [("prompt", "x")])


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)
REFUSED = {
    "yaml that is none": ("a.yaml", "steps: [", "cannot be read as YAML"),
    "json that is none": ("a.json", '{"steps": [}', "cannot be read as JSON"),
    "nothing": ("a.yaml", "", "has no list of `steps`"),
    "no steps": ("a.json", '{"tasks": []}', "has no list of `steps`"),
    "steps that are no list": ("a.yaml", "steps: 7", "has no list of `steps`"),
    "unknown field": ("a.yaml", "steps: []\nretries: 7\nzeal: 1", "has what no dag has: retries, zeal"),
    "date": ("a.yaml", "steps: [2026-01-31]", "JSON has no date; put it in quotes"),
    "name that is no text": ("a.yaml", "steps: [{1: x}]", "a name is not a text"),
    "object of Python": ("a.yaml", "steps: [!!python/object/apply:os.getcwd []]", "could not determine a constructor"),
    "bomb": ("a.yaml", BOMB + "steps: [*j]", "more than 50,000 values"),
    "circle": ("a.yaml", "steps: &a [*a]", "deeper than 32"),
    "depth": ("a.json", '{"steps": ' + "[" * 40 + "]" * 40 + "}", "deeper than 32"),
    "great depth": ("a.yaml", "[" * 30_000, "cannot be read as YAML"),
    "great depth in json": ("a.json", "[" * 100_000, "cannot be read as JSON"),
    "size": ("a.yaml", "steps: [" + "x," * 600_000 + "]", "larger than 1,048,576 bytes"),
    "bytes": ("a.yaml", b"\xff\xfe\xfd", "cannot be read as YAML"),
    "ending": ("a.toml", "steps = []", "should end in .yaml, .yml, .json, .py"),
    "no dag in python": ("a.py", "x = 1", "defines neither `dag` nor `steps`"),
    "python that is none": ("a.py", "x = = 1", "SyntaxError"),
    "python that fails": ("a.py", "\n\n1 / 0", "a.py, line 3: ZeroDivisionError: division by zero"),
    "python that ends": ("a.py", "import sys\nsys.exit(3)", "a.py, line 2: SystemExit: 3"),
    "python that asks for odd inputs": ("a.py", "steps = []\ninputs = 7", "`inputs` of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_no_dag_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    name, content, reason = REFUSED[case]

    assert reason in refusal(put(tmp_path, name, content))


@pytest.mark.parametrize("name", ["gone.yaml", "gone.json", "gone.py"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    assert "cannot read" in refusal(tmp_path / name) and "No such file" in refusal(tmp_path / name)
