"""Following a task for a caller: counted, and only what the caller sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from flik.domain.identity import Caller
from flik.errors import TaskNotFound
from flik.gateway.parts import parts_of
from flik.pipeline.follow import Following


@asynccontextmanager
async def followed(request: Request, caller: Caller, task_id: str, since: int = 0) -> AsyncIterator[Following]:
    """Follow a task for a caller in here.

    Raises:
        TaskNotFound: there is none that the caller sees.
        TooManyFollowers: there are as many as there may be.
        Unavailable: PostgreSQL is away.
    """
    parts = parts_of(request)
    with parts.followers.counted(caller):
        async with parts.hub.follow(task_id, since) as following:
            if not caller.sees(following.task.tenant_id):
                raise TaskNotFound(task_id)
            yield following
