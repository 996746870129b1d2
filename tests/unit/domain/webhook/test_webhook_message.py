"""What a receiver gets."""

from __future__ import annotations

import json
from dataclasses import replace

from flik.domain.webhook.message import MAX_BODY_BYTES, Message, body_of, headers_of

TASK = "0199a1b2-0000-7000-8000-000000000001"
MESSAGE = Message("d-1", "w-1", "acme", TASK, 7, "completed", 1_771_336_800.25, {"text": "räin", "attempt": 2})


def test_event_is_named_by_the_headers_of_cloudevents() -> None:
    assert headers_of(MESSAGE) == {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": f"{TASK}.7",
        "ce-source": "/tenants/acme",
        "ce-type": "flik.task.completed",
        "ce-subject": TASK,
        "ce-time": "2026-02-17T14:00:00.250Z",
    }


def test_body_says_what_happened_to_which_task() -> None:
    assert json.loads(body_of(MESSAGE)) == {
        "type": "task.completed",
        "timestamp": "2026-02-17T14:00:00.250Z",
        "data": {"taskId": TASK, "seq": 7, "tenantId": "acme", "text": "räin", "attempt": 2},
    }


def test_body_is_the_same_bytes_in_whatever_order_its_data_came() -> None:
    assert body_of(MESSAGE) == body_of(replace(MESSAGE, data=dict(reversed(MESSAGE.data.items()))))


def test_data_cannot_pretend_to_be_of_another_task_or_tenant() -> None:
    lying = replace(MESSAGE, data={"taskId": "other", "tenantId": "other", "seq": 1})
    assert json.loads(body_of(lying))["data"] == {"taskId": TASK, "seq": 7, "tenantId": "acme"}


def test_large_event_is_sent_without_its_details() -> None:
    body = body_of(replace(MESSAGE, data={"text": "x" * MAX_BODY_BYTES}))
    assert json.loads(body)["data"] == {"taskId": TASK, "seq": 7, "tenantId": "acme", "truncated": True}


def test_ping_is_of_the_webhook() -> None:
    ping = Message("d-2", "w-1", "a:b@c", None, 0, "ping", 1_771_336_800.0, {})
    assert json.loads(body_of(ping))["data"] == {"webhookId": "w-1", "tenantId": "a:b@c"}
    named = headers_of(ping)
    assert (named["ce-id"], named["ce-type"], named["ce-subject"]) == ("d-2", "flik.ping", "w-1")
    assert named["ce-source"] == "/tenants/a:b@c"
