"""Stands between Flik and a dependency: while it is away, calls are refused at once.

PostgreSQL, Redis and the object store have one in each process that uses them. A call runs
inside `with guard.call(...)`, which learns from how it ends; calls that run already keep their
own time limits. `flik/domain/breaker.py` has the rules.

While the breaker is open, the guard itself asks the dependency again and again, with a question
that costs nothing and takes at most `PROBE_S`. So no caller's call is ever the probe (it might
wait for long, and others behind it), and calls go through again without anybody calling.

Metrics: flik_breaker_state, flik_breaker_opened, flik_breaker_refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flik.domain.breaker import Breaker, BreakerPolicy, Call, Refused, Tally, Verdict
from flik.errors import Unavailable
from flik.telemetry import Metrics

PROBE_S = 1.0
_log = logging.getLogger("flik.guard")


class Guard:
    """A breaker with a clock, metrics and a way to probe. Not thread-safe: it lives on one event loop.

    Args:
        dependency: its name in errors and metrics.
        probe: asks the dependency something; returns when it answers, raises or hangs while it is away.
        verdict_of: judges what a probe raises; only ANSWERED speaks for the dependency.
    """

    def __init__(
        self,
        dependency: str,
        probe: Callable[[], Coroutine[Any, Any, object]],
        policy: BreakerPolicy,
        *,
        verdict_of: Callable[[Exception], Verdict] = lambda error: Verdict.UNKNOWN,
        measured: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._dependency = dependency
        self._probe = probe
        self._verdict_of = verdict_of
        self._clock = clock
        self._sleep = sleep
        self._breaker = Breaker(policy, random.random)
        self._prober: asyncio.Task[None] | None = None
        self._suspicion: asyncio.Task[None] | None = None
        self._left_behind: set[asyncio.Task[object]] = set()
        measured = measured or Metrics("flik_breaker_*")
        self._counts = {"opened": 0, "refused": 0}
        self._opened = measured["flik_breaker_opened"].labels(measured.process, dependency)
        self._refused = measured["flik_breaker_refused"].labels(measured.process, dependency)
        state = measured["flik_breaker_state"].labels(measured.process, dependency)
        state.set_function(lambda: self._breaker.state(self._clock()))

    @property
    def closed(self) -> bool:
        """Whether calls go through now."""
        return self._breaker.closed

    @contextmanager
    def call(self, verdict_of: Callable[[Exception], Verdict]) -> Iterator[None]:
        """Let a call through and learn from its end; `verdict_of` judges the exceptions it may raise.

        Raises:
            Unavailable: the dependency is away; nothing was done.
        """
        now = self._clock()
        answer = self._breaker.ask(now) if self._breaker.closed else self._breaker.refusal(now)
        if isinstance(answer, Refused):
            raise self._refusal(answer)
        verdict = Verdict.UNKNOWN  # of a call that is cancelled
        try:
            yield
            verdict = Verdict.ANSWERED
        except Exception as error:
            verdict = verdict_of(error)
            raise
        finally:
            self._end(answer, verdict)

    def tally(self) -> Tally:
        """Return what is told of the breaker where its metrics are not read."""
        return Tally(self._dependency, int(self._breaker.state(self._clock())), **self._counts)

    async def ping(self) -> None:
        """Probe now, unless a probe runs already; return when the dependency answers.

        Raises:
            Unavailable: it did not within `PROBE_S`, or a probe runs already.
        """
        answer = self._breaker.ask(self._clock(), eager=True)
        if isinstance(answer, Refused):
            raise self._refusal(answer)
        if await self._verdict_of_probe(answer) is not Verdict.ANSWERED:
            raise Unavailable(self._dependency)

    def suspect(self) -> None:
        """Ask in the background: a call has been waiting for long. One question at a time."""
        if self.closed and (self._suspicion is None or self._suspicion.done()):
            self._suspicion = asyncio.get_running_loop().create_task(self._find_out())

    def close(self) -> None:
        """Stop to probe."""
        for task in (self._prober, self._suspicion):
            if task is not None:
                task.cancel()

    async def _find_out(self) -> None:
        with suppress(Unavailable):
            await self.ping()

    def _refusal(self, refused: Refused) -> Unavailable:
        self._refused.inc()
        self._counts["refused"] += 1
        return Unavailable(self._dependency, round(refused.retry_after_s, 3))

    def _end(self, call: Call, verdict: Verdict) -> None:
        was_closed = self._breaker.closed
        self._breaker.end(call, verdict, self._clock())
        if was_closed and not self._breaker.closed:
            self._opened.inc()
            self._counts["opened"] += 1
            _log.warning("%s is away", self._dependency)
            if self._prober is None or self._prober.done():
                self._prober = asyncio.get_running_loop().create_task(self._probe_until_answered())
        elif self._breaker.closed and not was_closed:
            _log.info("%s is back", self._dependency)

    async def _probe_until_answered(self) -> None:
        while not self._breaker.closed:
            await self._sleep(self._breaker.refusal(self._clock()).retry_after_s)
            call = self._breaker.ask(self._clock())
            if isinstance(call, Call) and call.probe:
                await self._verdict_of_probe(call)

    async def _verdict_of_probe(self, call: Call) -> Verdict:
        verdict = Verdict.UNKNOWN
        asked = asyncio.get_running_loop().create_task(self._probe())
        asked.add_done_callback(self._forget)
        self._left_behind.add(asked)
        try:
            await asyncio.wait({asked}, timeout=PROBE_S)
            verdict = self._judge(asked)
        finally:
            asked.cancel()  # not waited for: on a frozen server even that takes seconds
            self._end(call, verdict)
        return verdict

    def _judge(self, asked: asyncio.Task[object]) -> Verdict:
        """Return what a probe says: an error that the dependency itself sends is an answer, as everywhere."""
        if not asked.done() or asked.cancelled():
            return Verdict.AWAY
        error = asked.exception()
        if error is None or (isinstance(error, Exception) and self._verdict_of(error) is Verdict.ANSWERED):
            return Verdict.ANSWERED
        return Verdict.AWAY

    def _forget(self, asked: asyncio.Task[object]) -> None:
        self._left_behind.discard(asked)
        if not asked.cancelled():
            asked.exception()  # looked at, so that asyncio does not complain
