"""`flik keys` and `flik tenants`: what they ask, what they print, and how they end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fakes_gateway import FakeGateway, problem, task_id
from invoking import Run, documents
from starlette.responses import JSONResponse

KEY = "flik_live_" + "A" * 49
MADE: dict[str, Any] = {
    "keyId": task_id(1), "tenantId": "acme", "name": "CI", "prefix": "flik_live_AAAAAA", "scopes": ["submit", "read"],
    "createdAt": "2026-01-31T08:00:00.000Z", "expiresAt": None, "revokedAt": None, "lastUsedAt": None,
}  # fmt: skip
NAMES = ("ratePerS", "burst", "maxRunning", "maxQueued", "weight", "highestPriority", "maxPayloadBytes")
TENANT: dict[str, Any] = {
    "tenantId": "acme", "name": "Acme", "createdAt": "2026-01-31T08:00:00.000Z",
    "updatedAt": "2026-01-31T08:00:00.000Z",
    "limits": {**dict.fromkeys(NAMES), "burst": 7},
    "effectiveLimits": dict(zip(NAMES, (300.0, 7, None, None, 1, 0, 262_144), strict=True)),
}  # fmt: skip


def page(*items: dict[str, Any], cursor: str | None = None) -> JSONResponse:
    return JSONResponse({"items": list(items), "nextCursor": cursor})


# ---- keys


def test_new_key_is_all_that_is_printed_on_a_pipe(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "key": KEY}, 201))
    result = run("keys", "create", "--tenant", "acme", "--name", "CI")
    assert (result.exit_code, result.stdout) == (0, KEY + "\n")
    asked = gateway.requests[0]
    assert (asked.method, asked.path) == ("POST", "/api/v1/keys")
    assert asked.body == {
        "tenantId": "acme", "name": "CI", "scopes": ["submit", "read"], "expiresAt": None, "kind": "live",
    }  # fmt: skip


def test_key_is_made_for_the_tenant_of_the_environment(
    run: Run, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIK_TENANT", "zebra")
    gateway.answer_next(JSONResponse({**MADE, "key": KEY}, 201))
    run("keys", "create", "--scope", "admin", "--scope", "read", "--kind", "test", "--expires", "30d")
    body = gateway.requests[0].body
    assert (body["tenantId"], body["scopes"], body["kind"]) == ("zebra", ["admin", "read"], "test")
    ends_in = datetime.fromisoformat(body["expiresAt"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < ends_in <= timedelta(days=30)


def test_key_with_a_day_on_which_it_ends(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse({**MADE, "key": KEY}, 201))
    run("keys", "create", "--expires", "2099-01-31T00:00:00Z")
    assert datetime.fromisoformat(gateway.requests[0].body["expiresAt"]) == datetime(2099, 1, 31, tzinfo=UTC)


def test_keys_are_listed_from_all_pages_with_their_state(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(
        page(MADE, {**MADE, "revokedAt": "2026-02-01T00:00:00Z"}, cursor="c1"),
        page({**MADE, "expiresAt": "2026-02-01T00:00:00.000Z"}, {**MADE, "expiresAt": "2999-01-01T00:00:00Z"}),
    )
    result = run("keys", "list", "--tenant", "acme")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0][0] == "KEY"
    assert [line[-1] for line in lines[1:]] == ["works", "revoked", "expired", "works"]
    assert [asked.query.get("cursor") for asked in gateway.requests] == [None, "c1"]
    assert {asked.query["tenantId"] for asked in gateway.requests} == {"acme"}


def test_keys_as_json(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(page(MADE))
    assert documents(run("keys", "list", "--json")) == [{"items": [MADE]}]
    gateway.answer_next(JSONResponse({**MADE, "key": KEY}, 201))
    assert documents(run("keys", "create", "--json")) == [{**MADE, "key": KEY}]


def test_keys_are_revoked_one_by_one(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse(MADE), JSONResponse(MADE))
    result = run("keys", "revoke", task_id(1), task_id(2), task_id(1))
    assert result.stdout.splitlines() == [f"{task_id(1)} revoked", f"{task_id(2)} revoked"]
    assert gateway.paths() == [f"DELETE /api/v1/keys/{task_id(1)}", f"DELETE /api/v1/keys/{task_id(2)}"]


@pytest.mark.parametrize("named", [KEY, "../tenants/acme", ""])
def test_what_is_no_id_is_not_sent(run: Run, gateway: FakeGateway, named: str) -> None:
    assert run("keys", "revoke", named).exit_code == 2
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, "key_not_found"), 3), ((403, "scope_missing"), 4), ((401, "unauthenticated"), 4),
        ((422, "invalid_request"), 4), ((500, "internal"), 5),
    ],
)  # fmt: skip
def test_refusal_ends_with_its_code(run: Run, gateway: FakeGateway, answer: tuple[int, str], code: int) -> None:
    gateway.answer_next(problem(*answer, detail="said the gateway"))
    result = run("keys", "revoke", task_id(1))
    assert (result.exit_code, result.stdout) == (code, "")
    assert "said the gateway" in result.stderr


@pytest.mark.parametrize("args", [["--scope", "root"], ["--kind", "prod"], ["--expires", "soon"]])
def test_key_that_cannot_be_is_refused_here(run: Run, gateway: FakeGateway, args: list[str]) -> None:
    assert run("keys", "create", *args).exit_code == 2
    assert gateway.requests == []


@pytest.mark.parametrize("answer", [[], {"items": 7, "nextCursor": None}, {"items": [7], "nextCursor": None}, 7])
def test_answer_that_is_no_list_is_not_taken_for_one(run: Run, gateway: FakeGateway, answer: Any) -> None:
    gateway.answer_next(JSONResponse(answer))
    assert run("keys", "list").exit_code == 5


def test_list_that_leads_in_a_circle_is_given_up(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(page(MADE, cursor="c"), page(MADE, cursor="c"))
    assert run("keys", "list").exit_code == 5


# ---- tenants


def test_tenant_is_made_with_its_limits(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse(TENANT, 201))
    result = run("tenants", "create", "acme", "--name", "Acme", "--burst", "7", "--rate", "2.5", "--weight", "default")
    assert gateway.requests[0].body == {
        "tenantId": "acme", "name": "Acme", "limits": {"burst": 7, "ratePerS": 2.5, "weight": None},
    }  # fmt: skip
    assert result.stdout.splitlines() == [
        "acme Acme",
        "rate 300  (default)",
        "burst 7",
        "max-running no bound  (default)",
        "max-queued no bound  (default)",
        "weight 1  (default)",
        "highest-priority 0  (default)",
        "max-payload-bytes 262144  (default)",
    ]


def test_only_what_is_given_is_changed(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse(TENANT), JSONResponse(TENANT))
    assert run("tenants", "set", "acme", "--max-queued", "0").exit_code == 0
    assert run("tenants", "set", "acme", "--name", "", "--json").exit_code == 0
    assert [asked.body for asked in gateway.requests] == [{"limits": {"maxQueued": 0}}, {"name": ""}]
    assert gateway.paths() == ["PATCH /api/v1/tenants/acme"] * 2


def test_nothing_to_change_is_a_mistake(run: Run, gateway: FakeGateway) -> None:
    assert run("tenants", "set", "acme").exit_code == 2
    assert gateway.requests == []


@pytest.mark.parametrize("value", ["many", "nan", "inf", "1e999", ""])
def test_limit_that_is_no_number_is_refused_here(run: Run, gateway: FakeGateway, value: str) -> None:
    assert run("tenants", "set", "acme", "--rate", value).exit_code == 2
    assert gateway.requests == []


def test_tenants_are_listed_with_the_limits_that_hold(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(page(TENANT))
    header, row = run("tenants", "list").stdout.splitlines()
    assert header.split("\t")[:3] == ["TENANT", "NAME", "RATE"]
    assert row.split("\t") == ["acme", "Acme", "300", "7", "no bound", "no bound", "1", "0", "262144"]
    gateway.answer_next(page(TENANT))
    assert documents(run("tenants", "list", "--json")) == [{"items": [TENANT]}]


def test_one_tenant_is_shown(run: Run, gateway: FakeGateway) -> None:
    gateway.answer_next(JSONResponse(TENANT))
    assert documents(run("tenants", "show", "acme", "--json")) == [TENANT]
    gateway.answer_next(problem(404, "tenant_not_found", "no tenant a/b"))
    assert run("tenants", "show", "a/b").exit_code == 3
    assert gateway.paths()[-1].startswith("GET /api/v1/tenants/a")


@pytest.mark.parametrize("group", ["keys", "tenants"])
def test_group_tells_what_it_can_do(run: Run, group: str) -> None:
    result = run(group, "--help")
    assert result.exit_code == 0
    assert "scope admin" in result.stdout
