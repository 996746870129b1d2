"""`flik migrate`: bring the schema of a database up to date. The embedded one is migrated by `flik up`."""

from __future__ import annotations

import click

from flik import settings
from flik.cli.invocation import Invocation, pass_invocation, with_json
from flik.cli.output import one_line, write, write_json


@click.command()
@click.option("--dry-run", is_flag=True, help="Name what would be applied, and apply nothing.")
@with_json
@pass_invocation
def migrate(invocation: Invocation, dry_run: bool) -> None:
    """Bring the database schema up to date.

    The database is the one that DATABASE_URL names. Migrations that were applied before
    are left alone; two runs at the same time wait for one another.
    """
    url = settings.load().database_url
    if not url:
        raise click.UsageError(
            "Set DATABASE_URL to the database to migrate, for instance postgresql://user@host:5432/flik. "
            "Without one, `flik up` runs a database of its own and migrates it at every start."
        )
    from flik.storage import migrate as migrations  # noqa: PLC0415  # psycopg is not needed to say what is missing

    applied = [each.name for each in (migrations.pending(url) if dry_run else migrations.migrate(url))]
    if invocation.as_json:
        write_json({"pending" if dry_run else "applied": applied})
        return
    for name in applied:
        write(f"{'would apply' if dry_run else 'applied'} {one_line(name)}")
    if not applied:
        write("up to date")
