"""A client of the fake gateway whose pauses are recorded instead of waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes_gateway import FakeGateway

from flik.client import FlikClient


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
async def client(gateway: FakeGateway, pauses: list[float]) -> AsyncIterator[FlikClient]:
    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        await asyncio.sleep(0)

    async with FlikClient(sleep=sleep) as opened:
        yield opened
