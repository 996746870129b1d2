"""Who is calling, and for whom: from the Authorization header to a `Caller`, from a tenant's id to a `Tenant`.

Every route asks `authenticate` first. What is submitted asks `tenant_of` before anything is stored. What
is read or moved is looked at with `caller.sees`, and what a caller does not see is answered as if it
did not exist. A credential that opens nothing is answered in one way, whatever is wrong with it.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request

from flik.domain.identity import ANYONE, Caller, Scope, Tenant
from flik.domain.key import STARTS_WITH
from flik.errors import FieldError, InvalidRequest, ScopeMissing, TenantMismatch, TenantUnknown, Unauthenticated
from flik.gateway.parts import Parts, parts_of

MAX_TOKEN_CHARS = 4_096


async def authenticate(request: HTTPConnection, scope: Scope) -> Caller:
    """Return who is calling; every route asks this first.

    Raises:
        Unauthenticated: there is no bearer token (RFC 6750, section 2.1), or it opens nothing.
        ScopeMissing: it does not allow what `scope` stands for.
        Unavailable: what the token stands for cannot be found out now.
    """
    return await caller_by(bearer_token(request), parts_of(request), scope)


async def caller_by(token: str, parts: Parts, scope: Scope) -> Caller:
    """Return whom a token stands for.

    Raises:
        Unauthenticated: it opens nothing.
        ScopeMissing: it does not allow what `scope` stands for.
        Unavailable: what it stands for cannot be found out now.
    """
    caller = ANYONE if parts.is_open else await _caller_of(token, parts)
    if caller is None:
        raise Unauthenticated("the credential is not valid here", True)
    if not caller.may(scope):
        raise ScopeMissing(scope.value)
    return caller


async def still_works(caller: Caller, parts: Parts) -> bool:
    """Return whether what a caller showed a while ago would be taken now as well.

    Raises:
        Unavailable: it cannot be found out now.
    """
    if parts.is_open:
        return True
    return not (caller.is_of_issuer and parts.issuer is None) and await parts.directory.still_works(caller)


async def _caller_of(token: str, parts: Parts) -> Caller | None:
    if parts.issuer is None or token.startswith(STARTS_WITH):
        return await parts.directory.caller_of(token)
    return await parts.issuer.caller_of(token)


async def tenant_of(request: Request, caller: Caller, tenant_id: str) -> Tenant:
    """Return the tenant that `caller` submits for, with its limits; in open mode any tenant will do.

    Raises:
        TenantMismatch: the caller speaks for another tenant.
        TenantUnknown: nobody made the tenant.
        Unavailable: it cannot be found out now.
    """
    if not caller.sees(tenant_id):
        raise TenantMismatch(tenant_id)
    parts = parts_of(request)
    found = await parts.directory.tenant(tenant_id)
    if found is not None:
        return found
    if parts.is_open:
        return Tenant(tenant_id, limits=parts.directory.defaults)
    raise TenantUnknown(tenant_id)


def named_tenant(caller: Caller, tenant_id: str | None, pointer: str = "") -> str:
    """Return the tenant that a request names, or else the caller's; `pointer` is where its object stands in the body.

    Raises:
        InvalidRequest: it names none, and the caller belongs to none.
    """
    found = tenant_id or caller.tenant_id
    if found is None:
        raise InvalidRequest((FieldError(f"{pointer}/tenantId", "is required, as the key belongs to no tenant"),))
    return found


def bearer_token(request: HTTPConnection) -> str:
    """Return the bearer token of a request.

    Raises:
        Unauthenticated: there is none, or it is not a token.
    """
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send the header Authorization: Bearer <api-key>")
    if len(token) > MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable() or " " in token:
        raise Unauthenticated("the credential is not valid here", True)
    return token
