"""What a receiver gets: one JSON document for an event of a task, with headers that name it in two standards.

    POST /hooks HTTP/1.1
    content-type: application/json
    webhook-id: 0199a1b2-...            the delivery; the same at every attempt, so receivers can drop repeats
    webhook-timestamp: 1771336800       of this attempt
    webhook-signature: v1,K5oZ...       Standard Webhooks 1.0; see signature.py
    ce-specversion: 1.0                 CloudEvents 1.0, binary mode
    ce-id: 0199a1b2-....7               task and number: the event, the same for every webhook
    ce-source: /tenants/acme
    ce-type: flik.task.completed
    ce-subject: 0199a1b2-...            the task
    ce-time: 2026-02-17T14:00:00.000Z   when it happened

    {"data":{"seq":7,"taskId":"0199a1b2-...","tenantId":"acme",...},"timestamp":"2026-02-17T14:00:00.000Z",
     "type":"task.completed"}

An event of a dag has the type `dag.completed`, and `dagId` in the place of `taskId`.

A body is at most 64 KiB: what is larger is sent without its details, with `"truncated": true`, and is to be read
from the task. The body is the same, byte for byte, at every attempt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

MAX_BODY_BYTES = 64 * 1024
_OF_DAGS = {
    "dagStep": "dag.step", "dagCompleted": "dag.completed", "dagFailed": "dag.failed", "dagCancelled": "dag.cancelled",
}  # fmt: skip
PING = "ping"  # what a test sends; goes to every webhook, whatever it asks for


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way to one webhook. `task_id` is that of the dag for kinds of dags, and None for a ping.

    `at`: seconds since the epoch.
    """

    delivery_id: str
    webhook_id: str
    tenant_id: str
    task_id: str | None
    seq: int
    kind: str
    at: float
    data: Mapping[str, Any]


def body_of(message: Message) -> bytes:
    """Return what is sent."""
    body = _dump(message, message.data)
    return body if len(body) <= MAX_BODY_BYTES else _dump(message, {"truncated": True})


def headers_of(message: Message) -> dict[str, str]:
    """Return the headers that name the event (CloudEvents 1.0, HTTP binding, section 3.1)."""
    return {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": f"{message.task_id}.{message.seq}" if message.task_id else message.delivery_id,
        "ce-source": f"/tenants/{quote(message.tenant_id, safe=':@')}",
        "ce-type": f"flik.{_type(message)}",
        "ce-subject": message.task_id or message.webhook_id,
        "ce-time": _iso(message.at),
    }


def _dump(message: Message, data: Mapping[str, Any]) -> bytes:
    named: dict[str, Any] = {"webhookId": message.webhook_id}
    if message.task_id:
        named = {"dagId" if message.kind in _OF_DAGS else "taskId": message.task_id, "seq": message.seq}
    document = {
        "type": _type(message),
        "timestamp": _iso(message.at),
        "data": {**data, **named, "tenantId": message.tenant_id},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def _type(message: Message) -> str:
    return _OF_DAGS.get(message.kind) or (f"task.{message.kind}" if message.task_id else message.kind)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
