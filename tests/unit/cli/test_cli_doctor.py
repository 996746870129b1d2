"""`flik doctor`: each check, and the exit code."""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes_gateway import FakeGateway
from invoking import Run, documents

from flik import settings
from flik.cli import checks, doctor, memory
from flik.cli.checks import Finding, Verdict
from flik.cli.up import refuse_hopeless
from flik.errors import StartupRefused
from flik.settings import load

GIB = 1024**3


def test_old_python_fails() -> None:
    assert checks.python((3, 10)).verdict is Verdict.FAIL
    assert checks.python((3, 11)).verdict is Verdict.OK


def test_a_port_in_use_fails_and_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finding = checks.port(taken.getsockname()[1])

    assert finding.verdict is Verdict.FAIL
    assert "is in use" in finding.detail and "--port" in finding.advice


def test_a_port_that_a_gateway_holds_is_only_a_warning(gateway: FakeGateway) -> None:
    finding = checks.port(int(gateway.url.rpartition(":")[2]))

    assert finding.verdict is Verdict.WARN and "a Flik gateway runs" in finding.detail


@pytest.mark.parametrize(
    ("gib", "verdict"),
    [(0.5, Verdict.FAIL), (1.4, Verdict.FAIL), (1.5, Verdict.WARN), (2.0, Verdict.OK), (24, Verdict.OK)],
)
def test_memory_wants_two_gib(gib: float, verdict: Verdict) -> None:
    assert checks.memory(int(gib * GIB)).verdict is verdict


def test_memory_is_what_a_container_can_still_give(tmp_path: Path) -> None:
    machine = memory.available_bytes(tmp_path / "no container")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 4}\n")
    assert memory.available_bytes(tmp_path) > machine // 2
    (tmp_path / "memory.max").write_text(f"{GIB // 2}\n")
    assert memory.available_bytes(tmp_path) == GIB // 4


def test_up_refuses_to_start_with_as_little_as_doctor_warns_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: memory.LEAST_BYTES - 1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    chosen = settings.load(port=free, data_dir=tmp_path)
    assert checks.memory().verdict is Verdict.FAIL
    with pytest.raises(StartupRefused, match="1535 MiB of memory are available and Flik needs 1536 MiB"):
        refuse_hopeless([chosen])


def test_a_data_folder_that_is_not_there_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    finding = checks.data_folder(tmp_path / "a" / "b")

    assert finding.verdict is not Verdict.FAIL
    assert not (tmp_path / "a").exists()


def test_a_data_folder_that_takes_no_files_fails(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()

    assert checks.data_folder(in_the_way / "data").verdict is Verdict.FAIL


def test_too_few_open_files_are_a_warning_that_says_how_many_may_follow() -> None:
    assert checks.files(load(), 524_288).verdict is Verdict.OK
    found = checks.files(load(), 20_000)
    assert (found.verdict, found.detail) == (Verdict.WARN, "20,000 at most")
    assert "only 5,850 can follow" in found.advice


def test_ray_in_another_version_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.ray().verdict is Verdict.OK
    monkeypatch.setattr("ray.__version__", "1.0.0")
    assert checks.ray().verdict is Verdict.WARN


def test_ray_that_does_not_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "import_module", lambda _: 1 / 0)

    assert checks.ray().verdict is Verdict.FAIL


def test_packaged_servers_run_here() -> None:
    assert "18" in checks.embedded_postgresql(needed=True).detail
    assert "alkey" in checks.embedded_valkey(needed=True).detail
    assert "HAProxy" in checks.haproxy().detail


def test_a_missing_server_fails_only_if_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)

    assert checks.embedded_postgresql(needed=True).verdict is Verdict.FAIL
    assert "set DATABASE_URL" in checks.embedded_postgresql(needed=True).advice
    assert checks.embedded_postgresql(needed=False).verdict is Verdict.OK


def test_a_binary_that_does_not_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "postgres"
    broken.write_bytes(b"not a program")
    broken.chmod(stat.S_IRWXU)
    monkeypatch.setattr(checks, "_packaged", lambda *_: broken)

    assert "does not run: OSError" in checks.embedded_postgresql(needed=True).detail


SERVERS = [
    (checks.database, "flik.storage.check.check_database", "postgresql://me:secret@db:5432/flik", "db:5432/flik"),
    (checks.live, "flik.live.check.check_redis", "redis://:secret@cache:6379/0", "cache:6379/0"),
]


@pytest.mark.parametrize(("check", "look", "url", "place"), SERVERS)
@pytest.mark.parametrize(("warnings", "verdict"), [([], Verdict.OK), (["it is slow"], Verdict.WARN)])
def test_a_server_that_answers_is_fine_but_for_its_warnings(
    monkeypatch: pytest.MonkeyPatch,
    *,
    check: Callable[[str], Finding],
    look: str,
    url: str,
    place: str,
    warnings: list[str],
    verdict: Verdict,
) -> None:
    monkeypatch.setattr(look, lambda _: warnings)

    finding = check(url)

    assert finding.verdict is verdict
    assert (warnings[0] if warnings else place) in finding.detail
    assert "secret" not in finding.detail


@pytest.mark.parametrize(("check", "look", "url", "place"), SERVERS)
def test_a_server_that_is_refused_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[str], Finding], look: str, url: str, place: str
) -> None:
    def refuse(_: str) -> list[str]:
        raise StartupRefused(f"{place}: fsync is off")

    monkeypatch.setattr(look, refuse)

    finding = check(url)

    assert (finding.verdict, finding.detail) == (Verdict.FAIL, f"{place}: fsync is off")


@pytest.mark.parametrize("url", ["postgresql://me:secret@127.0.0.1:1/flik", "postgres//me:secret@x", "nonsense:secret"])
def test_a_database_that_does_not_answer_fails_without_telling_the_password(url: str) -> None:
    finding = checks.database(url)

    assert finding.verdict is Verdict.FAIL
    assert "secret" not in finding.detail + finding.advice


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1", "http://:secret@x", "redis://:secret@127.0.0.1:x"])
def test_a_redis_that_does_not_answer_fails_without_telling_the_password(url: str) -> None:
    finding = checks.live(url)

    assert finding.verdict is Verdict.FAIL
    assert "secret" not in finding.detail + finding.advice


def test_a_bad_setting_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLIK_LEASE_S", "minus one")

    findings = doctor.examine()

    assert [row.check for row in findings if row.verdict is Verdict.FAIL] == ["settings"]
    assert "FLIK_LEASE_S" in findings[-1].detail


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.WARN, 0), (Verdict.FAIL, 1)])
def test_only_a_failed_check_fails_the_doctor(
    run: Run, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("memory", verdict, "some", "buy more")])

    result = run("doctor")

    assert result.exit_code == code
    assert result.stdout == f"CHECK\tVERDICT\tDETAIL\tWHAT TO DO\nmemory\t{verdict}\tsome\tbuy more\n"
    (document,) = documents(run("doctor", "--json"))
    assert document["ok"] is (code == 0)
    assert document["checks"] == [{"check": "memory", "verdict": verdict, "detail": "some", "advice": "buy more"}]


def test_the_doctor_looks_at_everything(run: Run, tmp_path: Path) -> None:
    (document,) = documents(run("doctor", "--data-dir", str(tmp_path), "--port", "18999", "--json"))

    assert [row["check"] for row in document["checks"]] == [
        "python",
        "settings",
        "port",
        "memory",
        "open files",
        "shared memory",
        "data folder",
        "ray",
        "haproxy",
        "embedded postgresql",
        "embedded valkey",
        "DATABASE_URL",
        "REDIS_URL",
    ]
