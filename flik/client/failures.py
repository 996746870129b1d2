"""What can go wrong between a caller and Flik.

ClientError
├── FlikApiError       the server answered with a problem (RFC 9457)
├── FlikUnreachable    no answer, or none that was complete
├── UnreadableAnswer   an answer that is not Flik's
├── DownloadRefused    an artifact did not arrive as promised; nothing was left on disk
└── WaitTimedOut       the task, or the dag, had not finished in time; it goes on
"""

from __future__ import annotations

from flik.errors import FieldError, FlikError


class ClientError(FlikError):
    """The root of what the client raises, besides `ValueError` for arguments it cannot send."""

    code = "client_error"


class FlikApiError(ClientError):
    """The server refused or failed. `code` is its stable word; `errors` name the fields, if any."""

    def __init__(  # noqa: PLR0917  # by position, so that it survives pickling
        self,
        status: int,
        code: str,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, code, detail, errors, request_id, retry_after_s)
        self.status = status
        self.code = code  # type: ignore[misc]  # of the tree a constant, here the server's word
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.detail


class FlikUnreachable(ClientError):
    """No complete answer came. `maybe_done` says that the request may have taken effect."""

    code = "unreachable"

    def __init__(self, base_url: str, reason: str, maybe_done: bool = False) -> None:
        super().__init__(base_url, reason, maybe_done)
        self.base_url = base_url
        self.reason = reason
        self.maybe_done = maybe_done

    def __str__(self) -> str:
        doubt = "; the request may have taken effect" if self.maybe_done else ""
        return f"no answer from {self.base_url} ({self.reason}){doubt}"


class UnreadableAnswer(ClientError):
    """The server's answer is not one of Flik's."""

    code = "unreadable_answer"

    def __init__(self, base_url: str, reason: str) -> None:
        super().__init__(base_url, reason)
        self.base_url = base_url
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read the answer of {self.base_url}: {self.reason}; is it a Flik gateway?"


class DownloadRefused(ClientError):
    """An artifact was not what the task said, or could not be fetched or stored."""

    code = "download_refused"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} was not written: {self.reason}"


class WaitTimedOut(ClientError):
    """It had not finished after `timeout_s`. It goes on; `status` is what was seen last. `what`: task or dag."""

    code = "wait_timed_out"

    def __init__(self, task_id: str, timeout_s: float, status: str | None = None, what: str = "task") -> None:
        super().__init__(task_id, timeout_s, status, what)
        self.task_id = task_id
        self.timeout_s = timeout_s
        self.status = status
        self.what = what

    def __str__(self) -> str:
        seen = f" (it is {self.status})" if self.status else ""
        return f"{self.what} {self.task_id} did not finish within {self.timeout_s:g} s{seen}; it goes on"
