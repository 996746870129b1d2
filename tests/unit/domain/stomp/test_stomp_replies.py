"""The frames that the server sends, byte for byte."""

from __future__ import annotations

import pytest

from flik.domain.follow import TENANT, Kind, Topic
from flik.domain.stomp import replies
from flik.domain.stomp.beats import Beats
from flik.domain.stomp.frames import Version, encode
from flik.domain.stomp.requests import Subscription
from flik.errors import FlikError, StreamMalformed, StreamVersionUnknown, TaskNotFound

V1_0, V1_1, V1_2 = Version
TOPIC = Topic(Kind.DAG, "d1")


def test_connected_tells_the_version_and_the_heart_beats() -> None:
    assert encode(replies.connected(V1_2, "r-1", Beats(10_000, 5_000)), V1_2) == (
        b"CONNECTED\nversion:1.2\nsession:r-1\nserver:Flik\nheart-beat:10000,5000\n\n\x00"
    )
    assert "heart-beat" not in replies.connected(V1_0, "r-1", Beats(1, 1)).headers


def test_receipt_names_the_frame_that_it_is_for() -> None:
    assert encode(replies.receipt("a:b"), V1_2) == b"RECEIPT\nreceipt-id:a\\cb\n\n\x00"


@pytest.mark.parametrize("version", Version)
def test_event_without_acknowledgement(version: Version) -> None:
    subscription = Subscription("sub-0", TENANT, None, acks=False)
    assert encode(replies.message(subscription, "r-1-3", 42, b'{"a":1}'), version) == (
        b"MESSAGE\ndestination:/topic/tenant\nmessage-id:r-1-3\nsubscription:sub-0\n"
        b'content-type:application/json\nseq:42\ncontent-length:7\n\n{"a":1}\x00'
    )


def test_event_that_wants_to_be_acknowledged_says_how() -> None:
    headers = replies.message(Subscription("0", TOPIC, None, acks=True), "r-1-3", 7, b"{}").headers
    assert (headers["ack"], headers["message-id"], headers["destination"]) == ("r-1-3", "r-1-3", "/topic/dags/d1")


def test_event_without_a_number_shows_none() -> None:
    assert "seq" not in replies.message(Subscription("0", TOPIC, None, acks=False), "r-1-3", None, b"{}").headers


def test_event_of_a_subscription_without_id_names_none() -> None:
    subscription = Subscription("/topic/dags/d1", TOPIC, None, acks=False, is_named=False)
    assert "subscription" not in replies.message(subscription, "r-1-3", 7, b"{}").headers


def test_reset_says_so() -> None:
    subscription = Subscription("0", TOPIC, None, acks=False)
    assert replies.message(subscription, "r-1-3", 7, b"{}", is_reset=True).headers["reset"] == "true"
    assert "reset" not in replies.message(subscription, "r-1-3", 7, b"{}").headers


def test_error_says_what_is_wrong_in_a_line_and_in_full() -> None:
    assert encode(replies.error(TaskNotFound("17"), b'{"status":404}', "r:1"), V1_2) == (
        b"ERROR\nmessage:no task 17\ncontent-type:application/problem+json\nreceipt-id:r\\c1\ncontent-length:14\n\n"
        b'{"status":404}\x00'
    )


def test_error_of_no_common_version_lists_those_that_are_spoken() -> None:
    assert replies.error(StreamVersionUnknown(("1.1", "1.2")), b"{}", None).headers["version"] == "1.1,1.2"


@pytest.mark.parametrize(
    ("failure", "said"), [(StreamMalformed("a\n\x00b\r c\u2028"), "a b c"), (StreamMalformed("x" * 900), "x" * 200)]
)
def test_message_of_an_error_is_one_short_line_in_every_version(failure: FlikError, said: str) -> None:
    frame = replies.error(failure, b"{}", None)
    assert frame.headers["message"] == said
    for version in (None, *Version):
        assert encode(frame, version).startswith(b"ERROR\nmessage:")
