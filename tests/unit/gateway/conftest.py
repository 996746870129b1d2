"""An application over fakes, and a client that speaks to it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    fakes = gateway_parts.build()
    async with fakes.app.router.lifespan_context(fakes.app):
        yield fakes


@pytest.fixture
async def client(fakes: Fakes) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(fakes.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://flik.test", headers={"Authorization": "Bearer key"}
    ) as client:
        yield client
