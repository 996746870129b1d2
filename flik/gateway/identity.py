"""Who is calling. Until keys exist any bearer token is accepted, but one must be there."""

from __future__ import annotations

from starlette.requests import Request

from flik.errors import Unauthenticated

MAX_TOKEN_CHARS = 4_096


def authenticate(request: Request) -> str:
    """Return the caller's bearer token (RFC 6750, section 2.1).

    Raises:
        Unauthenticated: there is none, or it is not a token.
    """
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send the header Authorization: Bearer <api-key>")
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated("the bearer token is malformed")
    return token
