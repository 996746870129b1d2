"""The route of the audit log, for operators: who made, changed and revoked what."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from flik import schemas
from flik.domain.identity import AuditEntry, Scope
from flik.gateway import cursor, filters, pages, problems
from flik.gateway.answers import iso
from flik.gateway.identity import authenticate
from flik.gateway.parts import parts_of

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
    find = parts_of(request).audit.list
    return await pages.answer(
        lambda limit: find(before_id=wanted.before_id, limit=limit),
        wanted.limit,
        _answer,
        lambda entry: cursor.encode(entry.entry_id),
    )


def _answer(entry: AuditEntry) -> dict[str, Any]:
    return {
        "entryId": entry.entry_id,
        "at": iso(entry.at),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "requestId": entry.request_id,
    }
