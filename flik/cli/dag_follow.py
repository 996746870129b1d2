"""Shows a dag on its way: a bar a step on a terminal, a line a change on a pipe, a document a change with `--json`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, Self

import click

from flik.cli.output import detail, is_terminal, one_line, write_json
from flik.cli.progress import Display, bars
from flik.client import Dag, Task


class DagDisplay(Protocol):
    """Shows a dag on its way; entered before the first look, left after the last."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, dag: Dag) -> None:
        """Show a dag that is new or has changed."""
        ...


def dag_display_for(dag: Dag, *, as_json: bool) -> DagDisplay:
    """Return the display that suits where stdout goes."""
    if as_json:
        return Documents()
    if not is_terminal():
        return StepLines()
    labels = {step.task.task_id: f"{step.step_id} {step.task.task_type}" for step in dag.steps}
    return StepBars(bars(len(dag.steps), labels))


class _Plain:
    """Needs nothing before and after."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Documents(_Plain):
    """A JSON document a line for each change of the dag, as the gateway sent it."""

    def show(self, dag: Dag) -> None:
        """Write the dag."""
        write_json(dag.raw, lines=True)


class StepLines(_Plain):
    """A line for each change of a step: id, status, type and detail, separated by tabs; the dag is the first and last.

    A change that shows in none of these is not told.
    """

    def __init__(self, write: Callable[[str], None] = click.echo) -> None:
        self._write = write
        self._lines: dict[str, str] = {}

    def show(self, dag: Dag) -> None:
        """Write the lines that are new and send them on their way at once."""
        if not self._lines:
            self._tell(dag.dag_id, dag.status)
        for step in dag.steps:
            self._tell(step.step_id, step.task.status, step.task.task_type, detail(step.task))
        if dag.is_terminal:
            self._tell(dag.dag_id, dag.status, "", dag_detail(dag))
        sys.stdout.flush()

    def _tell(self, name: str, *cells: str) -> None:
        line = "\t".join(one_line(cell) for cell in (name, *cells)).rstrip("\t")
        if self._lines.get(name) != line:
            self._write(line)
        self._lines[name] = line


class StepBars:
    """The bars of tasks, one a step."""

    def __init__(self, shown: Display) -> None:
        self._shown = shown
        self._seen: dict[str, Task] = {}

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.__exit__(None, None, None)

    def show(self, dag: Dag) -> None:
        """Draw the bars of the steps that changed."""
        for step in dag.steps:
            if self._seen.get(step.step_id) != step.task:
                self._seen[step.step_id] = step.task
                self._shown.show(step.task)


def dag_detail(dag: Dag) -> str:
    """Return why a dag did not complete; empty when nothing is said of it."""
    return "" if dag.error is None else one_line(f"{dag.error.code}: {dag.error.message}")
