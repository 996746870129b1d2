"""Real PostgreSQL and Valkey from the wheels: started, killed, found again, left nowhere."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from flik.embedded import Addresses, EmbeddedPostgres, EmbeddedValkey, FolderLock, Servers
from flik.embedded import supervisor as supervisor_module
from flik.errors import StartupRefused

ROOT = os.geteuid() == 0
HOLD_SERVERS = """
import sys, time
from pathlib import Path
from flik.embedded import Servers
servers = Servers(Path(sys.argv[1]))
servers.start()
print(*servers.pids().values(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder of its own with a short path; pytest's are re-locked by every run that starts."""
    folder = Path(tempfile.mkdtemp(prefix="flik-test-"))
    yield folder / "data"
    for process in servers_on(folder):
        process.kill()
    shutil.rmtree(folder)


def servers_on(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_until(holds: Callable[[], bool], within_s: float) -> float:
    """Seconds until it held."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < within_s, f"not within {within_s} s"
        time.sleep(0.02)
    return time.monotonic() - start


def query(url: str, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def answers(url: str) -> bool:
    try:
        return query(url, "SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False


def pings(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextmanager
def running(server: EmbeddedPostgres | EmbeddedValkey) -> Iterator[str]:
    try:
        yield server.start()
    finally:
        server.stop()


def take_and_release(folder: Path) -> None:
    lock = FolderLock(folder)
    lock.take(datetime.now(UTC))
    lock.release()


def listens_on_tcp(pid: int) -> bool:
    return any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("inet"))


def test_both_servers_answer_and_are_gone_after_stop(data_dir: Path) -> None:
    servers = Servers(data_dir)
    addresses = servers.start()
    try:
        assert answers(addresses.database_url)
        assert pings(addresses.redis_url)
        assert not any(listens_on_tcp(pid) for pid in servers.pids().values())
    finally:
        servers.stop()
    assert servers_on(data_dir) == []
    assert servers.pids() == {}


def test_postgres_keeps_what_it_acknowledges(data_dir: Path) -> None:
    promised = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on"}
    with running(EmbeddedPostgres(data_dir)) as url:
        found = {str(name): setting for name, setting in query(url, "SELECT name, setting FROM pg_settings")}
        assert {name: found[name] for name in promised} == promised
        assert found["TimeZone"] == "UTC"
        assert found["server_encoding"] == "UTF8"


def test_valkey_gives_up_expiring_keys_first_and_writes_no_file(data_dir: Path) -> None:
    with running(EmbeddedValkey(data_dir)) as url, redis.Redis.from_url(url, decode_responses=True) as client:
        assert client.config_get("maxmemory*")["maxmemory-policy"] == "volatile-lru"
        assert client.config_get("maxmemory")["maxmemory"] == str(256 * 1024 * 1024)
        assert client.config_get("save")["save"] == ""
        assert client.config_get("appendonly")["appendonly"] == "no"


def test_a_second_start_finds_the_data_at_the_same_url(data_dir: Path) -> None:
    with running(EmbeddedPostgres(data_dir)) as url:
        query(url, "CREATE TABLE kept AS SELECT 7 AS n")
    with running(EmbeddedPostgres(data_dir)) as again:
        assert again == url
        assert query(again, "SELECT n FROM kept") == [(7,)]


def test_a_killed_postgres_is_back_within_3_s_with_its_data_while_sessions_were_busy(data_dir: Path) -> None:
    with Servers(data_dir) as servers:
        url = servers.addresses.database_url
        query(url, "CREATE TABLE kept AS SELECT 7 AS n")
        busy = psycopg.connect(url)
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
        wait_until(lambda: query(url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'DO %'") == [(1,)], within_s=5.0)
        killed = servers.pids()["PostgreSQL"]
        os.kill(killed, signal.SIGKILL)

        wait_until(lambda: servers.pids().get("PostgreSQL") not in (None, killed) and answers(url), within_s=3.0)

        assert query(url, "SELECT n FROM kept") == [(7,)]
        busy.close()


def test_a_killed_valkey_is_back_within_3_s(data_dir: Path) -> None:
    with Servers(data_dir) as servers:
        killed = servers.pids()["Valkey"]
        os.kill(killed, signal.SIGKILL)
        back = lambda: servers.pids().get("Valkey") not in (None, killed) and pings(servers.addresses.redis_url)  # noqa: E731
        wait_until(back, within_s=3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_a_killed_flik_takes_both_servers_along(data_dir: Path) -> None:
    flik = subprocess.Popen([sys.executable, "-c", HOLD_SERVERS, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert flik.stdout is not None
    pids = [int(pid) for pid in flik.stdout.readline().split()]
    assert len(pids) == 2
    flik.kill()
    flik.wait()
    flik.stdout.close()

    wait_until(lambda: servers_on(data_dir) == [], within_s=5.0)

    with Servers(data_dir) as servers:  # the lock of the killed one is simply taken
        assert answers(servers.addresses.database_url)


@pytest.mark.parametrize("server", [EmbeddedPostgres, EmbeddedValkey])
def test_a_left_over_server_is_ended_before_the_start(
    data_dir: Path, server: type[EmbeddedPostgres] | type[EmbeddedValkey]
) -> None:
    left_over = server(data_dir)
    left_over.start()
    with running(server(data_dir)):
        assert left_over.poll() is not None
        mains = [process for process in servers_on(data_dir) if process.ppid() == os.getpid()]
        assert len(mains) == 1
    left_over.stop()


def test_a_folder_in_use_is_refused_with_the_holders_pid_and_start(data_dir: Path) -> None:
    data_dir.mkdir()
    holder = FolderLock(data_dir)
    holder.take(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    try:
        with pytest.raises(StartupRefused) as refused:
            Servers(data_dir).start()
        assert str(refused.value) == (
            f"{data_dir} is in use by flik (pid {os.getpid()}, since 2026-01-02T03:04:05+00:00)"
        )
    finally:
        holder.release()
    take_and_release(data_dir)


def test_given_urls_start_no_server(data_dir: Path) -> None:
    with Servers(data_dir, "postgresql://elsewhere/db", "redis://elsewhere/0") as servers:
        assert servers.addresses == Addresses("postgresql://elsewhere/db", "redis://elsewhere/0")
        assert servers.pids() == {}


def test_a_start_that_failed_stops_what_it_had_started_and_frees_the_folder(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenValkey(EmbeddedValkey):
        def _command(self) -> list[str]:
            return [str(self.program), "--no-such-setting", "1"]

    monkeypatch.setattr(supervisor_module, "EmbeddedValkey", BrokenValkey)
    with pytest.raises(StartupRefused, match=r"Valkey did not start: .*log: .*valkey\.log"):
        Servers(data_dir).start()
    assert servers_on(data_dir) == []
    take_and_release(data_dir)


@pytest.mark.parametrize("name", ["with space", "snäll 数据", "a,b", 'quo"te', "x" * 120, "deep/" * 40 + "end"])
def test_odd_folders_work(data_dir: Path, name: str) -> None:
    folder = data_dir / name
    with Servers(folder) as servers:
        assert answers(servers.addresses.database_url)
        assert pings(servers.addresses.redis_url)
    assert servers_on(data_dir) == []


def test_a_long_path_gets_a_private_socket_folder_that_is_gone_after_stop(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir / ("x" * 120))
    with running(server) as url:
        sockets = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert len(str(sockets)) < 80
    assert not sockets.exists()


def test_a_socket_folder_that_somebody_else_made_is_refused(data_dir: Path) -> None:
    server = EmbeddedValkey(data_dir / ("x" * 120))
    with running(server) as url:
        sockets = Path(url.removeprefix("unix://").partition("?")[0]).parent
    sockets.symlink_to(data_dir)
    try:
        with pytest.raises(StartupRefused, match="belongs to somebody else"):
            server.start()
    finally:
        sockets.unlink()


def test_a_data_folder_that_is_a_file_is_refused(data_dir: Path) -> None:
    data_dir.write_text("")
    with pytest.raises(StartupRefused, match="cannot be used: "):
        Servers(data_dir).start()


@pytest.mark.parametrize("name", ["/dev/null/data", "/proc/data", "/tmp/\0", "/tmp/" + "x" * 300])
def test_a_data_folder_that_cannot_be_made_is_refused(name: str) -> None:
    with pytest.raises(StartupRefused, match="cannot be used: "):
        Servers(Path(name)).start()


def test_half_a_cluster_of_a_start_that_was_killed_is_made_anew(data_dir: Path) -> None:
    half = data_dir / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with running(EmbeddedPostgres(data_dir)) as url:
        assert answers(url)
    assert not half.exists()


def test_a_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(StartupRefused, match="made by PostgreSQL 17, this Flik brings 18"):
        EmbeddedPostgres(data_dir).start()


def test_a_folder_with_foreign_files_is_not_touched(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "thesis.txt").write_text("years of work")
    with pytest.raises(StartupRefused, match="neither empty nor a PostgreSQL cluster"):
        EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres" / "thesis.txt").read_text() == "years of work"


def test_a_refusal_quotes_the_servers_own_reason(data_dir: Path) -> None:
    with running(EmbeddedPostgres(data_dir)):
        pass
    with (data_dir / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    with pytest.raises(StartupRefused, match=r"PostgreSQL did not start: .*FATAL:.*postgresql\.conf"):
        EmbeddedPostgres(data_dir).start()


def test_ctrl_c_in_the_terminal_does_not_reach_the_servers(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with running(server):
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgrp()


@pytest.mark.skipif(not ROOT, reason="needs root to become another user")
def test_as_root_the_servers_run_as_an_own_user_and_strangers_cannot_connect(data_dir: Path) -> None:
    data_dir.parent.chmod(0o755)
    with Servers(data_dir) as servers:
        for pid in servers.pids().values():
            assert psutil.Process(pid).username() == "embedded_postgres"
        psql = EmbeddedPostgres(data_dir).program.with_name("psql")
        stranger = subprocess.run(
            [psql, servers.addresses.database_url, "-c", "SELECT 1"],
            user="nobody",
            check=False,
            capture_output=True,
            text=True,
        )
        assert stranger.returncode != 0
        assert "Permission denied" in stranger.stderr


@pytest.mark.skipif(not ROOT or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_an_ordinary_user_runs_the_servers_as_itself(data_dir: Path) -> None:
    """With a pid file whose pid was given to another program of that user, as containers do after a restart."""
    script = textwrap.dedent("""
        import os, psutil, psycopg, redis, subprocess, sys
        from pathlib import Path
        from flik.embedded import EmbeddedPostgres, Servers
        home = Path(sys.argv[1])
        first = EmbeddedPostgres(home)
        first.start()
        os.kill(first.pid, 9)
        os.waitpid(first.pid, 0)
        stranger = subprocess.Popen(["sleep", "60"])
        pid_file = home / "postgres" / "postmaster.pid"
        pid_file.write_text("\\n".join([str(stranger.pid), *pid_file.read_text().split("\\n")[1:]]))
        with Servers(home) as servers:
            users = {psutil.Process(pid).username() for pid in servers.pids().values()}
            rows = psycopg.connect(servers.addresses.database_url).execute("SELECT 1").fetchall()
            print(users, rows, redis.Redis.from_url(servers.addresses.redis_url).ping(), stranger.poll())
        stranger.kill()
    """)
    shutil.chown(data_dir.parent, "nobody", "nogroup")
    # the interpreter may be in root's own folders: the capability lets the user read it, and nothing else
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                 "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # fmt: skip
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", script, str(data_dir)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "{'nobody'} [(1,)] True None", done.stderr
    assert servers_on(data_dir) == []
    with Servers(data_dir) as servers:  # and root leaves that user's files to that user
        assert psutil.Process(servers.pids()["PostgreSQL"]).username() == "nobody"
