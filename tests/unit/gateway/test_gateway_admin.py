"""What operators do over HTTP: keys, tenants, and the log of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import gateway_parts
import httpx
import pytest
from gateway_parts import Fakes, body

from flik import schemas
from flik.domain import key as keys
from flik.domain.identity import OwnLimits, Scope, TenantRecord
from flik.domain.key import ApiKey, Kind

OPERATOR = keys.make(Kind.LIVE, bytes(32))
OPERATOR_ID = "0199a1b2-0000-7000-8000-000000000000"
KEYS, TENANTS, AUDIT = "/api/v1/keys", "/api/v1/tenants", "/api/v1/audit"


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    fakes = gateway_parts.build(is_open=False)
    fakes.identity.tenants["acme"] = TenantRecord("acme", "Acme", 0.0, 0.0, OwnLimits(burst=7))
    fakes.identity.keys[keys.digest(OPERATOR)] = ApiKey(
        OPERATOR_ID, "acme", keys.shown(OPERATOR), "", frozenset({Scope.ADMIN}), 0.0
    )
    async with fakes.app.router.lifespan_context(fakes.app):
        yield fakes


@pytest.fixture
async def operator(fakes: Fakes) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    transport = httpx.ASGITransport(fakes.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://flik", headers=headers) as client:
        yield client


def refusal(answer: httpx.Response, status: int, code: str) -> list[str]:
    """Check a problem; return the pointers it names."""
    found = schemas.Problem.model_validate(answer.json())
    assert (answer.status_code, found.code) == (status, code), answer.text
    return [field.pointer for field in found.errors]


# ---- keys


async def test_key_is_shown_once_and_works(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    asked = {"tenantId": "acme", "name": "CI", "scopes": ["submit"], "kind": "test"}
    answer = await operator.post(KEYS, json=asked)
    made = schemas.KeyMade.model_validate(answer.json())
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"].endswith(f"{KEYS}/{made.key_id}")
    assert made.key.startswith("flik_test_") and made.key.startswith(made.prefix)
    assert (made.tenant_id, made.name, made.scopes) == ("acme", "CI", ["submit"])
    submitted = await operator.post("/api/v1/tasks", json=body(), headers={"Authorization": f"Bearer {made.key}"})
    assert submitted.status_code == 202
    listed = await operator.get(KEYS)
    page = schemas.KeyPage.model_validate(listed.json())
    assert [key.key_id for key in page.items] == [made.key_id, OPERATOR_ID]
    assert made.key not in listed.text
    assert made.key not in (await operator.get(AUDIT)).text
    assert made.key.encode() not in fakes.identity.keys


async def test_key_may_submit_and_read_unless_it_is_said(operator: httpx.AsyncClient) -> None:
    made = (await operator.post(KEYS, json={"tenantId": "acme"})).json()
    assert made["scopes"] == ["submit", "read"]
    assert made["key"].startswith("flik_live_")
    assert made["expiresAt"] is None


async def test_two_keys_are_never_the_same(operator: httpx.AsyncClient) -> None:
    made = [(await operator.post(KEYS, json={"tenantId": "acme"})).json()["key"] for _ in range(20)]
    assert len(set(made)) == 20


async def test_key_with_an_end(operator: httpx.AsyncClient) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    made = (await operator.post(KEYS, json={"tenantId": "acme", "expiresAt": end.isoformat()})).json()
    assert abs(datetime.fromisoformat(made["expiresAt"]) - end) < timedelta(milliseconds=2)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"tenantId": "nobody"}, "/tenantId"),
        ({"tenantId": None}, "/tenantId"),
        ({"tenantId": "a b"}, "/tenantId"),
        ({"tenantId": "x" * 129}, "/tenantId"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"name": 7}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes/0"),
        ({"scopes": "read"}, "/scopes"),
        ({"scopes": ["read"] * 4}, "/scopes"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "/expiresAt"),
        ({"expiresAt": "tomorrow"}, "/expiresAt"),
        ({"expiresAt": "9999-12-31T23:59:59-14:00"}, "/expiresAt"),  # the year 10000, which no answer could show
        ({"expiresAt": "9" * 100}, "/expiresAt"),
        ({"expiresAt": 1_900_000_000}, "/expiresAt"),
        ({"kind": "prod"}, "/kind"),
        ({"key": OPERATOR}, "/key"),
        ({"keyId": OPERATOR_ID}, "/keyId"),
    ],
)
async def test_key_that_cannot_be(
    fakes: Fakes, operator: httpx.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    answer = await operator.post(KEYS, json={"tenantId": "acme", **change})
    assert pointer in refusal(answer, 422, "invalid_request")
    assert (len(fakes.identity.keys), fakes.identity.entries) == (1, [])


async def test_keys_of_one_tenant_come_in_pages(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    await operator.post(TENANTS, json={"tenantId": "other"})
    made = [
        (await operator.post(KEYS, json={"tenantId": tenant})).json()["keyId"]
        for tenant in ("acme", "other", "acme", "other", "acme")
    ]
    first = (await operator.get(KEYS, params={"tenantId": "other", "limit": 1})).json()
    assert [key["keyId"] for key in first["items"]] == [made[3]]
    rest = (await operator.get(KEYS, params={"tenantId": "other", "cursor": first["nextCursor"]})).json()
    assert ([key["keyId"] for key in rest["items"]], rest["nextCursor"]) == ([made[1]], None)


async def test_revoked_key_is_refused_and_stays_in_the_list(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    made = (await operator.post(KEYS, json={"tenantId": "acme"})).json()
    before = time.time()
    for _ in range(2):  # a second time changes nothing
        revoked = schemas.KeyAnswer.model_validate((await operator.delete(f"{KEYS}/{made['keyId']}")).json())
        assert revoked.revoked_at is not None
        assert revoked.revoked_at.timestamp() >= before - 0.01
    answer = await operator.get("/api/v1/tasks", headers={"Authorization": f"Bearer {made['key']}"})
    refusal(answer, 401, "unauthenticated")
    assert [entry.action for entry in fakes.identity.entries] == ["key.created", "key.revoked"]


@pytest.mark.parametrize(
    ("key_id", "status", "code"),
    [("0199a1b2-0000-7000-8000-00000000ffff", 404, "key_not_found"), ("x", 422, "invalid_request"),
     (OPERATOR, 422, "invalid_request"), ("%00", 422, "invalid_request")],
)  # fmt: skip
async def test_key_that_is_not_there(operator: httpx.AsyncClient, key_id: str, status: int, code: str) -> None:
    refusal(await operator.delete(f"{KEYS}/{key_id}"), status, code)


async def test_key_id_may_be_in_capitals(operator: httpx.AsyncClient) -> None:
    assert (await operator.delete(f"{KEYS}/{OPERATOR_ID.upper()}")).status_code == 200


# ---- tenants


async def test_tenant_is_made_with_limits_of_its_own(operator: httpx.AsyncClient) -> None:
    answer = await operator.post(
        TENANTS, json={"tenantId": "new", "name": "New & Co", "limits": {"ratePerS": 2, "highestPriority": 0}}
    )
    made = schemas.TenantAnswer.model_validate(answer.json())
    assert answer.status_code == 201
    assert answer.headers["location"].endswith(f"{TENANTS}/new")
    assert made.limits == schemas.TenantLimits(rate_per_s=2, highest_priority=0)
    effective = made.effective_limits
    assert (effective.rate_per_s, effective.burst, effective.highest_priority) == (2, 1_000, 0)
    assert (await operator.get(f"{TENANTS}/new")).json() == answer.json()


async def test_tenant_is_made_once(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    refusal(await operator.post(TENANTS, json={"tenantId": "acme", "name": "mine now"}), 409, "tenant_exists")
    assert fakes.identity.tenants["acme"].name == "Acme"
    assert fakes.identity.entries == []


async def test_change_merges_and_null_resets(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    path = f"{TENANTS}/acme"
    changed = (await operator.patch(path, json={"limits": {"ratePerS": 5.5, "maxQueued": 0}})).json()
    assert (changed["name"], changed["limits"]["burst"], changed["limits"]["ratePerS"]) == ("Acme", 7, 5.5)
    assert changed["effectiveLimits"]["maxQueued"] == 0
    changed = (await operator.patch(path, json={"name": "", "limits": {"burst": None}})).json()
    assert (changed["name"], changed["limits"]["burst"], changed["limits"]["ratePerS"]) == ("", None, 5.5)
    assert changed["effectiveLimits"]["burst"] == 1_000
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    assert (await operator.patch(path, content=b"{}", headers=merge_patch)).json()["limits"] == changed["limits"]
    assert fakes.identity.entries[0].detail == {"rate_per_s": 5.5, "max_queued": 0}


LIMIT_FAULTS = [
    ("ratePerS", 0), ("ratePerS", -1), ("ratePerS", 1e10), ("ratePerS", "5"), ("ratePerS", True), ("burst", 0),
    ("burst", 1.5), ("burst", 10**30), ("maxRunning", -1), ("maxQueued", -1), ("weight", 0), ("highestPriority", 3),
    ("highestPriority", -1), ("maxPayloadBytes", 1), ("maxPayloadBytes", 262_145), ("unheard", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), LIMIT_FAULTS)
async def test_limit_that_cannot_be(fakes: Fakes, operator: httpx.AsyncClient, name: str, value: Any) -> None:
    limits = {"limits": {name: value}}
    answers = [
        await operator.patch(f"{TENANTS}/acme", json=limits),
        await operator.post(TENANTS, json={"tenantId": "new", **limits}),
    ]
    for answer in answers:
        assert refusal(answer, 422, "invalid_request") == [f"/limits/{name}"]
    assert (set(fakes.identity.tenants), fakes.identity.entries) == ({"acme"}, [])


@pytest.mark.parametrize("tenant_id", ["", "a b", "-a", "x" * 129, "a\0", "é", "a/b", "../etc", 7, None, ["a"], "a\n"])
async def test_tenant_id_that_cannot_be(operator: httpx.AsyncClient, tenant_id: Any) -> None:
    refusal(await operator.post(TENANTS, json={"tenantId": tenant_id}), 422, "invalid_request")


@pytest.mark.parametrize("tenant_id", ["nobody", "%00", "a%20b", "x" * 200, "%ff", "-", "%E2%80%AE"])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_tenant_that_is_not_there(operator: httpx.AsyncClient, method: str, tenant_id: str) -> None:
    answer = await operator.request(method, f"{TENANTS}/{tenant_id}", json={} if method == "PATCH" else None)
    refusal(answer, 404, "tenant_not_found")


async def test_tenants_are_never_deleted(operator: httpx.AsyncClient) -> None:
    refusal(await operator.delete(f"{TENANTS}/acme"), 405, "method_not_allowed")


async def test_tenants_come_in_pages_in_the_order_of_their_ids(operator: httpx.AsyncClient) -> None:
    for tenant in ("b", "C", "a:1@x", "Z.9"):
        await operator.post(TENANTS, json={"tenantId": tenant})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = schemas.TenantPage.model_validate((await operator.get(TENANTS, params=params)).json())
        seen += [tenant.tenant_id for tenant in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == sorted(("acme", "b", "C", "a:1@x", "Z.9"))


@pytest.mark.parametrize("path", [KEYS, TENANTS, AUDIT])
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=!!", "cursor=%00", "unheard=1", "limit=1&limit=2"]
)
async def test_page_that_cannot_be(operator: httpx.AsyncClient, path: str, query: str) -> None:
    refusal(await operator.get(f"{path}?{query}"), 422, "invalid_request")


@pytest.mark.parametrize(("method", "path"), [("POST", KEYS), ("POST", TENANTS), ("PATCH", f"{TENANTS}/acme")])
@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [(b"", 400, "malformed_body"), (b"[]", 422, "invalid_request"), (b"{", 400, "malformed_body"),
     (b"x" * 1_048_577, 413, "body_too_large"), (b'{"name":"a","name":"b"}', 422, "invalid_request")],
)  # fmt: skip
async def test_body_that_cannot_be(
    operator: httpx.AsyncClient, *, method: str, path: str, sent: bytes, status: int, code: str
) -> None:
    answer = await operator.request(method, path, content=sent, headers={"Content-Type": "application/json"})
    refusal(answer, status, code)


# ---- the audit log


async def test_every_action_is_noted_with_who_and_what(fakes: Fakes, operator: httpx.AsyncClient) -> None:
    await operator.post(TENANTS, json={"tenantId": "new"}, headers={"X-Request-ID": "r-1"})
    made = (await operator.post(KEYS, json={"tenantId": "new"})).json()
    await operator.patch(f"{TENANTS}/new", json={"name": "N"})
    await operator.delete(f"{KEYS}/{made['keyId']}")
    page = schemas.AuditPage.model_validate((await operator.get(AUDIT)).json())
    assert [(entry.action, entry.subject) for entry in page.items] == [
        ("key.revoked", made["keyId"]), ("tenant.changed", "new"), ("key.created", made["keyId"]),
        ("tenant.created", "new"),
    ]  # fmt: skip
    assert {entry.actor for entry in page.items} == {OPERATOR_ID}
    assert page.items[-1].request_id == "r-1"


async def test_log_comes_in_pages_newest_first(operator: httpx.AsyncClient) -> None:
    for number in range(5):
        await operator.post(TENANTS, json={"tenantId": f"t{number}"})
    first = (await operator.get(AUDIT, params={"limit": 3})).json()
    rest = (await operator.get(AUDIT, params={"limit": 3, "cursor": first["nextCursor"]})).json()
    assert [entry["subject"] for entry in first["items"] + rest["items"]] == ["t4", "t3", "t2", "t1", "t0"]
    assert rest["nextCursor"] is None


async def test_in_open_mode_the_actor_is_anyone() -> None:
    fakes = gateway_parts.build(is_open=True)
    async with (
        fakes.app.router.lifespan_context(fakes.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as client,
    ):
        await client.post(TENANTS, json={"tenantId": "new"}, headers={"Authorization": "Bearer demo"})
    assert [entry.actor for entry in fakes.identity.entries] == ["anyone"]
