"""`Prefer: wait=20` on a submit or a read: the answer comes when the task has ended, or when the time is over.

It is 200 when it has ended, else 202. The same goes for dags.

RFC 7240: a preference that cannot be read is passed over, never refused. What was honoured stands in
`Preference-Applied`. The wait is capped at `MAX_WAIT_S`; the task goes on however long it takes.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from flik.domain.identity import Caller, Scope
from flik.errors import FlikError, Unauthenticated, Unavailable
from flik.gateway.following import followed
from flik.gateway.parts import parts_of
from flik.pipeline.follow import Following

MAX_WAIT_S = 60
PARAMETER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": (
        f"`wait=n`: answer 200 when it has ended, or 202 after n seconds ({MAX_WAIT_S} at most); RFC 7240."
    ),
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


async def has_ended(request: Request, caller: Caller, following: Following, within_s: float) -> bool:
    """Wait for an end; return False when the time is over, or it cannot be followed now: then nothing is lost.

    Raises:
        Unauthenticated: the credential was revoked meanwhile.
    """
    try:
        async with followed(parts_of(request), caller, following) as entered:
            return await entered.until_ended(within_s)
    except Unauthenticated:
        raise
    except FlikError:
        return False


async def when_ended(
    request: Request,
    caller: Caller,
    stored: Response,
    following: Following,
    whole: Callable[[], Awaitable[Response | None]],
) -> Response:
    """Return `whole` of what was submitted if it ends while the caller would wait, else what was answered: `stored`."""
    within_s, answer = wait_s(request), stored
    with suppress(Unauthenticated, Unavailable):  # it is accepted, whatever happens now
        if caller.may(Scope.READ) and await has_ended(request, caller, following, within_s):
            answer = await whole() or stored
            answer.headers["Location"] = stored.headers["Location"]
    note_applied(answer, within_s)
    return answer
