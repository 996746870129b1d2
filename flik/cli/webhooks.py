"""`flik webhooks`: where a tenant hears of its tasks. A secret is shown once, when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flik.cli.arguments import TaskId
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import hint, one_line, write, write_json, write_table

COLUMNS = ("WEBHOOK", "TENANT", "STATUS", "URL", "KINDS", "FAILING SINCE", "REASON")
DELIVERY_COLUMNS = ("DELIVERY", "STATE", "KIND", "TASK", "SEQ", "ATTEMPTS", "NEXT", "LAST ANSWER", "CREATED")
KINDS = (
    "pending", "queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired",
    "dagStep", "dagCompleted", "dagFailed", "dagCancelled",
)  # fmt: skip


class WebhookId(TaskId):
    """The id of a webhook, as `flik webhooks list` shows it."""


webhook_argument = click.argument("webhook_id", metavar="ID", type=WebhookId())
kinds_option = click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="An event it wants; may be repeated."
)


@click.group()
@connected
def webhooks() -> None:
    """Make, list and change webhooks, and see what they were sent."""


@webhooks.command()
@click.argument("target", metavar="URL")
@kinds_option
@connected
@pass_invocation
def create(invocation: Invocation, /, target: str, kinds: tuple[str, ...]) -> None:
    """Make a webhook for --tenant and print its secret, this once. Without --kind it hears how tasks end."""
    made = invocation.run_webhooks(
        lambda client: client.create(invocation.tenant or client.access.tenant, target, kinds)
    )  # fmt: skip
    _show_secret(invocation, made)


@webhooks.command(name="list")
@connected
@pass_invocation
def list_webhooks(invocation: Invocation) -> None:
    """List webhooks, newest first; with --tenant those of one tenant."""
    found = invocation.run_webhooks(lambda client: client.list(invocation.tenant))
    if invocation.as_json:
        write_json({"items": found})
    else:
        write_table(COLUMNS, [_row(each) for each in found])


@webhooks.command(name="set")
@webhook_argument
@click.option("--to", "target", metavar="URL", help="Where it leads from now on.")
@kinds_option
@click.option("--status", type=click.Choice(["ACTIVE", "PAUSED"], case_sensitive=False),
              help="PAUSED gathers what happens; ACTIVE sends it.")  # fmt: skip
@connected
@pass_invocation
def set_webhook(
    invocation: Invocation, /, webhook_id: str, target: str | None, kinds: tuple[str, ...], status: str | None
) -> None:
    """Change what is given, and nothing else."""
    given = {"url": target, "kinds": list(kinds), "status": status and status.upper()}
    changes = {name: value for name, value in given.items() if value}
    if not changes:
        raise click.UsageError("Nothing to change: give --to, --kind or --status.")
    changed = invocation.run_webhooks(lambda client: client.change(webhook_id, changes))
    if invocation.as_json:
        write_json(changed)
    else:
        write_table(COLUMNS, [_row(changed)])


@webhooks.command()
@webhook_argument
@connected
@pass_invocation
def delete(invocation: Invocation, /, webhook_id: str) -> None:
    """Delete a webhook for good; what waits for it is not sent any more."""
    deleted = invocation.run_webhooks(lambda client: client.delete(webhook_id))
    if invocation.as_json:
        write_json(deleted)
    else:
        write(f"{webhook_id} deleted")


@webhooks.command()
@webhook_argument
@connected
@pass_invocation
def rotate(invocation: Invocation, /, webhook_id: str) -> None:
    """Make a new secret and print it, this once; the old one signs beside it for 24 hours."""
    _show_secret(invocation, invocation.run_webhooks(lambda client: client.rotate(webhook_id)))


@webhooks.command()
@webhook_argument
@connected
@pass_invocation
def test(invocation: Invocation, /, webhook_id: str) -> None:
    """Send a ping; `flik webhooks deliveries` tells what came of it."""
    _show_deliveries(invocation, [invocation.run_webhooks(lambda client: client.test(webhook_id))])


@webhooks.command()
@webhook_argument
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many, at most.")
@connected
@pass_invocation
def deliveries(invocation: Invocation, /, webhook_id: str, limit: int) -> None:
    """List what a webhook was sent and is to be sent, newest first."""
    _show_deliveries(invocation, invocation.run_webhooks(lambda client: client.deliveries(webhook_id, limit)))


@webhooks.command()
@webhook_argument
@click.argument("delivery_id", metavar="DELIVERY", type=WebhookId())
@connected
@pass_invocation
def redeliver(invocation: Invocation, /, webhook_id: str, delivery_id: str) -> None:
    """Send a delivery again, now."""
    again = invocation.run_webhooks(lambda client: client.redeliver(webhook_id, delivery_id))
    _show_deliveries(invocation, [again])


def _show_secret(invocation: Invocation, made: dict[str, Any]) -> None:
    if invocation.as_json:
        write_json(made)
        return
    write(one_line(str(made.get("secret", ""))))
    hint(f"The secret of webhook {made.get('webhookId')}. It is not shown again.")


def _show_deliveries(invocation: Invocation, found: Sequence[dict[str, Any]]) -> None:
    if invocation.as_json:
        write_json({"items": list(found)})
        return
    write_table(DELIVERY_COLUMNS, [_delivery_row(each) for each in found], status_column=1)


def _row(webhook: dict[str, Any]) -> tuple[str, ...]:
    kinds = webhook.get("kinds")
    words = (
        webhook.get("webhookId"), webhook.get("tenantId"), webhook.get("status"), webhook.get("url"),
        ",".join(map(str, kinds)) if isinstance(kinds, list) else "", webhook.get("failingSince"),
        webhook.get("reason"),
    )  # fmt: skip
    return tuple(map(_word, words))


def _delivery_row(delivery: dict[str, Any]) -> tuple[str, ...]:
    names = ("deliveryId", "state", "kind", "taskId", "seq", "attempts", "nextAt")
    return (*(_word(delivery.get(name)) for name in names), _last_answer(delivery), _word(delivery.get("createdAt")))


def _last_answer(delivery: dict[str, Any]) -> str:
    log = delivery.get("log")
    last = log[-1] if isinstance(log, list) and log and isinstance(log[-1], dict) else {}
    return _word(last.get("status") or last.get("error"))


def _word(value: Any) -> str:
    return "" if value is None else str(value)
