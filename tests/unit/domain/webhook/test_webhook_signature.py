"""Signatures of Standard Webhooks: what another implementation makes is taken, everything else is refused."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.webhook.signature import Fault, key_of, make_secret, sign, verify

# The example that the standard's own libraries test with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER = make_secret(bytes(range(32)))


def headers(**changes: str) -> dict[str, str]:
    named = {"id": MESSAGE_ID, "timestamp": str(AT), "signature": SIGNED, **changes}
    return {f"webhook-{name}": value for name, value in named.items()}


def test_signature_is_that_of_the_standard() -> None:
    assert sign(MESSAGE_ID, AT, BODY, [SECRET]) == SIGNED
    assert verify(headers(), BODY, [SECRET], AT) is None
    assert verify({name.title(): value for name, value in headers().items()}, BODY, [SECRET], AT) is None


def test_two_live_secrets_sign_and_each_of_them_is_enough() -> None:
    both = sign(MESSAGE_ID, AT, BODY, [OTHER, SECRET])
    assert both.split(" ")[1] == SIGNED
    for mine in ([SECRET], [OTHER], [OTHER, SECRET]):
        assert verify(headers(signature=both), BODY, mine, AT) is None
    assert verify(headers(signature=both), BODY, [make_secret(b"x" * 24)], AT) is Fault.WRONG


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"id": ""}, Fault.MISSING),
        ({"timestamp": ""}, Fault.MISSING),
        ({"signature": ""}, Fault.MISSING),
        ({"timestamp": "soon"}, Fault.MALFORMED),
        ({"timestamp": "-5"}, Fault.MALFORMED),
        ({"timestamp": "9" * 40}, Fault.MALFORMED),
        ({"timestamp": str(AT - 301)}, Fault.TOO_OLD),
        ({"timestamp": str(AT + 301)}, Fault.TOO_NEW),
        ({"id": "msg_other"}, Fault.WRONG),
        ({"timestamp": str(AT + 1)}, Fault.WRONG),
        ({"signature": "v1,AAAA"}, Fault.WRONG),
        ({"signature": SIGNED.replace("v1,", "v2,")}, Fault.WRONG),
        ({"signature": SIGNED.removeprefix("v1,")}, Fault.WRONG),
        ({"signature": "v1,é"}, Fault.WRONG),
    ],
)
def test_what_was_changed_is_refused(changes: dict[str, str], fault: Fault) -> None:
    assert verify(headers(**changes), BODY, [SECRET], AT) is fault


def test_another_body_is_refused() -> None:
    assert verify(headers(), BODY + b" ", [SECRET], AT) is Fault.WRONG


def test_signature_among_a_thousand_is_not_looked_for() -> None:
    assert verify(headers(signature=f"{'v1,AAAA ' * 1_000}{SIGNED}"), BODY, [SECRET], AT) is Fault.WRONG


@given(
    st.binary(min_size=24, max_size=64), st.binary(max_size=300), st.integers(0, 4_000_000_000),
    st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII), fullmatch=True),
)  # fmt: skip
def test_what_is_signed_is_verified(randomness: bytes, body: bytes, at: int, message_id: str) -> None:
    secret = make_secret(randomness)
    assert key_of(secret) == randomness
    sent = {"webhook-id": message_id, "webhook-timestamp": str(at)}
    signed = {**sent, "webhook-signature": sign(message_id, at, body, [secret])}
    assert verify(signed, body, [secret], at) is None
    assert verify(signed, body + b"x", [secret], at) is Fault.WRONG


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "whsec_AAAA", "whsec_" + base64.b64encode(b"x" * 23).decode(),
     "whsec_" + base64.b64encode(b"x" * 65).decode(), "whsec_" + "!" * 40, "whsec_" + "é" * 40],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="a secret") as raised:
        key_of(text)
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in str(raised.value)


@pytest.mark.parametrize("size", [23, 65])
def test_secret_has_24_to_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        make_secret(b"x" * size)


@pytest.mark.parametrize(("message_id", "secrets"), [("a.b", [SECRET]), ("", [SECRET]), ("a", [])])
def test_what_cannot_be_signed_unambiguously_is_not(message_id: str, secrets: list[str]) -> None:
    with pytest.raises(ValueError, match="no"):
        sign(message_id, AT, BODY, secrets)
