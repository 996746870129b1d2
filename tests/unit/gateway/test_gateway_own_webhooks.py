"""A submit that brings a webhook for its task: what is taken, what is refused, and what is seen of it afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from gateway_parts import Fakes, body, task_id, view
from memory_webhooks import waiting
from uuid_utils import uuid7

from flik import schemas
from flik.domain.webhook.own import OwnWebhook, receiver_id
from flik.domain.webhook.record import DeliveryState
from flik.gateway.own_webhooks import MAX_NAMES
from flik.outbound.lookups import EACH

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://8.8.8.8/hook?task=1"
ONE, MANY = "/api/v1/tasks", "/api/v1/tasks:batch"
KEY = {"Idempotency-Key": "k1"}


def hooked(**fields: Any) -> dict[str, Any]:
    return body(webhook={"url": URL, "secret": SECRET, **fields})


def said(answer: httpx.Response) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    return [(each["pointer"], each["detail"]) for each in answer.json()["errors"]]


async def test_webhook_of_a_task_is_stored_with_it_and_wants_its_end(fakes: Fakes, client: httpx.AsyncClient) -> None:
    answer = await client.post(ONE, json=hooked(url="HTTPS://8.8.8.8:443/hook?task=1"))
    assert answer.status_code == 202
    (task,) = fakes.tasks.stored
    ends = ("completed", "failed", "cancelled", "expired")
    assert task.webhook == OwnWebhook(receiver_id("acme", "https://8.8.8.8"), URL, ends, SECRET)
    assert SECRET not in answer.text + repr(task)
    assert SECRET not in (await client.get(f"{ONE}/{task.task_id}")).text
    assert (await client.get("/api/v1/webhooks")).json()["items"] == []


async def test_each_kind_counts_once(fakes: Fakes, client: httpx.AsyncClient) -> None:
    await client.post(ONE, json=hooked(kinds=["failed", "queued", "failed"]))
    assert fakes.tasks.stored[0].webhook is not None
    assert fakes.tasks.stored[0].webhook.kinds == ("failed", "queued")


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({"url": URL}, "/webhook/secret"),
        ({"url": URL, "secret": None}, "/webhook/secret"),
        ({"url": URL, "secret": "word"}, "/webhook/secret"),
        ({"url": URL, "secret": SECRET.removeprefix("whsec_")}, "/webhook/secret"),
        ({"url": URL, "secret": "whsec_" + "A" * 28}, "/webhook/secret"),
        ({"url": URL, "secret": f"{SECRET}\n"}, "/webhook/secret"),
        ({"secret": SECRET}, "/webhook/url"),
        ({"url": "https://127.0.0.1/", "secret": SECRET}, "/webhook/url"),
        ({"url": "http://8.8.8.8/", "secret": SECRET}, "/webhook/url"),
        ({"url": URL, "secret": SECRET, "kinds": []}, "/webhook/kinds"),
        ({"url": URL, "secret": SECRET, "kinds": ["done"]}, "/webhook/kinds/0"),
        ({"url": URL, "secret": SECRET, "status": "ACTIVE"}, "/webhook/status"),
        (URL, "/webhook"),
    ],
)
async def test_what_is_wrong_with_it_is_named_and_not_repeated(
    fakes: Fakes, client: httpx.AsyncClient, webhook: Any, pointer: str
) -> None:
    answer = await client.post(ONE, json=body(webhook=webhook))
    assert said(answer)[0][0] == pointer
    assert "MfKQ9r8" not in answer.text
    many = await client.post(MANY, json={"tasks": [body(), body(webhook=webhook)]})
    problem = many.json()["items"][1]["problem"]
    assert problem["errors"][0]["pointer"] == f"/tasks/1{pointer}"
    assert len(fakes.tasks.stored) == 1


async def test_name_that_leads_nowhere_is_refused_before_the_door(fakes: Fakes, client: httpx.AsyncClient) -> None:
    nowhere = hooked(url="https://hooks.example.invalid.example/")
    why = "names a host that leads to no public address"
    assert said(await client.post(ONE, json=nowhere)) == [("/webhook/url", why)]
    assert fakes.rate.spent == []
    many = (await client.post(MANY, json={"tasks": [nowhere, hooked(), nowhere]})).json()["items"]
    assert [each["status"] for each in many] == [422, 202, 422]
    assert [each["problem"]["errors"][0]["pointer"] for each in many[::2]] == [
        "/tasks/0/webhook/url", "/tasks/2/webhook/url",
    ]  # fmt: skip
    assert fakes.rate.spent == [("acme", 1)]


async def test_name_that_nobody_answers_for_is_no_fault_of_the_caller(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.resolver.silent, fakes.resolver.known = {"slow.example"}, {"well.example": ["8.8.8.8"]}
    slow, well = hooked(url="https://slow.example/"), hooked(url="https://well.example/")
    for path, document in ((ONE, slow), (MANY, {"tasks": [slow, slow]})):
        answer = await client.post(path, json=document, headers=KEY)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")
        assert answer.json()["detail"] == "name server is not available; try again in 5 s"
    assert (fakes.rate.spent, fakes.tasks.stored) == ([], [])
    many = (await client.post(MANY, json={"tasks": [slow, well, body()]})).json()["items"]
    assert [each["status"] for each in many] == [503, 202, 202]
    assert many[0]["problem"]["retryAfterMs"] == 5_000


async def test_slow_names_of_one_tenant_refuse_nobody_else(fakes: Fakes, client: httpx.AsyncClient) -> None:
    silent = [f"slow{n}.example" for n in range(80)]
    fakes.resolver.silent, fakes.resolver.known = set(silent), {"well.example": ["8.8.8.8"]}
    slow = [client.post(ONE, json=hooked(url=f"https://{name}/")) for name in silent]
    well = client.post(ONE, json={**hooked(url="https://well.example/"), "tenantId": "other"})
    *refused, taken = await asyncio.gather(*slow, well)
    assert taken.status_code == 202
    assert {each.status_code for each in refused} == {503}
    assert len(fakes.resolver.asked) == EACH + 1


async def test_a_batch_has_each_name_looked_up_once_and_not_too_many(fakes: Fakes, client: httpx.AsyncClient) -> None:
    names = [f"n{n}.example" for n in range(MAX_NAMES + 2)]
    fakes.resolver.known = {name: ["8.8.8.8"] for name in names}
    tasks = [hooked(url=f"https://n0.example:{2_000 + n}/{n}") for n in range(900)]
    many = (await client.post(MANY, json={"tasks": tasks})).json()["items"]
    assert {each["status"] for each in many} == {202}
    assert fakes.resolver.asked == ["n0.example"]

    tasks = [hooked(url=f"https://{name}/") for name in [*names, names[0]]] + [hooked()]
    many = (await client.post(MANY, json={"tasks": tasks})).json()["items"]
    assert [each["status"] for each in many] == [202] * MAX_NAMES + [422] * 2 + [202] * 2
    assert many[MAX_NAMES]["problem"]["errors"] == [
        {"pointer": f"/tasks/{MAX_NAMES}/webhook/url",
         "detail": "names a host beyond the 32 different ones that a request may name"}
    ]  # fmt: skip
    assert fakes.resolver.asked[1:] == names[:MAX_NAMES]


@pytest.mark.parametrize(("path", "asked"), [(ONE, hooked()), (MANY, {"tasks": [hooked(), hooked(kinds=["failed"])]})],
                         ids=["one", "many"])  # fmt: skip
async def test_replay_is_byte_for_byte_the_same_and_another_webhook_is_another_request(
    fakes: Fakes, client: httpx.AsyncClient, path: str, asked: dict[str, Any]
) -> None:
    first = await client.post(path, json=asked, headers=KEY)
    again = await client.post(path, json=asked, headers=KEY)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert all(task.webhook for task in fakes.tasks.stored)
    other = hooked(secret="whsec_" + "A" * 32)
    changed = other if path == ONE else {"tasks": [other, other]}
    answer = await client.post(path, json=changed, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_a_secret_fits_when_it_holds_24_to_64_bytes() -> None:
    def fits(characters: int, padding: int) -> bool:
        secret = "whsec_" + "A" * characters + "=" * padding
        try:
            schemas.TaskWebhook.model_validate({"url": URL, "secret": secret})
        except ValueError:
            return False
        return True

    for size in range(20, 70):
        whole, rest = divmod(size, 3)
        characters, padding = 4 * whole + (rest and rest + 1), rest and 3 - rest
        assert fits(characters, padding) is (24 <= size <= 64), size
        assert not fits(characters, padding + 1)


async def test_deliveries_of_a_task_are_listed_and_sent_again(fakes: Fakes, client: httpx.AsyncClient) -> None:
    fakes.tasks.rows[task_id(1)] = view(task_id=task_id(1), status="COMPLETED")
    own = [
        waiting(None, task_id=task_id(1), seq=seq, kind="failed", state=DeliveryState.GIVEN_UP, attempts=10,
                next_at=None, ended_at=9.0)
        for seq in (3, 5)
    ]  # fmt: skip
    others = [waiting(None, task_id=task_id(2)), waiting(str(uuid7()), task_id=task_id(1))]
    fakes.webhooks.sent |= {each.delivery_id: each for each in [*own, *others]}
    path = f"{ONE}/{task_id(1)}/deliveries"
    page = (await client.get(path, params={"limit": 1})).json()
    schemas.DeliveryPage.model_validate(page)
    rest = (await client.get(path, params={"limit": 1, "cursor": page["nextCursor"]})).json()
    assert [each["seq"] for each in page["items"] + rest["items"]] == [5, 3]
    assert (page["items"][0]["webhookId"], rest["nextCursor"]) == (None, None)

    again = await client.post(f"{path}/{own[0].delivery_id}/redeliver")
    assert (again.status_code, again.json()["state"], again.json()["attempts"]) == (202, "WAITING", 0)
    assert fakes.woken == ["courier"]
    for each in others:
        answer = await client.post(f"{path}/{each.delivery_id}/redeliver")
        assert (answer.status_code, answer.json()["code"]) == (404, "delivery_not_found")
    answer = await client.get(f"{ONE}/{task_id(9)}/deliveries")
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
