"""`flik tasks`, `cancel`, `retry`, `dead-letters`: lists and actions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fakes_gateway import FakeGateway, busy, task_id
from invoking import Run, documents
from rich.console import Console
from starlette.responses import JSONResponse, PlainTextResponse

from flik.cli.output import write_tasks
from flik.client import Task, TaskFailure

UNKNOWN = "0193ffff-0000-7000-8000-000000000000"


def test_a_list_on_a_pipe_is_tab_separated_under_its_names(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED", attempt=4, error={"code": "boom", "message": "it\nbroke"})
    gateway.add(2, status="PROCESSING", progress=0.5, attempt=1)

    result = run("tasks")

    assert result.exit_code == 0
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["TASK", "STATUS", "TYPE", "DETAIL", "PRIORITY", "ATTEMPT", "CREATED"],
        [task_id(2), "PROCESSING", "IMAGE", "50%", "1", "1", "2026-01-31T08:00:02Z"],
        [task_id(1), "FAILED", "IMAGE", "boom: it broke", "1", "4", "2026-01-31T08:00:01Z"],
    ]


def test_a_retry_to_come_shows_when(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, attempt=1, error={"code": "boom", "message": ""}, availableAt="2026-01-31T09:00:00Z")

    assert "again at 2026-01-31T09:00:00Z" in run("tasks").stdout


def test_filters_are_passed_on(gateway: FakeGateway, run: Run) -> None:
    run("tasks", "--status", "failed", "--type", "text", "--priority", "0", "--since", "2026-01-31T08:00Z")
    run("tasks", "--tenant", "acme", "--until", "2h", "--limit", "7")

    first, second = (asked.query for asked in gateway.requests)
    assert first == {
        "status": "FAILED",
        "taskType": "TEXT",
        "priority": "0",
        "createdAfter": "2026-01-31T08:00:00Z",
        "limit": "50",
    }
    assert (second["tenantId"], second["limit"]) == ("acme", "7")
    assert second["createdBefore"].endswith("Z")


@pytest.mark.parametrize("bad", ["yesterday", "10x", "2026-13-01", "99999999d", ""])
def test_a_time_that_cannot_be_read_is_a_usage_error(run: Run, bad: str) -> None:
    result = run("tasks", "--since", bad)

    assert result.exit_code == 2 and "neither a time" in result.stderr


def test_all_walks_every_page(gateway: FakeGateway, run: Run) -> None:
    for number in range(1, 251):
        gateway.add(number)

    (document,) = documents(run("tasks", "--all", "--json"))

    assert len(document["items"]) == 250
    assert len(gateway.requests) == 3


def test_a_huge_page_is_cut_at_the_limit(gateway: FakeGateway, run: Run) -> None:
    items = [{"taskId": task_id(number), "status": "QUEUED"} for number in range(20_000)]
    gateway.answer_next(JSONResponse({"items": items, "nextCursor": None}))

    assert len(run("tasks", "--limit", "2").stdout.splitlines()) == 3


def test_no_tasks_is_no_error(run: Run) -> None:
    assert documents(run("tasks", "--json")) == [{"items": []}]


def test_text_of_a_server_cannot_steer_a_terminal(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED", error={"code": "boom", "message": "\x1b[2Jgone\x9b\u202etxet"})

    result = run("tasks")

    assert "boom: \\x1b[2Jgone\\x9b\\u202etxet" in result.stdout


def test_garbage_from_the_server_is_one_sentence(gateway: FakeGateway, run: Run) -> None:
    gateway.answer_next(PlainTextResponse("\x1b]0;pwned\x07<html>"))

    result = run("tasks")

    assert result.exit_code == 5
    assert result.stderr.count("\n") == 1 and "it is not JSON; is it a Flik gateway?" in result.stderr


def test_nobody_there_is_unavailable_and_says_how_to_start_one(run: Run) -> None:
    result = run("--url", "http://127.0.0.1:1", "tasks")

    assert result.exit_code == 5
    assert "nothing listens there" in result.stderr and "flik up" in result.stderr


def test_cancel_tells_how_each_task_came_out_and_exits_with_the_worst(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1)
    gateway.add_finished(2)

    result = run("cancel", task_id(1), UNKNOWN, task_id(2), task_id(1))

    assert result.exit_code == 4
    assert result.stdout == f"{task_id(1)} CANCELLED\n"
    assert f"no task {UNKNOWN}" in result.stderr
    assert f"{task_id(2)}: flik: a task that is COMPLETED cannot be moved" in result.stderr


def test_cancel_of_an_unknown_task_exits_with_3(run: Run) -> None:
    assert run("cancel", UNKNOWN).exit_code == 3


@pytest.mark.parametrize("command", ["cancel", "retry", "watch"])
@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", "a b", "\x1b[2J"])
def test_a_malformed_id_is_a_usage_error_before_anything_is_asked(
    gateway: FakeGateway, run: Run, command: str, bad: str
) -> None:
    result = run(command, bad)

    assert result.exit_code == 2 and "is not a task id" in result.stderr
    assert gateway.requests == []


def test_actions_in_json_give_one_document(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED")

    result = run("retry", task_id(1), UNKNOWN, "--json")

    (document,) = documents(result)
    assert [item["ok"] for item in document["items"]] == [True, False]
    assert document["items"][0]["task"]["status"] == "QUEUED"
    assert (document["items"][1]["error"]["code"], result.exit_code) == ("task_not_found", 3)


def test_an_action_stops_when_the_gateway_goes_away(gateway: FakeGateway, run: Run) -> None:
    result = run("cancel", task_id(1), task_id(2), "--url", "http://127.0.0.1:1")

    assert result.exit_code == 5
    assert result.stderr.count("nothing listens") == 1


def test_dead_letters_are_listed_with_their_filters(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED")
    gateway.add(2)

    result = run("dead-letters", "--type", "image", "--error-code", "boom")

    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["TASK", task_id(1)]
    assert gateway.requests[0].query == {"taskType": "IMAGE", "errorCode": "boom", "limit": "50"}


def test_named_dead_letters_are_replayed(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED")

    result = run("dead-letters", "replay", task_id(1))

    assert (result.exit_code, result.stdout) == (0, f"{task_id(1)} QUEUED\n")


def test_dead_letters_are_replayed_by_filter_or_all(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, status="FAILED")

    assert run("dead-letters", "replay", "--all").stdout == "1 queued again\n"
    none = documents(run("dead-letters", "replay", "--tenant", "acme", "--limit", "3", "--json"))
    assert none == [{"replayed": 0, "more": False}]
    assert [asked.body for asked in gateway.requests] == [{"all": True}, {"tenantId": "acme", "limit": 3}]
    gateway.add(2, status="FAILED")
    assert run("dead-letters", "replay", "--type", "IMAGE", "--limit", "1").stdout == "1 queued again; more match\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "Which ones?"),
        (["--limit", "5"], "Which ones?"),
        ([task_id(1), "--all"], "not both"),
        ([task_id(1), "--type", "TEXT"], "not both"),
    ],
)
def test_replay_asks_which_ones_are_meant(gateway: FakeGateway, run: Run, args: list[str], says: str) -> None:
    result = run("dead-letters", "replay", *args)

    assert result.exit_code == 2 and says in result.stderr
    assert gateway.requests == []


def test_filters_before_replay_are_not_silently_dropped(gateway: FakeGateway, run: Run) -> None:
    result = run("dead-letters", "--type", "TEXT", "replay", "--all")

    assert result.exit_code == 2 and "Filters go after `replay`" in result.stderr
    assert gateway.requests == []


def test_an_error_of_the_gateway_is_unavailable(gateway: FakeGateway, run: Run) -> None:
    gateway.answer_next(busy(500))

    assert run("cancel", task_id(1)).exit_code == 5


def test_a_narrow_terminal_still_shows_whole_ids_in_colour_and_takes_no_orders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flik.cli.output.is_terminal", lambda: True)
    screen = Console(force_terminal=True, width=80, markup=False, highlight=False, emoji=False, color_system="standard")
    monkeypatch.setattr("flik.cli.output.console", lambda: screen)
    failure = TaskFailure("boom", "[red]it broke[/red] \x1b[2J :bomb: " + "word " * 20)

    write_tasks([Task(task_id(7), "FAILED", "IMAGE", error=failure, created_at=datetime(2026, 1, 31, tzinfo=UTC))])

    shown = capsys.readouterr().out
    assert task_id(7) in shown
    assert "\x1b[31mFAILED" in shown
    assert "\x1b[2J" not in shown and "[red]" in shown
