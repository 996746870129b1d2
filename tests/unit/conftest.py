"""Fixtures that several folders of unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes_gateway import FakeGateway


@pytest.fixture(scope="session")
def _running_gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as running:
        yield running


@pytest.fixture
def gateway(_running_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    """An empty fake gateway that the environment names, and nothing of the machine's own settings."""
    for name in ("FLIK_API_KEY", "FLIK_TENANT", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLIK_URL", _running_gateway.url)
    monkeypatch.setenv("FLIK_DATA_DIR", "/nonexistent")
    _running_gateway.reset()
    return _running_gateway
