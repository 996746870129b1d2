"""Every route against every credential: who gets in, who is refused and how, and that a refusal changes nothing.

A route without a row here fails the first test.
"""

from __future__ import annotations

import copy
import pkgutil
import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import gateway_parts
import httpx
import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute
from gateway_parts import Fakes, body, task_id, view
from making import EPOCH, new_task
from memory_store import MemoryStore
from memory_webhooks import waiting

import flik.gateway
from flik.domain import key as keys
from flik.domain.dag.graph import NewDag, NewStep
from flik.domain.event import EndedAttempt, History
from flik.domain.identity import Scope, TenantRecord
from flik.domain.key import ApiKey, Kind
from flik.domain.task import Status
from flik.domain.webhook.record import Webhook, WebhookStatus
from flik.errors import Unavailable

ACME, OTHER = "acme", "zebra"
FAILED, WAITING, DONE = task_id(1), task_id(2), task_id(3)
RUNNING_DAG, FAILED_DAG = "0199a1b2-0000-7000-8000-0000000000d1", "0199a1b2-0000-7000-8000-0000000000d2"
HOOK, SENT = "0199a1b2-0000-7000-8000-00000000bbbb", "0199a1b2-0000-7000-8000-00000000cccc"
OWN_SENT, DAG_SENT = "0199a1b2-0000-7000-8000-00000000dddd", "0199a1b2-0000-7000-8000-0000000000d3"
KEY_ID = "0199a1b2-0000-7000-8000-00000000aaaa"


@dataclass(frozen=True)
class Row:
    """One route: the scope it takes (None: public), a request that is right, and what a stranger gets."""

    scope: Scope | None
    path: str
    status: int  # of the right credential
    body: Any = None
    stranger: int | None = None  # of another tenant's key with all scopes but admin; None: 403, it takes an operator
    code: str = ""
    says: dict[str, Any] = field(default_factory=dict)  # what a stranger's answer holds


