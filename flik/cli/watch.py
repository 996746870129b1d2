"""`flik watch`: follow tasks until they end."""

from __future__ import annotations

from pathlib import Path

import click

from flik.cli.arguments import TaskId
from flik.cli.exits import EXIT_FAILED, EXIT_OK, exit_code, worst
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import is_terminal
from flik.cli.progress import Display, JsonLines, Outcome, display_for, follow
from flik.cli.results import fetch, make_folder, write_result
from flik.cli.watch_text import print_text
from flik.client import ClientError, FlikClient, Task

MAX_WATCHED = 200


@click.command()
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True, type=TaskId())
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer for any of them."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Download what was made into this folder."
)
@click.option("--text", "as_text", is_flag=True, help="Print the text of one task as it is written, and nothing else.")
@connected
@pass_invocation
def watch(
    invocation: Invocation, task_ids: tuple[str, ...], timeout_s: float | None, out: Path | None, *, as_text: bool
) -> None:
    """Follow tasks until they end.

    Progress bars on a terminal; on a pipe a line a change: id, status, type, detail. With
    --json each change is a JSON document on a line of its own.
    """
    if len(task_ids) > MAX_WATCHED:
        raise click.UsageError(f"At most {MAX_WATCHED} tasks can be watched at once.")
    if as_text:
        if len(task_ids) > 1 or invocation.as_json or timeout_s is not None or out is not None:
            raise click.UsageError("--text goes with one ID and no other option.")
        raise click.exceptions.Exit(invocation.run(lambda client: print_text(client, task_ids[0])))
    make_folder(out)
    raise click.exceptions.Exit(invocation.run(lambda client: _watch(client, invocation, task_ids, timeout_s, out)))


async def _watch(
    client: FlikClient, invocation: Invocation, task_ids: tuple[str, ...], timeout_s: float | None, out: Path | None
) -> int:
    display: Display = JsonLines() if invocation.as_json else display_for(len(set(task_ids)))
    outcomes = await follow(client, dict.fromkeys(task_ids), display, timeout_s=timeout_s)
    for outcome in outcomes:
        if isinstance(outcome, Task) and outcome.is_completed:
            await _hand_over(client, outcome, out, quiet=invocation.as_json or not is_terminal())
    return worst(_code(outcome) for outcome in outcomes)


async def _hand_over(client: FlikClient, task: Task, out: Path | None, quiet: bool) -> None:
    files = await fetch(client, task, out) if out is not None else None
    if not quiet:
        write_result(client, task, files)


def _code(outcome: Outcome) -> int:
    if isinstance(outcome, ClientError):
        return exit_code(outcome)
    return EXIT_OK if outcome.is_completed else EXIT_FAILED
