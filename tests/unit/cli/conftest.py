"""Runs `flik` in this process against the fake gateway, with pauses too short to notice."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes_gateway import FakeGateway
from invoking import Run

from flik.cli.commands import flik
from flik.client.patience import Patience


@pytest.fixture
def run(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("flik.client.transport.Patience", lambda: Patience(first_s=0.001, longest_asked_s=0.5))
    monkeypatch.setattr("flik.client.calls.FIRST_LOOK_S", 0.001)
    monkeypatch.setattr("flik.client.calls.LONGEST_LOOK_S", 0.005)
    monkeypatch.delenv("FLIK_DEBUG", raising=False)

    def invoke(*args: str, **options: Any) -> Result:
        result = CliRunner().invoke(flik, args, prog_name="flik", **options)
        assert "Traceback" not in result.output
        assert "\x1b" not in result.output  # nothing here is a terminal
        return result

    return invoke