READ, SUBMIT, ADMIN = Scope.READ, Scope.SUBMIT, Scope.ADMIN
NOTHING = {"items": [], "nextCursor": None}
NO_HOOK: dict[str, Any] = {"stranger": 404, "code": "webhook_not_found"}
STREAM = f"/api/v1/streams/f:c?tenantId={ACME}&since=0"  # of a task that has ended
STEP = {"taskType": "TEXT", "payload": {"prompt": "rain"}}
NO_DAG: dict[str, Any] = {"stranger": 404, "code": "dag_not_found"}
GONE: dict[str, Any] = {"stranger": 404, "code": "task_not_found"}
ROWS = {
    "GET /": Row(None, "/", 200),
    "GET /health": Row(None, "/health", 200),
    "GET /metrics": Row(None, "/metrics", 200),
    "GET /artifacts/{key}": Row(None, "/artifacts/x", 404),  # the signature in the link is the credential
    "HEAD /artifacts/{key}": Row(None, "/artifacts/x", 404),
    "POST /api/v1/tasks": Row(SUBMIT, "/api/v1/tasks", 202, body(), 403, "tenant_mismatch"),
    "POST /api/v1/tasks:batch": Row(SUBMIT, "/api/v1/tasks:batch", 207, {"tasks": [body()]}, 207),
    "GET /api/v1/tasks": Row(READ, f"/api/v1/tasks?tenantId={ACME}", 200, None, 200, says=NOTHING),
    "GET /api/v1/tasks/{task_id}": Row(READ, f"/api/v1/tasks/{DONE}", 200, **GONE),
    "GET /api/v1/tasks/{task_id}/result": Row(READ, f"/api/v1/tasks/{DONE}/result", 200, **GONE),
    "GET /api/v1/tasks/{task_id}/events": Row(READ, f"/api/v1/tasks/{DONE}/events?since=0", 200, **GONE),
    "POST /stream": Row(SUBMIT, f"/stream?feature_id=f&chat_id=c&tenant_id={ACME}", 200, None, 403, "tenant_mismatch"),
    "POST /api/v1/streams/{key}": Row(SUBMIT, STREAM, 200, {"prompt": "rain"}, 403, "tenant_mismatch"),
    "GET /api/v1/streams/{key}": Row(READ, STREAM, 200, None, 404, "stream_not_found"),
    "DELETE /api/v1/tasks/{task_id}": Row(SUBMIT, f"/api/v1/tasks/{WAITING}", 200, **GONE),
    "POST /api/v1/tasks/{task_id}/cancel": Row(SUBMIT, f"/api/v1/tasks/{WAITING}/cancel", 200, **GONE),
    "POST /api/v1/tasks/{task_id}/retry": Row(SUBMIT, f"/api/v1/tasks/{FAILED}/retry", 202, **GONE),
    "POST /api/v1/dags": Row(SUBMIT, "/api/v1/dags", 202, {"tenantId": ACME, "steps": [STEP]}, 403, "tenant_mismatch"),
    "GET /api/v1/dags": Row(READ, f"/api/v1/dags?tenantId={ACME}", 200, None, 200, says=NOTHING),
    "GET /api/v1/dags/{dag_id}": Row(READ, f"/api/v1/dags/{RUNNING_DAG}", 200, **NO_DAG),
    "GET /api/v1/dags/{dag_id}/events": Row(READ, f"/api/v1/dags/{RUNNING_DAG}/events?since=0", 200, **NO_DAG),
    "DELETE /api/v1/dags/{dag_id}": Row(SUBMIT, f"/api/v1/dags/{RUNNING_DAG}", 200, **NO_DAG),
    "POST /api/v1/dags/{dag_id}/cancel": Row(SUBMIT, f"/api/v1/dags/{RUNNING_DAG}/cancel", 200, **NO_DAG),
    "POST /api/v1/dags/{dag_id}/resume": Row(SUBMIT, f"/api/v1/dags/{FAILED_DAG}/resume", 202, **NO_DAG),
    "GET /api/v1/dead-letters": Row(READ, f"/api/v1/dead-letters?tenantId={ACME}", 200, None, 200, says=NOTHING),
    "POST /api/v1/dead-letters/{task_id}/replay": Row(SUBMIT, f"/api/v1/dead-letters/{FAILED}/replay", 202, **GONE),
    "POST /api/v1/dead-letters:replay": Row(
        SUBMIT, "/api/v1/dead-letters:replay", 200, {"tenantId": ACME}, 200, says={"replayed": 0, "more": False}
    ),
    "POST /api/v1/tickets": Row(READ, "/api/v1/tickets", 201, None, 201),
    "POST /api/v1/webhooks": Row(
        SUBMIT, "/api/v1/webhooks", 201, {"tenantId": ACME, "url": "https://8.8.8.8/"}, 403, "tenant_mismatch"
    ),
    "GET /api/v1/webhooks": Row(READ, f"/api/v1/webhooks?tenantId={ACME}", 200, None, 200, says=NOTHING),
    "GET /api/v1/webhooks/{webhook_id}": Row(READ, f"/api/v1/webhooks/{HOOK}", 200, **NO_HOOK),
    "PATCH /api/v1/webhooks/{webhook_id}": Row(
        SUBMIT, f"/api/v1/webhooks/{HOOK}", 200, {"status": "PAUSED"}, **NO_HOOK
    ),
    "DELETE /api/v1/webhooks/{webhook_id}": Row(SUBMIT, f"/api/v1/webhooks/{HOOK}", 200, **NO_HOOK),
    "POST /api/v1/webhooks/{webhook_id}/rotate-secret": Row(
        SUBMIT, f"/api/v1/webhooks/{HOOK}/rotate-secret", 200, **NO_HOOK
    ),
    "POST /api/v1/webhooks/{webhook_id}/test": Row(SUBMIT, f"/api/v1/webhooks/{HOOK}/test", 202, **NO_HOOK),
    "GET /api/v1/webhooks/{webhook_id}/deliveries": Row(READ, f"/api/v1/webhooks/{HOOK}/deliveries", 200, **NO_HOOK),
    "POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": Row(
        SUBMIT, f"/api/v1/webhooks/{HOOK}/deliveries/{SENT}/redeliver", 202, **NO_HOOK
    ),
    "GET /api/v1/tasks/{task_id}/deliveries": Row(READ, f"/api/v1/tasks/{DONE}/deliveries", 200, **GONE),
    "POST /api/v1/tasks/{task_id}/deliveries/{delivery_id}/redeliver": Row(
        SUBMIT, f"/api/v1/tasks/{DONE}/deliveries/{OWN_SENT}/redeliver", 202, **GONE
    ),
    "GET /api/v1/dags/{dag_id}/deliveries": Row(READ, f"/api/v1/dags/{RUNNING_DAG}/deliveries", 200, **NO_DAG),
    "POST /api/v1/dags/{dag_id}/deliveries/{delivery_id}/redeliver": Row(
        SUBMIT, f"/api/v1/dags/{RUNNING_DAG}/deliveries/{DAG_SENT}/redeliver", 202, **NO_DAG
    ),
    "POST /api/v1/keys": Row(ADMIN, "/api/v1/keys", 201, {"tenantId": ACME}),
    "GET /api/v1/keys": Row(ADMIN, "/api/v1/keys", 200),
    "DELETE /api/v1/keys/{key_id}": Row(ADMIN, f"/api/v1/keys/{KEY_ID}", 200),
    "POST /api/v1/tenants": Row(ADMIN, "/api/v1/tenants", 201, {"tenantId": "new"}),
    "GET /api/v1/tenants": Row(ADMIN, "/api/v1/tenants", 200),
    "GET /api/v1/tenants/{tenant_id}": Row(ADMIN, f"/api/v1/tenants/{ACME}", 200),
    "PATCH /api/v1/tenants/{tenant_id}": Row(ADMIN, f"/api/v1/tenants/{ACME}", 200, {"limits": {"burst": 1}}),
    "GET /api/v1/audit": Row(ADMIN, "/api/v1/audit", 200),
    **{
        f"POST /api/tasks/{family}/generate": Row(
            SUBMIT,
            f"/api/tasks/{family}/generate",
            202,
            {"tenant_id": ACME, "parameters": {"prompt": "rain"}},
            403,
            "tenant_mismatch",
        )
        for family in ("text", "image", "video")
    },
    "GET /api/tasks/status/{task_id}": Row(READ, f"/api/tasks/status/{DONE}", 200, **GONE),
    **{
        f"GET /api/tasks/{name}": Row(READ, f"/api/tasks/{name}?tenant_id={ACME}", 200, None, 200, says={"tasks": []})
        for name in ("list", "pending", "failed")
    },
    "GET /api/tasks/health": Row(None, "/api/tasks/health", 200),
    "DELETE /api/tasks/{task_id}": Row(SUBMIT, f"/api/tasks/{WAITING}", 200, **GONE),
    "POST /api/tasks/{task_id}/retry": Row(SUBMIT, f"/api/tasks/{FAILED}/retry", 202, **GONE),
}
PROTECTED = [name for name, row in ROWS.items() if row.scope is not None]
TENANTS_OWN = [name for name in PROTECTED if ROWS[name].scope is not ADMIN]


