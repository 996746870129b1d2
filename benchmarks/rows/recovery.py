"""How long it takes until Flik works again when one of its replicas is killed -9.

Of the model's replica: until a task that was submitted right after the kill has settled; the queue may have granted it
to the dead, whose lease must lapse first. Of the gateway's, the only one there is: until a submit is answered 202. The
worst of some rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from benchmarks.drive import single_posts
from benchmarks.measurement import Measurement, Outcome
from benchmarks.plan import Plan
from benchmarks.region import GATEWAY, TEXT_MODEL, Region

WITHIN_S = 60.0
ASK_EVERY_S = 0.02
CALM_S = 3.0  # between two rounds
POST = single_posts()[0]


def measure(region: Region, plan: Plan) -> Outcome:
    """Kill the replica of the model, then that of the gateway, a few times each."""
    found, violations = [], []
    for metric, title, works in (
        ("recovery_model_s", TEXT_MODEL, _completes_one),
        ("recovery_gateway_s", GATEWAY, _takes_one),
    ):
        rounds = [_killed(region, title, works) for _ in range(plan.kills)]
        seconds = [each for each in rounds if each is not None]
        if region.group is not None and len(seconds) < len(rounds):
            violations.append(f"{metric}: it did not come back within {WITHIN_S:.0f} s")
        note = f"worst of {len(rounds)} kills" if region.group is not None else "needs --pid with --url"
        found.append(Measurement(metric, max(seconds, default=None), "s", note))
    return Outcome(tuple(found), tuple(violations))


def _killed(region: Region, title: str, works: Callable[[Region, float], bool]) -> float | None:
    """Kill what has this title; return the seconds until it works, None if that never came."""
    victims = region.processes(title)
    if not victims:
        return None
    for victim in victims:
        victim.kill()
    at = time.monotonic()
    if not works(region, at + WITHIN_S):
        return None
    took_s = time.monotonic() - at
    time.sleep(CALM_S)
    return took_s


def _completes_one(region: Region, deadline: float) -> bool:
    task_id = region.submit(POST).json()["taskId"]
    while time.monotonic() < deadline:
        if region.status(task_id) == "COMPLETED":
            return True
        time.sleep(ASK_EVERY_S)
    return False


def _takes_one(region: Region, deadline: float) -> bool:
    while time.monotonic() < deadline:
        try:
            if region.submit(POST).status_code == 202:
                return True
        except httpx.TransportError:
            pass
        time.sleep(ASK_EVERY_S)
    return False
