"""A worker: leases tasks, runs them with a provider, has their files stored, reports the outcomes.

It asks for as many tasks as it has free slots, so nothing ever waits inside a worker. Four
loops: `lease` asks for work (a long poll), `beat` renews the leases every second, or sooner when
there is progress to tell of, and learns which it lost, `listen` hears of cancels at once (a long
poll), `settle` reports outcomes, as many at a time as have gathered.

A worker that cannot reach the queue goes on working and goes on asking: whether its outcome
still counts is decided by the lease token. An outcome is offered until the queue accepts or
refuses it.

Timeouts: at the soft one the provider is told to wind down, at the hard one it is cancelled
and the task fails for good. On `drain` the worker asks for nothing more, finishes what it can
in the given time and hands the rest back; a handed-back attempt does not count. Handed back is
also what found the provider's back end away; then the worker asks for nothing for a while, and
for one task to find out (`flik/pipeline/back_end.py`).

Files go to the object store beside the generation, each by itself, and again if that fails; nothing is generated again
because of the store (`flik/pipeline/uploads.py`). A generation that is whole while its files still wait is kept, and
taken up by the task's next attempt if this one comes to nothing (`flik/artifacts/spool.py`).

A step of a chain comes with what its parents made, which is put into its payload and read from the
object store before the provider starts (`flik/pipeline/inputs.py`).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from flik.artifacts.spool import Held, Made, Spool
from flik.domain import trace
from flik.domain.breaker import Call, Refused, Tally, room
from flik.domain.task import Completed, Failed, Grant, HandedBack, Outcome, StoredArtifact, Worker
from flik.errors import ArtifactNotFound, ProviderError, ProviderUnavailable, Unavailable
from flik.pipeline.back_end import BackEnd
from flik.pipeline.collector import collect_seldom
from flik.pipeline.draft import Chunks, Draft
from flik.pipeline.inputs import gather
from flik.pipeline.ports import Beat, QueueForWorker
from flik.pipeline.timeouts import Timeouts
from flik.pipeline.uploads import Artifacts, Uploader, Uploads
from flik.providers.base import Artifact, Context, Input, Progress, Provider, Request
from flik.telemetry import log_as

_POLL_S = 10.0
_PAUSE_S = 0.2
KEEP_AFTER_S = 1.0
SOONEST_BEAT = 0.25
"""The part of a heartbeat after which the next may come: as soon as that followers hear of progress."""
MAX_MESSAGE_CHARS = 2_000
WORTH_A_LINE_S = 0.1  # at thousands of tasks a second a line each would cost more than the tasks
_log = logging.getLogger("flik.worker")


@dataclass(slots=True, eq=False)
class _Run:
    """One task in work."""

    grant: Grant
    call: Call
    context: Context
    began_at: float  # of the loop's time
    uploads: Uploads | None = None  # of one that has made files
    kept: bool = False
    progress: float = 0.0
    task: asyncio.Task[None] | None = None
    handing_back: bool = False
    timed_out: bool = False


def _note_end(outcome: Outcome, took_s: float) -> None:
    """Log how an attempt ended; one that was short and went well is worth a line to those only who debug."""
    level = logging.DEBUG if isinstance(outcome, Completed) and took_s < WORTH_A_LINE_S else logging.INFO
    if _log.isEnabledFor(level):
        _log.log(level, "attempt ended: %s", type(outcome).__name__, extra={"durationMs": round(took_s * 1000)})


def _wind_down(run: _Run) -> None:
    run.context.wind_down.set()


def _time_out(run: _Run) -> None:
    run.timed_out = True
    if run.task is not None:
        run.task.cancel()


class TaskWorker:
    """Runs tasks of one type. Not thread-safe: it lives on one event loop. `run` must run while it is used.

    Args:
        read_payload: turns (task type, stored payload) into what the provider gets.
        slots: how many tasks are worked on at a time.
        breakers: tells of the breakers that the worker does not have itself.
        chunks: where texts go while they are written; None: they come with the result only.
        spool: where generations are kept whose files wait for the object store; None: nowhere.
    """

    def __init__(
        self,
        worker: Worker,
        queue: QueueForWorker,
        provider: Provider,
        artifacts: Artifacts,
        read_payload: Callable[[str, dict[str, Any]], dict[str, Any]],
        *,
        slots: int,
        heartbeat_s: float = 1.0,
        drain_s: float = 4.0,
        breakers: Callable[[], tuple[Tally, ...]] = tuple,
        chunks: Chunks | None = None,
        spool: Spool | None = None,
    ) -> None:
        self._worker = worker
        self._queue = queue
        self._provider = provider
        self._back_end = BackEnd()
        self._artifacts = artifacts
        self._uploader = Uploader(artifacts)
        self._read_payload = read_payload
        self._slots = slots
        self._heartbeat_s = heartbeat_s
        self._drain_s = drain_s
        self._breakers = breakers
        self._chunks = chunks
        self._spool = spool
        self._kept: set[str] = set()  # tasks of which there is something in the spool
        self._forgetting: set[asyncio.Task[None]] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._runs: dict[str, _Run] = {}
        self._timeouts: Timeouts[_Run] = Timeouts(_wind_down, _time_out)
        self._outcomes: list[Outcome] = []
        self._reporting: dict[str, str] = {}  # task -> token: outcomes not yet accepted or refused
        self._slot_freed = asyncio.Event()
        self._outcome_added = asyncio.Event()
        self._draining = asyncio.Event()
        self._moved = asyncio.Event()  # something is further than the latest beat told
        self._beat_at = time.monotonic()

    async def run(self) -> None:
        """Work until `drain` is called, or cancelled."""
        collect_seldom()
        async with asyncio.TaskGroup() as group:
            parts = (self._beat_loop, self._listen_loop, self._settle_loop)
            loops = [group.create_task(loop(), name=loop.__name__) for loop in parts]
            await self._lease_loop()
            await self._until_idle()
            for loop in loops:
                loop.cancel()

    async def drain(self, within_s: float) -> None:
        """Take nothing new, finish what ends within `within_s` and hand the rest back; return when all is reported."""
        self._draining.set()
        self._slot_freed.set()
        try:
            async with asyncio.timeout(within_s):
                await self._until_idle()
        except TimeoutError:
            for run in list(self._runs.values()):
                run.handing_back = True
                if run.task is not None:
                    run.task.cancel()
            await self._until_idle()

    @property
    def silent_s(self) -> float:
        """For how many seconds the heartbeat loop has not come round; a healthy worker stays below a few."""
        return time.monotonic() - self._beat_at

    async def _until_idle(self) -> None:
        while self._runs or self._reporting:  # noqa: ASYNC110  # two collections; polled only while stopping
            await asyncio.sleep(0.02)

    # ---- lease

    async def _lease_loop(self) -> None:
        while not self._draining.is_set():
            self._slot_freed.clear()
            free = self._slots - len(self._runs) - len(self._reporting) // 2
            if free <= 0:
                await self._slot_freed.wait()
                continue
            answer = self._back_end.ask()
            if isinstance(answer, Refused):
                with suppress(TimeoutError):
                    async with asyncio.timeout(answer.retry_after_s):
                        await self._draining.wait()
                continue
            await self._lease(room(answer, free), answer)

    async def _lease(self, free: int, call: Call) -> None:
        asking = asyncio.ensure_future(self._queue.lease(self._worker, free, _POLL_S))
        draining = asyncio.ensure_future(self._draining.wait())
        await asyncio.wait({asking, draining}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if not asking.done():
            asking.add_done_callback(self._give_back_late_grants)
            return
        try:
            reply = asking.result()
        except Unavailable:
            self._back_end.give_up(call)
            await asyncio.sleep(_PAUSE_S)
            return
        self._start_all(reply.grants, call)
        if reply.draining:
            self._start_to_leave()

    def _start_all(self, grants: list[Grant], call: Call) -> None:
        """Start what was granted, or hand it back if the back end went away meanwhile; a probe is for the first."""
        if call.probe and not grants:
            self._back_end.give_up(call)
        shared: Call | None = None  # nothing changes before they run
        for index, grant in enumerate(grants):
            answer = call if call.probe and index == 0 else shared or self._back_end.ask()
            if isinstance(answer, Call) and not answer.probe:
                shared = answer
            if isinstance(answer, Refused):
                self._report(HandedBack(grant.task_id, grant.lease_token))
            else:
                self._start(grant, answer)

    def _give_back_late_grants(self, asking: asyncio.Future[Any]) -> None:
        """Hand back what a poll brings that was still open when the worker began to drain."""
        if asking.cancelled() or asking.exception() is not None:
            return
        for grant in asking.result().grants:
            self._report(HandedBack(grant.task_id, grant.lease_token))

    def _start(self, grant: Grant, call: Call) -> None:
        self._revoke(grant.task_id)  # an attempt whose lease lapsed while this worker was silent
        traceparent = trace.continued(grant.trace_id, secrets.token_hex(8)) if grant.trace_id else None
        context = Context(self._worker.version, self._worker.worker_id, traceparent=traceparent)
        run = self._runs[grant.task_id] = _Run(grant, call, context, asyncio.get_running_loop().time())
        self._timeouts.begin(run, grant.soft_timeout_s, grant.hard_timeout_s)
        run.task = asyncio.create_task(self._run(run))
        run.task.add_done_callback(lambda task: self._note_ended(run, unstarted=task.cancelled()))

    def _note_ended(self, run: _Run, *, unstarted: bool) -> None:
        self._timeouts.end(run)
        if unstarted and run.handing_back:
            self._report(HandedBack(run.grant.task_id, run.grant.lease_token))
        self._back_end.give_up(run.call)  # of a run that ended before it reached the provider
        if self._runs.get(run.grant.task_id) is run:
            del self._runs[run.grant.task_id]
        self._slot_freed.set()

    # ---- run

    async def _run(self, run: _Run) -> None:
        grant = run.grant
        started = time.monotonic()
        log_as(
            taskId=grant.task_id, tenantId=grant.tenant_id, taskType=grant.task_type, attempt=grant.attempt,
            requestId=grant.request_id, traceId=grant.trace_id,
            workerId=self._worker.worker_id, version=self._worker.version,
        )  # fmt: skip
        outcome = await self._outcome_of(run)
        if run.uploads is not None:
            await run.uploads.close()
            outcome = outcome and outcome._replace(uploads=run.uploads.told())
        if outcome is not None:
            _note_end(outcome, time.monotonic() - started)
            self._report(outcome)

    async def _outcome_of(self, run: _Run) -> Outcome | None:
        """Run the provider to the end; None when the task was taken away."""
        task_id, token = run.grant.task_id, run.grant.lease_token
        try:
            return await self._generate(run)
        except asyncio.CancelledError:
            if run.timed_out:
                message = f"the attempt ran longer than the hard timeout of {run.grant.hard_timeout_s:g} s"
                return Failed(task_id, token, "run_timeout", message, retryable=False)
            return HandedBack(task_id, token) if run.handing_back else None
        except ProviderError as error:
            return Failed(task_id, token, error.error_code, error.message[:MAX_MESSAGE_CHARS], error.retryable)
        except (Unavailable, ArtifactNotFound) as error:
            if isinstance(error, ArtifactNotFound):  # of what was kept: the next attempt has to generate
                self._forget(task_id)
            return Failed(task_id, token, "artifacts_unavailable", str(error), retryable=True)
        except Exception as error:
            _log.exception("the provider broke")
            message = f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS]
            return Failed(task_id, token, "provider_fault", message, retryable=True)

    async def _generate(self, run: _Run) -> Completed | HandedBack:
        grant = run.grant
        if self._spool is not None and (made := await self._spool.find(grant.task_id, self._worker.version)):
            return await self._finish(run, made, self._spool)
        payload, inputs = orjson.loads(grant.payload), tuple[Input, ...]()
        if grant.outputs is not None:
            payload, inputs = await gather(payload, grant.outputs, self._artifacts)
        payload = self._read_payload(grant.task_type, payload)
        request = Request(grant.task_id, grant.task_type, payload, grant.attempt, inputs)
        draft = Draft(writing=self._chunks.begin(grant, payload)) if self._chunks else Draft()
        try:
            with self._back_end.used(run.call):
                async for output in self._provider.generate(request, run.context):
                    self._back_end.answered(run.call)
                    if isinstance(output, Artifact):
                        run.uploads = run.uploads or self._uploader.begin(grant, run.began_at)
                        await run.uploads.add(output)
                    elif isinstance(output, Progress):
                        self._note_progress(run, output.fraction)
                    else:
                        draft.note(output)
            if not draft.whole:
                raise ProviderError("no_result", "the provider ended without a result", True)
            await draft.writing.end()
            files = await self._stored(run, draft, run.uploads) if run.uploads else ()
        except ProviderUnavailable:
            return HandedBack(grant.task_id, grant.lease_token)
        except (asyncio.CancelledError, Unavailable) as error:
            taken_away = isinstance(error, asyncio.CancelledError) and not (run.handing_back or run.timed_out)
            if draft.whole and run.uploads and not taken_away:
                await self._keep(run, draft, run.uploads)
            raise
        finally:
            draft.writing.close()
        return Completed(grant.task_id, grant.lease_token, draft.text, draft.metadata, files)

    async def _finish(self, run: _Run, made: Made, spool: Spool) -> Completed:
        """Complete what an earlier attempt generated: only files that are not stored yet are left to do."""
        task_id, token = run.grant.task_id, run.grant.lease_token
        self._kept.add(task_id)
        uploads = run.uploads = self._uploader.begin(run.grant, run.began_at)
        for file in made.files:
            if isinstance(file, StoredArtifact):
                await uploads.adopt(file)
            else:
                await uploads.add(await spool.read(task_id, file) if isinstance(file, Held) else file)
        return Completed(task_id, token, made.text, made.metadata, await uploads.end(), made_by=made.made_by)

    async def _stored(self, run: _Run, draft: Draft, uploads: Uploads) -> tuple[StoredArtifact, ...]:
        """Wait until all files are stored; what takes longer is kept meanwhile, in case this process ends."""
        if self._spool is None:
            return await uploads.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEP_AFTER_S):
                return await uploads.end()
        await self._keep(run, draft, uploads)
        return await uploads.end()

    async def _keep(self, run: _Run, draft: Draft, uploads: Uploads) -> None:
        if self._spool is None or run.kept:
            return
        grant = run.grant
        made = Made(self._worker.version, grant.lease_token, draft.text, draft.metadata, uploads.files())
        run.kept = await self._spool.keep(grant.task_id, made)
        self._kept.add(grant.task_id)

    def _note_kept_ended(self, task_id: str, *, over: bool) -> None:
        self._kept.discard(task_id)
        if over:  # else the next attempt may want it, on whichever replica of this node
            self._forget(task_id)

    def _forget(self, task_id: str) -> None:
        if self._spool is not None:
            forgetting = asyncio.create_task(self._spool.forget(task_id))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgetting.discard)

    # ---- beat

    def _note_progress(self, run: _Run, fraction: float) -> None:
        if fraction > run.progress:
            run.progress = min(1.0, fraction)
            self._moved.set()

    async def _until_beat(self) -> None:
        """Return when the next beat is due: after the heartbeat, or sooner if a task got on."""
        soonest_s = self._heartbeat_s * SOONEST_BEAT
        await asyncio.sleep(soonest_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._heartbeat_s - soonest_s):
                await self._moved.wait()
        self._moved.clear()

    async def _beat_loop(self) -> None:
        while True:
            await self._until_beat()
            self._beat_at = time.monotonic()
            held = [(run.grant.task_id, run.grant.lease_token, run.progress) for run in self._runs.values()]
            held += [(task_id, token, 1.0) for task_id, token in self._reporting.items() if task_id not in self._runs]
            try:
                async with asyncio.timeout(_POLL_S):  # `wait_for` may swallow a cancel before Python 3.12
                    reply = await self._queue.beat(Beat(self._worker, self._slots, held, self._tallies()))
            except (Unavailable, TimeoutError):
                continue
            tokens = {task_id: token for task_id, token, _ in held}
            for task_id in reply.revoked:
                self._revoke(task_id, tokens.get(task_id))
            if reply.draining:
                self._start_to_leave()

    async def _listen_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(2 * _POLL_S):
                    revoked = await self._queue.revoked(self._worker, _POLL_S)
            except (Unavailable, TimeoutError):
                await asyncio.sleep(_PAUSE_S)
                continue
            for task_id, token in revoked:
                self._revoke(task_id, token)

    def _tallies(self) -> tuple[Tally, ...]:
        tallies = (*self._breakers(), self._back_end.tally())
        return tuple(tally for tally in tallies if any(tally[1:]))

    def _start_to_leave(self) -> None:
        """Drain because the queue says so."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self.drain(self._drain_s))

    def _revoke(self, task_id: str, token: str | None = None) -> None:
        """Stop a task; with `token` only if it runs under that one (it may have been granted anew since the beat)."""
        run = self._runs.get(task_id)
        if run is None or token not in (None, run.grant.lease_token):
            return
        if run.task is not None and not run.handing_back:
            _log.info("stopped: the lease is gone", extra={"taskId": task_id})
            run.task.cancel()

    # ---- settle

    def _report(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._reporting[outcome.task_id] = outcome.lease_token
        self._outcome_added.set()

    async def _settle_loop(self) -> None:
        while True:
            await self._outcome_added.wait()
            self._outcome_added.clear()
            batch, self._outcomes = self._outcomes, []
            if not batch:
                continue
            try:
                accepted = await self._queue.settle(batch)
            except Unavailable:
                self._outcomes = batch + self._outcomes
                self._outcome_added.set()
                await asyncio.sleep(_PAUSE_S)
                continue
            self._note_reported(batch, accepted)

    def _note_reported(self, batch: list[Outcome], accepted: list[bool]) -> None:
        for outcome, took_effect in zip(batch, accepted, strict=True):
            if self._reporting.get(outcome.task_id) == outcome.lease_token:
                del self._reporting[outcome.task_id]
            if outcome.task_id in self._kept:
                self._note_kept_ended(outcome.task_id, over=took_effect and isinstance(outcome, Completed))
            if not took_effect:
                _log.info("outcome refused: the lease token is not current", extra={"taskId": outcome.task_id})
        self._slot_freed.set()