def make_key(number: int) -> str:
    return keys.make(Kind.TEST, number.to_bytes(32))


OWNER, STRANGER, OPERATOR, ALL_BUT_SUBMIT, ALL_BUT_READ, REVOKED, EXPIRED = map(make_key, range(7))
NOT_GOOD = {
    "none": None,
    "empty": "Bearer ",
    "basic": "Basic dXNlcjpwYXNz",
    "malformed": "Bearer flik_live_abc",
    "mistyped": f"Bearer {OWNER[:-1]}{'0' if OWNER[-1] != '0' else '1'}",
    "of nobody": "Bearer demo",
    "unknown": f"Bearer {make_key(99)}",
    "revoked": f"Bearer {REVOKED}",
    "expired": f"Bearer {EXPIRED}",
    "like a token": "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJhY21lIn0.",
    "with SQL": "Bearer ' OR 1=1 --",
    "long": "Bearer " + "x" * 9_000,
}


def test_every_route_has_a_row() -> None:
    described = {
        f"{method.upper()} {path}"
        for path, item in gateway_parts.build().app.openapi()["paths"].items()
        for method in item
    }
    assert described | set(routes_in_code()) == set(ROWS)


def routes_in_code() -> Iterator[str]:
    """Also those that the description hides."""
    for module in pkgutil.iter_modules(flik.gateway.__path__, "flik.gateway."):
        for route in getattr(getattr(import_module(module.name), "router", None), "routes", ()):
            if isinstance(route, APIWebSocketRoute):
                continue  # test_gateway_sockets.py has the credentials of those
            assert isinstance(route, APIRoute)
            yield from (f"{method} {re.sub(r':[a-z_]+}', '}', route.path)}" for method in route.methods)


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    """Two tenants, a key for each case, three tasks of acme."""
    fakes = gateway_parts.build(is_open=False)
    identity, now = fakes.identity, time.time()
    for tenant in (ACME, OTHER):
        identity.tenants[tenant] = TenantRecord(tenant, "", now, now)
    own = frozenset({SUBMIT, READ})
    for text, tenant, scopes, times in (
        (OWNER, ACME, own, {}),
        (STRANGER, OTHER, own, {}),
        (OPERATOR, OTHER, frozenset({ADMIN}), {}),
        (ALL_BUT_SUBMIT, ACME, frozenset({READ}), {}),
        (ALL_BUT_READ, ACME, frozenset({SUBMIT}), {}),
        (REVOKED, ACME, frozenset(Scope), {"revoked_at": now - 1}),
        (EXPIRED, ACME, frozenset(Scope), {"expires_at": now - 1}),
    ):
        add_key(fakes, text, tenant, scopes, **times)
    add_key(fakes, make_key(50), ACME, own, key_id=KEY_ID)
    fakes.webhooks.rows[HOOK] = Webhook(
        HOOK, ACME, "https://8.8.8.8/", ("completed",), WebhookStatus.ACTIVE, None, now, now
    )
    fakes.webhooks.sent[SENT] = waiting(HOOK, delivery_id=SENT, now=now)
    fakes.webhooks.sent[OWN_SENT] = waiting(None, delivery_id=OWN_SENT, task_id=DONE, now=now)
    fakes.webhooks.sent[DAG_SENT] = waiting(None, delivery_id=DAG_SENT, task_id=RUNNING_DAG, now=now)
    completed = {"status": "COMPLETED", "completed_at": now, "result": {"text": "rain"}}
    for row in (
        view(task_id=FAILED, status="FAILED", error_code="boom", completed_at=now),
        view(task_id=WAITING, status="QUEUED"),
        view(task_id=DONE, **completed),
    ):
        fakes.tasks.rows[row.task_id] = row
    ended = EndedAttempt(3, 1, "w1", "v1", now, now, "COMPLETED", None, None, None)
    fakes.tasks.histories[DONE] = History(fakes.tasks.rows[DONE], 3, (ended,))
    fakes.names.rows[ACME, "f:c"] = DONE
    put_dags(fakes.store)
    async with fakes.app.router.lifespan_context(fakes.app):
        yield fakes
    await fakes.parts.directory.close()


