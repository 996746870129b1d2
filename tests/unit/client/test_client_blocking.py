"""The sync face does what the async one does."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from pathlib import Path

import pytest
from fakes_gateway import PICTURE, FakeGateway, task_id

from flik.client import FlikApiError, FlikClient, SyncFlikClient
from flik.client.blocking import _Blocking


def test_a_task_from_submit_to_file(gateway: FakeGateway, tmp_path: Path) -> None:
    with SyncFlikClient() as client:
        submitted = client.submit("IMAGE", {"prompt": "a lighthouse"})
        task = client.wait(submitted.task_id)
        path = client.download(task.artifacts[0], tmp_path / "x.png")

    assert path.read_bytes() == PICTURE


def test_lists_are_plain_iterators(gateway: FakeGateway) -> None:
    for number in range(1, 151):
        gateway.add(number)

    with SyncFlikClient() as client:
        ids = [task.task_id for task in client.list()]

    assert len(ids) == 150 and ids[0] == task_id(150)


def test_errors_come_through(gateway: FakeGateway) -> None:
    with SyncFlikClient() as client, pytest.raises(FlikApiError):
        client.get(task_id(1))


def test_closing_ends_the_thread_and_may_be_repeated(gateway: FakeGateway) -> None:
    before = threading.active_count()
    client = SyncFlikClient()
    client.health()

    client.close()
    client.close()

    assert threading.active_count() == before


def test_every_public_method_of_the_async_client_is_there() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(FlikClient) == public(SyncFlikClient)


def test_an_interrupted_call_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def health(self: FlikClient) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # Ctrl-C, while the caller waits
        await asyncio.sleep(60)

    monkeypatch.setattr(SyncFlikClient, "health", _Blocking(health))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may have it ignored
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), SyncFlikClient("http://127.0.0.1:9", "key") as client:
        client.health()
    assert time.monotonic() - began < 30
