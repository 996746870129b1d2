"""HAProxy's own error pages, as problems.

Apart from `haproxy`: what makes problems costs `flik up` 10 MB that it would keep; it ends with `deploy` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flik.gateway import problems
from flik.gateway.headers import standard_headers

PAGES: Mapping[int, problems.Named] = {
    400: problems.BAD_REQUEST,
    408: problems.REQUEST_TIMEOUT,
    500: problems.INTERNAL,
    502: problems.GATEWAY_LOST,
    503: problems.NO_GATEWAY,
    504: problems.GATEWAY_TIMEOUT,
}


def write(folder: Path) -> None:
    """Write the pages into a folder, where `haproxy.prepare` has HAProxy look for them."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for status, named in PAGES.items():
        (folder / f"{status}.http").write_bytes(page(named))


def page(named: problems.Named) -> bytes:
    """Return an answer as HAProxy sends it. It belongs to no request that Flik knows, so it has no request id."""
    answer = problems.respond(problems.document(named, {"path": ""}))
    headers = [*answer.raw_headers, *standard_headers(None), (b"connection", b"close")]
    lines = [f"HTTP/1.1 {answer.status_code} {named.row.title}".encode(), *(b": ".join(pair) for pair in headers)]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])
