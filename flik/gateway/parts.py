"""What the routes work with; put together once for each gateway replica."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from flik.artifacts.store import ArtifactStore
from flik.domain.webhook.target import Allowed
from flik.live.results import LiveResults
from flik.live.snapshots import Snapshots
from flik.live.tickets import Tickets
from flik.outbound.lookups import Lookups
from flik.pipeline.admit import Admission
from flik.pipeline.directory import Directory
from flik.pipeline.follow import Hub
from flik.pipeline.follow_text import Texts
from flik.pipeline.followers import Followers
from flik.pipeline.ports import QueueForGateway
from flik.pipeline.streams import Streams
from flik.pipeline.submit import GroupCommit
from flik.storage.audit import AuditLog
from flik.storage.dags import DagStore
from flik.storage.keys import KeyStore
from flik.storage.tasks import TaskStore
from flik.storage.tenants import TenantStore
from flik.storage.webhooks import WebhookStore
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
    dags: DagStore
    hot: LiveResults
    queue: QueueForGateway
    commit: GroupCommit
    admission: Admission
    artifacts: ArtifactStore
    signing_key: bytes
    artifact_url_ttl_s: int
    measured: Metrics
    snapshots: Snapshots  # its texts: `measured`, and `by_tenant`, which is shown to operators only
    directory: Directory
    tenants: TenantStore
    keys: KeyStore
    audit: AuditLog
    hub: Hub
    followers: Followers
    tickets: Tickets
    texts: Texts
    streams: Streams
    webhooks: WebhookStore
    webhook_targets: Allowed = field(default_factory=Allowed)  # beyond public addresses
    lookups: Lookups = field(default_factory=Lookups)  # of names that tenants give
    stream_silence_s: float = 60.0  # then a reader of /stream is let go
    wake_courier: Callable[[], None] = lambda: None  # something was made due by hand
    issuer: Issuer | None = None  # None: API keys only
    is_open: bool = False  # every bearer token may do everything


def parts_of(request: HTTPConnection) -> Parts:
    """Return the parts of the application that serves this request."""
    parts: Parts = request.app.state.parts
    return parts


def base_url(request: HTTPConnection) -> str:
    """Return what links to this service start with, without a slash at the end."""
    public = parts_of(request).public_url
    if public is not None:
        return public.rstrip("/")
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host if _HOST.fullmatch(host) else 'localhost'}"
