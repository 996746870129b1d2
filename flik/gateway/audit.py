"""The route of the audit log, for operators: who made, changed and revoked what."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import Scope
from flik.gateway import cursor, filters, problems
from flik.gateway.answers import iso
from flik.gateway.identity import authenticate
from flik.gateway.parts import parts_of
from flik.gateway.responses import json_response

router = APIRouter(prefix="/api/v1", tags=["audit"])


@router.get(
    "/audit",
    response_model=schemas.AuditPage,
    responses=problems.responses(401, 403, 422, 503),
    openapi_extra=filters.query_parameters(()),
)
async def list_audit(request: Request) -> Response:
    """List what operators did, newest first."""
    await authenticate(request, Scope.ADMIN)
    wanted = filters.read_filter(request.query_params, ())
    found = await parts_of(request).audit.list(before_id=wanted.before_id, limit=wanted.limit + 1)
    items = [
        {
            "entryId": entry.entry_id,
            "at": iso(entry.at),
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
            "detail": entry.detail,
            "requestId": entry.request_id,
        }
        for entry in found[: wanted.limit]
    ]
    following = cursor.encode(found[wanted.limit - 1].entry_id) if len(found) > wanted.limit else None
    return json_response({"items": items, "nextCursor": following})
