"""`SyncFlikClient`: the methods of `FlikClient` for code that doesn't await.

Nothing is written twice: each method here is its async original, called on an event loop
that runs in a thread of its own until the client is closed. Types carry over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from flik.client.asynchronous import FlikClient
from flik.client.transport import Sleep

P = ParamSpec("P")
R = TypeVar("R")
_END: Any = object()


class _Blocking(Generic[P, R]):
    """A descriptor: the async method, waited for."""

    def __init__(self, method: Callable[Concatenate[FlikClient, P], Awaitable[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, owner: SyncFlikClient, _: object = None) -> Callable[P, R]:
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return owner._call(partial(self._method, owner._client, *args, **kwargs))

        return call


class _BlockingItems(Generic[P, R]):
    """A descriptor: the async iterator, walked step by step."""

    def __init__(self, method: Callable[Concatenate[FlikClient, P], AsyncIterator[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, owner: SyncFlikClient, _: object = None) -> Callable[P, Iterator[R]]:
        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            items = self._method(owner._client, *args, **kwargs)
            while (item := owner._call(partial(anext, items, _END))) is not _END:
                yield item

        return call


class SyncFlikClient:
    """`FlikClient` without `await`; a context manager, and safe to use from several threads."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        tenant: str | None = None,
        timeout_s: float = 30.0,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._client = FlikClient(base_url, api_key, tenant, timeout_s, sleep=sleep)
        self._open = ExitStack()
        self._portal = self._open.enter_context(start_blocking_portal())
        self._open.callback(lambda: self._portal.call(self._client.close))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)  # after an error, Ctrl-C among them, nothing that still runs is waited for

    def close(self) -> None:
        """Close the connections and end the thread; a second call does nothing."""
        self._open.close()

    submit = _Blocking(FlikClient.submit)
    submit_many = _Blocking(FlikClient.submit_many)
    get = _Blocking(FlikClient.get)
    list = _BlockingItems(FlikClient.list)
    dead_letters = _BlockingItems(FlikClient.dead_letters)
    wait = _Blocking(FlikClient.wait)
    events = _BlockingItems(FlikClient.events)
    stream = _BlockingItems(FlikClient.stream)
    cancel = _Blocking(FlikClient.cancel)
    retry = _Blocking(FlikClient.retry)
    replay = _Blocking(FlikClient.replay)
    replay_many = _Blocking(FlikClient.replay_many)
    submit_dag = _Blocking(FlikClient.submit_dag)
    run_dag = _Blocking(FlikClient.run_dag)
    dag = _Blocking(FlikClient.dag)
    dags = _BlockingItems(FlikClient.dags)
    wait_dag = _Blocking(FlikClient.wait_dag)
    cancel_dag = _Blocking(FlikClient.cancel_dag)
    resume_dag = _Blocking(FlikClient.resume_dag)
    download = _Blocking(FlikClient.download)
    health = _Blocking(FlikClient.health)

    def _call(self, work: Callable[[], Awaitable[R]]) -> R:
        waited_for = self._portal.start_task_soon(work)
        try:
            return waited_for.result()
        except BaseException:
            waited_for.cancel()  # of a caller that was interrupted; what has ended is left alone
            raise
