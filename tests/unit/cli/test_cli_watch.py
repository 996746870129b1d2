"""`flik watch`, and the display it shares with `flik submit --wait`."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from fakes_gateway import PICTURE, FakeGateway, task_id
from invoking import Run, documents
from rich.console import Console

from flik.cli.progress import Bars, Lines, Overview, follow
from flik.client import ClientError, FlikClient, Task, TaskFailure

UNKNOWN = "0193ffff-0000-7000-8000-000000000000"
HALF = {"status": "PROCESSING", "attempt": 1, "progress": 0.5}
DONE = {"status": "COMPLETED", "progress": 1}
LOST = {"status": "FAILED", "error": {"code": "boom", "message": "it broke"}}


def test_a_pipe_gets_a_line_a_change(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, {}, {}, HALF, DONE)

    result = run("watch", task_id(1))

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{task_id(1)}\tQUEUED\tIMAGE",
        f"{task_id(1)}\tPROCESSING\tIMAGE\t50%",
        f"{task_id(1)}\tCOMPLETED\tIMAGE",
    ]


def test_json_gives_a_document_a_change(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, {}, HALF, LOST)

    result = run("watch", task_id(1), "--json")

    assert result.exit_code == 1
    assert [line["status"] for line in documents(result)] == ["QUEUED", "PROCESSING", "FAILED"]


def test_the_worst_end_decides_the_exit_code(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, DONE)
    gateway.add(2, LOST)

    assert run("watch", task_id(1)).exit_code == 0
    assert run("watch", task_id(1), task_id(2)).exit_code == 1
    assert run("watch", task_id(1), task_id(2), UNKNOWN).exit_code == 3


def test_an_unknown_task_does_not_keep_the_others_from_their_end(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, HALF, DONE)

    result = run("watch", UNKNOWN, task_id(1), "--json")

    lines = documents(result)
    assert [line["status"] for line in lines if "status" in line] == ["PROCESSING", "COMPLETED"]
    assert [line["taskId"] for line in lines if "error" in line] == [UNKNOWN]
    assert f"no task {UNKNOWN}" in result.stderr


def test_a_task_named_twice_is_followed_once(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1, DONE)

    assert len(run("watch", task_id(1), task_id(1)).stdout.splitlines()) == 1


def test_results_are_downloaded(gateway: FakeGateway, run: Run, tmp_path: Path) -> None:
    gateway.add_finished(1, count=2)

    run("watch", task_id(1), "--out", str(tmp_path))

    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{task_id(1)}-0.png", f"{task_id(1)}-1.png"]
    assert (tmp_path / f"{task_id(1)}-1.png").read_bytes() == PICTURE


def test_a_wait_that_takes_too_long_exits_with_1(gateway: FakeGateway, run: Run) -> None:
    gateway.add(1)

    result = run("watch", task_id(1), "--timeout", "0.1")

    assert result.exit_code == 1 and "it goes on" in result.stderr


def test_too_many_at_once_is_a_usage_error(gateway: FakeGateway, run: Run) -> None:
    result = run("watch", *map(task_id, range(201)))

    assert result.exit_code == 2 and "At most 200" in result.stderr


async def test_follow_answers_in_the_order_asked_with_errors_in_their_place(gateway: FakeGateway) -> None:
    gateway.add(1, DONE)
    lines: list[str] = []

    async with FlikClient() as client:
        first, second, third = await follow(client, [task_id(1), UNKNOWN, task_id(1)], Lines(lines.append))

    assert isinstance(first, Task) and first is third
    assert isinstance(second, ClientError)
    assert lines == [f"{task_id(1)}\tCOMPLETED\tIMAGE"]


def terminal(out: io.StringIO) -> Console:
    return Console(file=out, force_terminal=True, width=100, height=20, markup=False, emoji=False)


def plain(out: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def test_bars_show_name_status_and_detail_and_nothing_that_steers() -> None:
    out = io.StringIO()

    with Bars(terminal(out), {"t-1": "[bold]poem\x1b[2J"}) as bars:
        bars.show(Task("t-1", "PROCESSING", progress=0.25))
        bars.show(Task("t-1", "FAILED", error=TaskFailure("boom", "\x1b]0;x\x07")))
        bars.show(Task("t-2", "COMPLETED", "IMAGE"))

    assert "[bold]poem\\x1b[2J" in plain(out)
    assert "FAILED     boom: \\x1b]0;x\\x07" in plain(out)
    assert "IMAGE t-2" in plain(out) and "COMPLETED" in plain(out)
    assert "\x1b]0" not in out.getvalue() and "\x1b[2J" not in out.getvalue()


def test_many_tasks_become_one_bar_that_counts() -> None:
    out = io.StringIO()

    with Overview(terminal(out), 40) as overview:
        for number in range(40):
            overview.show(Task(f"t-{number}", "COMPLETED" if number < 30 else "QUEUED"))

    assert "40 tasks" in plain(out) and "30 COMPLETED, 10 QUEUED" in plain(out)


@pytest.mark.parametrize(("status", "code"), [("CANCELLED", 1), ("EXPIRED", 1), ("COMPLETED", 0)])
def test_only_a_completed_task_is_success(gateway: FakeGateway, run: Run, status: str, code: int) -> None:
    gateway.add(1, status=status)

    assert run("watch", task_id(1)).exit_code == code