def put_dags(store: MemoryStore) -> None:
    for dag_id in (RUNNING_DAG, FAILED_DAG):
        task = new_task(tenant_id=ACME, dag_id=dag_id)
        store.dags.put(
            NewDag(dag_id, ACME, 1, "us-east", EPOCH, None, None, None, None, (NewStep("a", task, (), "fail"),))
        )
    row = store.dags.open_steps(FAILED_DAG)[0]
    row.error_code = "boom"
    row.end(Status.FAILED, EPOCH + 1)
    store.dags.advance([FAILED_DAG], EPOCH + 1)


def add_key(fakes: Fakes, text: str, tenant: str, scopes: frozenset[Scope], **fields: Any) -> None:
    number = len(fakes.identity.keys)
    record = ApiKey(f"0199a1b2-0000-7000-8000-00000000{number:04d}", tenant, keys.shown(text), "", scopes, time.time())
    fakes.identity.keys[keys.digest(text)] = replace(record, **fields)


@pytest.fixture
async def anybody(fakes: Fakes) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fakes.app), base_url="http://flik") as client:
        yield client


@pytest.mark.parametrize("name", ["POST /stream", "POST /api/v1/streams/{key}"])
async def test_a_stream_takes_a_key_that_may_read_as_well(anybody: httpx.AsyncClient, name: str) -> None:
    answer = await call(anybody, name, f"Bearer {ALL_BUT_READ}")
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


