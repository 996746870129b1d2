"""Following for a caller: counted, ended with the credential, and only what the caller sees."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import HTTPConnection

from flik.domain.identity import Caller, Scope
from flik.errors import ScopeMissing, Unauthenticated
from flik.gateway.identity import authenticate, still_works
from flik.gateway.parts import Parts, parts_of
from flik.pipeline.follow import Following
from flik.pipeline.follow_text import TextFollowing


async def authenticate_follower(connection: HTTPConnection) -> Caller:
    """Return who wants to follow: by the ticket in the URL, as browsers do, or by the Authorization header.

    Raises:
        Unauthenticated: neither opens anything.
        ScopeMissing: it does not allow to read.
        Unavailable: what it stands for cannot be found out now.
    """
    ticket = connection.query_params.get("ticket")
    return (
        await authenticate(connection, Scope.READ) if ticket is None else await redeemed(parts_of(connection), ticket)
    )


async def redeemed(parts: Parts, ticket: str) -> Caller:
    """Return whom a ticket stands for; it is worth nothing afterwards, nor when the credential behind it is not.

    Raises:
        Unauthenticated, ScopeMissing, Unavailable: as above.
    """
    caller = await parts.tickets.redeem(ticket)
    if caller is None:
        raise Unauthenticated("the ticket was used, has expired, or never was one", True)
    if not await still_works(caller, parts):
        raise Unauthenticated("the credential behind the ticket is not valid any more", True)
    if not caller.may(Scope.READ):
        raise ScopeMissing(Scope.READ)
    return caller


@asynccontextmanager
async def followed(parts: Parts, caller: Caller, following: Following) -> AsyncIterator[Following]:
    """Follow a task or a dag for a caller in here; it is counted as a connection of its own.

    Raises:
        TaskNotFound, DagNotFound: there is none that the caller sees.
        TooManyFollowers: there are as many as there may be.
        Unavailable: PostgreSQL is away.
    """
    with parts.followers.counted(caller, following.stop), parts.followers.following(caller):
        async with seen(following, caller):
            yield following


def following_of(parts: Parts, task_id: str, since: int = 0, first_chunk: int | None = None) -> Following:
    """Return a follower of a task, from the event and the chunk on that are named; None: without its text."""
    if first_chunk is None:
        return parts.hub.follow(task_id, since)
    return TextFollowing(parts.hub, parts.texts, task_id, since, first_chunk)


@asynccontextmanager
async def seen(following: Following, caller: Caller) -> AsyncIterator[Following]:
    """Enter a following if the caller sees the task, or the dag.

    Raises:
        TaskNotFound, DagNotFound: there is none that the caller sees.
        Unavailable: PostgreSQL is away.
    """
    async with following:
        if not caller.sees(following.tenant_id):
            raise following.not_found()
        yield following
