"""`flik tenants`: whose tasks there are, and what each tenant may use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import one_line, write, write_json, write_table

F = TypeVar("F", bound=Callable[..., Any])
LIMITS = {  # option: (name on the wire, what it is)
    "rate": ("ratePerS", "Tasks a second."),
    "burst": ("burst", "Tasks at once, after a pause."),
    "max-running": ("maxRunning", "Tasks that run at the same time."),
    "max-queued": ("maxQueued", "Tasks that wait."),
    "weight": ("weight", "Share beside other tenants."),
    "highest-priority": ("highestPriority", "The most urgent priority allowed: 0, 1 or 2."),
    "max-payload-bytes": ("maxPayloadBytes", "Size of one payload."),
}


class Limit(click.ParamType[object]):
    """A number, or the word `default`."""

    name = "NUMBER|default"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:
        """Return the number; the word stays, so that it can be told from an option that was not given."""
        if value == "default" or not isinstance(value, str):
            return value
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is neither a number nor the word default.", param, ctx)
        return int(number) if number.is_integer() else number


def limits(command: F) -> F:
    """Give a command an option for each limit."""
    for option, (_, about) in reversed(LIMITS.items()):
        command = click.option(f"--{option}", type=Limit(), help=about)(command)
    return command


@click.group()
@connected
def tenants() -> None:
    """Make and list tenants, and set their limits. Takes a key with the scope admin."""


@tenants.command()
@click.argument("tenant_id", metavar="ID")
@click.option("--name", default="", help="For people.")
@limits
@connected
@pass_invocation
def create(invocation: Invocation, /, tenant_id: str, name: str, **given: Any) -> None:
    """Make a tenant; limits that are not given follow the service's defaults."""
    made = invocation.run_admin(lambda admin: admin.create_tenant(tenant_id, name=name, limits=_wire(given)))
    _show(invocation, made)


@tenants.command(name="list")
@connected
@pass_invocation
def list_tenants(invocation: Invocation) -> None:
    """List tenants in the order of their ids, with the limits that hold."""
    found = invocation.run_admin(lambda admin: admin.tenants())
    if invocation.as_json:
        write_json({"items": found})
        return
    columns = ("TENANT", "NAME", *(option.upper().replace("-", " ") for option in LIMITS))
    write_table(columns, [(_word(each.get("tenantId")), _word(each.get("name")), *_held(each)) for each in found])


@tenants.command()
@click.argument("tenant_id", metavar="ID")
@connected
@pass_invocation
def show(invocation: Invocation, tenant_id: str) -> None:
    """Show one tenant and its limits."""
    _show(invocation, invocation.run_admin(lambda admin: admin.tenant(tenant_id)))


@tenants.command(name="set")
@click.argument("tenant_id", metavar="ID")
@click.option("--name", help="For people.")
@limits
@connected
@pass_invocation
def set_limits(invocation: Invocation, /, tenant_id: str, name: str | None, **given: Any) -> None:
    """Change what is given, and nothing else; `default` takes a limit of its own away. Holds within 5 s."""
    changes: dict[str, Any] = {"limits": _wire(given)} if _wire(given) else {}
    if name is not None:
        changes["name"] = name
    if not changes:
        raise click.UsageError("Nothing to change: give --name or a limit.")
    _show(invocation, invocation.run_admin(lambda admin: admin.change_tenant(tenant_id, changes)))


def _wire(given: dict[str, Any]) -> dict[str, Any]:
    """Return the limits that were given, by their names on the wire; null for `default`."""
    named = {LIMITS[option.replace("_", "-")][0]: value for option, value in given.items() if value is not None}
    return {name: None if value == "default" else value for name, value in named.items()}


def _show(invocation: Invocation, tenant: dict[str, Any]) -> None:
    if invocation.as_json:
        write_json(tenant)
        return
    write(one_line(f"{_word(tenant.get('tenantId'))}  {_word(tenant.get('name'))}".rstrip()))
    own = tenant.get("limits") if isinstance(tenant.get("limits"), dict) else {}
    for (option, (name, _)), held in zip(LIMITS.items(), _held(tenant), strict=True):
        origin = "" if own and own.get(name) is not None else "  (default)"
        write(one_line(f"  {option:<18} {held}") + origin)


def _held(tenant: dict[str, Any]) -> list[str]:
    effective = tenant.get("effectiveLimits")
    found = effective if isinstance(effective, dict) else {}
    return ["no bound" if found.get(name) is None else _word(found[name]) for name, _ in LIMITS.values()]


def _word(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