async def call(client: httpx.AsyncClient, name: str, authorization: str | None) -> httpx.Response:
    row = ROWS[name]
    headers = {} if authorization is None else {"Authorization": authorization}
    return await client.request(name.split(maxsplit=1)[0], row.path, json=row.body, headers=headers)


def state(fakes: Fakes) -> Any:
    """All that a request could change."""
    return copy.deepcopy(
        (fakes.tasks.rows, fakes.tasks.stored, fakes.queue.replays, fakes.queue.announced, fakes.identity.tenants,
         {each: replace(key, last_used_at=None) for each, key in fakes.identity.keys.items()}, fakes.identity.entries,
         fakes.webhooks, fakes.store.rows, fakes.store.dags.dags)
    )  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("credential", NOT_GOOD)
async def test_credential_that_opens_nothing(
    fakes: Fakes, anybody: httpx.AsyncClient, name: str, credential: str
) -> None:
    before = state(fakes)
    answer = await call(anybody, name, NOT_GOOD[credential])
    if ROWS[name].scope is None:
        assert answer.status_code == ROWS[name].status
        return
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    sent = credential not in ("none", "empty", "basic")
    assert answer.headers["www-authenticate"] == 'Bearer realm="flik"' + (', error="invalid_token"' if sent else "")
    assert state(fakes) == before


@pytest.mark.parametrize("name", PROTECTED)
async def test_what_is_wrong_with_a_credential_is_not_told(anybody: httpx.AsyncClient, name: str) -> None:
    told = set()
    for credential in ("malformed", "mistyped", "unknown", "revoked", "expired", "of nobody"):
        answer = (await call(anybody, name, NOT_GOOD[credential])).json()
        told.add(tuple((name, said) for name, said in answer.items() if name != "requestId"))
    assert len(told) == 1


@pytest.mark.parametrize("name", PROTECTED)
async def test_key_without_the_scope(fakes: Fakes, anybody: httpx.AsyncClient, name: str) -> None:
    scope = ROWS[name].scope
    assert scope is not None
    lacking = {SUBMIT: ALL_BUT_SUBMIT, READ: ALL_BUT_READ, ADMIN: OWNER}[scope]
    before = state(fakes)
    answer = await call(anybody, name, f"Bearer {lacking}")
    assert answer.status_code == 403
    assert answer.json()["code"] == "scope_missing"
    assert answer.headers["www-authenticate"].endswith(f'error="insufficient_scope", scope="{scope.value}"')
    assert state(fakes) == before


@pytest.mark.parametrize("name", TENANTS_OWN)
async def test_key_of_another_tenant(fakes: Fakes, anybody: httpx.AsyncClient, name: str) -> None:
    row, before = ROWS[name], state(fakes)
    answer = await call(anybody, name, f"Bearer {STRANGER}")
    assert answer.status_code == row.stranger
    assert row.says.items() <= answer.json().items()
    assert answer.json().get("code", "") == row.code
    assert ACME not in answer.text.replace(f"does not speak for {ACME}", "")
    assert state(fakes) == before
    assert not fakes.tasks.asked  # a list that must be empty is not even looked for


@pytest.mark.parametrize("name", [name for name in TENANTS_OWN if ROWS[name].code == "task_not_found"])
async def test_task_of_another_tenant_is_answered_as_one_that_is_not_there(
    fakes: Fakes, anybody: httpx.AsyncClient, name: str
) -> None:
    theirs = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    fakes.tasks.rows.clear()
    nobodys = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    assert {**theirs, "requestId": ""} == {**nobodys, "requestId": ""}


