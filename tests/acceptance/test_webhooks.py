"""Webhooks as a tenant meets them: a signed ping arrives, the log tells what came of it, no private place is called."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flik.domain.webhook.signature import Fault, verify
from tests.acceptance.running import RunningFlik, eventually, task

OWN_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets; answers with `statuses`, then 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers.items()), body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def make(flik: RunningFlik, url: str) -> dict[str, Any]:
    answer = flik.http.post("/api/v1/webhooks", json={"tenantId": "demo", "url": url})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_ping_arrives_signed_through_failures_and_the_log_tells(flik: RunningFlik, receiver: Receiver) -> None:
    receiver.statuses = [500, 204]
    hook = make(flik, f"http://127.0.0.1:{receiver.server_port}/hook")
    path = f"/api/v1/webhooks/{hook['webhookId']}"
    new = flik.http.post(f"{path}/rotate-secret").json()
    ping = flik.http.post(f"{path}/test").json()

    def delivered() -> dict[str, Any] | None:
        (found,) = flik.http.get(f"{path}/deliveries").json()["items"]
        return found if found["state"] == "DELIVERED" else None

    found = eventually(delivered, within_s=15, what="the delivery")
    assert (found["deliveryId"], found["attempts"]) == (ping["deliveryId"], 2)
    assert [(each["status"], each["error"]) for each in found["log"]] == [
        (500, "the receiver answered 500"),
        (204, None),
    ]
    (first, body), (second, again) = receiver.got
    assert body == again
    assert json.loads(body)["type"] == "ping"
    assert first["webhook-id"] == second["webhook-id"] == ping["deliveryId"]
    for secret in (hook["secret"], new["secret"]):
        assert verify(second, body, [secret], time.time()) is None
    assert verify(second, body, ["whsec_" + "A" * 32], time.time()) is Fault.WRONG
    assert flik.http.delete(path).status_code == 200


@pytest.mark.parametrize("url", ["http://localhost:8080/", "http://10.0.0.1/", "http://169.254.169.254/latest/"])
def test_private_place_is_refused_when_it_is_saved(flik: RunningFlik, url: str) -> None:
    answer = flik.http.post("/api/v1/webhooks", json={"tenantId": "demo", "url": url})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/url"
    own = {"url": url, "secret": OWN_SECRET}
    answer = flik.http.post("/api/v1/tasks", json=task(webhook=own))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/webhook/url")


def test_a_task_brings_its_own_webhook_whichever_way_it_is_submitted(flik: RunningFlik, receiver: Receiver) -> None:
    receiver.statuses = [500]
    flik.tenant("bringing")

    def brought(name: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{receiver.server_port}/{name}"
        return task(tenantId="bringing", webhook={"url": url, "secret": OWN_SECRET, "kinds": ["queued", "completed"]})

    key = {"Idempotency-Key": "brought-once"}
    first, again = [flik.http.post("/api/v1/tasks", json=brought("keyed"), headers=key) for _ in range(2)]
    assert (first.status_code, again.content) == (202, first.content)
    batch = flik.http.post("/api/v1/tasks:batch", json={"tasks": [brought("many"), task(tenantId="bringing")]}).json()
    task_ids = {first.json()["taskId"], batch["items"][0]["task"]["taskId"]}

    eventually(lambda: len(receiver.got) >= 5, within_s=30, what="both events of both tasks, one of them twice")
    told = [json.loads(body) for _, body in receiver.got]
    assert {(each["data"]["taskId"], each["type"]) for each in told} == {
        (task_id, f"task.{kind}") for task_id in task_ids for kind in ("queued", "completed")
    }
    for headers, body in receiver.got:
        assert verify(headers, body, [OWN_SECRET], time.time()) is None

    path = f"/api/v1/tasks/{first.json()['taskId']}/deliveries"
    listed = eventually(lambda: _delivered(flik, path), within_s=10, what="the log of deliveries")
    assert [(each["kind"], each["webhookId"]) for each in listed] == [("completed", None), ("queued", None)]
    assert flik.http.post(f"{path}/{listed[0]['deliveryId']}/redeliver").status_code == 202
    eventually(lambda: len(receiver.got) >= 6, within_s=10, what="the delivery that was sent again")
    assert receiver.got[-1][0]["webhook-id"] == listed[0]["deliveryId"]
    assert flik.http.get("/api/v1/webhooks", params={"tenantId": "bringing"}).json()["items"] == []


def _delivered(flik: RunningFlik, path: str) -> list[dict[str, Any]] | None:
    items: list[dict[str, Any]] = flik.http.get(path).json()["items"]
    return items if len(items) == 2 and all(each["state"] == "DELIVERED" for each in items) else None


def test_a_tasks_events_arrive_signed_and_in_order(flik: RunningFlik, receiver: Receiver) -> None:
    receiver.statuses = [500]
    every = ["queued", "processing", "artifact", "retryScheduled", "completed", "failed", "cancelled", "expired"]
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    answer = flik.http.post("/api/v1/webhooks", json={"tenantId": flik.tenant("hooked"), "url": url, "kinds": every})
    assert answer.status_code == 201, answer.text
    hook = answer.json()
    task_id = flik.submit(tenantId="hooked")
    shown = flik.wait(task_id)
    log = flik.http.get(f"/api/v1/tasks/{task_id}/events?since=0").json()["events"]

    eventually(lambda: len(receiver.got) >= len(log) + 1, within_s=30, what="all events")
    told = [json.loads(body) for _, body in receiver.got][1:]  # the first attempt was answered 500
    assert [(each["type"], each["data"]["seq"]) for each in told] == [
        (f"task.{event['event']}", event["seq"]) for event in log
    ]
    assert {each["data"]["taskId"] for each in told} == {task_id}
    assert told[-1]["data"]["result"]["text"] == shown["result"]["text"]
    for headers, body in receiver.got:
        assert verify(headers, body, [hook["secret"]], time.time()) is None
    assert flik.http.delete(f"/api/v1/webhooks/{hook['webhookId']}").status_code == 200


def test_who_answers_410_hears_nothing_more_of_the_task_but_of_others(flik: RunningFlik, receiver: Receiver) -> None:
    receiver.statuses = [410]
    hook = {"url": f"http://127.0.0.1:{receiver.server_port}/", "secret": OWN_SECRET, "kinds": ["queued", "completed"]}
    gone = flik.submit(tenantId="leaving", webhook=hook)
    flik.wait(gone)
    left = f"/api/v1/tasks/{gone}/deliveries"
    eventually(lambda: _states(flik, left) >= {"GIVEN_UP"}, within_s=30, what="the answer 410")
    staying = flik.submit(tenantId="leaving", webhook=hook)
    path = f"/api/v1/tasks/{staying}/deliveries"
    eventually(lambda: _delivered(flik, path), within_s=30, what="both events of the task that came later")
    told = [json.loads(body)["data"]["taskId"] for _, body in receiver.got]
    assert told == [gone, staying, staying]
    assert _states(flik, left) == {"GIVEN_UP"}
    assert flik.http.get(left).json()["items"][-1]["log"][0]["status"] == 410


def _states(flik: RunningFlik, path: str) -> set[str]:
    return {each["state"] for each in flik.http.get(path).json()["items"]}


@contextmanager
def silent_places(count: int) -> Iterator[list[socket.socket]]:
    """Places that are connected to and never answer."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]


def test_dead_receivers_of_one_tenant_slow_no_other_tenant(flik: RunningFlik, receiver: Receiver) -> None:
    def told_at(tenant: str, port: int) -> dict[str, Any]:
        hook = {"url": f"http://127.0.0.1:{port}/", "secret": OWN_SECRET, "kinds": ["queued"]}
        return task(tenantId=tenant, webhook=hook, startDeadlineS=1)

    with silent_places(400) as places:
        flood = [told_at("flooding", place.getsockname()[1]) for place in places]
        flik.tenant("flooding")
        assert flik.http.post("/api/v1/tasks:batch", json={"tasks": flood}).status_code == 207
        eventually(lambda: len(select.select(places, [], [], 0)[0]) >= 8, within_s=10, what="the first sendings")
        for count in range(1, 6):  # more than a minute of sendings into the void waits before each of these
            assert flik.http.post("/api/v1/tasks", json=told_at("prompt", receiver.server_port)).status_code == 202
            eventually(lambda count=count: len(receiver.got) >= count, within_s=4, what="what another tenant is told")
