"""Detached Ray actors: named, without a CPU of their own, restarted for ever; and how they are called.

What such an actor runs in the background must not end while the process lives: something that
half works is worse than something that restarts. `end_process_with` sees to that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from flik import __version__
from flik.actors import NAMESPACE
from flik.errors import Unavailable

_ANSWERS_WITHIN_S = 30.0
_log = logging.getLogger("flik.actors")


class Made(NamedTuple):
    """What an actor was made of: the version of its code, and its configuration."""

    version: str
    config: object


def made(config: object) -> Made:
    """Return what an actor is made of that this process makes with a configuration."""
    return Made(__version__, config)


class Shell(Protocol):
    """What such an actor is: made with its configuration, it tells what it was made of."""

    def __init__(self, config: Any) -> None: ...

    async def made_of(self) -> Made:
        """Return what `made` returned where it was made."""


def start(shell: type[Shell], name: str, config: object) -> Any:
    """Start the actor `name` of this region, or find it running; return a handle.

    One that another version of Flik started, or with another configuration, ends first: it loses nothing that is not
    found again.
    """
    _end_other(name, made(config))
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


def _end_other(name: str, wanted: Made) -> None:
    """End the actor that runs under a name if it was made of something else, or does not say of what."""
    with suppress(ValueError):  # none runs
        actor = ray.get_actor(name, NAMESPACE)
        with suppress(RayError):
            if ray.get(actor.made_of.remote(), timeout=_ANSWERS_WITHIN_S) == wanted:
                return
        _log.warning("%s was made of something else; it is started anew", name)
        ray.kill(actor)
        while True:  # until its name is free
            ray.get_actor(name, NAMESPACE)
            time.sleep(0.05)


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
