"""Pages of lists: one more item than is shown is looked for, and says whether another page follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.responses import Response

from flik.gateway.responses import json_response

_T = TypeVar("_T")


async def answer(
    find: Callable[[int], Awaitable[Sequence[_T]]],
    limit: int,
    show: Callable[[_T], Mapping[str, Any]],
    cursor_after: Callable[[_T], str],
) -> Response:
    """Answer up to `limit` items, and the cursor that goes on after the last one; null when there are no more.

    Args:
        find: looks for so many items, from where the list goes on.
    """
    found = await find(limit + 1)
    items = found[:limit]
    following = cursor_after(items[-1]) if len(found) > limit else None
    return json_response({"items": [show(item) for item in items], "nextCursor": following})


def nothing() -> Response:
    """Answer a list in which there can be nothing for the caller."""
    return json_response({"items": [], "nextCursor": None})
