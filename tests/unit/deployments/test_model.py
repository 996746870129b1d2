"""A model replica says when it does no work any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flik.deployments.model import UNHEALTHY_AFTER_S, ModelReplica, app_name


class FakeWorker:
    def __init__(self, silent_s: float) -> None:
        self.silent_s = silent_s


class Undrained(ModelReplica):
    """A replica without Serve's shutdown hook."""

    def __del__(self) -> None:  # type: ignore[override]
        pass


def replica(silent_s: float, working: asyncio.Future[None]) -> Any:
    made = Undrained.__new__(Undrained)
    made._worker = FakeWorker(silent_s)  # type: ignore[assignment]
    made._working = working  # type: ignore[assignment]
    return made


async def test_replica_that_beats_is_healthy() -> None:
    await replica(0.5, asyncio.get_running_loop().create_future()).check_health()


async def test_replica_whose_heartbeat_stands_still_is_not() -> None:
    with pytest.raises(RuntimeError, match="stands still"):
        await replica(UNHEALTHY_AFTER_S + 1, asyncio.get_running_loop().create_future()).check_health()


async def test_replica_whose_loops_ended_is_not() -> None:
    working: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    working.set_exception(ValueError("broken"))
    with pytest.raises(RuntimeError, match="loops ended") as raised:
        await replica(0.5, working).check_health()
    assert isinstance(raised.value.__cause__, ValueError)


def test_application_is_named_after_type_and_version() -> None:
    assert app_name("IMAGE", "v2.0.0") == "flik-image-v2.0.0"
