"""`flik submit`: one task from the command line, and with `--wait` its result."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from flik.cli.arguments import Payload
from flik.cli.exits import EXIT_FAILED
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import complain, detail, hint, write, write_json
from flik.cli.own_webhook import with_webhook
from flik.cli.progress import bars, follow
from flik.cli.results import fetch, make_folder, write_result
from flik.client import ClientError, FlikClient, Submitted, Task, TaskRequest, TaskWebhook


@click.command()
@click.argument("task_type", metavar="TYPE")
@click.argument("prompt", required=False)
@click.option("--style", help="For instance photorealistic or watercolor.")
@click.option("--seed", type=click.IntRange(min=0), help="The same seed gives the same bytes.")
@click.option("--priority", type=click.IntRange(0, 2), default=1, show_default=True, help="0 goes first.")
@click.option("--num-outputs", type=click.IntRange(min=1), help="How many images or films.")
@click.option("--format", "output_format", help="png, jpg or webp.")
@click.option("--payload", type=Payload(), help="The whole input as a JSON object; other options go on top of it.")
@click.option("--region", help="Where to run it; default: the gateway's own region.")
@click.option("--start-deadline", "start_deadline_s", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS")
@click.option("--max-attempts", type=click.IntRange(1, 20), help="How often it is tried.")
@with_webhook
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Download what was made into this folder; waits."
)
@connected
@pass_invocation
def submit(
    invocation: Invocation,
    /,
    *,
    task_type: str,
    prompt: str | None,
    payload: dict[str, Any] | None,
    priority: int,
    region: str | None,
    start_deadline_s: float | None,
    max_attempts: int | None,
    webhook: TaskWebhook | None,
    wait: bool,
    timeout_s: float | None,
    out: Path | None,
    **fields: Any,
) -> None:
    """Submit a task and print its id.

    TYPE is TEXT, IMAGE or VIDEO.

    \b
    flik submit TEXT "a haiku about rain" --wait
    flik submit IMAGE "a lighthouse" --seed 7 --out pictures
    """
    given = _payload(prompt, payload, fields)
    request = TaskRequest(task_type.upper(), given, priority, region, start_deadline_s, webhook, max_attempts)
    if not wait and out is None:
        _write_submitted(invocation, invocation.run(lambda client: _submit(client, request)))
        return
    make_folder(out)
    task = invocation.run(lambda client: _submit_and_wait(client, request, invocation, timeout_s, out))
    if not task.is_completed:
        complain(f"flik: task {task.task_id} ended as {task.status}" + (f": {detail(task)}" if task.error else ""))
        raise click.exceptions.Exit(EXIT_FAILED)


def _payload(prompt: str | None, payload: dict[str, Any] | None, fields: dict[str, Any]) -> dict[str, Any]:
    names = {"style": "style", "seed": "seed", "num_outputs": "numOutputs", "output_format": "outputFormat"}
    given = {names[name]: value for name, value in fields.items() if value is not None}
    if prompt is not None:
        given["prompt"] = prompt
    if prompt is None and payload is None:
        raise click.UsageError("Say what to make: a PROMPT, or --payload with an object.")
    return {**(payload or {}), **given}


async def _submit(client: FlikClient, request: TaskRequest) -> Submitted:
    try:
        return await client.submit(
            request.task_type,
            request.payload,
            priority=request.priority,
            region=request.region,
            start_deadline_s=request.start_deadline_s,
            webhook=request.webhook,
            max_attempts=request.max_attempts,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


async def _submit_and_wait(
    client: FlikClient, request: TaskRequest, invocation: Invocation, timeout_s: float | None, out: Path | None
) -> Task:
    submitted = await _submit(client, request)
    try:
        (outcome,) = await follow(client, [submitted], bars(1), timeout_s=timeout_s)
    except asyncio.CancelledError:
        complain(f"flik: task {submitted.task_id} goes on; `flik watch` follows it, `flik cancel` ends it")
        raise
    if isinstance(outcome, ClientError):
        raise outcome
    files = await fetch(client, outcome, out) if out and outcome.is_completed else None
    if invocation.as_json:
        write_json({**outcome.raw, **({"files": [str(file) for file in files]} if files is not None else {})})
    elif outcome.is_completed:
        write_result(client, outcome, files)
    return outcome


def _write_submitted(invocation: Invocation, submitted: Submitted) -> None:
    if invocation.as_json:
        write_json(submitted.raw)
        return
    write(submitted.task_id)
    if sys.stdout.isatty():
        hint(f"{submitted.status}; follow it with: flik watch {submitted.task_id}")
