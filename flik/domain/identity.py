"""Who may do what: scopes, callers, tenants and their limits.

A caller is whoever an API key or a token stands for. It belongs to one tenant and sees that
tenant's tasks only; `Scope.ADMIN` is the operator's and reaches every tenant. Limits belong
to the tenant, whoever submits for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from flik.domain.dag.graph import DagFilter
from flik.domain.task import Priority, TaskFilter

TENANT_ID = r"^[A-Za-z0-9][A-Za-z0-9._:@-]*$"  # the ids of tenants, as JSON Schema writes it; 0002_tenants.sql agrees
MAX_TENANT_ID_CHARS = 128
ISSUED = "jwt:"  # what names of credentials start with that are tokens of an issuer
_Filter = TypeVar("_Filter", TaskFilter, DagFilter)


def is_tenant_id(text: str) -> bool:
    """Return whether a tenant can have this id."""
    return len(text) <= MAX_TENANT_ID_CHARS and re.fullmatch(TENANT_ID[:-1], text) is not None  # `$` lets a \n pass


class Scope(StrEnum):
    """What a credential allows."""

    SUBMIT = "submit"  # create, cancel, retry the tenant's tasks
    READ = "read"  # read and list them, with their artifacts
    ADMIN = "admin"  # all of that for every tenant; keys, tenants, limits


@dataclass(frozen=True, slots=True)
class Limits:
    """What one tenant may use. None: no bound. Rates count tasks, so a batch costs its size."""

    rate_per_s: float = 300.0
    burst: int = 1_000
    max_running: int | None = None
    max_queued: int | None = None
    weight: int = 1
    highest_priority: int = Priority.REAL_TIME  # the most urgent class allowed; 2: background only
    max_payload_bytes: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """The limits that were set for one tenant; None: the service's default holds."""

    rate_per_s: float | None = None
    burst: int | None = None
    max_running: int | None = None
    max_queued: int | None = None
    weight: int | None = None
    highest_priority: int | None = None
    max_payload_bytes: int | None = None

    def over(self, defaults: Limits) -> Limits:
        """Return the limits that hold: these, and where there is none the default."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(defaults, **{name: value for name, value in own.items() if value is not None})


class WorkLimits(NamedTuple):
    """Those limits of one tenant that concern work; None: the default."""

    tenant_id: str
    weight: int | None
    max_running: int | None


LIMIT_NAMES = tuple(each.name for each in fields(OwnLimits))


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant as it is stored; times are seconds since the epoch."""

    tenant_id: str
    name: str
    created_at: float
    updated_at: float
    limits: OwnLimits = field(default_factory=OwnLimits)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose tasks they are."""

    tenant_id: str
    name: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `tenant_id` None: an operator that belongs to no tenant.

    `key_id` names the credential in the audit log: the id of a key, or `ISSUED` and the token's subject.
    """

    tenant_id: str | None
    scopes: frozenset[Scope]
    key_id: str | None = None
    expires_at: float | None = field(default=None, compare=False)  # of the credential

    @property
    def is_of_issuer(self) -> bool:
        """Whether its credential is the token of an issuer, which can only expire."""
        return self.key_id is not None and self.key_id.startswith(ISSUED)

    @property
    def is_operator(self) -> bool:
        """Whether the caller reaches every tenant."""
        return Scope.ADMIN in self.scopes

    @property
    def actor(self) -> str:
        """Who did it, for the audit log."""
        return self.key_id or "anyone"

    def may(self, scope: Scope) -> bool:
        """Return whether `scope` is granted; ADMIN grants the others too."""
        return scope in self.scopes or self.is_operator

    def sees(self, tenant_id: str) -> bool:
        """Return whether what belongs to `tenant_id` exists for this caller; if not, it is answered with 404."""
        return self.is_operator or self.tenant_id == tenant_id

    def narrow(self, wanted: _Filter) -> _Filter | None:
        """Return the part of `wanted` that this caller may reach; None when that is nothing."""
        if self.is_operator:
            return wanted
        if self.tenant_id is None or wanted.tenant_id not in (None, self.tenant_id):
            return None
        return replace(wanted, tenant_id=self.tenant_id)


ANYONE = Caller(None, frozenset(Scope))
"""Every caller in open mode."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing an operator did: `actor` did `action` to `subject`. `detail` is JSON-like."""

    entry_id: str
    at: float
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    request_id: str | None
