"""`flik tasks`: what is there, newest first."""

from __future__ import annotations

from typing import Any

import click

from flik.cli.filters import kind_and_time, limited, show_list, upper
from flik.cli.invocation import Invocation, connected, pass_invocation


@click.command()
@click.option("--status", callback=upper, help="QUEUED, PROCESSING, COMPLETED, FAILED ...")
@kind_and_time
@click.option("--priority", type=click.IntRange(0, 2))
@limited
@connected
@pass_invocation
def tasks(invocation: Invocation, /, limit: int, every: bool, **filters: Any) -> None:
    """List tasks, newest first."""
    bound = None if every else limit
    show_list(invocation, lambda client: client.list(**filters, tenant=invocation.tenant, limit=bound), bound)
