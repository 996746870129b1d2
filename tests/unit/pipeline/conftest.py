"""A queue that starts on a store in memory, and does not pause when that store is told to be away; who follows it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from queue_scene import Scene, hub_of

from flik.pipeline.follow import Hub
from flik.pipeline.queue import loops


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(loops, "PAUSE_S", 0.0)
    async with Scene() as scene:
        yield scene


@pytest.fixture
def hub(scene: Scene) -> Hub:
    return hub_of(scene)
