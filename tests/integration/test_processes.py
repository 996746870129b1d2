"""Real processes, real signals: what Flik started is ended, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flik import processes

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
# Forks twice and lets the one in between die: what is left belongs to nobody.
ORPHAN_MAKER = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
os._exit(0)
"""


class Spawner:
    """Starts Python programs, tells their first line, and leaves none behind."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []
        self.orphans: list[psutil.Process] = []

    def start(self, code: str, **environ: str) -> tuple[subprocess.Popen[str], str]:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, **environ}
        )
        self.started.append(child)
        assert child.stdout is not None
        return child, child.stdout.readline().strip()

    def start_orphan(self, **environ: str) -> psutil.Process:
        maker, pid = self.start(ORPHAN_MAKER, **environ)
        maker.wait()
        self.orphans.append(psutil.Process(int(pid)))
        return self.orphans[-1]

    def end(self) -> None:
        for orphan in self.orphans:
            if orphan.is_running():
                orphan.kill()
        for child in self.started:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    made = Spawner()
    yield made
    made.end()


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_process_is_ended_with_its_descendants(spawner: Spawner) -> None:
    parent, grandchild_pid = spawner.start(PARENT)
    grandchild = psutil.Process(int(grandchild_pid))

    assert processes.end_all([parent.pid], grace_s=5.0) == []

    assert parent.wait(1) == -15
    assert is_gone(grandchild)


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace(spawner: Spawner) -> None:
    child, _ = spawner.start(STUBBORN)

    assert processes.end_all([child.pid], grace_s=0.1) == []

    assert child.wait(1) == -9


def test_a_stranger_that_inherited_the_pid_is_left_alone(spawner: Spawner) -> None:
    child, _ = spawner.start(SLEEP)
    remembered = psutil.Process(child.pid)
    remembered._ident = (child.pid, 1.0)  # type: ignore[attr-defined]  # a process of that number, created long ago

    assert processes.end_all([remembered], grace_s=0.1) == []

    assert child.poll() is None


def test_neither_flik_nor_its_parents_are_ended() -> None:
    assert processes.end_all([os.getpid(), os.getppid()], grace_s=0.1) == []
    assert psutil.pid_exists(os.getppid())


def test_a_pid_that_is_gone_is_passed_over(spawner: Spawner) -> None:
    child, _ = spawner.start("print('done')")
    child.wait()

    assert processes.end_all([child.pid], grace_s=0.1) == []


def test_a_zombie_counts_as_ended_and_keeps_its_exit_status_for_its_parent(spawner: Spawner) -> None:
    child, _ = spawner.start("print('done'); raise SystemExit(7)")

    assert processes.wait_until_gone([psutil.Process(child.pid)], within_s=5.0) == set()

    assert child.wait(1) == 7


def test_an_orphan_is_found_by_its_environment_and_only_by_the_same_value(spawner: Spawner) -> None:
    ours = spawner.start_orphan(FLIK_TEST_MARK="mine")
    spawner.start_orphan(FLIK_TEST_MARK="somebody else's")

    assert processes.find_by_environ("FLIK_TEST_MARK", "mine") == [ours]


def test_a_process_is_found_by_what_it_writes_to_and_only_below_the_same_place(
    spawner: Spawner, tmp_path: Path
) -> None:
    for name in ("ours-east", "theirs"):
        (tmp_path / name).mkdir()
    ours, _ = spawner.start(f"kept = open({str(tmp_path / 'ours-east' / 'log')!r}, 'w');" + SLEEP)
    spawner.start(f"kept = open({str(tmp_path / 'theirs' / 'log')!r}, 'w');" + SLEEP)
    with (tmp_path / "ours-east" / "mine").open("w"):  # this process is left out
        found = processes.find_by_files(str(tmp_path / "ours"))
    assert [process.pid for process in found] == [ours.pid]


def test_the_finder_leaves_out_itself_and_its_ancestors(spawner: Spawner) -> None:
    ours = spawner.start_orphan(FLIK_TEST_MARK="outer")
    finder = "from flik import processes; print([p.pid for p in processes.find_by_environ('FLIK_TEST_MARK', 'outer')])"
    shell = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {finder!r}], check=True)"

    _, found = spawner.start(shell, FLIK_TEST_MARK="outer")

    assert found == str([ours.pid])


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
def test_a_subreaper_gets_orphans_back_ends_and_collects_them(tmp_path: Path) -> None:
    script = tmp_path / "subreaper.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, psutil, subprocess, sys
        from flik import processes
        assert processes.become_subreaper()
        maker = subprocess.run([sys.executable, "-c", {ORPHAN_MAKER!r}], stdout=subprocess.PIPE, text=True, check=True)
        orphan = psutil.Process(int(maker.stdout))
        assert orphan.ppid() == os.getpid(), orphan.ppid()
        assert processes.reap_orphans(started=[]) == []
        assert processes.end_all(psutil.Process().children(), grace_s=5.0) == []
        assert processes.reap_orphans(started=[orphan.pid]) == []
        assert processes.reap_orphans(started=[]) == [orphan.pid]
        assert not psutil.pid_exists(orphan.pid)
        """)
    )

    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
