"""Topics and their names; how a connection ends on an error; both protocols under one driver."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flik import errors
from flik.domain.follow import (
    TENANT,
    Authenticate,
    Close,
    CloseCode,
    Kind,
    Output,
    Send,
    Session,
    Subscribe,
    Topic,
    Unsubscribe,
    closing,
    topic_of,
)
from flik.domain.json_follow import JsonSession
from flik.domain.stomp.session import StompSession
from flik.errors import FlikError

TASK_ID = "01998b6f-3c1e-7cc0-9d21-6c1f0b3a5e77"


@pytest.mark.parametrize(
    ("topic", "destination"),
    [
        (Topic(Kind.TASK, TASK_ID), f"/topic/tasks/{TASK_ID}"),
        (Topic(Kind.DAG, "d_1"), "/topic/dags/d_1"),
        (TENANT, "/topic/tenant"),
    ],
)
def test_topic_has_one_destination(topic: Topic, destination: str) -> None:
    assert topic.destination == destination
    assert topic_of(destination) == topic


@pytest.mark.parametrize(
    "destination",
    [
        "", "/topic", "/topic/", "/topic/tasks", "/topic/tasks/", "/topic/tasks/a/b", "/topic/tasks/a b",
        "/topic/tasks/a\n", "/topic/tasks/\u0661", "/topic/tasks/" + "a" * 65, "/topic/tenant/", "/topic/tenant/acme",
        "topic/tasks/a", "x/topic/tasks/a", "/queue/tasks/a", "/Topic/tasks/a", "/topic/tasks/../a",
        "/topic/tasks/topic/tasks/a",
    ],
)  # fmt: skip
def test_other_destinations_are_no_topics(destination: str) -> None:
    assert topic_of(destination) is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StreamTooLarge("a frame", 1), CloseCode.TOO_BIG),
        (errors.StreamMalformed("no"), CloseCode.PROTOCOL_ERROR),
        (errors.StreamVersionUnknown(("1.2",)), CloseCode.PROTOCOL_ERROR),
        (errors.Unauthenticated("no"), CloseCode.POLICY),
        (errors.TaskNotFound("1"), CloseCode.POLICY),
        (errors.RateLimited("acme", 1.0, 1.0), CloseCode.TRY_AGAIN_LATER),
        (errors.Unavailable("postgresql"), CloseCode.TRY_AGAIN_LATER),
        (FlikError(), CloseCode.INTERNAL),
    ],
)
def test_close_tells_whose_fault_it_is_and_names_the_problem(error: FlikError, code: CloseCode) -> None:
    assert closing(error) == Close(code, error.code)


class Gateway:
    """Drives a session as a route does; `refused` is the topic that may not be followed."""

    def __init__(self, session: Session, refused: Topic | None = None) -> None:
        self.session = session
        self.refused = refused
        self.sent: list[bytes] = []
        self.followed: dict[str, Topic] = {}
        self.closed: Close | None = None
        self.now = 0.0

    def receive(self, data: bytes) -> None:
        self.handle(self.session.receive(data, self.now))

    def handle(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Send(data):
                    self.sent.append(data)
                case Close():
                    self.closed = output
                case Unsubscribe(subscription_id):
                    del self.followed[subscription_id]
                case Authenticate(token=token):
                    known = token == "good"
                    refusal = errors.Unauthenticated("the credential is not valid here", True)
                    self.handle(self.session.accept(self.now) if known else self.session.refuse(refusal, self.now))
                case Subscribe(subscription_id, topic) if topic == self.refused:
                    self.handle(self.session.refuse(errors.TaskNotFound("t2"), self.now))
                case Subscribe(subscription_id, topic):
                    self.followed[subscription_id] = topic
                    self.handle(self.session.accept(self.now))


STOMP = (
    b"CONNECT\naccept-version:1.2\npasscode:%b\n\n\x00",
    b"SUBSCRIBE\nid:%b\ndestination:/topic/tasks/%b\n\n\x00",
    b"UNSUBSCRIBE\nid:%b\n\n\x00",
)
JSON = (
    b'{"type":"auth","token":"%b"}',
    b'{"type":"subscribe","id":"%b","taskId":"%b"}',
    b'{"type":"unsubscribe","id":"%b"}',
)
PROTOCOLS = pytest.mark.parametrize(("kind", "words"), [(StompSession, STOMP), (JsonSession, JSON)])
Made = Callable[[float, Callable[[FlikError], dict[str, object]]], Session]


def gateway_of(kind: Made, refused: Topic | None = None) -> Gateway:
    return Gateway(kind(0.0, lambda error: {"code": error.code}), refused)


@PROTOCOLS
def test_one_route_drives_both_protocols(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    connect, subscribe, unsubscribe = words
    gateway = gateway_of(kind)
    gateway.receive(connect % b"good")
    gateway.receive(subscribe % (b"a", b"t1"))
    assert gateway.followed == {"a": Topic(Kind.TASK, "t1")}
    sent = len(gateway.sent)
    gateway.handle(gateway.session.event("a", 1, b'{"x":1}', 0.0))
    assert b'{"x":1}' in gateway.sent[sent]
    gateway.receive(unsubscribe % b"a")
    assert (gateway.followed, gateway.session.event("a", 2, b"{}", 0.0), gateway.closed) == ({}, [], None)


@PROTOCOLS
def test_stranger_is_told_and_let_go(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    gateway = gateway_of(kind)
    gateway.receive(words[0] % b"bad")
    assert gateway.closed == Close(CloseCode.POLICY, "unauthenticated")
    assert b"unauthenticated" in gateway.sent[-1]


@PROTOCOLS
def test_refused_subscription_is_told(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    gateway = gateway_of(kind, refused=Topic(Kind.TASK, "t2"))
    gateway.receive(words[0] % b"good")
    gateway.receive(words[1] % (b"a", b"t2"))
    assert b"task_not_found" in gateway.sent[-1]
    assert gateway.session.event("a", 1, b"{}", 0.0) == []
    assert (gateway.closed is None) is (kind is JsonSession)  # in STOMP every error is the last word


IDLE_S = 60.0


def let_in(kind: Made, words: tuple[bytes, bytes, bytes], *ids: bytes) -> Gateway:
    gateway = gateway_of(kind)
    gateway.receive(words[0] % b"good")
    for each in ids:
        gateway.receive(words[1] % (each, b"t-" + each))
    return gateway


def stays_until(gateway: Gateway, at: float) -> None:
    """Check that the connection ends at `at` and not before, and that its end is foretold and told."""
    assert gateway.session.wakes_at() == at
    gateway.handle(gateway.session.tick(at - 0.1))
    assert gateway.closed is None
    gateway.handle(gateway.session.tick(at))
    assert gateway.closed == Close(CloseCode.POLICY, "stream_idle")
    assert b"stream_idle" in gateway.sent[-1]
    assert gateway.session.wakes_at() is None


@PROTOCOLS
def test_connection_that_never_follows_anything_is_ended(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    gateway = let_in(kind, words)
    gateway.now = 50.0
    gateway.receive(words[2] % b"a" if kind is JsonSession else b"\n")  # a sign of life is no reason to stay
    stays_until(gateway, IDLE_S)


@PROTOCOLS
def test_connection_that_follows_what_goes_on_stays(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    gateway = let_in(kind, words, b"a")
    assert (gateway.session.tick(1e6), gateway.session.wakes_at()) == ([], None)


@PROTOCOLS
def test_connection_that_let_go_what_it_followed_is_ended(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    gateway = let_in(kind, words, b"a", b"b")
    gateway.now = 1_000.0
    gateway.receive(words[2] % b"a")
    assert gateway.session.wakes_at() is None
    gateway.now = 2_000.0
    gateway.receive(words[2] % b"b")
    stays_until(gateway, 2_000.0 + IDLE_S)


@PROTOCOLS
def test_connection_of_which_all_that_it_follows_has_ended_is_ended(
    kind: Made, words: tuple[bytes, bytes, bytes]
) -> None:
    gateway = let_in(kind, words, b"a", b"b")
    session = gateway.session
    assert session.note("a", 1_000.0, goes_on=False) == []
    assert session.wakes_at() is None
    session.note("b", 2_000.0, goes_on=False)
    session.note("b", 2_010.0, goes_on=False)
    assert session.wakes_at() == 2_000.0 + IDLE_S
    session.note("a", 2_020.0, goes_on=True)  # it was retried
    assert session.wakes_at() is None
    session.note("a", 3_000.0, goes_on=False)
    stays_until(gateway, 3_000.0 + IDLE_S)


@PROTOCOLS
def test_what_a_subscription_was_to_that_is_not_there_any_more_is_of_no_effect(
    kind: Made, words: tuple[bytes, bytes, bytes]
) -> None:
    gateway = let_in(kind, words, b"a")
    gateway.receive(words[2] % b"a")
    gateway.session.note("a", 10.0, goes_on=True)
    stays_until(gateway, IDLE_S)


def test_subscription_that_is_refused_is_no_reason_to_stay() -> None:
    gateway = gateway_of(JsonSession, refused=Topic(Kind.TASK, "t2"))
    gateway.receive(JSON[0] % b"good")
    gateway.now = 50.0
    gateway.receive(JSON[1] % (b"a", b"t2"))
    stays_until(gateway, IDLE_S)


@PROTOCOLS
def test_client_that_waits_for_our_answer_is_not_idle(kind: Made, words: tuple[bytes, bytes, bytes]) -> None:
    session = let_in(kind, words).session
    session.receive(words[1] % (b"a", b"t1"), 59.0)
    assert (session.wakes_at(), session.tick(100.0)) == (None, [])
    session.accept(100.0)
    assert (session.wakes_at(), session.tick(1e6)) == (None, [])
