"""How each way in which an attempt can end becomes a settlement: the task's next status, and why."""

from __future__ import annotations

import orjson

from flik.domain import retry
from flik.domain.lease import Lease
from flik.domain.task import Completed, Failed, HandedBack, Status
from flik.storage.queue import Settlement


def completed(outcome: Completed) -> Settlement:
    """COMPLETED; FAILED when its result is no JSON: a lone surrogate, a number beyond 64 bits, an object."""
    task_id, token, text, metadata, artifacts, uploads, made_by = outcome
    try:
        result = orjson.dumps({"text": text, "metadata": metadata}).decode()
    except TypeError as error:
        return unstorable(Settlement(task_id, token, Status.COMPLETED, "COMPLETED"), error)
    return Settlement(
        task_id, token, Status.COMPLETED, "COMPLETED", result=result, artifacts=artifacts, uploads=uploads,
        made_by=made_by,
    )  # fmt: skip


def failed(outcome: Failed, lease: Lease | None, delays_s: tuple[float, ...], now: float) -> Settlement:
    """QUEUED with the attempt counted, or FAILED when no other is allowed or worth it.

    Without a lease it is not known how many attempts are left: the row decides.
    """
    attempt, allowed = (lease.attempt, lease.allowed) if lease else (0, 1)
    decision = retry.decide(attempt=attempt, allowed=allowed, retryable=outcome.retryable, delays_s=delays_s, now=now)
    for_good = Settlement(
        outcome.task_id, outcome.lease_token, Status.FAILED, "FAILED",
        error_code=outcome.error_code, error_message=outcome.message, uploads=outcome.uploads,
    )  # fmt: skip
    return _as_decided(for_good, decision)


def handed_back(outcome: HandedBack, now: float) -> Settlement:
    """QUEUED at once, the attempt not counted."""
    return taken_back(outcome.task_id, outcome.lease_token, now)._replace(uploads=outcome.uploads)


def taken_back(task_id: str, token: str, now: float) -> Settlement:
    """QUEUED at once, the attempt not counted: it reached no worker."""
    return Settlement(task_id, token, Status.QUEUED, "HANDED_BACK", uncounted=True, available_at=now)


def lost(lease: Lease, now: float) -> Settlement:
    """QUEUED at once with the attempt counted, or FAILED when it was the last: the worker fell silent."""
    message = f"worker {lease.worker_id} fell silent during attempt {lease.attempt}"
    for_good = Settlement(
        lease.task_id, lease.token, Status.FAILED, "LOST", error_code="worker_lost", error_message=message
    )
    return _as_decided(for_good, retry.decide_lost(attempt=lease.attempt, allowed=lease.allowed, now=now))


def timed_out(lease: Lease, hard_timeout_s: float) -> Settlement:
    """FAILED: another attempt would take as long."""
    message = f"the attempt ran longer than the hard timeout of {hard_timeout_s:g} s"
    return Settlement(
        lease.task_id, lease.token, Status.FAILED, "TIMED_OUT", error_code="run_timeout", error_message=message
    )


def unstorable(settlement: Settlement, error: Exception) -> Settlement:
    """FAILED: PostgreSQL, or JSON, does not take what the settlement holds."""
    return Settlement(
        settlement.task_id, settlement.lease_token, Status.FAILED, "FAILED",
        error_code="result_not_storable", error_message=type(error).__name__,
    )  # fmt: skip


def _as_decided(for_good: Settlement, decision: retry.Decision) -> Settlement:
    if isinstance(decision, retry.RetryAt):
        return for_good._replace(status=Status.QUEUED, available_at=decision.at)
    return for_good
