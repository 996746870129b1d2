"""`python -m benchmarks`: measure Flik beside its peer and the machine's own limits.

Prints a table and writes benchmarks/results/<date>.json. Exit code 0: measured, however
slow; 1: something that was accepted did not settle exactly once, a row broke, or `flik up`
left a process behind; 130: interrupted. Whatever was started is stopped first.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import machine
from benchmarks.plan import FULL, QUICK
from benchmarks.report import Report, print_tables, to_markdown, write_json
from benchmarks.run import ALL_ROWS, PEER_ROWS, Where, run
from benchmarks.service import ROOT

PIPE_COLUMNS = 170
RESULTS = ROOT / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one run and return its exit code."""
    wanted = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        return _measure(wanted)
    except KeyboardInterrupt:
        print("interrupted; everything that was started is stopped", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exits with 2 and a message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds a row, without the peer")
    parser.add_argument(
        "--only", action="append", choices=ALL_ROWS, metavar="ROW", help=f"may repeat; one of: {', '.join(ALL_ROWS)}"
    )
    parser.add_argument("--url", help="measure a region that runs there (nobody else may submit to it meanwhile)")
    parser.add_argument("--pid", type=int, help="with --url: the process whose tree is metered for CPU and memory")
    parser.add_argument(
        "--data-home",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where servers keep their data; on the disk that is to be measured (default %(default)s)",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown for docs/performance.md")
    wanted = parser.parse_args(arguments)
    if wanted.pid is not None and wanted.url is None:
        parser.error("--pid needs --url")
    if not wanted.data_home.is_dir():
        parser.error(f"--data-home: {wanted.data_home} is no folder")
    return wanted


def _measure(wanted: argparse.Namespace) -> int:
    facts = machine.facts(wanted.data_home)
    if facts["data_file_system"] in machine.IN_MEMORY:
        print("warning: the data folder lies in memory; a flush costs nothing there (--data-home)", file=sys.stderr)
    plan = QUICK if wanted.quick else FULL
    default = tuple(row for row in ALL_ROWS if not (wanted.quick and row in PEER_ROWS))
    found = run(wanted.only or default, plan, Where(wanted.data_home, wanted.url, wanted.pid))
    report = Report(facts, "quick" if wanted.quick else "full", found.measurements, found.violations, found.skipped)
    if wanted.markdown:
        print(to_markdown(report))
    else:
        print_tables(report, Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    print(f"written to {write_json(report, RESULTS)}", file=sys.stderr)
    return 1 if report.violations else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # a second Ctrl-C must not cut the stopping short
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
