"""The door: whether a tenant's tasks may be stored now. Nothing is stored or changed by a refusal.

Asked in this order; the first that says no is the answer, and tokens come last, so that a task
that is refused for another reason costs none:

priority   no more urgent than the tenant may be            403 priority_not_allowed
payload    no larger than the tenant may send               413 payload_too_large
queue      room in the queue of the type and priority       503 queue_full
backlog    fewer tasks waiting than the tenant may have     429 tenant_queue_full
tokens     the tenant's rate                                429 rate_limited, 422 exceeds_burst

What is said of the queue, the backlog and the tokens is said of all tasks together: of a batch
either all that got that far are admitted or none.

Tasks that failed and are to be queued again pass the same door, but for their payloads, which are
stored already, and not all or none: as many come in, from the front, as there is room and are tokens
for. Whoever asks, it is the tasks' tenant who pays.

Metrics: flik_tasks_refused, by code and tenant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flik.domain.identity import Limits
from flik.domain.pressure import Level, refusal, room, until_below
from flik.domain.rate import Admitted, Decision, Limited, NeverFits
from flik.domain.task import DeadLetter, NewTask
from flik.errors import (
    ExceedsBurst,
    FlikError,
    PayloadTooLarge,
    PriorityNotAllowed,
    QueueFull,
    RateLimited,
    TenantQueueFull,
)
from flik.pipeline.levels import QueueLevels
from flik.telemetry import Metrics, Names

MOST_TENANT_LABELS = 200
MOST_PAYMENTS = 10  # of one replay: each may be a call to the limiter
Candidate = NewTask | DeadLetter


class Spends(Protocol):
    """Where tokens are spent."""

    async def spend(self, tenant_id: str, cost: int, limits: Limits) -> Decision:
        """Return whether `cost` tasks may be stored now; if so, they are paid for."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a tenant's rate. `reset_s`: when it is whole again or, after a refusal, when to come back."""

    rate_per_s: float
    burst: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of each task: None, it may be stored, or why not. `quota` None: no token was asked for."""

    refusals: Sequence[FlikError | None]
    quota: Quota | None = None


class Admission:
    """Decides for one gateway. `bounds` are those of the queue, by priority."""

    def __init__(self, allowances: Spends, levels: QueueLevels, bounds: Sequence[int], measured: Metrics) -> None:
        self._allowances = allowances
        self._levels = levels
        self._bounds = bounds
        self._refused = measured["flik_tasks_refused"]
        self._tenants = Names(MOST_TENANT_LABELS)

    async def admit(self, tenant_id: str, limits: Limits, tasks: Sequence[NewTask]) -> Verdict:
        """Return what becomes of tasks of one tenant; those without a refusal are paid for and must be stored now.

        Raises:
            Unavailable: the limiter is away, so nobody knows.
        """
        refusals = [_too_urgent(task, limits) or _too_large(task, limits) for task in tasks]
        queued = 0 if limits.max_queued is None else await self._levels.queued_by(tenant_id)
        self._refuse_where_full(tasks, refusals)
        self._refuse_backlog(tenant_id, limits, queued, tasks, refusals)
        left = _places_left(refusals)
        quota = await self._pay(tenant_id, limits, tasks, left, refusals) if left else None
        self._count(tenant_id, refusals)
        return Verdict(refusals, quota)

    async def readmit(self, tenant_id: str, limits: Limits, tasks: Sequence[DeadLetter]) -> Verdict:
        """Return what becomes of failed tasks of one tenant; those without a refusal are paid for, to be queued now.

        Raises:
            Unavailable: the limiter is away, so nobody knows.
        """
        refusals: list[FlikError | None] = [_too_urgent(task, limits) for task in tasks]
        queued = 0 if limits.max_queued is None else await self._levels.queued_by(tenant_id)
        self._refuse_where_full(tasks, refusals, partly=True)
        self._refuse_backlog(tenant_id, limits, queued, tasks, refusals, partly=True)
        left = _places_left(refusals)
        quota = await self._pay_for_some(tenant_id, limits, tasks, left, refusals) if left else None
        self._count(tenant_id, refusals)
        return Verdict(refusals, quota)

    def _refuse_where_full(
        self, tasks: Sequence[Candidate], refusals: list[FlikError | None], *, partly: bool = False
    ) -> None:
        groups = Counter(
            (task.task_type, task.priority) for task, said in zip(tasks, refusals, strict=True) if not said
        )
        taken: Counter[str] = Counter()
        fits: dict[tuple[str, int], int] = {}
        full: dict[tuple[str, int], QueueFull] = {}
        for (task_type, priority), count in sorted(groups.items()):  # the urgent ones first
            known = self._levels.level(task_type)
            level = Level(known.waiting + taken[task_type], known.drained_per_s)
            said = refusal(level, priority, count, self._bounds)
            fits[task_type, priority] = some = (
                count if said is None else room(level, priority, self._bounds) if partly else 0
            )
            taken[task_type] += some
            if said is not None:
                what = f"the queue of {task_type} tasks of priority {priority}"
                full[task_type, priority] = QueueFull(what, said.retry_after_s)
        if not full:
            return
        for place in _places_left(refusals):
            group = tasks[place].task_type, tasks[place].priority
            fits[group] -= 1
            if fits[group] < 0:
                refusals[place] = full[group]

    def _refuse_backlog(
        self,
        tenant_id: str,
        limits: Limits,
        queued: int,
        tasks: Sequence[Candidate],
        refusals: list[FlikError | None],
        *,
        partly: bool = False,
    ) -> None:
        if limits.max_queued is None:
            return
        left = _places_left(refusals)
        if not left or queued + len(left) <= limits.max_queued:
            return
        waiting = queued + len(left)
        pace = self._levels.level(tasks[left[0]].task_type).drained_per_s
        full = TenantQueueFull(tenant_id, limits.max_queued, until_below(Level(waiting, pace), limits.max_queued))
        for place in left[max(0, limits.max_queued - queued) if partly else 0 :]:
            refusals[place] = full

    async def _pay(
        self,
        tenant_id: str,
        limits: Limits,
        tasks: Sequence[Candidate],
        left: Sequence[int],
        refusals: list[FlikError | None],
    ) -> Quota | None:
        decision = await self._spend(tenant_id, limits, [tasks[place] for place in left])
        if not isinstance(decision, Admitted):
            _refuse_unpaid(tenant_id, limits, decision, left, refusals)
        return _quota_of(decision, limits)

    async def _pay_for_some(
        self,
        tenant_id: str,
        limits: Limits,
        tasks: Sequence[Candidate],
        left: Sequence[int],
        refusals: list[FlikError | None],
    ) -> Quota | None:
        """Pay for as many as there are tokens for, from the front; the others are refused."""
        most, paid = limits.burst, 0
        decision: Decision = NeverFits(most)
        for _ in range(MOST_PAYMENTS):
            places = left[paid : paid + most]
            if not places:
                break
            decision = await self._spend(tenant_id, limits, [tasks[place] for place in places])
            if isinstance(decision, Admitted):
                paid += len(places)
            else:
                most = min(decision.remaining, len(places) - 1) if isinstance(decision, Limited) else 0
        _refuse_unpaid(tenant_id, limits, decision, left[paid:], refusals)
        return _quota_of(decision, limits)

    async def _spend(self, tenant_id: str, limits: Limits, tasks: Sequence[Candidate]) -> Decision:
        types = Counter(task.task_type for task in tasks)
        for task_type, count in types.items():  # before anybody else is let in, as paying may take a while
            self._levels.note_sent(task_type, tenant_id, count)
        admitted = False
        try:
            decision = await self._allowances.spend(tenant_id, len(tasks), limits)
            admitted = isinstance(decision, Admitted)
        finally:
            if not admitted:
                for task_type, count in types.items():
                    self._levels.take_back(task_type, tenant_id, count)
        return decision

    def _count(self, tenant_id: str, refusals: Sequence[FlikError | None]) -> None:
        codes = Counter(said.code for said in refusals if said is not None)
        for code, count in codes.items():
            self._refused.labels(code, self._tenants.bounded(tenant_id)).inc(count)


def _places_left(refusals: Sequence[FlikError | None]) -> list[int]:
    return [place for place, refused in enumerate(refusals) if refused is None]


def _refuse_unpaid(
    tenant_id: str, limits: Limits, decision: Decision, left: Sequence[int], refusals: list[FlikError | None]
) -> None:
    for place in left:
        match decision:
            case NeverFits(burst):
                refusals[place] = ExceedsBurst(len(left), burst)
            case Limited(retry_after_s):
                refusals[place] = RateLimited(tenant_id, retry_after_s, limits.rate_per_s)
            case Admitted():  # more payments than one request may make
                refusals[place] = RateLimited(tenant_id, 0.0, limits.rate_per_s)


def _quota_of(decision: Decision, limits: Limits) -> Quota | None:
    match decision:
        case Admitted(remaining):
            full_in_s = (limits.burst - remaining) / limits.rate_per_s if limits.rate_per_s > 0 else 0.0
            return Quota(limits.rate_per_s, limits.burst, remaining, full_in_s)
        case Limited(retry_after_s, remaining):
            return Quota(limits.rate_per_s, limits.burst, remaining, retry_after_s)
        case NeverFits():
            return None


def _too_urgent(task: Candidate, limits: Limits) -> FlikError | None:
    if task.priority < limits.highest_priority:
        return PriorityNotAllowed(task.priority, limits.highest_priority)
    return None


def _too_large(task: NewTask, limits: Limits) -> FlikError | None:
    # A character is at most four bytes, so nearly every payload is known to fit without being encoded.
    if len(task.payload) * 4 > limits.max_payload_bytes:
        size = len(task.payload.encode())
        if size > limits.max_payload_bytes:
            return PayloadTooLarge(size, limits.max_payload_bytes)
    return None
