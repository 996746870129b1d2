"""What the routes work with; put together once for each gateway replica."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from flik.artifacts.store import ArtifactStore
from flik.live.results import LiveResults
from flik.pipeline.admit import Admission
from flik.pipeline.directory import Directory
from flik.pipeline.ports import QueueForGateway
from flik.pipeline.submit import GroupCommit
from flik.storage.audit import AuditLog
from flik.storage.keys import KeyStore
from flik.storage.tasks import TaskStore
from flik.storage.tenants import TenantStore
from flik.telemetry import Metrics

if TYPE_CHECKING:
    from flik.gateway.issuer import Issuer  # loaded only where there is one

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parts:
    """The gateway's collaborators and settings. `public_url` None: links use the address the caller used."""

    region: str
    regions: frozenset[str]
    public_url: str | None
    tasks: TaskStore
    hot: LiveResults
    queue: QueueForGateway
    commit: GroupCommit
    admission: Admission
    artifacts: ArtifactStore
    signing_key: bytes
    artifact_url_ttl_s: int
    measured: Metrics
    by_tenant: Metrics  # shown to operators only
    directory: Directory
    tenants: TenantStore
    keys: KeyStore
    audit: AuditLog
    issuer: Issuer | None = None  # None: API keys only
    is_open: bool = False  # every bearer token may do everything


def parts_of(request: Request) -> Parts:
    """Return the parts of the application that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


def base_url(request: Request) -> str:
    """Return what links to this service start with, without a slash at the end."""
    public = parts_of(request).public_url
    if public is not None:
        return public.rstrip("/")
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host if _HOST.fullmatch(host) else 'localhost'}"
