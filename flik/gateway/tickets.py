"""The route of tickets, with which browsers open streams and WebSockets."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import Scope
from flik.gateway import problems
from flik.gateway.answers import iso
from flik.gateway.identity import authenticate
from flik.gateway.parts import parts_of
from flik.gateway.responses import json_response
from flik.live.tickets import TTL_S

router = APIRouter(prefix="/api/v1", tags=["events"])


@router.post("/tickets", status_code=201, response_model=schemas.Ticket, responses=problems.responses(401, 403, 503))
async def create_ticket(request: Request) -> Response:
    """Make a ticket: it stands for this credential once, within 30 s, as `?ticket=` of what can be followed."""
    caller = await authenticate(request, Scope.READ)
    ticket = await parts_of(request).tickets.issue(caller)
    return json_response({"ticket": ticket, "expiresAt": iso(time.time() + TTL_S)}, 201)
