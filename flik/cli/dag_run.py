"""`flik dag run`: a dag from a file, followed to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from flik.cli.arguments import Payload
from flik.cli.dag_file import DagFile, read_dag_file
from flik.cli.dag_follow import dag_detail, dag_display_for
from flik.cli.exits import EXIT_FAILED
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import complain, hint, is_terminal, write, write_json
from flik.cli.own_webhook import with_webhook
from flik.cli.results import fetch, make_folder, write_result
from flik.client import Dag, FlikClient

F = TypeVar("F", bound=Callable[..., Any])


class Input(click.ParamType[tuple[str, str]]):
    """A named text for the graph of a file."""

    name = "NAME=TEXT"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the name and the text."""
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition("=")
        if not name or not separator:
            self.fail(f"{value!r} is not NAME=TEXT.", param, ctx)
        return name, text


def reading(command: F) -> F:
    """Give a command `--input` and `--inputs`."""
    texts = click.option("--input", "texts", multiple=True, type=Input(),
                         help="What the graph of a .py file reads; may be repeated.")  # fmt: skip
    objects = click.option("--inputs", "objects", type=Payload(),
                           help="All that it reads as a JSON object; --input goes on top of it.")  # fmt: skip
    return texts(objects(command))


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@reading
@click.option("--priority", type=click.IntRange(0, 2), help="Of the steps that name none; 0 goes first.")
@click.option("--region", help="Where to run it; default: the gateway's own region.")
@click.option("--metadata", type=Payload(), help="What to keep with it, as a JSON object.")
@click.option("--deadline", "deadline_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
              help="Nothing of it starts later than this.")  # fmt: skip
@with_webhook
@click.option("--idempotency-key", metavar="KEY", help="Sent again under the same key, it is made once.")
@click.option("--no-wait", is_flag=True, help="Print the id and return at once.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Download what the steps made into this folder."
)
@connected
@pass_invocation
def run(
    invocation: Invocation,
    /,
    path: Path,
    texts: Sequence[tuple[str, str]],
    objects: dict[str, Any] | None,
    *,
    no_wait: bool,
    timeout_s: float | None,
    out: Path | None,
    **beside: Any,
) -> None:
    """Run the dag in FILE and follow it to its end.

    FILE is .yaml or .json, as POST /api/v1/dags takes it, or .py: that is run as a program of yours, with all that you
    may do, and defines `dag`, a graph made with flik.dags and Ray's bind(), or `steps`.

    Bars on a terminal; on a pipe a line a change: step, status, type, detail. With --json each change is a JSON
    document on a line of its own.

    \b
    flik dag run chain.yaml --out films
    flik dag run chain.py --input prompt="a harbour in the morning fog"
    """
    if no_wait and (out is not None or timeout_s is not None):
        raise click.UsageError("--no-wait goes without --out and --timeout.")
    found = read_dag_file(path).reading(objects, texts)
    beside = {**found.beside, **{name: value for name, value in beside.items() if value is not None}}
    invocation.tenant = invocation.tenant or beside.get("tenant")
    found = found._replace(beside={name: value for name, value in beside.items() if name != "tenant"})
    make_folder(out)
    if no_wait:
        _write_submitted(invocation, invocation.run(lambda client: _submit(client, found)))
        return
    ended = invocation.run(lambda client: _submit_and_wait(client, found, invocation, timeout_s, out))
    if not ended.is_completed:
        complain(
            f"flik: dag {ended.dag_id} ended as {ended.status}" + (f": {dag_detail(ended)}" if ended.error else "")
        )
        raise click.exceptions.Exit(EXIT_FAILED)


async def _submit(client: FlikClient, found: DagFile) -> Dag:
    inputs = [found.inputs] if found.is_graph else []
    try:
        return await client.run_dag(found.dag, *inputs, **found.beside)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def _submit_and_wait(
    client: FlikClient, found: DagFile, invocation: Invocation, timeout_s: float | None, out: Path | None
) -> Dag:
    submitted = await _submit(client, found)
    try:
        with dag_display_for(submitted, as_json=invocation.as_json) as shown:
            shown.show(submitted)
            ended = await client.wait_dag(submitted.dag_id, timeout_s, shown.show)
    except asyncio.CancelledError:
        complain(f"flik: dag {submitted.dag_id} goes on; `flik dag status` shows it, `flik dag cancel` ends it")
        raise
    await _hand_over(client, ended, out, quiet=invocation.as_json or not is_terminal())
    return ended


async def _hand_over(client: FlikClient, ended: Dag, out: Path | None, *, quiet: bool) -> None:
    """Fetch what was made, if it is wanted; show what the steps that nobody waited for made, if somebody looks."""
    waited_for = {parent for step in ended.steps for parent in step.depends_on}
    for step in ended.steps:
        if step.task.is_completed:
            name = f"{ended.dag_id}-{step.step_id}"
            files = await fetch(client, step.task, out, name) if out is not None else None
            if not quiet and step.step_id not in waited_for:
                write_result(client, step.task, files)


def _write_submitted(invocation: Invocation, submitted: Dag) -> None:
    if invocation.as_json:
        write_json(submitted.raw)
        return
    write(submitted.dag_id)
    hint(f"{submitted.status}; look at it with: flik dag show {submitted.dag_id}")
