"""What the headers of a client's frames mean, version by version."""

from __future__ import annotations

import pytest

from flik.domain.follow import MAX_SEQ, TENANT, Kind, Topic
from flik.domain.stomp import requests
from flik.domain.stomp.frames import Frame, Version
from flik.domain.stomp.requests import Subscription
from flik.errors import InvalidRequest, NotBuilt

V1_0, V1_1, V1_2 = Version
TASK = "/topic/tasks/01998b6f-3c1e-7cc0-9d21-6c1f0b3a5e77"
TOPIC = Topic(Kind.TASK, "01998b6f-3c1e-7cc0-9d21-6c1f0b3a5e77")


@pytest.mark.parametrize(
    ("accepted", "version"),
    [
        (None, V1_0),
        ("1.0", V1_0),
        ("1.1", V1_1),
        ("1.2", V1_2),
        ("1.0,1.1,2.0", V1_1),
        ("1.2,1.1,1.0", V1_2),
        ("1.0, 1.2", V1_2),
        ("2.0,1.3", None),
        ("", None),
        ("1.10", None),
    ],
)
def test_highest_version_in_common_is_spoken(accepted: str | None, version: Version | None) -> None:
    assert requests.version_of(accepted) == version


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        (["v12.stomp", "v11.stomp", "v10.stomp"], "v12.stomp"),
        (["chat", "v10.stomp"], "v10.stomp"),
        (["v13.stomp", "chat"], None),
        ([], None),
    ],
)
def test_first_subprotocol_that_is_stomp_is_taken(offered: list[str], taken: str | None) -> None:
    assert requests.subprotocol(offered) == taken


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"Authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"login": "me", "passcode": "abc"}, "abc"),
        ({"passcode": "guest", "Authorization": "Bearer abc"}, "abc"),
        ({"Authorization": "Basic abc", "passcode": "xyz"}, "xyz"),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": "Bearer "}, None),
        ({"login": "me", "passcode": " "}, None),
        ({"login": "me"}, None),
        ({}, None),
    ],
)
def test_key_is_a_bearer_token_or_the_passcode(headers: dict[str, str], token: str | None) -> None:
    assert requests.token_of(headers) == token


@pytest.mark.parametrize(
    ("version", "headers", "meant"),
    [
        (V1_2, {"id": "0", "destination": TASK}, Subscription("0", TOPIC, None, False)),
        (V1_1, {"id": "0", "destination": TASK, "ack": "auto"}, Subscription("0", TOPIC, None, False)),
        (V1_2, {"id": "0", "destination": TASK, "ack": "client"}, Subscription("0", TOPIC, None, True)),
        (V1_2, {"id": "0", "destination": TASK, "ack": "client-individual"}, Subscription("0", TOPIC, None, True)),
        (V1_2, {"id": "a", "destination": "/topic/tenant", "from-seq": "0"}, Subscription("a", TENANT, 0, False)),
        (V1_2, {"id": "a", "destination": TASK, "from-seq": str(MAX_SEQ)}, Subscription("a", TOPIC, MAX_SEQ, False)),
        (V1_2, {"id": "0", "destination": TASK, "chunks": "false"}, Subscription("0", TOPIC, None, False)),
        (V1_2, {"id": "0", "destination": TASK, "from-chunk": "7"}, Subscription("0", TOPIC, None, False)),
        (
            V1_2,
            {"id": "0", "destination": TASK, "chunks": "true"},
            Subscription("0", TOPIC, None, False, first_chunk=0),
        ),
        (
            V1_2,
            {"id": "0", "destination": TASK, "chunks": "true", "from-chunk": "7"},
            Subscription("0", TOPIC, None, False, first_chunk=8),
        ),
        (V1_0, {"destination": TASK}, Subscription(TASK, TOPIC, None, False, is_named=False)),
        (V1_0, {"destination": TASK, "id": "7"}, Subscription("7", TOPIC, None, False)),
    ],
)
def test_subscription_that_is_asked_for(version: Version, headers: dict[str, str], meant: Subscription) -> None:
    assert requests.read_subscribe(Frame("SUBSCRIBE", headers), version) == meant


@pytest.mark.parametrize(
    ("version", "headers", "pointers"),
    [
        (V1_2, {}, ["/destination", "/id"]),
        (V1_1, {"destination": TASK}, ["/id"]),
        (V1_0, {"id": "0"}, ["/destination"]),
        (V1_2, {"id": "", "destination": TASK}, ["/id"]),
        (V1_2, {"id": "x" * 256, "destination": TASK}, ["/id"]),
        (V1_2, {"id": "0", "destination": "/queue/a"}, ["/destination"]),
        (V1_2, {"id": "0", "destination": TASK, "ack": "none"}, ["/ack"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": ""}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": "-1"}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": "1.0"}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": "\u0661"}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": str(MAX_SEQ + 1)}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "from-seq": "9" * 5_000}, ["/from-seq"]),
        (V1_2, {"id": "0", "destination": TASK, "chunks": "yes"}, ["/chunks"]),
        (V1_2, {"id": "0", "destination": "/topic/tenant", "chunks": "true"}, ["/chunks"]),
        (V1_2, {"id": "0", "destination": TASK, "chunks": "true", "from-chunk": str(2**31)}, ["/from-chunk"]),
    ],
)
def test_header_of_a_subscription_that_breaks_a_rule_is_named(
    version: Version, headers: dict[str, str], pointers: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.read_subscribe(Frame("SUBSCRIBE", headers), version)
    assert [error.pointer for error in caught.value.errors] == pointers


@pytest.mark.parametrize(
    ("version", "headers", "subscription_id"),
    [
        (V1_2, {"id": "0"}, "0"),
        (V1_0, {"id": "0"}, "0"),
        (V1_0, {"destination": TASK}, TASK),
        (V1_0, {"destination": TASK, "id": "0"}, "0"),
        (V1_1, {"destination": TASK}, None),
        (V1_0, {}, None),
    ],
)
def test_subscription_is_ended_by_its_id_and_in_1_0_by_destination(
    version: Version, headers: dict[str, str], subscription_id: str | None
) -> None:
    frame = Frame("UNSUBSCRIBE", headers)
    if subscription_id is None:
        with pytest.raises(InvalidRequest):
            requests.read_unsubscribe(frame, version)
    else:
        assert requests.read_unsubscribe(frame, version) == subscription_id


@pytest.mark.parametrize(
    ("version", "required"), [(V1_0, {"message-id"}), (V1_1, {"message-id", "subscription"}), (V1_2, {"id"})]
)
def test_ack_must_have_what_its_version_requires(version: Version, required: set[str]) -> None:
    whole = Frame("ACK", dict.fromkeys(required, "1"))
    assert requests.check_ack(whole, version) is None
    for name in required:
        with pytest.raises(InvalidRequest) as caught:
            requests.check_ack(Frame("ACK", dict.fromkeys(required - {name}, "1")), version)
        assert [error.pointer for error in caught.value.errors] == [f"/{name}"]
    with pytest.raises(NotBuilt):
        requests.check_ack(Frame("ACK", {**whole.headers, "transaction": "tx1"}), version)
