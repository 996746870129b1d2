"""Serves artifacts behind signed, expiring links, whole or in ranges (RFC 9110, section 14)."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from flik.artifacts import link
from flik.artifacts.store import content_type_of
from flik.gateway import problems
from flik.gateway.parts import parts_of

router = APIRouter(tags=["artifacts"])


@router.get(
    "/artifacts/{key:path}",
    response_class=Response,
    responses={
        200: {"description": "The bytes", "content": {"*/*": {}}},
        206: {"description": "The bytes of a range", "content": {"*/*": {}}},
        **problems.responses(404, 416, 503),
    },
)
@router.head("/artifacts/{key:path}", include_in_schema=False)
async def get_artifact(request: Request, key: str, expires: str = "", signature: str = "") -> Response:
    """Return the bytes of one artifact; the link is the credential."""
    parts = parts_of(request)
    link.verify(key, expires, signature, parts.signing_key, time.time())
    size = await parts.artifacts.head(key)
    asked = request.headers.get("range") if request.method == "GET" else None  # a range is of a GET only (section 14.2)
    wanted = link.parse_range(asked, size)
    if isinstance(wanted, link.Unsatisfiable):
        raise HTTPException(
            416, "the range lies outside of the artifact", {"Content-Range": wanted.content_range(size)}
        )
    start, end = (wanted.start, wanted.end) if isinstance(wanted, link.Part) else (0, size)
    headers = {
        "Content-Length": str(end - start),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": "inline",
        "X-Content-Type-Options": "nosniff",
    }
    if isinstance(wanted, link.Part):
        headers["Content-Range"] = wanted.content_range(size)
    status = 206 if isinstance(wanted, link.Part) else 200
    media_type = content_type_of(key)
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    return StreamingResponse(parts.artifacts.stream(key, start, end), status, headers, media_type)
