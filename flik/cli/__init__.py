"""The `flik` command. Each command is a module here, imported only when it is called."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line and exit with its code (`flik.cli.commands` lists the codes)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow terminal encoding is no reason to fail
    from flik.cli.commands import flik  # noqa: PLC0415  # so that `import flik.cli` costs nothing

    flik.main(prog_name="flik")
