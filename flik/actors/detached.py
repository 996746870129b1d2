"""Detached Ray actors: named, without a CPU of their own, restarted for ever; and how they are called.

What such an actor runs in the background must not end while the process lives: something that
half works is worse than something that restarts. `end_process_with` sees to that.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flik.actors import NAMESPACE
from flik.errors import Unavailable

_log = logging.getLogger("flik.actors")


def start(shell: type[Any], name: str, config: object) -> Any:
    """Start the actor `name` of this region, or find it running; return a handle."""
    options = ray.remote(shell).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=10_000,
    )
    return options.remote(config)


def end_process_with(running: asyncio.Task[None]) -> None:
    """End this process when `running` ends, unless it is cancelled; Ray starts it again."""
    running.add_done_callback(_end_process)


def _end_process(running: asyncio.Task[None]) -> None:
    if not running.cancelled():
        _log.critical("what must not end has ended; restarting", exc_info=running.exception())
        os._exit(1)


class Remote:
    """The actor `name` of this region, from any process of its Ray cluster."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._handle: Any = None

    async def call(self, method: str, *arguments: Any, within_s: float | None) -> Any:
        """Call a method and return its answer; `within_s` None waits for as long as the actor lives.

        Raises:
            Unavailable: the actor is away or does not answer in time; whether the call took effect is unknown.
        """
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(ray.get_actor, self._name, NAMESPACE)
            async with asyncio.timeout(within_s):
                return await getattr(self._handle, method).remote(*arguments)
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None
        except RayActorError as error:
            self._handle = None
            raise Unavailable(self._name) from error
        except (RayError, ValueError, TimeoutError) as error:
            raise Unavailable(self._name) from error
