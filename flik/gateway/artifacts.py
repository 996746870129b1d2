"""Serves artifacts behind signed, expiring links, whole or in ranges (RFC 9110, section 14)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from flik.artifacts import link
from flik.artifacts.store import content_type_of
from flik.errors import ArtifactNotFound, Unavailable
from flik.gateway import problems
from flik.gateway.parts import parts_of

router = APIRouter(tags=["artifacts"])
# A browser shows a picture or a film as a small page around it; that page may load itself and nothing else.
_CSP = "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get(
    "/artifacts/{key:path}",
    response_class=Response,
    responses={
        200: {"description": "The bytes", "content": {"*/*": {}}},
        206: {"description": "The bytes of a range", "content": {"*/*": {}}},
        **problems.responses(ArtifactNotFound, 416, Unavailable),
    },
)
@router.head("/artifacts/{key:path}", include_in_schema=False)
async def get_artifact(request: Request, key: str, expires: str = "", signature: str = "") -> Response:
    """Return the bytes of one artifact; the link is the credential."""
    parts = parts_of(request)
    link.verify(key, expires, signature, parts.signing_key, time.time())
    try:
        size = await parts.artifacts.head(key)
    except ArtifactNotFound:
        with suppress(Unavailable):  # else the next step that reuses what made it would have a dead link, too
            await parts.dags.forget(key.partition("/")[0])
        raise
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
        "Content-Security-Policy": _CSP,
    }
    if isinstance(wanted, link.Part):
        headers["Content-Range"] = wanted.content_range(size)
    status = 206 if isinstance(wanted, link.Part) else 200
    media_type = content_type_of(key)
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    chunks = parts.artifacts.stream(key, start, end)
    first = await anext(chunks, b"")  # before the answer begins: a store that is away is a 503 until then
    return StreamingResponse(_following(first, chunks), status, headers, media_type)


async def _following(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk
