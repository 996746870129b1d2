"""`flik dag`: chains of tasks and graphs of them, from files, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flik.cli.arguments import TaskId
from flik.cli.dag_file import SUFFIXES, plan_of, read_dag_file
from flik.cli.dag_follow import dag_detail
from flik.cli.dag_run import reading, run
from flik.cli.drawing import FORMATS
from flik.cli.filters import limited, timed, upper
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import detail, hint, one_line, timestamp, write, write_json, write_table
from flik.client import Dag, FlikClient, StepSpec, UnreadableAnswer
from flik.domain.dag.plan import Plan, plan
from flik.errors import InvalidRequest

COLUMNS = ("DAG", "STATUS", "STEPS", "DETAIL", "PRIORITY", "CREATED")
STEP_COLUMNS = ("STEP", "STATUS", "TYPE", "DETAIL", "AFTER", "ATTEMPT", "TASK")


class DagId(TaskId):
    """The id of a dag, as `flik dag list` shows it."""


dag_argument = click.argument("dag_id", metavar="ID", type=DagId())


@click.group()
@connected
def dag() -> None:
    """Run chains of tasks, draw, list, cancel and resume them."""


dag.add_command(run)


@dag.command()
@click.argument("target", metavar="FILE|ID")
@click.option("--format", "drawn_as", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@reading
@connected
@pass_invocation
def show(
    invocation: Invocation,
    /,
    target: str,
    drawn_as: str,
    texts: Sequence[tuple[str, str]],
    objects: dict[str, Any] | None,
) -> None:
    """Draw the dag in a FILE, without a gateway, or the one with this ID, with the states of its steps.

    FILE is what `flik dag run` takes; it ends in .yaml, .yml, .json or .py. A .py file is run.
    """
    path = Path(target)
    if path.suffix in SUFFIXES:
        found = read_dag_file(path).reading(objects, texts)
        try:
            drawn = plan_of(found)
        except (ValueError, InvalidRequest) as error:
            raise click.UsageError(f"{path} holds no dag that can run: {error}") from None
        states: Mapping[str, str] = {}
        document: Any = {"steps": [_document(drawn, place) for place in range(len(drawn.steps))]}
    else:
        dag_id = DagId().convert(target, None, None)
        shown, drawn = invocation.run(lambda client: _drawn(client, dag_id))
        states = {step.step_id: f"{step.task.status} {detail(step.task)}".strip() for step in shown.steps}
        document = shown.raw
    if invocation.as_json:
        write_json(document)
    else:
        write(FORMATS[drawn_as](drawn, states))


@dag.command()
@dag_argument
@connected
@pass_invocation
def status(invocation: Invocation, dag_id: str) -> None:
    """Show a dag and how its steps stand."""
    found = invocation.run(lambda client: client.dag(dag_id))
    if invocation.as_json:
        write_json(found.raw)
        return
    counts = f"{found.counts.completed}/{found.counts.total} steps"
    write("  ".join(filter(None, (found.dag_id, one_line(found.status), counts, dag_detail(found)))))
    rows = [
        (
            step.step_id, step.task.status, step.task.task_type, detail(step.task), ",".join(step.depends_on),
            str(step.task.attempt), step.task.task_id,
        )
        for step in found.steps
    ]  # fmt: skip
    write_table(STEP_COLUMNS, rows, status_column=1)


@dag.command(name="list")
@click.option("--status", "wanted", callback=upper, help="RUNNING, COMPLETED, FAILED or CANCELLED.")
@timed
@limited
@connected
@pass_invocation
def list_dags(invocation: Invocation, /, wanted: str | None, limit: int, every: bool, **filters: Any) -> None:
    """List dags, newest first."""
    bound = None if every else limit
    found = invocation.run(lambda client: _listed(client, wanted, invocation.tenant, bound, filters))
    if invocation.as_json:
        write_json({"items": [each.raw for each in found]})
        return
    write_table(COLUMNS, [_row(each) for each in found], status_column=1)
    if not found:
        hint("No dags match.")
    elif len(found) == bound:
        hint(f"The newest {bound}; --limit or --all shows more.")


@dag.command()
@dag_argument
@connected
@pass_invocation
def cancel(invocation: Invocation, dag_id: str) -> None:
    """Cancel all of a dag that has not ended; one that has is refused."""
    _tell(invocation, invocation.run(lambda client: client.cancel_dag(dag_id)))


@dag.command()
@dag_argument
@connected
@pass_invocation
def resume(invocation: Invocation, dag_id: str) -> None:
    """Run a failed dag again from where it failed; what completed is kept."""
    _tell(invocation, invocation.run(lambda client: client.resume_dag(dag_id)))


async def _drawn(client: FlikClient, dag_id: str) -> tuple[Dag, Plan]:
    found = await client.dag(dag_id)
    try:
        return found, plan(
            [StepSpec(step.step_id, step.task.task_type, depends_on=step.depends_on) for step in found.steps]
        )
    except InvalidRequest as error:
        raise UnreadableAnswer(client.access.base_url, f"its steps are no dag: {error}") from None


async def _listed(
    client: FlikClient, wanted: str | None, tenant: str | None, limit: int | None, filters: Mapping[str, Any]
) -> list[Dag]:
    return [each async for each in client.dags(status=wanted, tenant=tenant, limit=limit, **filters)]


def _document(drawn: Plan, place: int) -> dict[str, Any]:
    step = drawn.steps[place]
    parents = [drawn.steps[parent].step_id for parent in step.parents]
    return {"id": step.step_id, "taskType": step.spec.task_type, "dependsOn": parents}


def _row(found: Dag) -> tuple[str, ...]:
    priority = "" if found.priority is None else str(found.priority)
    steps = f"{found.counts.completed}/{found.counts.total}"
    return found.dag_id, found.status, steps, dag_detail(found), priority, timestamp(found.created_at)


def _tell(invocation: Invocation, changed: Dag) -> None:
    if invocation.as_json:
        write_json(changed.raw)
    else:
        write(one_line(f"{changed.dag_id} {changed.status}"))
