"""What the commands print: colour and tables on a terminal, plain lines and tabs on a pipe, or JSON.

Text that came from a server or a model never reaches a terminal as it is: control
characters, and those that turn the direction of writing, are shown as escapes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import click

from flik.domain.task import Status

if TYPE_CHECKING:
    from rich.console import Console

    from flik.client import Task

STYLES: dict[str, str] = {
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.EXPIRED: "red",
    Status.CANCELLED: "yellow",
    Status.PROCESSING: "cyan",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}

WIDE_ENOUGH = 120  # columns of a terminal that show a task with everything

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def neutral(text: str) -> str:
    """Return the text with everything that could steer a terminal shown as an escape; lines and tabs stay."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return the text neutral and without line breaks or tabs."""
    return neutral(" ".join(text.split()))


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Tell whether the stream (default: stdout) is a terminal that can do more than print lines."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def console(stderr: bool = False) -> Console:
    """Return a rich console that prints what it is given: no markup, no highlighting, no emoji codes."""
    from rich.console import Console  # noqa: PLC0415  # only terminals need it

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def write(text: str) -> None:
    """Print a line of text; neutral on a terminal, untouched on a pipe."""
    click.echo(neutral(text) if sys.stdout.isatty() else text)


def write_piece(text: str) -> None:
    """Print a piece of text that goes on; neutral on a terminal, untouched on a pipe."""
    click.echo(neutral(text) if sys.stdout.isatty() else text, nl=False)


def hint(text: str) -> None:
    """Tell the person at the terminal what could come next; silent when nobody sits there."""
    if is_terminal(sys.stderr):
        click.echo(neutral(text), err=True)


def complain(text: str) -> None:
    """Print to stderr, always neutral: logs are read on terminals, too."""
    click.echo(neutral(text), err=True)


def write_json(document: Any, *, lines: bool = False) -> None:
    """Print one JSON document in ASCII; indented on a terminal unless it is one of many `lines`."""
    indent = 2 if sys.stdout.isatty() and not lines else None
    click.echo(json.dumps(document, indent=indent))
    if lines:
        sys.stdout.flush()  # a follower on the pipe sees each line when it happens


def write_table(columns: Sequence[str], rows: Sequence[Sequence[str]], status_column: int | None = None) -> None:
    """Print rows under their column names: aligned and coloured on a terminal, tab-separated on a pipe."""
    if is_terminal():
        _write_aligned(columns, rows, status_column)
        return
    for row in (columns, *rows):
        click.echo("\t".join(one_line(cell) for cell in row))


def write_tasks(tasks: Sequence[Task]) -> None:
    """Print tasks as a table; a narrow terminal gets the columns that tell most."""
    columns = ("TASK", "STATUS", "TYPE", "DETAIL", "PRIORITY", "ATTEMPT", "CREATED")
    kept = 4 if is_terminal() and console().width < WIDE_ENOUGH else len(columns)
    write_table(columns[:kept], [_row(task)[:kept] for task in tasks], status_column=1)


def detail(task: Task) -> str:
    """Return what matters about a task beside its status: its error, its progress, or when it goes on."""
    if task.error is not None and not task.is_completed:
        again = f", again at {timestamp(task.available_at)}" if task.available_at and not task.is_terminal else ""
        return one_line(f"{task.error.code}: {task.error.message}{again}")
    if task.status == Status.PROCESSING and task.progress is not None:
        return f"{task.progress:.0%}"
    return ""


def timestamp(moment: datetime | None) -> str:
    """Return a time as ISO 8601 in UTC, to the second; empty for None."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""


def _row(task: Task) -> tuple[str, ...]:
    priority = "" if task.priority is None else str(task.priority)
    created = timestamp(task.created_at)
    return task.task_id, task.status, task.task_type, detail(task), priority, str(task.attempt), created


def _write_aligned(columns: Sequence[str], rows: Sequence[Sequence[str]], status_column: int | None) -> None:
    from rich.table import Table  # noqa: PLC0415  # only terminals need it
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        widest = max(len(one_line(row[index])) for row in (columns, *rows))
        whole = widest if index == 0 else None  # ids are there to be copied; the rest may fold
        table.add_column(column, overflow="fold", min_width=whole)
    for row in rows:
        style = STYLES.get(row[status_column], "") if status_column is not None else ""
        table.add_row(
            *(Text(one_line(cell), style if index == status_column else "") for index, cell in enumerate(row))
        )
    console().print(table)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
