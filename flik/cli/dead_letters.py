"""`flik dead-letters`: the tasks that failed for good, and the way back for them."""

from __future__ import annotations

from typing import Any

import click

from flik.cli.actions import act_on_each
from flik.cli.arguments import TaskId
from flik.cli.filters import kind_and_time, limited, show_list
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import write, write_json
from flik.client import FlikClient

error_code_option = click.option("--error-code", help="For instance run_timeout.")


@click.group(name="dead-letters", invoke_without_command=True)
@kind_and_time
@click.option("--priority", type=click.IntRange(0, 2))
@error_code_option
@limited
@connected
@pass_invocation
@click.pass_context
def dead_letters(ctx: click.Context, invocation: Invocation, /, limit: int, every: bool, **filters: Any) -> None:
    """List tasks that failed for good, newest first, or replay them."""
    if ctx.invoked_subcommand is not None:
        if every or any(value is not None for value in filters.values()):
            raise click.UsageError(f"Filters go after `{ctx.invoked_subcommand}`.")
        return
    bound = None if every else limit
    show_list(invocation, lambda client: client.dead_letters(**filters, tenant=invocation.tenant, limit=bound), bound)


@dead_letters.command()
@click.argument("task_ids", metavar="[ID]...", nargs=-1, type=TaskId())
@kind_and_time
@error_code_option
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("--all", "every", is_flag=True, help="Every dead letter that the key may see.")
@connected
@pass_invocation
def replay(
    invocation: Invocation, /, task_ids: tuple[str, ...], limit: int | None, every: bool, **filters: Any
) -> None:
    """Queue dead letters again: those named, those that match a filter, or --all.

    By filter the oldest first, as many as the tenant's rate allows; the answer says whether more match.
    """
    filtered = every or limit is not None or any(value is not None for value in filters.values())
    if task_ids and filtered:
        raise click.UsageError("Name tasks, or say which by filters; not both.")
    if task_ids:
        act_on_each(invocation, task_ids, FlikClient.replay)
    filters["tenant"] = invocation.tenant
    if not every and all(value is None for value in filters.values()):
        raise click.UsageError("Which ones? Name tasks, give a filter (--type, --tenant, --error-code ...) or --all.")
    count, more = invocation.run(lambda client: client.replay_many(**filters, limit=limit))
    if invocation.as_json:
        write_json({"replayed": count, "more": more})
    else:
        write(f"{count} queued again" + ("; more match" if more else ""))
