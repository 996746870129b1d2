"""The options that every list of tasks understands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import click

from flik.cli.arguments import Moment
from flik.cli.invocation import Invocation
from flik.cli.output import hint, write_json, write_tasks
from flik.client import FlikClient, Task

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_LIMIT = 50


def upper(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Let the user write statuses and types in any case."""
    return value.upper() if value else None


def kind_and_time(command: F) -> F:
    """Give a command `--type`, `--since` and `--until`."""
    kind = click.option("--type", "task_type", callback=upper, metavar="TYPE", help="TEXT, IMAGE or VIDEO.")
    return kind(timed(command))


def timed(command: F) -> F:
    """Give a command `--since` and `--until`."""
    until = click.option("--until", "created_before", type=Moment(), help="Submitted before this time, or longer ago.")
    since = click.option(
        "--since", "created_after", type=Moment(), help="Submitted after 2026-01-31T08:00, or 10m, 2h, 7d."
    )
    return since(until(command))


def limited(command: F) -> F:
    """Give a command `--limit` and `--all`."""
    every = click.option("--all", "every", is_flag=True, help="No limit.")
    limit = click.option("--limit", type=click.IntRange(min=1), default=DEFAULT_LIMIT, show_default=True)
    return limit(every(command))


def show_list(
    invocation: Invocation, open_list: Callable[[FlikClient], AsyncIterator[Task]], limit: int | None
) -> None:
    """Fetch the tasks and print them as a table, or as one JSON document."""
    tasks = invocation.run(lambda client: _collect(open_list(client)))
    if invocation.as_json:
        write_json({"items": [task.raw for task in tasks]})
        return
    write_tasks(tasks)
    if not tasks:
        hint("No tasks match.")
    elif len(tasks) == limit:
        hint(f"The newest {limit}; --limit or --all shows more.")


async def _collect(tasks: AsyncIterator[Task]) -> list[Task]:
    return [task async for task in tasks]
