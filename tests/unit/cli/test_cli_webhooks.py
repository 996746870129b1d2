"""`flik webhooks`: what it asks, what it prints, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from fakes_gateway import FakeGateway, problem, task_id
from invoking import Run, documents
from starlette.responses import JSONResponse

from flik.cli.webhooks import KINDS
from flik.domain.dag.log import WEBHOOK_KINDS
from flik.domain.event import DURABLE

HOOK, DELIVERY = task_id(1), task_id(2)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MADE: dict[str, Any] = {
    "webhookId": HOOK, "tenantId": "acme", "url": "https://hooks.example.com/", "kinds": ["completed", "failed"],
    "status": "ACTIVE", "reason": None, "createdAt": "2026-01-31T08:00:00.000Z",
    "updatedAt": "2026-01-31T08:00:00.000Z", "oldSecretUntil": None, "failingSince": None,
}  # fmt: skip
SENT: dict[str, Any] = {
    "deliveryId": DELIVERY, "webhookId": HOOK, "taskId": task_id(3), "seq": 4, "kind": "completed", "state": "WAITING",
    "attempts": 2, "nextAt": "2026-01-31T08:00:35.000Z", "createdAt": "2026-01-31T08:00:00.000Z", "endedAt": None,
    "log": [{"at": "2026-01-31T08:00:00.000Z", "status": 500, "error": "x", "durationMs": 3},
            {"at": "2026-01-31T08:00:05.000Z", "status": None, "error": "no connection", "durationMs": 3}],
}  # fmt: skip


def test_kinds_are_those_of_events() -> None:
    assert set(KINDS) == DURABLE | set(WEBHOOK_KINDS.values())


def test_secret_is_all_that_is_printed_on_a_pipe(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "secret": SECRET}, 201))
    result = run("webhooks", "create", "https://hooks.example.com/", "--tenant", "acme", "--kind", "failed")
    assert (result.exit_code, result.stdout) == (0, SECRET + "\n")
    asked = gateway.requests[0]
    assert (asked.method, asked.path) == ("POST", "/api/v1/webhooks")
    assert asked.body == {"tenantId": "acme", "url": "https://hooks.example.com/", "kinds": ["failed"]}


def test_without_kinds_the_gateway_decides(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "secret": SECRET}, 201))
    assert documents(run("webhooks", "create", "https://hooks.example.com/", "--json")) == [{**MADE, "secret": SECRET}]
    assert "kinds" not in gateway.requests[0].body


def test_webhooks_are_listed_from_all_pages(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(
        JSONResponse({"items": [MADE], "nextCursor": "c1"}),
        JSONResponse({"items": [{**MADE, "status": "DISABLED", "reason": "gone"}], "nextCursor": None}),
    )
    lines = [line.split("\t") for line in run("webhooks", "list", "--tenant", "acme").stdout.splitlines()]
    assert lines[0][:3] == ["WEBHOOK", "TENANT", "STATUS"]
    assert lines[1] == [HOOK, "acme", "ACTIVE", "https://hooks.example.com/", "completed,failed", "", ""]
    assert (lines[2][2], lines[2][6]) == ("DISABLED", "gone")
    assert [asked.query.get("cursor") for asked in gateway.requests] == [None, "c1"]
    assert gateway.requests[0].query["tenantId"] == "acme"


def test_only_what_is_given_is_changed(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "status": "PAUSED"}))
    result = run("webhooks", "set", HOOK, "--status", "paused")
    assert result.exit_code == 0
    assert "PAUSED" in result.stdout
    asked = gateway.requests[0]
    assert (asked.method, asked.path, asked.body) == ("PATCH", f"/api/v1/webhooks/{HOOK}", {"status": "PAUSED"})
    gateway.answer_next(JSONResponse(MADE))
    run("webhooks", "set", HOOK, "--to", "https://b.example/", "--kind", "failed", "--kind", "expired")
    assert gateway.requests[1].body == {"url": "https://b.example/", "kinds": ["failed", "expired"]}
    assert run("webhooks", "set", HOOK).exit_code == 2


def test_webhook_is_deleted(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse(MADE))
    result = run("webhooks", "delete", HOOK)
    assert (result.exit_code, result.stdout) == (0, f"{HOOK} deleted\n")
    assert gateway.paths() == [f"DELETE /api/v1/webhooks/{HOOK}"]


def test_new_secret_is_printed(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "secret": SECRET}))
    assert run("webhooks", "rotate", HOOK).stdout == SECRET + "\n"
    assert gateway.paths() == [f"POST /api/v1/webhooks/{HOOK}/rotate-secret"]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [(("test", HOOK), f"{HOOK}/test"), (("redeliver", HOOK, DELIVERY), f"{HOOK}/deliveries/{DELIVERY}/redeliver")],
)
def test_what_is_sent_by_hand_is_shown(run: Run, gateway: FakeGateway, arguments: tuple[str, ...], path: str) -> None:
    gateway.answer_next(JSONResponse(SENT, 202))
    lines = run("webhooks", *arguments).stdout.splitlines()
    assert gateway.paths() == [f"POST /api/v1/webhooks/{path}"]
    assert lines[1].split("\t") == [
        DELIVERY, "WAITING", "completed", task_id(3), "4", "2", "2026-01-31T08:00:35.000Z", "no connection",
        "2026-01-31T08:00:00.000Z",
    ]  # fmt: skip


def test_deliveries_end_at_the_limit(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({"items": [SENT] * 3, "nextCursor": "c1"}))
    result = run("webhooks", "deliveries", HOOK, "--limit", "2", "--json")
    assert documents(result) == [{"items": [SENT, SENT]}]
    assert gateway.requests[0].query["limit"] == "2"
    assert len(gateway.requests) == 1


def test_webhook_that_is_not_there_ends_with_3(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(problem(404, "webhook_not_found", f"no webhook {HOOK}"))
    assert run("webhooks", "test", HOOK).exit_code == 3
