"""`flik doctor`: can Flik run here? Looks at everything that keeps `flik up` from coming up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flik import settings
from flik.cli import checks
from flik.cli.checks import Finding, Verdict
from flik.cli.exits import EXIT_FAILED, EXIT_OK
from flik.cli.invocation import Invocation, pass_invocation, with_json
from flik.cli.output import hint, write_json, write_table
from flik.errors import SettingInvalid


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The port to look at.  [env: FLIK_PORT; default: 8080]")
@click.option("--data-dir", type=click.Path(path_type=Path), help="[env: FLIK_DATA_DIR; default: .flik]")
@with_json
@pass_invocation
def doctor(invocation: Invocation, port: int | None, data_dir: Path | None) -> None:
    """Check whether Flik can run here, and say what to do where it can't.

    Nothing is started or changed. Exits with 1 when a check fails; a warning does not count.
    """
    findings = examine(port, data_dir)
    if invocation.as_json:
        write_json({"ok": not _failed(findings), "checks": [asdict(finding) for finding in findings]})
    else:
        rows = [(row.check, row.verdict, row.detail, row.advice) for row in findings]
        write_table(("CHECK", "VERDICT", "DETAIL", "WHAT TO DO"), rows, status_column=1)
        hint("\nFlik cannot run like this." if _failed(findings) else "\nFlik can run here: flik up")
    raise click.exceptions.Exit(EXIT_FAILED if _failed(findings) else EXIT_OK)


def examine(port: int | None = None, data_dir: Path | None = None) -> list[Finding]:
    """Run every check and return what was found, in the order it is shown."""
    overrides = {"port": port, "data_dir": data_dir}
    try:
        chosen = settings.load(**{name: value for name, value in overrides.items() if value is not None})
    except SettingInvalid as error:
        return [checks.python(), checks.fail("settings", str(error), f"mend or unset {error.name}")]
    return [
        checks.python(),
        checks.ok("settings", f"region {chosen.region}"),
        checks.port(chosen.port),
        checks.memory(),
        checks.files(chosen),
        checks.shared_memory(),
        checks.data_folder(chosen.data_dir),
        checks.ray(),
        checks.haproxy(),
        checks.embedded_postgresql(needed=not chosen.database_url),
        checks.embedded_valkey(needed=not chosen.redis_url),
        checks.database(chosen.database_url),
        checks.live(chosen.redis_url),
    ]


def _failed(findings: list[Finding]) -> bool:
    return any(finding.verdict is Verdict.FAIL for finding in findings)
