"""`flik watch --text`: the text as it comes, and nothing else on stdout."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fakes_gateway import FakeGateway, task_id
from invoking import Run
from starlette.responses import Response

ONE = task_id(1)
RESTART = {"event": "restart", "status": "PROCESSING", "reason": "chunks_lost"}
DONE = {"seq": 3, "event": "completed", "status": "COMPLETED", "result": {"text": "rain"}}
LOST = {"seq": 3, "event": "failed", "status": "FAILED", "error": {"code": "boom", "message": "it broke"}}


def tell(gateway: FakeGateway, *events: dict[str, Any]) -> None:
    frames = [f"event: {each['event']}\ndata: {json.dumps({'taskId': ONE, **each})}\n\n" for each in events]
    gateway.answer_next(Response("".join(frames), media_type="text/event-stream"))


def piece(text: str, index: int) -> dict[str, Any]:
    return {"event": "chunk", "status": "PROCESSING", "text": text, "index": index}


@pytest.mark.parametrize(
    ("events", "printed", "said"),
    [
        ([piece("ra", 0), piece("in", 1), DONE], "rain\n", ""),
        ([DONE], "rain\n", ""),
        ([piece("sn", 0), RESTART, DONE], "sn\nrain\n", "does not hold"),
        ([RESTART, DONE], "rain\n", ""),
    ],
)
def test_a_text_is_printed_as_it_comes(
    gateway: FakeGateway, run: Run, events: list[dict[str, Any]], printed: str, said: str
) -> None:
    tell(gateway, *events)
    result = run("watch", ONE, "--text")
    assert (result.exit_code, result.stdout) == (0, printed)
    assert said in result.stderr
    assert bool(said) == bool(result.stderr)
    assert gateway.requests[0].query == {"chunks": "true"}


def test_a_task_that_fails_says_why_on_stderr(gateway: FakeGateway, run: Run) -> None:
    tell(gateway, piece("ra", 0), LOST)
    result = run("watch", ONE, "--text")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "ra\n", "flik: failed: boom: it broke\n")


@pytest.mark.parametrize("more", [[task_id(2)], ["--json"], ["--timeout", "3"], ["--out", "x"]])
def test_the_text_goes_alone(run: Run, more: list[str]) -> None:
    assert run("watch", ONE, "--text", *more).exit_code == 2
