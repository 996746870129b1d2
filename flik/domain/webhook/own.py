"""A webhook that a task brings with it: it is told of this task and of nothing else.

It needs no place among a tenant's webhooks and is kept for 30 days after the task's end. Its secret is the caller's:
a receiver checks the messages of all its tasks with one secret, and has it before the first of them comes.

What fails is not the webhook of one task but where it leads. So senders know a receiver by tenant, scheme, host and
port: what they hold back when it is dead (`attempt.py`), and how much is on its way there, counts for all tasks of
the tenant that lead there together. It is never disabled: who says that it is gone (410) means the webhook of this one
task, whose other deliveries are given up, and which hears nothing more of it. Sending one of them again by hand takes
that back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from uuid import UUID

OWN_KEPT_S = 30 * 86_400.0  # after the task's end


@dataclass(frozen=True, slots=True)
class OwnWebhook:
    """Where a task is told of, and by which receiver senders know that."""

    receiver_id: str
    url: str
    kinds: tuple[str, ...]
    secret: str = field(repr=False)


def receiver_id(tenant_id: str, origin: str) -> str:
    """Return the id of a receiver: the first 16 bytes of a SHA-256, so the same wherever it is asked for."""
    return str(UUID(bytes=hashlib.sha256(f"{tenant_id} {origin}".encode()).digest()[:16]))
