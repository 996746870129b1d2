"""The plain JSON protocol: what is said, what is answered, and what ends the connection."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.follow import (
    MAX_SEQ,
    TENANT,
    Authenticate,
    Close,
    CloseCode,
    Kind,
    Output,
    Send,
    Subscribe,
    Topic,
    Unsubscribe,
)
from flik.domain.json_follow import MAX_MESSAGE_BYTES, JsonSession
from flik.errors import FlikError, InvalidRequest, TaskNotFound, Unauthenticated, Unavailable

TASK = Topic(Kind.TASK, "t1")


def explain(error: FlikError) -> dict[str, Any]:
    pointers = [field.pointer for field in error.errors] if isinstance(error, InvalidRequest) else []
    return {"code": error.code, "detail": str(error), "pointers": pointers}


def session_of(**options: Any) -> JsonSession:
    return JsonSession(0.0, explain, **options)


def opened(**options: Any) -> JsonSession:
    session = session_of(**options)
    session.accept(0.0)
    return session


def say(session: JsonSession, kind: str, **members: Any) -> list[Any]:
    return told(session.receive(orjson.dumps({"type": kind, **members}), 0.0))


def told(outputs: list[Output]) -> list[Any]:
    """Return outputs with what is sent as objects."""
    return [orjson.loads(output.data) if isinstance(output, Send) else output for output in outputs]


def following(session: JsonSession, subscription_id: str = "a") -> JsonSession:
    say(session, "subscribe", id=subscription_id, taskId="t1")
    session.accept(0.0)
    return session


def failed(outputs: list[Any], code: str) -> Close:
    """Return how the connection ends with an error, and nothing else."""
    said, close = outputs
    assert (said["type"], said["problem"]["code"], "id" in said) == ("error", code, False)
    assert isinstance(close, Close)
    return close


def is_over(session: JsonSession) -> bool:
    outputs = say(session, "ping") + session.accept(1.0) + session.refuse(TaskNotFound("1"), 1.0)
    outputs += session.tick(1e9) + session.end(None, 1.0) + session.event("a", 1, b"{}", 1.0)
    return not outputs and session.wakes_at() is None


# ---- who it is


@pytest.mark.parametrize("shown", [{"token": "k"}, {"ticket": "k"}])
def test_client_says_who_it_is_and_is_let_in(shown: dict[str, str]) -> None:
    session = session_of()
    (question,) = say(session, "auth", **shown)
    assert question == Authenticate(**shown)
    assert "'k'" not in repr(question)
    assert told(session.accept(0.0)) == [{"type": "ready"}]


def test_client_that_the_handshake_recognised_is_ready_at_once_and_only_once() -> None:
    session = session_of()
    assert told(session.accept(0.0)) == [{"type": "ready"}]
    assert session.accept(0.0) == []
    assert failed(say(session, "auth", token="k"), "stream_malformed").code == CloseCode.PROTOCOL_ERROR


def test_client_that_is_refused_hears_why() -> None:
    session = session_of()
    say(session, "auth", token="k")
    assert failed(told(session.refuse(Unauthenticated("no", True), 0.0)), "unauthenticated").code == CloseCode.POLICY
    assert is_over(session)


@pytest.mark.parametrize(
    ("shown", "pointers"),
    [
        ({}, ["/token"]),
        ({"token": "a", "ticket": "b"}, ["/token"]),
        ({"token": ""}, ["/token"]),
        ({"token": 5}, ["/token"]),
        ({"ticket": "x" * 4_097}, ["/ticket"]),
        ({"token": "a", "pass/word~": "b"}, ["/pass~1word~0"]),
    ],
)
def test_credential_that_breaks_a_rule_ends_the_connection(shown: dict[str, Any], pointers: list[str]) -> None:
    outputs = say(session_of(), "auth", **shown)
    failed(outputs, "invalid_request")
    assert outputs[0]["problem"]["pointers"] == pointers


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "ping"])
def test_first_message_must_be_auth(kind: str) -> None:
    session = session_of()
    failed(say(session, kind, id="a", taskId="t1"), "stream_malformed")
    assert is_over(session)


def test_who_does_not_say_who_it_is_in_time_is_let_go() -> None:
    session = session_of(auth_s=10.0)
    assert (session.wakes_at(), session.tick(9.9)) == (10.0, [])
    failed(told(session.tick(10.0)), "stream_malformed")
    assert is_over(session)
    for patient in (opened(), session_of()):
        say(patient, "auth", token="k")
        assert (patient.wakes_at(), patient.tick(1e9)) == (None, [])


# ---- following


@pytest.mark.parametrize(
    ("members", "topic", "from_seq"),
    [
        ({"taskId": "t1"}, TASK, None),
        ({"dagId": "d1", "fromSeq": 0}, Topic(Kind.DAG, "d1"), 0),
        ({"tenant": True, "fromSeq": MAX_SEQ}, TENANT, MAX_SEQ),
        ({"taskId": "t1", "fromSeq": None}, TASK, None),
    ],
)
def test_client_follows_a_topic(members: dict[str, Any], topic: Topic, from_seq: int | None) -> None:
    session = opened()
    assert say(session, "subscribe", id="a", **members) == [Subscribe("a", topic, from_seq)]
    assert session.event("a", 1, b"{}", 0.0) == []  # not yet
    assert told(session.accept(0.0)) == [{"type": "subscribed", "id": "a"}]


@pytest.mark.parametrize(
    ("members", "first_chunk"),
    [({"chunks": True}, 0), ({"chunks": True, "fromChunk": 0}, 1), ({"chunks": False, "fromChunk": 7}, None)],
    ids=["from the first", "from a number", "without"],
)
def test_client_follows_the_text_of_a_task(members: dict[str, Any], first_chunk: int | None) -> None:
    assert say(opened(), "subscribe", id="a", taskId="t1", **members) == [Subscribe("a", TASK, None, first_chunk)]


@pytest.mark.parametrize(("is_reset", "kind"), [(False, "event"), (True, "reset")])
def test_events_come_with_their_number(is_reset: bool, kind: str) -> None:
    outputs = following(opened()).event("a", 8, b'{"status": "QUEUED"}', 0.0, is_reset=is_reset)
    assert told(outputs) == [{"type": kind, "id": "a", "seq": 8, "event": {"status": "QUEUED"}}]


@pytest.mark.parametrize(
    ("members", "pointers"),
    [
        ({}, ["/id", "/taskId"]),
        ({"id": 5, "taskId": "t1"}, ["/id"]),
        ({"id": "", "taskId": "t1"}, ["/id"]),
        ({"id": "x" * 256, "taskId": "t1"}, ["/id"]),
        ({"id": ["a"], "taskId": "t1"}, ["/id"]),
        ({"id": "taken", "taskId": "t1"}, ["/id"]),
        ({"id": "a", "taskId": "t1", "tenant": True}, ["/taskId"]),
        ({"id": "a", "taskId": "no id"}, ["/taskId"]),
        ({"id": "a", "dagId": 7}, ["/dagId"]),
        ({"id": "a", "tenant": False}, ["/tenant"]),
        ({"id": "a", "tenant": 1}, ["/tenant"]),
        ({"id": "a", "taskId": "t1", "fromSeq": -1}, ["/fromSeq"]),
        ({"id": "a", "taskId": "t1", "fromSeq": True}, ["/fromSeq"]),
        ({"id": "a", "taskId": "t1", "fromSeq": 1.0}, ["/fromSeq"]),
        ({"id": "a", "taskId": "t1", "fromSeq": "1"}, ["/fromSeq"]),
        ({"id": "a", "taskId": "t1", "fromSeq": MAX_SEQ + 1}, ["/fromSeq"]),
        ({"id": "a", "taskId": "t1", "chunks": True, "fromChunk": -1}, ["/fromChunk"]),
        ({"id": "a", "taskId": "t1", "chunks": True, "fromChunk": 2**31}, ["/fromChunk"]),
        ({"id": "a", "taskId": "t1", "chunks": 1}, ["/chunks"]),
        ({"id": "a", "tenant": True, "chunks": True}, ["/chunks"]),
        ({"id": "a", "taskId": "t1", "from": 1, "ack": 2}, ["/ack", "/from"]),
    ],
)
def test_subscription_that_breaks_a_rule_is_refused_and_the_connection_stays(
    members: dict[str, Any], pointers: list[str]
) -> None:
    session = following(opened(), "taken")
    (said,) = say(session, "subscribe", **members)
    assert said["problem"]["pointers"] == pointers
    sent = members.get("id")
    assert said.get("id") == (sent if isinstance(sent, str) and 0 < len(sent) < 256 else None)
    assert say(session, "ping") == [{"type": "pong"}]


def test_refused_subscription_leaves_connection_and_id_free() -> None:
    session = opened()
    say(session, "subscribe", id="a", taskId="t1")
    (said,) = told(session.refuse(TaskNotFound("t1"), 0.0))
    assert (said["type"], said["id"], said["problem"]["code"]) == ("error", "a", "task_not_found")
    assert session.event("a", 1, b"{}", 0.0) == []
    assert say(session, "subscribe", id="a", tenant=True) == [Subscribe("a", TENANT)]


def test_ended_subscription_gets_nothing_more_and_ending_it_twice_is_no_error() -> None:
    session = following(opened())
    assert say(session, "unsubscribe", id="a") == [Unsubscribe("a"), {"type": "unsubscribed", "id": "a"}]
    assert session.event("a", 1, b"{}", 0.0) == []
    assert say(session, "unsubscribe", id="a") == [{"type": "unsubscribed", "id": "a"}]
    (said,) = say(session, "unsubscribe")
    assert said["problem"]["pointers"] == ["/id"]


def test_subscriptions_are_bounded_and_the_connection_stays() -> None:
    session = following(following(opened(max_subscriptions=2), "a"), "b")
    (said,) = say(session, "subscribe", id="c", taskId="t1")
    assert (said["id"], said["problem"]["code"]) == ("c", "too_many_subscriptions")
    say(session, "unsubscribe", id="a")
    assert say(session, "subscribe", id="c", taskId="t1") == [Subscribe("c", TASK)]


def test_messages_that_come_before_our_answer_wait_for_it() -> None:
    session = session_of()
    say(session, "auth", token="k")
    assert say(session, "subscribe", id="a", taskId="t1") == say(session, "ping") == []
    assert told(session.accept(0.0)) == [{"type": "ready"}, Subscribe("a", TASK)]
    assert told(session.accept(0.0)) == [{"type": "subscribed", "id": "a"}, {"type": "pong"}]


# ---- ending


def test_server_that_stops_says_nothing_but_why() -> None:
    session = following(opened())
    assert session.end(None, 0.0) == [Close(CloseCode.GOING_AWAY)]
    assert is_over(session)


def test_server_that_cannot_go_on_says_when_to_come_back() -> None:
    session = opened()
    assert failed(told(session.end(Unavailable("redis"), 0.0)), "unavailable").code == CloseCode.TRY_AGAIN_LATER
    assert is_over(session)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"1", b"null", b'"ping"', b"{}", b'{"type":1}', b'{"type":["ping"]}', b'{"type":"PING"}',
        b'{"type":"event"}', b'{"type":"ping"} x', b"\xff", b'{"type":"p\xffing"}', b"[" * 60_000, b'{"a":' * 9_000,
    ],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    for session in (opened(), session_of()):
        assert failed(told(session.receive(data, 0.0)), "stream_malformed").code == CloseCode.PROTOCOL_ERROR
        assert is_over(session)


def test_message_is_bounded_to_the_byte() -> None:
    ping = b'{"type":"ping"}'
    session = opened()
    assert told(session.receive(ping.ljust(MAX_MESSAGE_BYTES), 0.0)) == [{"type": "pong"}]
    outputs = told(session.receive(ping.ljust(MAX_MESSAGE_BYTES + 1), 0.0))
    assert failed(outputs, "stream_too_large").code == CloseCode.TOO_BIG


@pytest.mark.parametrize(("message", "unit"), [(b"", "100 messages"), (b"x" * 2_000, "65,536 bytes")])
def test_who_sends_on_while_a_question_is_open_is_cut_off(message: bytes, unit: str) -> None:
    session = session_of()
    say(session, "auth", token="k")
    outputs: list[Output] = []
    for _ in range(101):
        outputs += session.receive(message, 0.0)
    failed(told(outputs), "stream_too_large")
    assert told(outputs)[0]["problem"]["detail"] == f"what was sent at once has more than {unit}"
    assert is_over(session)


def test_errors_of_one_message_are_bounded() -> None:
    (said,) = say(opened(), "ping", **{f"{number:0>100}": 1 for number in range(500)})
    assert len(said["problem"]["pointers"]) == 20
    assert all(len(pointer) == 65 for pointer in said["problem"]["pointers"])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "t1", "", "\x00", "\U0001f3e0"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", ""]), inner, max_size=2),
    max_leaves=3,
)
NAMES = st.sampled_from(["type", "id", "token", "ticket", "taskId", "dagId", "tenant", "fromSeq", "chunks", "x/~"])
KINDS = st.sampled_from(["auth", "subscribe", "unsubscribe", "ping", "none"])
MESSAGES = st.one_of(
    st.builds(lambda kind, rest: orjson.dumps(rest | {"type": kind}), KINDS, st.dictionaries(NAMES, JSON_VALUES)),
    st.builds(lambda name: b'{"type":"subscribe","id":"%b","taskId":"t1"}' % name, st.sampled_from([b"a", b"b"])),
    st.binary(max_size=9),
)


@given(st.lists(MESSAGES, max_size=20), st.booleans(), st.randoms())
def test_no_input_raises(messages: list[bytes], known: bool, chance: random.Random) -> None:
    session = opened() if known else session_of()
    is_over = False
    for message in messages:
        answers = (session.accept, lambda now: session.refuse(TaskNotFound("1"), now), session.tick)
        for step in (lambda now, data=message: session.receive(data, now), chance.choice(answers)):
            outputs = step(0.0)
            assert not (is_over and outputs)
            assert not any(isinstance(output, Close | Authenticate | Subscribe) for output in outputs[:-1])
            assert all("type" in said for said in told(outputs) if isinstance(said, dict))
            is_over = is_over or (bool(outputs) and isinstance(outputs[-1], Close))
