"""The command line against a real Flik, each command as a person types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from flik.cli.exits import EXIT_NOT_FOUND, EXIT_REFUSED
from tests.acceptance.running import RunningFlik


def type_in(flik: RunningFlik, *words: str, exits: int = 0) -> str:
    """Run `flik` with these words, and return what it wrote to stdout."""
    run = flik.run(sys.executable, "-m", "flik", *words, tenant="typed", within_s=120)
    assert run.returncode == exits, (run.stdout, run.stderr)
    assert "Traceback" not in run.stderr
    return run.stdout


def read(flik: RunningFlik, *words: str, exits: int = 0) -> Any:
    return json.loads(type_in(flik, *words, "--json", exits=exits))


def scripted(**script: Any) -> str:
    return json.dumps({"prompt": "typed", "script": script})


def test_a_task_is_submitted_listed_and_watched_and_what_it_made_is_fetched(flik: RunningFlik, tmp_path: Path) -> None:
    made = tmp_path / "made"
    type_in(flik, "submit", "IMAGE", "a lighthouse", "--seed", "7", "--out", str(made))
    (picture,) = made.rglob("*.png")
    with Image.open(picture) as opened:
        opened.load()
    task_id = type_in(flik, "submit", "TEXT", "a haiku about rain").strip()
    assert read(flik, "watch", task_id)
    listed = read(flik, "tasks", "--status", "COMPLETED", "--type", "TEXT", "--limit", "1")["items"]
    assert [(each["taskId"], each["tenantId"]) for each in listed] == [(task_id, "typed")]


def test_a_running_task_is_cancelled_once(flik: RunningFlik) -> None:
    task_id = type_in(flik, "submit", "VIDEO", "--payload", scripted(durationS=4000)).strip()
    flik.wait(task_id, until=("PROCESSING",))
    type_in(flik, "cancel", task_id)
    assert flik.wait(task_id)["status"] == "CANCELLED"
    type_in(flik, "cancel", task_id, exits=EXIT_REFUSED)


def test_a_failed_task_is_a_dead_letter_until_it_is_tried_again(flik: RunningFlik) -> None:
    once = scripted(durationS=0.1, failures=[{"code": "typed_in", "retryable": False}])
    ids = [type_in(flik, "submit", "TEXT", "--payload", once).strip() for _ in range(2)]
    for task_id in ids:
        assert flik.wait(task_id)["status"] == "FAILED"
    dead = read(flik, "dead-letters", "--error-code", "typed_in")["items"]
    assert [each["taskId"] for each in dead] == ids[::-1]
    type_in(flik, "retry", ids[0])
    type_in(flik, "dead-letters", "replay", ids[1])
    assert {flik.wait(task_id)["status"] for task_id in ids} == {"COMPLETED"}
    assert read(flik, "dead-letters", "--error-code", "typed_in")["items"] == []


def test_what_is_not_there_is_said_in_a_sentence(flik: RunningFlik) -> None:
    type_in(flik, "watch", "00000000-0000-7000-8000-000000000000", exits=EXIT_NOT_FOUND)
    type_in(flik, "retry", "no-id", exits=EXIT_REFUSED)
