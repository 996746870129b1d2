"""The Idempotency-Key header, what a request stands for, and what the second one is answered."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flik.domain.idempotency import Answer, Kept, KeyedRequest, Verdict, decide, fingerprint, read_key
from flik.errors import IdempotencyKeyInvalid
from flik.gateway.idempotency import PARAMETER

BODY = {"tenantId": "acme", "payload": {"prompt": "rain", "seed": 1}, "list": [1, 2]}
PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ('"8e03978e-40d5"', "8e03978e-40d5"),
        ("8e03978e-40d5", "8e03978e-40d5"),
        ('"a b, c; d"', "a b, c; d"),
        (r'"a\"b\\c"', r'a"b\c'),
        ("'single'", "'single'"),
        ("abc=/+:*~", "abc=/+:*~"),
        (' \t"x" ', "x"),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        ('"' + r"\"" * 255 + '"', '"' * 255),
    ],
)
def test_key_is_read_quoted_or_bare(sent: str, key: str) -> None:
    assert read_key([sent]) == key


def test_request_without_the_header_has_no_key() -> None:
    assert read_key([]) is None


@pytest.mark.parametrize(
    "fields",
    [
        [""], ["   "], ['""'], ['"'], ['"a'], ['a"'], ['a"b'], ['"a"b"'], [r'"a\b"'], [r'"a\"'], ["a\\b"],
        ["a b"], ["a,b"], ['"a", "b"'], ["a;q=1"], ['"a";q=1'], ["x" * 256], [f'"{"x" * 256}"'],
        ["a\x7f"], ['"a\x1fb"'], ["é"], ['"é"'], ["a\n"], ["a", "a"], ['"a"', "b"],
    ],
)  # fmt: skip
def test_key_that_cannot_be_read_is_refused(fields: list[str]) -> None:
    with pytest.raises(IdempotencyKeyInvalid, match="Idempotency-Key: "):
        read_key(fields)


@given(st.text(PRINTABLE, min_size=1, max_size=255))
def test_every_printable_key_can_be_sent_in_quotation_marks(key: str) -> None:
    sent = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert read_key([sent]) == key
    assert re.search(PARAMETER["schema"]["pattern"], sent)


@given(st.text(st.characters(max_codepoint=0x17F), max_size=300) | st.text('"\\a ;,', max_size=12))
def test_the_described_pattern_takes_what_is_taken(sent: str) -> None:
    described = re.fullmatch(PARAMETER["schema"]["pattern"].strip("^$"), sent) is not None
    try:
        taken = read_key([sent]) is not None and sent == sent.strip(" \t")
    except IdempotencyKeyInvalid:
        taken = False
    assert taken == described


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same document with its names in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(item, chance)) for name, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text("aé🐈"),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=4),
        max_leaves=12,
    ),
    st.randoms(),
)
def test_order_of_names_does_not_count(document: Any, chance: random.Random) -> None:
    assert fingerprint("POST /a", shuffled(document, chance)) == fingerprint("POST /a", document)


@pytest.mark.parametrize(
    "other",
    [
        {**BODY, "extra": None},
        {**BODY, "payload": {"prompt": "Rain", "seed": 1}},
        {**BODY, "payload": {"prompt": "rain", "seed": "1"}},
        {**BODY, "list": [2, 1]},
        {name: value for name, value in BODY.items() if name != "list"},
        [BODY],
    ],
)
def test_every_other_body_has_another_fingerprint(other: Any) -> None:
    assert fingerprint("POST /a", other) != fingerprint("POST /a", BODY)


def test_the_same_body_on_another_route_is_another_request() -> None:
    assert fingerprint("POST /a", BODY) != fingerprint("POST /b", BODY)


def test_fingerprints_stay_what_they_are_between_versions() -> None:
    """Kept answers outlive an upgrade, so this must not change."""
    document = {"b": [1, 2.5, None, True], "a": {"é": "x"}}
    canonical = 'POST /api/v1/tasks\n{"a":{"é":"x"},"b":[1,2.5,null,true]}'
    assert fingerprint("POST /api/v1/tasks", document) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("kept", "verdict"),
    [
        (None, Verdict.RUN),
        (("same", 100.1), Verdict.REPLAY),
        (("same", 100.0), Verdict.RUN),
        (("same", 99.0), Verdict.RUN),
        (("other", 100.1), Verdict.REUSED),
        (("other", 100.0), Verdict.RUN),
    ],
)
def test_verdict(kept: tuple[str, float] | None, verdict: Verdict) -> None:
    found = Kept(*kept, Answer(202, {}, "{}")) if kept else None
    assert decide(KeyedRequest("acme", "k", "same", 100.0), found) is verdict
