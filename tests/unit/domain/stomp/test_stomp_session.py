"""One STOMP connection from the first byte to the last: conversations as a stock client has them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from flik.domain.follow import (
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
from flik.domain.stomp.beats import Beats
from flik.domain.stomp.frames import Bounds, Frame, Parser, Version, encode
from flik.domain.stomp.session import StompSession
from flik.errors import FlikError, TaskNotFound, Unauthenticated, Unavailable

V1_0, V1_1, V1_2 = Version
KEY = "flik_live_x"
TASK = Topic(Kind.TASK, "t1")
HEADERS = {
    V1_0: {"login": "me", "passcode": KEY},
    V1_1: {"accept-version": "1.0,1.1", "host": "flik", "passcode": KEY},
    V1_2: {"accept-version": "1.0,1.1,1.2", "heart-beat": "10000,10000", "Authorization": f"Bearer {KEY}"},
}


def explain(error: FlikError) -> dict[str, Any]:
    return {"code": error.code, "detail": str(error)}


def session_of(**options: Any) -> StompSession:
    return StompSession(0.0, explain, session_id="r-1", **options)


def frame(command: str, body: bytes = b"", /, **headers: str) -> bytes:
    """Return a frame in 1.2; `_` in a name stands for `-`."""
    return encode(Frame(command, {name.replace("_", "-"): value for name, value in headers.items()}, body), V1_2)


def told(outputs: list[Output], version: Version | None = V1_2) -> list[Frame | Output]:
    """Return outputs with what is sent as frames."""
    found: list[Frame | Output] = []
    for output in outputs:
        if isinstance(output, Send):
            parser = Parser(version)
            parser.feed(output.data)
            part = parser.take()
            assert isinstance(part, Frame), output
            assert (parser.take(), parser.held_bytes) == (None, 0)
            found.append(part)
        else:
            found.append(output)
    return found


def opened(version: Version = V1_2, **options: Any) -> StompSession:
    session = session_of(**options)
    session.receive(encode(Frame("CONNECT", HEADERS[version]), None), 0.0)
    session.accept(0.0)
    return session


def following(session: StompSession, subscription_id: str = "0", **headers: str) -> StompSession:
    session.receive(frame("SUBSCRIBE", id=subscription_id, destination=TASK.destination, **headers), 0.0)
    session.accept(0.0)
    return session


def failed(outputs: list[Output], code: str, version: Version | None = V1_2) -> Frame:
    """Return the ERROR frame with which the connection ends; nothing else comes out."""
    said, close = told(outputs, version)
    assert isinstance(said, Frame)
    assert isinstance(close, Close)
    assert (said.command, close.reason) == ("ERROR", code)
    assert said.headers["content-type"] == "application/problem+json"
    assert orjson.loads(said.body)["code"] == code
    return said


def is_over(session: StompSession) -> bool:
    """Whether nothing comes out any more, whatever goes in."""
    outputs = session.receive(frame("DISCONNECT", receipt="1"), 1.0) + session.accept(1.0) + session.tick(1e9)
    outputs += session.refuse(TaskNotFound("1"), 1.0) + session.end(None, 1.0) + session.event("0", 1, b"{}", 1.0)
    return not outputs and session.wakes_at() is None


# ---- connecting


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
@pytest.mark.parametrize("version", Version)
def test_client_connects_and_is_asked_for_before_it_is_let_in(command: str, version: Version) -> None:
    session = session_of()
    (question,) = session.receive(encode(Frame(command, HEADERS[version]), None), 0.0)
    assert question == Authenticate(KEY)
    assert KEY not in repr(question)
    (connected,) = told(session.accept(0.0))
    beats = {} if version is V1_0 else {"heart-beat": "10000,10000"}
    assert connected == Frame("CONNECTED", {"version": version, "session": "r-1", "server": "Flik"} | beats)


def test_client_of_1_0_may_pad_its_headers_and_others_may_not() -> None:
    assert session_of().receive(b"CONNECT\n login : me\n passcode :  k \n\n\x00", 0.0) == [Authenticate("k")]
    padded = b"CONNECT\naccept-version:1.1\n passcode :k\n\n\x00"
    assert session_of().receive(padded, 0.0) == [Authenticate(None)]


def test_client_that_shows_no_key_is_asked_for_nevertheless() -> None:
    assert session_of().receive(b"CONNECT\naccept-version:1.2\n\n\x00", 0.0) == [Authenticate(None)]


def test_client_that_the_handshake_recognised_needs_no_key_and_may_show_another() -> None:
    session = session_of()
    assert session.accept(0.0) == []
    (connected,) = told(session.receive(b"CONNECT\naccept-version:1.2\n\n\x00", 0.0))
    assert isinstance(connected, Frame)
    assert connected.command == "CONNECTED"
    session = session_of()
    session.accept(0.0)
    assert session.receive(encode(Frame("CONNECT", HEADERS[V1_2]), None), 0.0) == [Authenticate(KEY)]


def test_client_that_is_refused_hears_why() -> None:
    session = session_of()
    session.receive(encode(Frame("CONNECT", HEADERS[V1_2]), None), 0.0)
    outputs = session.refuse(Unauthenticated("not: valid", True), 0.0)
    assert failed(outputs, "unauthenticated", None).headers["message"] == "not: valid"
    assert outputs[-1] == Close(CloseCode.POLICY, "unauthenticated")
    assert is_over(session)


def test_client_without_a_version_in_common_hears_which_there_are() -> None:
    session = session_of()
    outputs = session.receive(b"CONNECT\naccept-version:2.0\n\n\x00", 0.0)
    assert failed(outputs, "stream_version_unknown", None).headers["version"] == "1.0,1.1,1.2"
    assert outputs[-1] == Close(CloseCode.PROTOCOL_ERROR, "stream_version_unknown")
    assert is_over(session)


@pytest.mark.parametrize("command", ["SUBSCRIBE", "SEND", "DISCONNECT", "ACK", "CONNECTED", "MESSAGE"])
def test_first_frame_must_connect(command: str) -> None:
    session = session_of()
    said = failed(session.receive(frame(command, receipt="r"), 0.0), "stream_malformed", None)
    assert said.headers["receipt-id"] == "r"
    assert is_over(session)


@pytest.mark.parametrize("version", Version)
def test_second_connect_ends_the_connection(version: Version) -> None:
    session = opened(version)
    failed(session.receive(encode(Frame("CONNECT", HEADERS[version]), None), 0.0), "stream_malformed")
    assert is_over(session)


def test_frames_that_follow_connect_at_once_wait_for_the_answer() -> None:
    session = session_of()
    subscribe = frame("SUBSCRIBE", id="0", destination=TASK.destination)
    assert session.receive(encode(Frame("CONNECT", HEADERS[V1_2]), None) + subscribe, 0.0) == [Authenticate(KEY)]
    assert session.receive(frame("DISCONNECT", receipt="bye"), 0.0) == []
    connected, question = told(session.accept(0.0))
    assert (connected.command, question) == ("CONNECTED", Subscribe("0", TASK))
    receipt, close = told(session.accept(0.0))
    assert (receipt, close) == (Frame("RECEIPT", {"receipt-id": "bye"}), Close())


def test_who_does_not_connect_in_time_is_let_go() -> None:
    session = session_of(connect_s=10.0)
    assert session.wakes_at() == 10.0
    session.receive(b"\n", 9.0)
    assert session.tick(9.9) == []
    failed(session.tick(10.0), "stream_malformed", None)
    assert is_over(session)


def test_who_waits_for_our_answer_is_not() -> None:
    session = session_of(connect_s=10.0)
    session.receive(encode(Frame("CONNECT", HEADERS[V1_2]), None), 9.0)
    assert (session.wakes_at(), session.tick(60.0)) == (None, [])


# ---- following


def test_client_follows_a_task_and_gets_its_receipt_when_it_does() -> None:
    session = opened()
    outputs = session.receive(frame("SUBSCRIBE", id="0", destination=TASK.destination, receipt="r"), 0.0)
    assert outputs == [Subscribe("0", TASK, None)]
    assert session.event("0", 1, b"{}", 0.0) == []  # not yet
    assert told(session.accept(0.0)) == [Frame("RECEIPT", {"receipt-id": "r"})]
    (message,) = told(session.event("0", 1, b"{}", 0.0))
    assert (message.command, message.headers["subscription"], message.headers["seq"]) == ("MESSAGE", "0", "1")


@pytest.mark.parametrize("version", Version)
def test_no_two_messages_of_a_connection_share_an_id(version: Version) -> None:
    session = opened(version)
    for name in "ab":
        following(session, name, ack="client")
    outputs = [session.event(name, 2, b"{}", 0.0, is_numbered=is_numbered)
               for name in "abba" for is_numbered in (True, False, False)]  # fmt: skip
    messages = [each for (each,) in (told(output, version) for output in outputs) if isinstance(each, Frame)]
    for header in ("message-id", "ack"):
        assert len({message.headers[header] for message in messages}) == len(messages) == 12
    assert [message.headers.get("seq") for message in messages] == ["2", None, None] * 4


def test_client_goes_on_after_what_it_has_seen() -> None:
    outputs = opened().receive(
        frame("SUBSCRIBE", id="a", destination="/topic/tenant", from_seq="41", ack="client"), 0.0
    )
    assert outputs == [Subscribe("a", TENANT, 41)]


def test_several_frames_of_one_message_are_answered_one_question_at_a_time() -> None:
    session = opened()
    both = [frame("SUBSCRIBE", id=name, destination=TASK.destination, receipt=name) for name in "ab"]
    assert session.receive(b"".join(both) + frame("UNSUBSCRIBE", id="a"), 0.0) == [Subscribe("a", TASK)]
    assert told(session.accept(0.0)) == [Frame("RECEIPT", {"receipt-id": "a"}), Subscribe("b", TASK)]
    assert told(session.accept(0.0)) == [Frame("RECEIPT", {"receipt-id": "b"}), Unsubscribe("a")]


def test_subscription_that_is_refused_ends_the_connection_as_stomp_has_it() -> None:
    session = following(opened(), "0")
    session.receive(frame("SUBSCRIBE", id="1", destination=TASK.destination, receipt="r"), 0.0)
    said = failed(session.refuse(TaskNotFound("t1"), 0.0), "task_not_found")
    assert (said.headers["receipt-id"], said.headers["message"]) == ("r", "no task t1")
    assert is_over(session)


def test_id_of_a_subscription_is_free_again_when_that_has_ended() -> None:
    session = following(opened())
    again = frame("SUBSCRIBE", id="0", destination="/topic/tenant")
    assert session.receive(frame("UNSUBSCRIBE", id="0"), 0.0) == [Unsubscribe("0")]
    assert session.event("0", 1, b"{}", 0.0) == []
    assert session.receive(again, 0.0) == [Subscribe("0", TENANT)]
    session.accept(0.0)
    failed(session.receive(again, 0.0), "invalid_request")
    assert is_over(session)


def test_ending_a_subscription_that_is_not_there_is_no_error() -> None:
    assert told(opened().receive(frame("UNSUBSCRIBE", id="9", receipt="r"), 0.0)) == [
        Frame("RECEIPT", {"receipt-id": "r"})
    ]


def test_client_of_1_0_follows_by_destination_and_gets_no_subscription_header() -> None:
    session = opened(V1_0)
    name = TASK.destination
    assert session.receive(f"SUBSCRIBE\ndestination: {name}\n\nbody\x00".encode(), 0.0) == [Subscribe(name, TASK)]
    session.accept(0.0)
    (message,) = told(session.event(name, 5, b"{}", 0.0), V1_0)
    assert "subscription" not in message.headers
    assert session.receive(f"UNSUBSCRIBE\ndestination:{name}\n\n\x00".encode(), 0.0) == [Unsubscribe(name)]


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        (V1_0, {"message-id": "0-1"}),
        (V1_1, {"message-id": "0-1", "subscription": "0"}),
        (V1_2, {"id": "0-1"}),
        (V1_2, {"id": "never seen"}),
    ],
)
def test_acknowledgement_is_taken_note_of(version: Version, headers: dict[str, str]) -> None:
    session = opened(version)
    sent = encode(Frame("ACK", headers | {"receipt": "r"}), version)
    assert told(session.receive(sent, 0.0)) == [Frame("RECEIPT", {"receipt-id": "r"})]
    if version is not V1_0:
        assert session.receive(encode(Frame("NACK", headers), version), 0.0) == []


def test_1_0_knows_no_nack() -> None:
    failed(opened(V1_0).receive(b"NACK\nmessage-id:1\n\n\x00", 0.0), "stream_malformed", V1_0)


@pytest.mark.parametrize("command", ["SEND", "BEGIN", "COMMIT", "ABORT"])
def test_what_is_not_offered_says_so(command: str) -> None:
    session = opened()
    said = failed(
        session.receive(frame(command, transaction="t", destination="/q", receipt="r"), 0.0), "not_implemented"
    )
    assert said.headers["receipt-id"] == "r"
    assert said.headers["message"].startswith("this version does not offer ")
    assert is_over(session)


@pytest.mark.parametrize("command", ["MESSAGE", "CONNECTED", "RECEIPT", "ERROR"])
def test_frames_of_a_server_are_not_a_clients(command: str) -> None:
    failed(opened().receive(frame(command), 0.0), "stream_malformed")


@pytest.mark.parametrize("command", ["SUBSCRIBE", "UNSUBSCRIBE", "ACK", "DISCONNECT"])
def test_only_send_has_a_body_from_1_1_on(command: str) -> None:
    headers = {"id": "0", "destination": TASK.destination, "message-id": "1", "subscription": "0"}
    sent = encode(Frame(command, headers, b"x"), V1_1)
    failed(opened(V1_1).receive(sent, 0.0), "stream_malformed")
    assert not any(
        isinstance(part, Frame) and part.command == "ERROR" for part in told(opened(V1_0).receive(sent, 0.0))
    )


def test_frame_that_connects_has_no_body_either_from_1_1_on() -> None:
    failed(session_of().receive(b"CONNECT\naccept-version:1.1\n\nx\x00", 0.0), "stream_malformed", None)
    assert session_of().receive(b"CONNECT\n\nx\x00", 0.0) == [Authenticate(None)]


def test_subscriptions_are_bounded() -> None:
    session = opened(max_subscriptions=2)
    following(following(session, "0"), "1")
    said = session.receive(frame("SUBSCRIBE", id="2", destination=TASK.destination), 0.0)
    failed(said, "too_many_subscriptions")
    assert is_over(session)


@pytest.mark.parametrize("version", Version)
def test_client_says_good_bye_and_gets_its_receipt(version: Version) -> None:
    session = opened(version)
    outputs = session.receive(frame("DISCONNECT", receipt="77") + frame("SUBSCRIBE"), 0.0)
    assert told(outputs) == [Frame("RECEIPT", {"receipt-id": "77"}), Close(CloseCode.NORMAL)]
    assert is_over(session)


def test_good_bye_without_receipt_is_a_close() -> None:
    assert opened().receive(frame("DISCONNECT"), 0.0) == [Close(CloseCode.NORMAL)]


# ---- ending


def test_server_that_stops_says_nothing_but_why() -> None:
    session = opened()
    assert session.end(None, 0.0) == [Close(CloseCode.GOING_AWAY)]
    assert is_over(session)


def test_error_that_has_to_do_with_no_frame_names_none() -> None:
    session = opened()
    session.receive(frame("UNSUBSCRIBE", id="1", receipt="earlier"), 0.0)
    outputs = session.end(Unavailable("postgresql"), 0.0)
    assert "receipt-id" not in failed(outputs, "unavailable").headers
    assert outputs[-1] == Close(CloseCode.TRY_AGAIN_LATER, "unavailable")


def test_violation_after_a_frame_with_receipt_does_not_name_that() -> None:
    _, said, _ = told(opened().receive(frame("UNSUBSCRIBE", id="1", receipt="earlier") + b"no frame\n", 0.0))
    assert isinstance(said, Frame)
    assert (said.command, "receipt-id" in said.headers) == ("ERROR", False)


def test_answer_that_comes_after_the_end_is_of_no_effect() -> None:
    session = opened()
    session.receive(frame("SUBSCRIBE", id="0", destination=TASK.destination), 0.0)
    session.end(None, 0.0)
    assert is_over(session)


def test_end_while_a_question_is_open_tells_which_frame_is_left_undone() -> None:
    session = opened()
    session.receive(frame("SUBSCRIBE", id="0", destination=TASK.destination, receipt="r"), 0.0)
    assert failed(session.end(Unavailable("redis"), 0.0), "unavailable").headers["receipt-id"] == "r"


def test_answer_without_a_question_is_of_no_effect() -> None:
    session = opened()
    assert session.accept(0.0) == []
    assert told(session.receive(frame("DISCONNECT"), 0.0)) == [Close()]


# ---- heart-beats


def beating(client: str) -> StompSession:
    session = session_of(offer=Beats(10_000, 10_000))
    session.receive(b"CONNECT\naccept-version:1.2\npasscode:k\nheart-beat:%b\n\n\x00" % client.encode(), 0.0)
    session.accept(0.0)
    return session


def test_heart_beats_are_sent_when_nothing_else_was() -> None:
    session = following(beating("0,10000"))
    assert session.wakes_at() == 8.0
    session.event("0", 1, b"{}", 5.0)
    assert (session.tick(8.0), session.wakes_at()) == ([], 13.0)
    assert session.tick(13.0) == [Send(b"\n")]
    assert (session.tick(13.0), session.wakes_at()) == ([], 21.0)


def test_client_that_is_silent_for_twice_the_time_is_let_go() -> None:
    session = beating("10000,0")
    assert session.wakes_at() == 20.0
    assert session.receive(b"\n", 15.0) == []
    assert (session.tick(34.9), session.wakes_at()) == ([], 35.0)
    assert session.tick(35.0) == [Close(CloseCode.PROTOCOL_ERROR, "no_heart_beat")]
    assert is_over(session)


def test_part_of_a_frame_is_a_sign_of_life() -> None:
    session = beating("10000,0")
    session.receive(b"SUBSC", 19.0)
    assert session.tick(25.0) == []


def test_client_that_waits_for_our_answer_is_not_taken_for_dead() -> None:
    session = beating("10000,0")
    session.receive(frame("SUBSCRIBE", id="0", destination=TASK.destination), 1.0)
    assert (session.tick(60.0), session.wakes_at()) == ([], None)
    session.accept(60.0)
    assert session.wakes_at() == 80.0


@pytest.mark.parametrize("client", ["0,0", "10000,0"])
def test_none_are_sent_to_who_wants_none(client: str) -> None:
    session = following(beating(client))
    session.receive(b"\n", 1e6)
    assert session.tick(1e6) == []


def test_1_0_knows_no_heart_beats() -> None:
    session = session_of()
    session.receive(b"CONNECT\npasscode:k\nheart-beat:1,1\n\n\x00", 0.0)
    session.accept(0.0)
    following(session)
    assert (session.wakes_at(), session.tick(1e6)) == (None, [])


def test_heart_beat_that_is_none_is_told() -> None:
    outputs = session_of().receive(b"CONNECT\naccept-version:1.2\nheart-beat:often\n\n\x00", 0.0)
    failed(outputs, "stream_malformed", None)


def test_bounds_are_those_it_is_given() -> None:
    session = opened(bounds=Bounds(headers=3))
    outputs = session.receive(frame("ACK", id="1", a="b", c="d", e="f"), 0.0)
    failed(outputs, "stream_too_large")
    assert outputs[-1] == Close(CloseCode.TOO_BIG, "stream_too_large")