@pytest.mark.parametrize("name", [name for name in TENANTS_OWN if ROWS[name].code == "webhook_not_found"])
async def test_webhook_of_another_tenant_is_answered_as_one_that_is_not_there(
    fakes: Fakes, anybody: httpx.AsyncClient, name: str
) -> None:
    theirs = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    fakes.webhooks.rows.clear()
    nobodys = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    assert {**theirs, "requestId": ""} == {**nobodys, "requestId": ""}


@pytest.mark.parametrize("name", [name for name in TENANTS_OWN if ROWS[name].code == "dag_not_found"])
async def test_dag_of_another_tenant_is_answered_as_one_that_is_not_there(
    fakes: Fakes, anybody: httpx.AsyncClient, name: str
) -> None:
    theirs = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    fakes.store.dags.dags.clear()
    nobodys = (await call(anybody, name, f"Bearer {STRANGER}")).json()
    assert {**theirs, "requestId": ""} == {**nobodys, "requestId": ""}


@pytest.mark.parametrize("name", TENANTS_OWN)
async def test_right_key(anybody: httpx.AsyncClient, name: str) -> None:
    assert (await call(anybody, name, f"Bearer {OWNER}")).status_code == ROWS[name].status


@pytest.mark.parametrize("name", PROTECTED)
async def test_operator_reaches_every_tenant(anybody: httpx.AsyncClient, name: str) -> None:
    assert (await call(anybody, name, f"Bearer {OPERATOR}")).status_code == ROWS[name].status


@pytest.mark.parametrize("name", PROTECTED)
async def test_in_open_mode_any_token_opens_everything(fakes: Fakes, name: str) -> None:
    opened = gateway_parts.build(is_open=True)
    opened.tasks.rows, opened.identity.tenants = fakes.tasks.rows, fakes.identity.tenants
    opened.tasks.histories, opened.names.rows = fakes.tasks.histories, fakes.names.rows
    opened.identity.keys |= fakes.identity.keys
    opened.webhooks.rows, opened.webhooks.sent = fakes.webhooks.rows, fakes.webhooks.sent
    put_dags(opened.store)
    async with (
        opened.app.router.lifespan_context(opened.app),
        httpx.AsyncClient(transport=httpx.ASGITransport(opened.app), base_url="http://flik") as client,
    ):
        assert (await call(client, name, "Bearer x")).status_code == ROWS[name].status
        assert (await call(client, name, None)).status_code == 401


# ---- beyond the matrix


async def test_batch_refuses_other_tenants_tasks_one_by_one(fakes: Fakes, anybody: httpx.AsyncClient) -> None:
    tasks = [body(), body(tenantId=OTHER), body(tenantId="nobody"), body(tenantId="a b"), body()]
    mine, theirs = ({"Authorization": f"Bearer {key}"} for key in (OWNER, OPERATOR))
    answer = await anybody.post("/api/v1/tasks:batch", json={"tasks": tasks}, headers=mine)
    codes = [item.get("problem", {}).get("code") for item in answer.json()["items"]]
    assert codes == [None, "tenant_mismatch", "tenant_mismatch", "invalid_request", None]
    assert [task.tenant_id for task in fakes.tasks.stored] == [ACME, ACME]
    answer = await anybody.post("/api/v1/tasks:batch", json={"tasks": tasks}, headers=theirs)
    codes = [item.get("problem", {}).get("code") for item in answer.json()["items"]]
    assert codes == [None, None, "tenant_unknown", "invalid_request", None]


async def test_operator_cannot_submit_for_a_tenant_that_nobody_made(fakes: Fakes, anybody: httpx.AsyncClient) -> None:
    operator = {"Authorization": f"Bearer {OPERATOR}"}
    answer = await anybody.post("/api/v1/tasks", json=body(tenantId="new"), headers=operator)
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_unknown")
    assert (await anybody.post("/api/v1/tenants", json={"tenantId": "new"}, headers=operator)).status_code == 201
    answer = await anybody.post("/api/v1/tasks", json=body(tenantId="new"), headers=operator)
    assert answer.status_code == 202  # at once, on the gateway that made it


