"""What `flik up` tells people to type does what it says, and shows the key to nobody."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from pathlib import Path

import fakes_gateway
import pytest
from fakes_gateway import FakeGateway

from flik.cli.demo import run_demo
from flik.cli.up import first_call


@pytest.mark.parametrize("folder", ["data", "it's a folder"])
def test_first_call_submits_a_task_and_curl_itself_reads_the_key(
    gateway: FakeGateway, tmp_path: Path, folder: str
) -> None:
    header_file = tmp_path / folder / "admin_key.header"
    header_file.parent.mkdir()
    header_file.write_text(f"Authorization: Bearer {fakes_gateway.KEY}\n")

    command = first_call(gateway.url, header_file)
    arguments = shlex.split(command.replace("\\\n", " "))  # as they are: no shell looks at them
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=True)

    assert json.loads(run.stdout)["status"] == "QUEUED"
    assert gateway.requests[0].headers["authorization"] == f"Bearer {fakes_gateway.KEY}"
    assert not any("earer" in argument for argument in arguments)


def test_a_demo_that_is_refused_says_so_and_ends_nothing(
    gateway: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answer_next(fakes_gateway.problem(403, "tenant_unknown", "there is no tenant demo"))
    run_demo(gateway.url, fakes_gateway.KEY, tmp_path / "demo", threading.Event())
    assert "came to nothing" in capsys.readouterr().err
