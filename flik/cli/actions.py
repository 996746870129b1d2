"""`flik cancel` and `flik retry`: one action on each of several tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from flik.cli.arguments import TaskId
from flik.cli.exits import EXIT_OK, error_document, exit_code, explain, worst
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import complain, one_line, write, write_json
from flik.client import ClientError, FlikApiError, FlikClient, Task

Action = Callable[[FlikClient, str], Awaitable[Task]]
Outcome = Task | ClientError

task_ids_argument = click.argument("task_ids", metavar="ID...", nargs=-1, required=True, type=TaskId())


@click.command()
@task_ids_argument
@connected
@pass_invocation
def cancel(invocation: Invocation, task_ids: tuple[str, ...]) -> None:
    """Cancel tasks; one that has ended is refused."""
    act_on_each(invocation, task_ids, FlikClient.cancel)


@click.command()
@task_ids_argument
@connected
@pass_invocation
def retry(invocation: Invocation, task_ids: tuple[str, ...]) -> None:
    """Queue failed tasks again."""
    act_on_each(invocation, task_ids, FlikClient.retry)


def act_on_each(invocation: Invocation, task_ids: tuple[str, ...], action: Action) -> None:
    """Do it to each task, tell how each came out, and exit with the worst code.

    A task that is refused does not keep the others from their turn; a gateway that cannot be
    reached ends the command.
    """
    outcomes = invocation.run(lambda client: _act(client, tuple(dict.fromkeys(task_ids)), action))
    if invocation.as_json:
        write_json({"items": [_document(task_id, outcome) for task_id, outcome in outcomes.items()]})
    for task_id, outcome in outcomes.items():
        _tell(task_id, outcome, invocation.as_json)
    codes = (exit_code(outcome) if isinstance(outcome, ClientError) else EXIT_OK for outcome in outcomes.values())
    raise click.exceptions.Exit(worst(codes))


async def _act(client: FlikClient, task_ids: tuple[str, ...], action: Action) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    for task_id in task_ids:
        try:
            outcomes[task_id] = await action(client, task_id)
        except FlikApiError as error:
            outcomes[task_id] = error
        except ClientError as error:
            outcomes[task_id] = error
            break
    return outcomes


def _tell(task_id: str, outcome: Outcome, as_json: bool) -> None:
    if isinstance(outcome, ClientError):
        complain(explain(outcome) if task_id in str(outcome) else f"{task_id}: {explain(outcome)}")
    elif not as_json:
        write(one_line(f"{task_id} {outcome.status}"))


def _document(task_id: str, outcome: Outcome) -> dict[str, object]:
    if isinstance(outcome, ClientError):
        return {"taskId": task_id, "ok": False, "error": error_document(outcome)}
    return {"taskId": task_id, "ok": True, "task": outcome.raw}