@pytest.mark.parametrize("path", ["/api/v1/tasks", "/api/v1/dead-letters"])
async def test_list_without_a_tenant_is_of_the_callers_own(fakes: Fakes, anybody: httpx.AsyncClient, path: str) -> None:
    for key, tenant in ((OWNER, ACME), (STRANGER, OTHER), (OPERATOR, None)):
        assert (await anybody.get(path, headers={"Authorization": f"Bearer {key}"})).status_code == 200
        assert fakes.tasks.asked[-1].tenant_id == tenant


@pytest.mark.parametrize(("key", "tenant"), [(OWNER, ACME), (STRANGER, OTHER), (OPERATOR, None)])
async def test_replay_of_all_is_of_the_callers_own(
    fakes: Fakes, anybody: httpx.AsyncClient, key: str, tenant: str | None
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    fakes.tasks.rows[task_id(9)] = view(task_id=task_id(9), tenant_id=OTHER, status="FAILED")
    answer = await anybody.post("/api/v1/dead-letters:replay", json={"all": True}, headers=headers)
    expected = {ACME: [FAILED], OTHER: [task_id(9)], None: [FAILED, task_id(9)]}[tenant]
    assert answer.json() == {"replayed": len(expected), "more": False}
    assert fakes.queue.replays == [expected]


@pytest.mark.parametrize("left_out", [{}, {"tenantId": None}])
async def test_task_that_names_no_tenant_is_of_the_keys(
    fakes: Fakes, anybody: httpx.AsyncClient, left_out: dict[str, Any]
) -> None:
    asked = {name: value for name, value in body().items() if name != "tenantId"} | left_out
    for key in (OWNER, STRANGER, OPERATOR):
        headers = {"Authorization": f"Bearer {key}"}
        assert (await anybody.post("/api/v1/tasks", json=asked, headers=headers)).status_code == 202
        answer = await anybody.post("/api/v1/tasks:batch", json={"tasks": [asked]}, headers=headers)
        assert [item["status"] for item in answer.json()["items"]] == [202]
    assert [task.tenant_id for task in fakes.tasks.stored] == [ACME, ACME, OTHER, OTHER, OTHER, OTHER]
    assert fakes.rate.spent == [(task.tenant_id, 1) for task in fakes.tasks.stored]


async def test_result_in_redis_is_not_shown_to_strangers(fakes: Fakes, anybody: httpx.AsyncClient) -> None:
    fakes.hot.rows[DONE] = fakes.tasks.rows[DONE]
    name = "GET /api/v1/tasks/{task_id}"
    assert (await call(anybody, name, f"Bearer {OWNER}")).status_code == 200
    assert (await call(anybody, name, f"Bearer {STRANGER}")).status_code == 404


async def test_cancel_of_a_strangers_task_does_not_even_ask_the_queue(fakes: Fakes, anybody: httpx.AsyncClient) -> None:
    fakes.queue.away = True  # it would answer 503
    name = "DELETE /api/v1/tasks/{task_id}"
    assert (await call(anybody, name, f"Bearer {STRANGER}")).status_code == 404
    assert (await call(anybody, name, f"Bearer {OWNER}")).status_code == 503


@pytest.mark.parametrize("name", PROTECTED)
async def test_when_nobody_can_say_who_it_is_callers_are_told_to_come_back(
    fakes: Fakes, anybody: httpx.AsyncClient, name: str
) -> None:
    fakes.identity.away = True
    answer = await call(anybody, name, f"Bearer {OWNER}")
    assert (answer.status_code, answer.json()["code"]) == (503, Unavailable.code)
    assert answer.headers["retry-after"]
    assert (await call(anybody, name, NOT_GOOD["mistyped"])).status_code == 401  # takes no database to refuse


async def test_key_that_is_known_works_on_while_postgresql_is_away(fakes: Fakes, anybody: httpx.AsyncClient) -> None:
    fakes.hot.rows[DONE] = fakes.tasks.rows[DONE]
    name = "GET /api/v1/tasks/{task_id}"
    assert (await call(anybody, name, f"Bearer {OWNER}")).status_code == 200
    fakes.identity.away = True
    assert (await call(anybody, name, f"Bearer {OWNER}")).status_code == 200


async def test_health_says_who_may_call(anybody: httpx.AsyncClient) -> None:
    assert (await anybody.get("/health")).json()["auth"] == "keys"
