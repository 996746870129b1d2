"""W3C traceparent: what is a trace id, what counts as none, and how a call goes on with it."""

from __future__ import annotations

import pytest

from flik.domain import trace

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    "sent",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-ff",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"fe-{TRACE}-{SPAN}-01-",
    ],
)
def test_trace_id_of_a_valid_header_is_read(sent: str) -> None:
    assert trace.read([sent]) == TRACE


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-011",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-011",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0663-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00_{TRACE}_{SPAN}_01",
    ],
)
def test_header_that_breaks_a_rule_counts_as_not_sent(sent: str) -> None:
    assert trace.read([sent]) is None


def test_header_must_be_there_exactly_once() -> None:
    valid = f"00-{TRACE}-{SPAN}-01"
    assert trace.read([]) is None
    assert trace.read([valid, valid]) is None


def test_call_for_a_task_goes_on_with_its_trace_under_a_span_of_its_own() -> None:
    sent = trace.continued(TRACE, "00f067aa0ba902b7")
    assert sent == f"00-{TRACE}-00f067aa0ba902b7-01"
    assert trace.read([sent]) == TRACE


def test_task_without_a_trace_starts_none() -> None:
    assert trace.continued(None, SPAN) is None
