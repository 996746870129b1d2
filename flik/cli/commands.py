"""The list of commands, and what every one of them shares: options, exit codes, one-sentence errors.

Commands are named here with their one-line help and imported when called, so that
`flik --help` answers at once and no command pays for what another one needs.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from flik import __version__
from flik.cli.exits import EXIT_FAULT, EXIT_INTERRUPTED, report
from flik.cli.invocation import connected
from flik.errors import FlikError

COMMANDS = {
    "up": ("flik.cli.up:up", "Start Flik here and stay in the foreground."),
    "submit": ("flik.cli.submit:submit", "Submit a task; optionally wait and fetch what it made."),
    "tasks": ("flik.cli.tasks:tasks", "List tasks, newest first."),
    "watch": ("flik.cli.watch:watch", "Follow tasks until they end."),
    "cancel": ("flik.cli.actions:cancel", "Cancel tasks."),
    "retry": ("flik.cli.actions:retry", "Queue failed tasks again."),
    "dag": ("flik.cli.dags:dag", "Run chains of tasks; draw, list, cancel, resume them."),
    "dead-letters": ("flik.cli.dead_letters:dead_letters", "List tasks that failed for good, or replay them."),
    "webhooks": ("flik.cli.webhooks:webhooks", "Make, list and change webhooks; see what they were sent."),
    "keys": ("flik.cli.keys:keys", "Make, list and revoke API keys."),
    "tenants": ("flik.cli.tenants:tenants", "Make and list tenants, and set their limits."),
    "migrate": ("flik.cli.migrate:migrate", "Bring the database schema up to date."),
    "doctor": ("flik.cli.doctor:doctor", "Check whether Flik can run here."),
    "version": ("flik.cli.version:version", "Show versions."),
}

EPILOG = """\b
Exit codes:
  0    done
  1    a task or a dag did not complete, or a check failed
  2    the command line, a file or a setting cannot be used
  3    no such task, dag, key or tenant
  4    the gateway refused (4xx)
  5    the gateway, or a server it needs, is not available
  70   a fault in flik itself
  130  interrupted

\b
Environment: FLIK_URL, FLIK_API_KEY, FLIK_TENANT, FLIK_DATA_DIR, NO_COLOR.
"""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and turns failures into sentences and codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or return None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row[1]) for name, row in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; no failure leaves as a traceback, unless `FLIK_DEBUG` is set."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except FlikError as error:
            ctx.exit(report(error, ctx.obj))
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as error:
            if os.environ.get("FLIK_DEBUG"):
                raise
            click.echo(f"flik: a fault in flik itself: {error!r}; FLIK_DEBUG=1 shows where", err=True)
            ctx.exit(EXIT_FAULT)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="flik", message="%(prog)s %(version)s")
@connected
def flik() -> None:
    """A durable, fair front door for generative models."""
