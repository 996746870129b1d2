"""Follows tasks to their ends and shows the way: bars on a terminal, a line a change on a pipe.

    outcomes = await follow(client, [submitted_1, submitted_2])

Bars are drawn on stderr, so that a result on stdout stays clean; more tasks than the
terminal has lines become one bar that counts them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from flik.cli.exits import error_document, explain
from flik.cli.output import STYLES, complain, console, detail, is_terminal, one_line, write_json
from flik.client import ClientError, FlikClient, Submitted, Task

Outcome = Task | ClientError


class Display(Protocol):
    """Shows tasks on their way; entered before the first look, left after the last."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def show(self, task: Task) -> None:
        """Show a task that is new or has changed."""
        ...

    def fail(self, task_id: str, error: ClientError) -> None:
        """Show that a task can't be followed any further."""
        ...


async def follow(
    client: FlikClient,
    tasks: Iterable[str | Submitted | Task],
    display: Display | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> tuple[Outcome, ...]:
    """Return how each task ended, in the order given; one that cannot be followed is its error.

    Without `display`, `display_for` picks one. `labels` (by task id) name the tasks on the
    terminal. `timeout_s` bounds the wait for each; a task given twice is followed once.

    Raises:
        ValueError: something that was given is not a task id.
    """
    task_ids = [task if isinstance(task, str) else task.task_id for task in tasks]
    unique = list(dict.fromkeys(task_ids))
    with display or display_for(len(unique), labels) as shown:
        found = await asyncio.gather(*(_follow(client, task_id, shown, timeout_s) for task_id in unique))
    outcomes = dict(zip(unique, found, strict=True))
    return tuple(outcomes[task_id] for task_id in task_ids)


def display_for(count: int, labels: Mapping[str, str] | None = None) -> Display:
    """Return the display that suits where stdout goes."""
    if not is_terminal(sys.stdout):
        return Lines()
    return bars(count, labels)


def bars(count: int, labels: Mapping[str, str] | None = None) -> Display:
    """Return bars on stderr, one a task if they fit; none at all where stderr is not a terminal."""
    if not is_terminal(sys.stderr):
        return Silent()
    screen = console(stderr=True)
    return Bars(screen, labels or {}) if count < screen.height - 2 else Overview(screen, count)


async def _follow(client: FlikClient, task_id: str, display: Display, timeout_s: float | None) -> Outcome:
    try:
        return await client.wait(task_id, timeout_s, on_change=display.show)
    except ClientError as error:
        display.fail(task_id, error)
        return error


class Silent:
    """Shows nothing but the failure to follow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, task: Task) -> None:
        """Show nothing."""

    def fail(self, task_id: str, error: ClientError) -> None:
        """Complain on stderr."""
        complain(explain(error))


class Lines(Silent):
    """A line for each change: id, status, type and detail, separated by tabs."""

    def __init__(self, write: Callable[[str], None] = click.echo) -> None:
        self._write = write

    def show(self, task: Task) -> None:
        """Write the line and send it on its way at once."""
        cells = (task.task_id, task.status, task.task_type, detail(task))
        self._write("\t".join(one_line(cell) for cell in cells).rstrip("\t"))
        sys.stdout.flush()


class JsonLines(Silent):
    """A JSON document a line for each change, as the gateway sent it."""

    def show(self, task: Task) -> None:
        """Write the task."""
        write_json(task.raw, lines=True)

    def fail(self, task_id: str, error: ClientError) -> None:
        """Write the error under the task's id, and complain."""
        super().fail(task_id, error)
        write_json({"taskId": task_id, "error": error_document(error)}, lines=True)


class Bars:
    """One bar a task."""

    def __init__(self, screen: Console, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._rows: dict[str, TaskID] = {}
        self._progress = _progress(screen, _StatusColumn())

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, task: Task) -> None:
        """Draw the task's bar anew."""
        row = self._row(task)
        done = 1.0 if task.is_completed else task.progress or 0.0
        self._progress.update(row, completed=done, status=task.status, detail=detail(task))
        if task.is_terminal:
            self._progress.stop_task(row)

    def fail(self, task_id: str, error: ClientError) -> None:
        """Say why above the bars."""
        self._progress.console.print(Text(one_line(explain(error)), "red"))

    def _row(self, task: Task) -> TaskID:
        if task.task_id not in self._rows:
            label = self._labels.get(task.task_id) or f"{task.task_type} {task.task_id}"
            fields: dict[str, Any] = {"status": "", "detail": ""}
            self._rows[task.task_id] = self._progress.add_task(one_line(label), total=1.0, **fields)
        return self._rows[task.task_id]


class Overview:
    """One bar for many tasks: how many have ended, and how."""

    def __init__(self, screen: Console, count: int) -> None:
        self._statuses: dict[str, str] = {}
        self._progress = _progress(screen, TextColumn("{task.fields[status]}", markup=False))
        self._row = self._progress.add_task(f"{count} tasks", total=count, status="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, task: Task) -> None:
        """Count the task where it is now."""
        self._statuses[task.task_id] = task.status
        if task.is_terminal:
            self._progress.advance(self._row)
        counts = dict.fromkeys(sorted(self._statuses.values()), 0)
        for status in self._statuses.values():
            counts[status] += 1
        self._progress.update(self._row, status=one_line(", ".join(f"{n} {status}" for status, n in counts.items())))

    def fail(self, task_id: str, error: ClientError) -> None:
        """Count the task as lost and say why above the bar."""
        self._progress.advance(self._row)
        self._progress.console.print(Text(one_line(explain(error)), "red"))


class _StatusColumn(TextColumn):
    """The status in its colour, and the detail."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Text:
        status = task.fields["status"]
        return Text.assemble((f"{one_line(status):<10}", STYLES.get(status, "")), " ", task.fields["detail"])


def _progress(screen: Console, last: TextColumn) -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TimeElapsedColumn(), last
    return Progress(*columns, console=screen, refresh_per_second=8)
