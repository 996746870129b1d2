"""Webhooks over HTTP: what a tenant sets, what it sees of it, and that a secret is shown once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes
from memory_webhooks import waiting
from uuid_utils import uuid7

from flik import schemas
from flik.domain.dag.log import WEBHOOK_KINDS
from flik.domain.event import DURABLE
from flik.domain.webhook.record import GONE, MAX_WEBHOOKS, DeliveryState, WebhookStatus
from flik.domain.webhook.signature import key_of

SOME_ID = "0199a1b2-0000-7000-8000-00000000beef"

URL = "https://8.8.8.8/hook"
HOOKS = "/api/v1/webhooks"


async def make(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post(HOOKS, json={"tenantId": "acme", "url": URL, **fields})


async def made(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await make(client, **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["webhookId"])


def said(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(each["pointer"], each["detail"]) for each in answer.json()["errors"]]


async def test_new_webhook_wants_the_ends_of_tasks_and_shows_its_secret_once(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    answer = await make(client, url="HTTPS://8.8.8.8:443/hook")
    assert answer.status_code == 201
    schemas.WebhookMade.model_validate_json(answer.content)
    hook = answer.json()
    assert (hook["tenantId"], hook["url"], hook["status"]) == ("acme", URL, "ACTIVE")
    assert hook["kinds"] == ["completed", "failed", "cancelled", "expired"]
    assert answer.headers["location"].endswith(f"{HOOKS}/{hook['webhookId']}")
    assert answer.headers["cache-control"] == "no-store"
    assert len(key_of(hook["secret"])) == 32
    assert fakes.webhooks.secrets[hook["webhookId"]] == [hook["secret"]]
    for path in (HOOKS, f"{HOOKS}/{hook['webhookId']}", f"{HOOKS}/{hook['webhookId']}/deliveries"):
        assert "secret" not in (await client.get(path)).text.replace("oldSecretUntil", "")


def test_kinds_on_the_wire_are_those_of_events() -> None:
    of_tasks, of_dags = set(schemas.TaskEventKind.__args__), set(schemas.DagEventKind.__args__)  # type: ignore[attr-defined]
    assert (of_tasks, of_dags) == (DURABLE, set(WEBHOOK_KINDS.values()))
    assert set(schemas.EventKind.__args__) == of_tasks | of_dags  # type: ignore[attr-defined]


async def test_two_webhooks_have_two_secrets(client: httpx.AsyncClient) -> None:
    assert (await make(client)).json()["secret"] != (await make(client)).json()["secret"]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://8.8.8.8/", "must begin with https://"),
        ("https://127.0.0.1/", "leads to an address that is loopback"),
        ("https://169.254.169.254/latest/meta-data", "leads to an address that is link-local"),
        ("https://localhost/", "names a host that only a local network knows"),
        ("https://2130706433/", "has an address that is not written as in 192.0.2.1"),
        ("https://user:word@8.8.8.8/", "has a user or password; the signature tells who sends"),
    ],
)
async def test_url_that_leads_nowhere_good_is_refused_and_nothing_is_stored(
    fakes: Fakes, client: httpx.AsyncClient, url: str, why: str
) -> None:
    assert said(await make(client, url=url)) == [("/url", why)]
    hook = await made(client)
    assert said(await client.patch(f"{HOOKS}/{hook}", json={"url": url})) == [("/url", why)]
    assert [each.url for each in fakes.webhooks.rows.values()] == [URL]


async def test_name_that_nobody_answers_for_is_no_fault_of_the_caller(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.resolver.silent = {"slow.example"}
    hook = await made(client)
    for answer in (
        await make(client, url="https://slow.example/"),
        await client.patch(f"{HOOKS}/{hook}", json={"url": "https://slow.example/"}),
    ):
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    assert [each.url for each in fakes.webhooks.rows.values()] == [URL]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"kinds": []}, "/kinds"),
        ({"kinds": ["done"]}, "/kinds/0"),
        ({"kinds": ["ping"]}, "/kinds/0"),
        ({"url": ""}, "/url"),
        ({"url": "https://8.8.8.8/" + "x" * 2_048}, "/url"),
        ({"url": 7}, "/url"),
        ({"tenantId": "a b"}, "/tenantId"),
        ({"tenantId": None}, "/tenantId"),
        ({"secret": "whsec_mine"}, "/secret"),
    ],
)
async def test_wrong_field_is_named(client: httpx.AsyncClient, fields: dict[str, Any], pointer: str) -> None:
    assert said(await make(client, **fields))[0][0] == pointer


async def test_a_tenant_has_ten_webhooks_at_most(client: httpx.AsyncClient) -> None:
    hooks = [await made(client) for _ in range(MAX_WEBHOOKS)]
    answer = await make(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")
    assert await made(client, tenantId="other")
    assert (await client.delete(f"{HOOKS}/{hooks[0]}")).status_code == 200
    assert await made(client)


async def test_list_goes_on_where_the_page_before_ended(client: httpx.AsyncClient) -> None:
    hooks = [await made(client) for _ in range(5)]
    await made(client, tenantId="other")
    seen, cursor = [], None
    while True:
        params = {"tenantId": "acme", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(HOOKS, params=params)).json()
        seen += [each["webhookId"] for each in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == hooks[::-1]
    assert len((await client.get(HOOKS)).json()["items"]) == 6


async def test_only_what_is_named_is_changed(fakes: Fakes, client: httpx.AsyncClient) -> None:
    hook = await made(client)
    path = f"{HOOKS}/{hook}"
    paused = (await client.patch(path, json={"status": "PAUSED"})).json()
    assert (paused["status"], paused["url"]) == ("PAUSED", URL)
    changed = (await client.patch(path, json={"url": "https://1.1.1.1:8443/", "kinds": ["failed", "failed"]})).json()
    assert (changed["status"], changed["url"], changed["kinds"]) == ("PAUSED", "https://1.1.1.1:8443/", ["failed"])
    fakes.webhooks.rows[hook] = replace(fakes.webhooks.rows[hook], status=WebhookStatus.DISABLED, reason=GONE)
    assert (await client.get(path)).json()["reason"] == GONE
    on = (await client.patch(path, json={"status": "ACTIVE"})).json()
    assert (on["status"], on["reason"]) == ("ACTIVE", None)
    assert said(await client.patch(path, json={"status": "DISABLED"}))[0][0] == "/status"
    assert fakes.woken


async def test_new_secret_is_shown_once_and_the_old_one_works_for_a_day(
    fakes: Fakes, client: httpx.AsyncClient
) -> None:
    old = (await make(client)).json()
    answer = await client.post(f"{HOOKS}/{old['webhookId']}/rotate-secret")
    assert answer.status_code == 200
    schemas.WebhookMade.model_validate_json(answer.content)
    assert answer.headers["cache-control"] == "no-store"
    assert fakes.webhooks.secrets[old["webhookId"]] == [answer.json()["secret"], old["secret"]]
    until = fakes.webhooks.rows[old["webhookId"]].old_secret_until
    assert until is not None
    assert 86_390 < until - time.time() <= 86_400


async def test_ping_goes_the_way_of_events(fakes: Fakes, client: httpx.AsyncClient) -> None:
    hook = await made(client)
    answer = await client.post(f"{HOOKS}/{hook}/test")
    assert answer.status_code == 202
    ping = answer.json()
    schemas.DeliveryAnswer.model_validate_json(answer.content)
    assert (ping["kind"], ping["taskId"], ping["state"]) == ("ping", None, "WAITING")
    assert fakes.woken == ["courier"]
    listed = (await client.get(f"{HOOKS}/{hook}/deliveries")).json()
    assert listed == {"items": [ping], "nextCursor": None}
    await client.patch(f"{HOOKS}/{hook}", json={"status": "PAUSED"})
    answer = await client.post(f"{HOOKS}/{hook}/test")
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_inactive")


async def test_deliveries_tell_each_attempt(fakes: Fakes, client: httpx.AsyncClient) -> None:
    hook = await made(client)
    log = ({"at": 1_771_336_800.5, "status": 500, "error": "the receiver answered 500", "durationMs": 12},)
    sent = [
        waiting(hook, task_id=str(uuid7()), seq=3, kind="completed", state=DeliveryState.GIVEN_UP, next_at=None,
                ended_at=9.0, attempts=1, log=log)
        for _ in range(3)
    ]  # fmt: skip
    fakes.webhooks.sent |= {each.delivery_id: each for each in sent}
    page = (await client.get(f"{HOOKS}/{hook}/deliveries", params={"limit": 2})).json()
    schemas.DeliveryPage.model_validate(page)
    assert [each["deliveryId"] for each in page["items"]] == [each.delivery_id for each in sent[:0:-1]]
    assert page["items"][0]["log"] == [
        {"at": "2026-02-17T14:00:00.500Z", "status": 500, "error": "the receiver answered 500", "durationMs": 12}
    ]
    rest = (await client.get(f"{HOOKS}/{hook}/deliveries", params={"cursor": page["nextCursor"]})).json()
    assert [each["deliveryId"] for each in rest["items"]] == [sent[0].delivery_id]
    assert said(await client.get(f"{HOOKS}/{hook}/deliveries", params={"limit": 101}))[0][0] == "/limit"


async def test_delivery_is_sent_again(fakes: Fakes, client: httpx.AsyncClient) -> None:
    hook, other = await made(client), await made(client)
    sent = waiting(hook, state=DeliveryState.GIVEN_UP, attempts=10, next_at=None, ended_at=9.0)
    fakes.webhooks.sent[sent.delivery_id] = sent
    answer = await client.post(f"{HOOKS}/{hook}/deliveries/{sent.delivery_id.upper()}/redeliver")
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["attempts"]) == ("WAITING", 0)
    assert fakes.woken == ["courier"]
    for path, code in ((f"{other}/deliveries/{sent.delivery_id}", "delivery_not_found"),
                       (f"{uuid7()}/deliveries/{sent.delivery_id}", "webhook_not_found")):  # fmt: skip
        answer = await client.post(f"{HOOKS}/{path}/redeliver")
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    await client.patch(f"{HOOKS}/{hook}", json={"status": "PAUSED"})
    answer = await client.post(f"{HOOKS}/{hook}/deliveries/{sent.delivery_id}/redeliver")
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_inactive")


@pytest.mark.parametrize("path", ["x", f"{SOME_ID}x", f"{SOME_ID}/deliveries/x/redeliver"])
async def test_what_is_no_id_is_refused_by_name(fakes: Fakes, client: httpx.AsyncClient, path: str) -> None:
    if "deliveries" in path:
        path = path.replace(path[:36], await made(client))
    answer = await (client.post if "deliveries" in path else client.get)(f"{HOOKS}/{path}")
    assert said(answer)[0][0] in ("/webhookId", "/deliveryId")


async def test_what_is_deleted_is_gone(client: httpx.AsyncClient) -> None:
    hook = await made(client)
    answer = await client.delete(f"{HOOKS}/{hook}")
    assert (answer.status_code, answer.json()["webhookId"]) == (200, hook)
    for ask in (client.get, client.delete):
        assert (await ask(f"{HOOKS}/{hook}")).json()["code"] == "webhook_not_found"


async def test_postgresql_that_is_away_is_a_reason_to_come_back(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.webhooks.away = True
    answer = await make(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
