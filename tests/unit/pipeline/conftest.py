"""A queue that starts on a store in memory, and does not pause when that store is told to be away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from queue_scene import Scene

from flik.pipeline.queue import loops


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(loops, "PAUSE_S", 0.0)
    async with Scene() as scene:
        yield scene
