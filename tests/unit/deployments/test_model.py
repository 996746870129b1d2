"""A model replica says when it does no work any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from flik.deployments.model import UNHEALTHY_AFTER_S, ModelReplica, app_name
from flik.domain.task import Worker
from flik.errors import Unavailable


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


class Draining:
    """A worker and a queue that note what is asked of them."""

    def __init__(self, *, away: bool = False) -> None:
        self.asked: list[Any] = []
        self._away = away

    async def drain(self, within_s: float) -> None:
        self.asked.append(("drain", within_s))

    async def leave(self, worker: Worker) -> None:
        self.asked.append(("leave", worker))
        if self._away:
            raise Unavailable("queue")


@pytest.mark.parametrize("away", [False, True], ids=["", "while the queue is away"])
async def test_replica_that_serve_stops_drains_and_leaves(*, away: bool) -> None:
    made = replica(0.5, asyncio.get_running_loop().create_future())
    noted = made._worker = made._queue = Draining(away=away)
    made._identity, made._config = Worker("w1", "TEXT", "v1"), SimpleNamespace(drain_s=4.0)
    await ModelReplica.__del__(made)
    assert noted.asked == [("drain", 4.0), ("leave", made._identity)]


def test_application_is_named_after_type_and_version() -> None:
    assert app_name("IMAGE", "v2.0.0") == "flik-image-v2.0.0"
