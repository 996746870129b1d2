"""`Prefer: wait=20` on a submit or a read: the answer comes when the task has ended, or when the time is over.

RFC 7240: a preference that cannot be read is passed over, never refused. What was honoured stands in
`Preference-Applied`. The wait is capped at `MAX_WAIT_S`; the task goes on however long it takes.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from flik.domain.identity import Caller
from flik.errors import FlikError, Unauthenticated
from flik.gateway.following import followed, following_of
from flik.gateway.parts import parts_of

MAX_WAIT_S = 60
PARAMETER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": f"`wait=n`: answer when the task has ended, or after n seconds ({MAX_WAIT_S} at most); RFC 7240.",
    "schema": {"type": "string"},
}
_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?', re.ASCII | re.IGNORECASE)


def wait_s(request: Request) -> int:
    """Return for how many seconds the caller would rather wait; 0 when it does not say, or says `respond-async`."""
    given = request.headers.getlist("prefer")
    if not given:
        return 0
    preferences = [each.strip() for each in ",".join(given).split(",")]
    if any(each.lower() == "respond-async" for each in preferences):
        return 0
    found = next((match for each in preferences if (match := _WAIT.fullmatch(each))), None)
    return min(int(found[1]), MAX_WAIT_S) if found else 0


def note_applied(response: Response, waited_s: int) -> None:
    """Say in an answer that the wait was honoured."""
    response.headers["Preference-Applied"] = f"wait={waited_s}"
    response.headers["Vary"] = "Prefer"


async def has_ended(request: Request, caller: Caller, task_id: str, within_s: float) -> bool:
    """Wait for a task's end; return False when the time is over, or it cannot be followed now: then nothing is lost.

    Raises:
        Unauthenticated: the credential was revoked meanwhile.
    """
    parts = parts_of(request)
    try:
        async with followed(parts, caller, following_of(parts, task_id)) as following:
            return await following.until_ended(within_s)
    except Unauthenticated:
        raise
    except FlikError:
        return False
