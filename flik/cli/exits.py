"""How failures end: one sentence on stderr, and an exit code that a script can branch on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flik.cli.invocation import Invocation
from flik.cli.output import complain, write_json
from flik.errors import FieldError, FlikError, RequestError, SettingInvalid, Unavailable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_REFUSED = 4
EXIT_UNAVAILABLE = 5
EXIT_FAULT = 70
EXIT_INTERRUPTED = 130


def report(error: FlikError, invocation: Invocation | None) -> int:
    """Tell the user what went wrong (with `--json` on stdout as well) and return the exit code."""
    complain(explain(error))
    if invocation is not None and invocation.as_json:
        write_json({"error": error_document(error)})
    return exit_code(error)


def exit_code(error: FlikError) -> int:
    """Return the exit code for a failure."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return _status_code(status)
    if isinstance(error, SettingInvalid):
        return EXIT_USAGE
    if isinstance(error, Unavailable) or error.code in ("unreachable", "unreadable_answer"):
        return EXIT_UNAVAILABLE
    return EXIT_REFUSED if isinstance(error, RequestError) else EXIT_FAILED


def worst(codes: Iterable[int]) -> int:
    """Return the exit code for several outcomes: the largest, which is the one furthest from the user's reach."""
    return max(codes, default=EXIT_OK)


def explain(error: FlikError) -> str:
    """Return the sentence, then one line for each field that a problem names."""
    request_id = getattr(error, "request_id", None)
    sentence = f"flik: {error}" + (f" (request {request_id})" if request_id else "")
    advice = _advice(error)
    lines = [sentence + (f"; {advice}" if advice else "")]
    return "\n".join(lines + [f"  {field.pointer or '/'}: {field.detail}" for field in _fields(error)])


def error_document(error: FlikError) -> dict[str, Any]:
    """Return the failure as JSON, in the words of the gateway's problems."""
    document = {
        "code": error.code,
        "detail": str(error),
        "status": getattr(error, "status", None),
        "errors": [{"pointer": field.pointer, "detail": field.detail} for field in _fields(error)] or None,
        "requestId": getattr(error, "request_id", None),
        "retryAfterS": getattr(error, "retry_after_s", None),
    }
    return {name: value for name, value in document.items() if value is not None}


def _status_code(status: int) -> int:
    if status == 404:
        return EXIT_NOT_FOUND
    return EXIT_REFUSED if 400 <= status < 500 else EXIT_UNAVAILABLE


def _fields(error: FlikError) -> tuple[FieldError, ...]:
    errors = getattr(error, "errors", ())
    return errors if isinstance(errors, tuple) else ()


def _advice(error: FlikError) -> str:
    status = getattr(error, "status", None)
    if status == 401:
        return "set FLIK_API_KEY to a key of this gateway"
    if error.code == "unreachable" and not getattr(error, "maybe_done", False):
        return "`flik up` starts a gateway, --url names another"
    retry_after_s = getattr(error, "retry_after_s", None)
    if status in (429, 503) and retry_after_s:
        return f"try again in {retry_after_s:g} s"
    return ""
