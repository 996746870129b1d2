"""Distributed traces: which trace a request belongs to, and how a provider's calls go on with it.

The header is `traceparent` of W3C Trace Context (Recommendation of 2021-11-23): version, trace
id, id of the span that made the call, flags. A task keeps the trace id. Whatever breaks a rule
counts as not sent, as section 3.2.2.3 asks: a trace is never a reason to refuse work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_FORBIDDEN_VERSION = "ff"
_SAMPLED = "01"


def read(sent: Sequence[str]) -> str | None:
    """Return the trace id of the `traceparent` headers of a request; None without exactly one that is valid.

    A version above 00 may carry more behind the flags; its first four fields are read as those of 00.
    """
    found = _TRACEPARENT.fullmatch(sent[0]) if len(sent) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, more = found.groups()
    if version == _FORBIDDEN_VERSION or (version == "00" and more is not None):
        return None
    return None if trace_id == _NO_TRACE or span_id == _NO_SPAN else trace_id


def continued(trace_id: str | None, span_id: str) -> str | None:
    """Return the `traceparent` of a call made for a task; None when the task belongs to no trace.

    `span_id` is 16 random hexadecimal digits that stand for the call. The caller's own flags
    are not kept; who sends a trace wants to see it, so the call is marked as sampled.
    """
    return None if trace_id is None else f"00-{trace_id}-{span_id}-{_SAMPLED}"
