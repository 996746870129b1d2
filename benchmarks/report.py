"""Turns what a run measured into a table for a terminal, Markdown for the docs, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks.goals import GOALS, Goal
from benchmarks.measurement import Measurement

GOAL_COLUMNS = ("metric", "must", "bold", "measured", "reached", "beside")
FIGURE_COLUMNS = ("measured beside it", "value", "unit", "note")


@dataclass(frozen=True)
class Report:
    """Everything one run found."""

    machine: Mapping[str, object]
    form: str
    measurements: Sequence[Measurement]
    violations: Sequence[str]
    skipped: Mapping[str, str]

    @property
    def measured(self) -> dict[str, float]:
        """Return the values that there are, by metric."""
        return {one.metric: one.value for one in self.measurements if one.value is not None}

    def goal_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each goal that this run measured or tried to."""
        tried = {one.metric for one in self.measurements}
        return [_goal_row(goal, self.measured) for goal in GOALS if goal.metric in tried]

    def figure_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each figure, goals' own included, with its note."""
        return [(one.metric, number(one.value), one.unit, one.note) for one in self.measurements]

    def headline(self) -> str:
        """Return one line about the machine and the form of the run."""
        facts = self.machine
        return (
            f"{facts['date']}, {self.form} run, {facts['cores']} cores ({facts['processor']}), "
            f"{facts['memory_gb']} GB, Linux {facts['kernel']}, {facts['data_file_system']}, "
            f"Python {facts['python']}, client on the same machine, "
            f"load average before {facts['load_average_before']}"
        )


def _goal_row(goal: Goal, measured: Mapping[str, float]) -> tuple[str, ...]:
    lines = ((line.title, line.value(measured)) for line in goal.beside)
    value = measured.get(goal.metric)
    beside = [f"{value / line:.2f}x {title} ({number(line)})" for title, line in lines if value is not None and line]
    return (
        goal.title,
        _bound(goal.must, goal.must_ratio),
        _bound(goal.bold, goal.bold_ratio),
        number(value),
        f"{_reached(goal, measured)}{'' if goal.is_complete(measured) else ' (peer not measured)'}",
        "; ".join(beside),
    )


def _reached(goal: Goal, measured: Mapping[str, float]) -> str:
    scaled = goal.scaled(measured)
    here = "" if scaled is None else f"; {scaled.reached(measured)} with {number(scaled.must)} here"
    return goal.reached(measured) + here


def _bound(bound: float, ratio: float | None) -> str:
    return number(bound) if ratio is None else f"{number(bound)} and {ratio:g}x the peer"


def number(value: float | None) -> str:
    """Return `value` with three digits that count, or all digits left of the point; "-" for None."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def print_tables(report: Report, console: Console) -> None:
    """Print both tables, what was skipped, and what was wrong."""
    console.print(report.headline())
    for columns, rows in ((GOAL_COLUMNS, report.goal_rows()), (FIGURE_COLUMNS, report.figure_rows())):
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(table)
    for name, reason in report.skipped.items():
        console.print(f"not measured: {name}: {reason}", markup=False)
    for violation in report.violations:
        console.print(f"WRONG: {violation}", style="bold red", markup=False)


def to_markdown(report: Report) -> str:
    """Return both tables as Markdown."""
    parts = [report.headline()]
    for columns, rows in ((GOAL_COLUMNS, report.goal_rows()), (FIGURE_COLUMNS, report.figure_rows())):
        parts += [_markdown_table(columns, rows)] if rows else []
    parts += [f"- not measured: {name}: {reason}" for name, reason in report.skipped.items()]
    parts += [f"- **wrong:** {violation}" for violation in report.violations]
    return "\n\n".join(parts) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_json(report: Report, folder: Path) -> Path:
    """Write the report to `<folder>/<date>.json` and return where it lies."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{str(report.machine['date']).replace(':', '').replace('+0000', 'Z')}.json"
    goals = {goal.metric: goal.reached(report.measured) for goal in GOALS if goal.metric in report.measured}
    content = {
        "machine": report.machine,
        "form": report.form,
        "reached": goals,
        "measurements": report.measurements,
        "violations": report.violations,
        "skipped": report.skipped,
    }
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path
