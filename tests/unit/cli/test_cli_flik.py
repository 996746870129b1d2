"""The command as a whole: help, versions, migrations, exit codes, and what no command may do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest
from fakes_gateway import FakeGateway, task_id
from invoking import Run, documents

from flik import __version__
from flik.cli.commands import COMMANDS
from flik.cli.exits import exit_code, explain
from flik.cli.output import neutral, one_line
from flik.client import FlikApiError, FlikUnreachable
from flik.errors import SettingInvalid, StartupRefused, TaskNotFound, Unavailable

ROOT = Path(__file__).parents[3]


def start(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flik", *args]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_help_names_every_command_and_exit_code_and_imports_none_of_them() -> None:
    check = (
        "import sys; from flik.cli.commands import flik; flik.main(['--help'], standalone_mode=False); "
        "print([m for m in ('ray', 'httpx', 'pydantic', 'rich', 'psycopg', 'fastapi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, text=True, capture_output=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"  {name} " in done.stdout
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "70 ", "130 "):
        assert f"\n    {code}" in done.stdout


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "up"])
def test_every_command_explains_itself(run: Run, name: str) -> None:
    result = run(name, "--help")

    assert result.exit_code == 0 and "--json" in result.stdout


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("explode")

    assert result.exit_code == 2 and "No such command 'explode'" in result.stderr


def test_version_in_words_and_json(run: Run) -> None:
    (document,) = documents(run("version", "--json"))

    assert run("version").stdout.splitlines()[0] == f"flik {__version__}"
    assert document["flik"] == __version__ and document["ray"] != "not installed"


def test_migrate_without_a_database_says_how(run: Run) -> None:
    result = run("migrate")

    assert result.exit_code == 2 and "Set DATABASE_URL" in result.stderr


def migrations(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> list[str]:
    calls: list[str] = []

    def note(kind: str) -> object:
        found = [types.SimpleNamespace(name=name) for name in names]
        return lambda url: calls.append(f"{kind} {url}") or found

    module = types.ModuleType("flik.storage.migrate")
    module.migrate, module.pending = note("migrate"), note("pending")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flik.storage.migrate", module)
    monkeypatch.setattr("flik.storage.migrate", module, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/flik")
    return calls


def test_migrate_applies_and_names_what_it_applied(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = migrations(monkeypatch, ["0001_tasks"])

    assert run("migrate").stdout == "applied 0001_tasks\n"
    assert documents(run("migrate", "--json")) == [{"applied": ["0001_tasks"]}]
    assert calls == ["migrate postgresql://db/flik"] * 2


def test_a_dry_run_applies_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = migrations(monkeypatch, ["0001_tasks"])

    assert run("migrate", "--dry-run").stdout == "would apply 0001_tasks\n"
    assert calls == ["pending postgresql://db/flik"]


def test_nothing_to_migrate_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    migrations(monkeypatch, [])

    assert run("migrate").stdout == "up to date\n"


def test_a_bad_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_PORT", "eighty")

    result = run("migrate")

    assert result.exit_code == 2 and "FLIK_PORT" in result.stderr


def test_a_fault_in_flik_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flik.cli.doctor.examine", lambda *_: 1 / 0)

    result = run("doctor")

    assert result.exit_code == 70
    assert "a fault in flik itself: ZeroDivisionError" in result.stderr


def test_ctrl_c_while_waiting_exits_with_130_and_says_that_the_task_goes_on(gateway: FakeGateway) -> None:
    gateway.looks_forever = True
    process = start("submit", "TEXT", "x", "--wait")
    while len(gateway.requests) < 3:
        assert process.poll() is None
        os.sched_yield()

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)

    assert (process.returncode, out) == (130, "")
    assert f"task {task_id(1)} goes on" in err and "Traceback" not in err


def test_a_reader_that_leaves_early_is_no_fault(gateway: FakeGateway) -> None:
    for number in range(1, 3000):
        gateway.add(number, error={"code": "x", "message": "y" * 100})
    process = start("tasks", "--all")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()

    assert process.wait(timeout=20) in (0, 1)
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FlikApiError(404, "task_not_found", "no"), 3),
        (FlikApiError(400, "x", "no"), 4),
        (FlikApiError(429, "x", "no"), 4),
        (FlikApiError(500, "x", "no"), 5),
        (FlikApiError(302, "x", "no"), 5),
        (FlikUnreachable("http://x", "gone"), 5),
        (Unavailable("postgresql"), 5),
        (SettingInvalid("FLIK_PORT", "no"), 2),
        (TaskNotFound("t-1"), 4),
        (StartupRefused("no"), 1),
    ],
)
def test_exit_codes(error: object, code: int) -> None:
    assert exit_code(error) == code  # type: ignore[arg-type]


def test_a_sentence_carries_request_and_advice() -> None:
    said = explain(FlikApiError(503, "unavailable", "away", request_id="r-1", retry_after_s=2.0))

    assert said == "flik: away (request r-1); try again in 2 s"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢字 \U0001f600", "plain ü 漢字 \U0001f600"),
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb\x00\x7f\x9b", "a\\x0db\\x00\\x7f\\x9b"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert neutral(text) == shown


def test_one_line_is_one_line() -> None:
    assert one_line(" a\n\tb\u2028c\r\n") == "a b c"
