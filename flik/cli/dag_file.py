"""A dag in a file: YAML or JSON as `POST /api/v1/dags` takes it, or Python that builds a graph with Ray's `bind()`.

| file   | holds                                                                                              |
|--------|----------------------------------------------------------------------------------------------------|
| `.yaml`, `.json` | `steps`, and what goes beside them (`metadata`, `priority`, `webhook` ...); or a list of steps |
| `.py`  | `dag`, a node of Ray's, or `steps`; `inputs` for what the graph reads. It is run, as any program of yours. |

A file has at most 1 MiB. YAML may hold what JSON can: no dates, no objects of Python; what is repeated by
name (`*name`) is written out, up to 50,000 values in all.
"""

from __future__ import annotations

import json
import runpy
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

from flik.cli.arguments import MAX_PAYLOAD_BYTES
from flik.domain.dag.plan import Plan, StepSpec, plan
from flik.errors import FieldError, InvalidRequest

MAX_VALUES = 50_000
MAX_DEPTH = 32
SUFFIXES = (".yaml", ".yml", ".json", ".py")
BESIDE = {
    "tenantId": "tenant",
    "priority": "priority",
    "region": "region",
    "metadata": "metadata",
    "deadlineS": "deadline_s",
    "webhook": "webhook",
}
"""What may stand beside the steps: its name in the file, and as an argument of `FlikClient.submit_dag`."""


class DagFile(NamedTuple):
    """What a file says: a graph of Ray's, or steps as they are sent; what goes beside them; what the graph reads."""

    dag: Any
    beside: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph, and no list of steps."""
        return not isinstance(self.dag, Sequence)

    def reading(self, objects: Mapping[str, Any] | None, texts: Iterable[tuple[str, str]]) -> DagFile:
        """Return the same with other inputs on top of its own.

        Raises:
            click.UsageError: steps read none.
        """
        given = {**(objects or {}), **dict(texts)}
        if given and not self.is_graph:
            raise click.UsageError("--input and --inputs are for a graph; steps have what they need in their payloads.")
        return self._replace(inputs={**self.inputs, **given})


def read_dag_file(path: Path) -> DagFile:
    """Read a file, by its ending.

    Raises:
        click.UsageError: it cannot be read, or holds no dag.
    """
    if path.suffix == ".py":
        return _run(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PAYLOAD_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > MAX_PAYLOAD_BYTES:
        raise click.UsageError(f"{path} is larger than {MAX_PAYLOAD_BYTES:,} bytes")
    if path.suffix not in SUFFIXES:
        raise click.UsageError(f"{path} should end in {', '.join(SUFFIXES)}")
    try:
        document = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
        _refuse_what_json_has_not(document)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise click.UsageError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from None
    return _dag_in(path, {"steps": document} if isinstance(document, list) else document)


def plan_of(found: DagFile) -> Plan:
    """Return the plan of what a file holds.

    Raises:
        ValueError: the graph is none that Flik can run.
        InvalidRequest: the steps are no dag.
    """
    if not found.is_graph:
        return plan([_spec_of(step, place) for place, step in enumerate(found.dag)])
    from flik.dags import steps_of  # noqa: PLC0415  # loads Ray, which a file of steps does without

    return plan(steps_of(found.dag, found.inputs))


def _refuse_what_json_has_not(document: Any) -> None:
    """Refuse what is no JSON, and what unfolds into more than a request could hold: YAML can repeat by name.

    Raises:
        ValueError: says what.
    """
    stack = [(document, 1)]
    values = 0
    while stack:
        value, depth = stack.pop()
        values += 1
        if values > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            if not all(isinstance(name, str) for name in value):
                raise ValueError("a name is not a text; put it in quotes")
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)
        elif value is not None and not isinstance(value, str | int | float):
            raise ValueError(f"JSON has no {type(value).__name__}; put it in quotes")


def _dag_in(path: Path, document: Any) -> DagFile:
    if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
        raise click.UsageError(f"{path} has no list of `steps`")
    unknown = sorted(set(document) - {"steps", *BESIDE})
    if unknown:
        raise click.UsageError(f"{path} has what no dag has: {', '.join(unknown)}")
    beside = {BESIDE[name]: value for name, value in document.items() if name in BESIDE and value is not None}
    return DagFile(document["steps"], beside, {})


def _run(path: Path) -> DagFile:
    """Run a program of the caller's, and return what it defines; it is not its own `__main__`."""
    if not path.is_file():
        raise click.UsageError(f"cannot read {path}: No such file")
    found_in = list(sys.path)
    sys.path.insert(0, str(path.parent))  # as Python does for a program
    try:
        names = runpy.run_path(str(path), run_name="flik_dag")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise click.UsageError(f"{where}: {type(error).__name__}: {error}") from None
    finally:
        sys.path[:] = found_in
    dag, inputs = names.get("dag", names.get("steps")), names.get("inputs", {})
    if dag is None:
        raise click.UsageError(f"{path} defines neither `dag` nor `steps`")
    if not isinstance(inputs, Mapping):
        raise click.UsageError(f"`inputs` of {path} is not a dict")
    return DagFile(dag, {}, inputs)


def _spec_of(step: Any, place: int) -> StepSpec:
    """Read a step as far as its graph takes it; all the rest is for the gateway to judge."""
    if isinstance(step, StepSpec):
        return step
    pointer = f"/steps/{place}"
    if not isinstance(step, Mapping):
        raise InvalidRequest((FieldError(pointer, "must be an object"),))
    step_id, task_type, payload = step.get("id"), step.get("taskType"), step.get("payload") or {}
    parents = step.get("dependsOn")
    wrong = {
        "id": step_id is not None and not isinstance(step_id, str),
        "taskType": not isinstance(task_type, str),
        "payload": not isinstance(payload, Mapping),
        "dependsOn": parents is not None and not isinstance(parents, list | tuple),
    }
    errors = tuple(FieldError(f"{pointer}/{name}", "is missing or of the wrong type") for name in wrong if wrong[name])
    if errors:
        raise InvalidRequest(errors)
    return StepSpec(step_id, str(task_type), payload, None if parents is None else tuple(parents))
