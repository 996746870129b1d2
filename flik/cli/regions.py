"""The regions of one `flik up`: what `--regions` says, and a process for each, started, watched, stopped.

They share the servers and the data folder and nothing else. Each is a child of `flik up` (`flik/cli/region.py`)
with an environment of its own; one that ends unasked is started again, and the others go on meanwhile.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil

from flik.cli.instance import INSTANCE
from flik.errors import StartupRefused
from flik.processes import end_all, find_by_environ, reap_orphans
from flik.settings import REGION

MOST_REGIONS = 8
STOP_WITHIN_S = 9.0
_REGION = "FLIK_REGION"
_STAGES = {
    "ray": "starting Ray",
    "serve": "starting Ray Serve",
    "applications": "starting the gateway, the queue and the models",
}


class Place(NamedTuple):
    """A region and the port of its gateway."""

    region: str
    port: int


def read_places(text: str) -> list[Place]:
    """Return the places of `us-east:8080,us-west:8081`.

    Raises:
        click.UsageError: says what is wrong with it.
    """
    places = [_read_place(part.strip()) for part in text.split(",")]
    if len(places) > MOST_REGIONS:
        raise click.UsageError(f"--regions takes at most {MOST_REGIONS} regions, and there are {len(places)}")
    _refuse_twice("region", [place.region for place in places])
    _refuse_twice("port", [place.port for place in places])
    return places


def _read_place(part: str) -> Place:
    region, colon, port = part.partition(":")
    if not colon:
        raise click.UsageError(f"--regions takes REGION:PORT, separated by commas, and {part!r} is none")
    if not REGION.fullmatch(region):
        raise click.UsageError(
            f"--regions: {region!r} is no name of a region; write up to 32 small letters, digits and hyphens"
        )
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise click.UsageError(f"--regions: {port!r} is no port of {region}; write a number from 1 to 65535")
    return Place(region, int(port))


def _refuse_twice(what: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise click.UsageError(f"--regions names the {what} {value} twice")


class Region:
    """The process of one region."""

    def __init__(self, data_dir: Path, environment: Mapping[str, str], dashboard_port: int | None) -> None:
        self.name = environment[_REGION]
        self.dashboard_port = dashboard_port
        self._data_dir = data_dir
        self._environment = environment
        self._log = data_dir / "logs" / f"region-{self.name}.log"
        self._process: subprocess.Popen[str] | None = None
        self._stages: list[dict[str, Any]] = []

    def start(self) -> None:
        """Start the process; it reaches its stages by itself."""
        arguments = [str(self.dashboard_port)] if self.dashboard_port is not None else []
        self._stages = []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flik.cli.region", str(self._data_dir), self.name, *arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for `flik up`; the region is stopped in order
            )
        threading.Thread(target=self._listen, args=(self._process, self._stages), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], stages: list[dict[str, Any]]) -> None:
        for line in process.stdout or ():
            if line.startswith("{"):
                stages.append(json.loads(line))

    @property
    def pid(self) -> int | None:
        """The id of its process while it runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    @property
    def stage(self) -> str:
        """The last stage that it told of."""
        return str(self._latest["stage"])

    @property
    def _latest(self) -> dict[str, Any]:
        return self._stages[-1] if self._stages else {"stage": "starting"}

    def refusal(self) -> StartupRefused:
        """Return why it ended before it worked."""
        return StartupRefused(self._latest.get("reason") or f"the region {self.name} did not start; see {self._log}")

    def ask_to_stop(self) -> None:
        """Tell it to stop; returns at once."""
        if self._process is not None and self.pid is not None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, within_s: float) -> None:
        """Wait until it has ended, or for `within_s`."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, within_s))

    def marked(self) -> set[psutil.Process]:
        """Return the processes that carry its marks."""
        marks = (INSTANCE, self._environment[INSTANCE]), (_REGION, self.name)
        ours, of_the_name = (set(find_by_environ(*mark)) for mark in marks)
        return ours & of_the_name


class Regions:
    """All regions, from entering to leaving. `servers` tells the processes that are not theirs, by name."""

    def __init__(self, regions: Sequence[Region], servers: Callable[[], Mapping[str, int]]) -> None:
        self.all = regions
        self._servers = servers

    def __enter__(self) -> Regions:
        for region in self.all:
            region.start()
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + STOP_WITHIN_S
        for region in self.all:
            region.ask_to_stop()
        for region in self.all:
            region.wait(deadline - time.monotonic())
        self._end_leftovers(self.all)

    def wait_until_ready(self, stop: threading.Event, show: Callable[[str], object]) -> None:
        """Return when all regions work, or when `stop` is set; `show` gets what is going on.

        Raises:
            StartupRefused: a region ended instead.
        """
        while not stop.wait(0.05):
            starting = [region for region in self.all if region.stage != "ready"]
            if not starting:
                return
            show(self._words(starting[0]))
            for region in starting:
                if region.pid is None:
                    raise region.refusal()

    def _words(self, region: Region) -> str:
        words = _STAGES.get(region.stage, region.stage)
        return words if len(self.all) == 1 else f"{words} in {region.name}"

    def keep_running(self, stop: threading.Event) -> None:
        """Return when `stop` is set; start a region again whenever it ends before."""
        while not stop.wait(0.5):
            reap_orphans(self._started())
            for region in self.all:
                if region.pid is None:
                    click.echo(f"the region {region.name} ended unasked; starting it again", err=True)
                    self._end_leftovers([region])
                    region.start()
                    stop.wait(1.0)

    def _started(self) -> set[int]:
        """Return the servers and the regions that run."""
        return {*self._servers().values(), *(region.pid for region in self.all if region.pid is not None)}

    def _end_leftovers(self, ended: Collection[Region]) -> None:
        """End regions and whatever of them is left: our children but the servers and the other regions.

        Orphans of a region that ended come to us as their subreaper; those of one that runs stay with it. The mark in
        the environment is not enough here, because Ray's agents write their titles over it.
        """
        spared = set(self._servers().values()) | {region.pid for region in self.all if region not in ended}
        left = [child for child in psutil.Process().children() if child.pid not in spared]
        end_all({*left, *(process for region in ended for process in region.marked())}, 1.0)
        for region in ended:
            region.wait(1.0)
