"""Tells workers at once what was cancelled under their hands; who does not listen learns it by its next beat."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from flik.domain.lease import Lease


class Revoking:
    """The workers that listen."""

    def __init__(self) -> None:
        self._listening: dict[str, asyncio.Future[list[tuple[str, str]]]] = {}  # by worker

    async def listen(self, worker_id: str, wait_s: float) -> list[tuple[str, str]]:
        """Wait up to `wait_s` for (task, lease token) pairs that the worker must stop working on.

        The worker's earlier wait, on which it gave up, ends empty.
        """
        told: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()
        _end(self._listening.get(worker_id))
        self._listening[worker_id] = told
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await told
        finally:
            if self._listening.get(worker_id) is told:
                del self._listening[worker_id]
        return told.result() if told.done() and not told.cancelled() else []

    def tell(self, lease: Lease) -> None:
        """Tell its worker that a lease holds no more."""
        told = self._listening.get(lease.worker_id)
        if told is None:
            return
        if told.done():  # its reply is on its way
            told.result().append((lease.task_id, lease.token))
        else:
            told.set_result([(lease.task_id, lease.token)])


def _end(told: asyncio.Future[list[tuple[str, str]]] | None) -> None:
    if told is not None and not told.done():
        told.set_result([])
