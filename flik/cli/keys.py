"""`flik keys`: who may call. A key is shown once, when it is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from flik.cli.arguments import Moment, TaskId
from flik.cli.invocation import Invocation, connected, pass_invocation
from flik.cli.output import hint, one_line, write, write_json, write_table

COLUMNS = ("KEY", "TENANT", "BEGINS WITH", "SCOPES", "NAME", "CREATED", "EXPIRES", "LAST USED", "STATE")


class Expiry(Moment):
    """A time, or how long from now: 30d, 12h."""

    name = "TIME"

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time in UTC; an age is taken forwards."""
        moment = super().convert(value, param, ctx)
        if isinstance(value, str) and value.strip()[-1:] in ("s", "m", "h", "d"):
            now = datetime.now(UTC)
            return now + timedelta(seconds=round((now - moment).total_seconds()))
        return moment


class KeyId(TaskId):
    """The id of a key, as `flik keys list` shows it."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id; a key itself is refused, so that nobody makes a habit of pasting keys into shells."""
        if value.strip().startswith("flik_"):
            self.fail("that is a key; name its id, as `flik keys list` shows it.", param, ctx)
        return super().convert(value, param, ctx)


@click.group()
@connected
def keys() -> None:
    """Make, list and revoke API keys. Takes a key with the scope admin."""


@keys.command()
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["submit", "read", "admin"]),
              help="What it allows; may be repeated.  [default: submit and read]")  # fmt: skip
@click.option("--name", default="", help="For people.")
@click.option("--expires", type=Expiry(), help="When it ends: 2027-01-31, or 30d from now.")
@click.option("--kind", type=click.Choice(["live", "test"]), default="live", show_default=True)
@connected
@pass_invocation
def create(invocation: Invocation, /, scopes: tuple[str, ...], name: str, expires: datetime | None, kind: str) -> None:
    """Make a key for --tenant and print it, this once."""
    expires_at = expires.isoformat() if expires else None
    made = invocation.run_admin(
        lambda admin: admin.create_key(
            invocation.tenant or admin.access.tenant,
            name=name, scopes=scopes or ("submit", "read"), expires_at=expires_at, kind=kind,
        )
    )  # fmt: skip
    if invocation.as_json:
        write_json(made)
        return
    write(one_line(str(made.get("key", ""))))
    hint(f"Key {made.get('keyId')} of {made.get('tenantId')}. It is not shown again.")


@keys.command(name="list")
@connected
@pass_invocation
def list_keys(invocation: Invocation) -> None:
    """List keys, newest first; with --tenant those of one tenant."""
    found = invocation.run_admin(lambda admin: admin.keys(invocation.tenant))
    if invocation.as_json:
        write_json({"items": found})
        return
    write_table(COLUMNS, [_row(key, datetime.now(UTC)) for key in found])


@keys.command()
@click.argument("key_ids", metavar="ID...", nargs=-1, required=True, type=KeyId())
@connected
@pass_invocation
def revoke(invocation: Invocation, key_ids: tuple[str, ...]) -> None:
    """Revoke keys for good; 5 s later they open nothing."""
    for key_id in dict.fromkeys(key_ids):
        revoked = invocation.run_admin(lambda admin, each=key_id: admin.revoke_key(each))  # type: ignore[misc]
        if invocation.as_json:
            write_json(revoked, lines=True)
        else:
            write(one_line(f"{key_id} revoked"))


def _row(key: dict[str, Any], now: datetime) -> tuple[str, ...]:
    scopes = key.get("scopes")
    words = (
        key.get("keyId"), key.get("tenantId"), key.get("prefix"),
        ",".join(map(str, scopes)) if isinstance(scopes, list) else "", key.get("name"), key.get("createdAt"),
        key.get("expiresAt"), key.get("lastUsedAt"), _state(key, now),
    )  # fmt: skip
    return tuple("" if word is None else str(word) for word in words)


def _state(key: dict[str, Any], now: datetime) -> str:
    if key.get("revokedAt"):
        return "revoked"
    try:
        expired = key.get("expiresAt") and datetime.fromisoformat(str(key["expiresAt"])) <= now
    except (ValueError, TypeError):
        expired = False
    return "expired" if expired else "works"
